"""What the quality report says about a video, from made-up measurements."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import torch

from avatar.data.person import PersonFolder
from avatar.data.results import Finding, FlaggedSpan, RefineResult, ReportResult, SyncResult
from avatar.io.audio import write_wav
from avatar.motion.arkit import INDEX
from avatar.motion.motion import Motion
from avatar.preprocess import report_findings as report
from avatar.preprocess import report_page
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.report import tell
from avatar.preprocess.report_findings import Measurements
from avatar.preprocess.report_page import plots
from avatar.preprocess.stage import StageContext
from avatar.preprocess.unusable import within
from tests.person import ingest_result, make_person, person_info, write_result

FRAMES = 5000


def good_video() -> Measurements:
    rng = np.random.default_rng(0)
    time = np.arange(FRAMES) / 25
    rotation = np.radians(np.stack([4 * np.sin(time), 9 * np.sin(0.7 * time), 2 * np.sin(0.3 * time)], 1))
    arkit = np.full((FRAMES, 52), 0.05, np.float32)
    for start in range(50, FRAMES, 100):
        arkit[start : start + 4, [INDEX["eyeBlinkLeft"], INDEX["eyeBlinkRight"]]] = 0.6
    motion = Motion.zeros(FRAMES, 25.0).map(
        arkit=torch.from_numpy(arkit), head_rotation=torch.from_numpy(rotation.astype(np.float32))
    )
    raw = np.concatenate([rotation + np.radians(0.1) * rng.standard_normal((FRAMES, 3)), np.zeros((FRAMES, 3))], 1)
    return Measurements(
        fps=25.0, segments=[(0, FRAMES)], test_start=FRAMES * 9 // 10, motion=motion,
        found=np.ones(FRAMES, bool), still=np.zeros(FRAMES, bool), covered=np.zeros(FRAMES, bool),
        residual=np.full(FRAMES, 0.6), raw_pose=raw,
        opening=np.abs(np.sin(4 * time)) * 0.06, face_height=np.full(FRAMES, 250.0),
        sharpness=np.full(FRAMES, 12.0), change=np.full(FRAMES - 1, 1.0),
        loudness=np.where(np.sin(time) > 0, -20.0, -60.0), clipped=0.0,
    )  # fmt: skip


def said(data: Measurements, level: str) -> str:
    return " ".join(f.text for f in report.judge(data) if f.level == level)


def test_a_good_video_is_called_good() -> None:
    data = good_video()
    assert said(data, "bad") == "" and said(data, "note") == ""
    assert "3.3 minutes" in said(data, "good") and "18 degrees sideways" in said(data, "good")
    assert report.flag_spans(data) == []


def test_each_fault_is_named() -> None:
    data = good_video()
    short = replace(data, motion=data.motion[:500], **{
        name: getattr(data, name)[:500] for name in ("residual", "raw_pose", "opening", "face_height", "sharpness")
    }, segments=[(0, 500)])  # fmt: skip
    assert "20 s long" in said(short, "bad")
    assert "100 pixels high" in said(replace(data, face_height=np.full(FRAMES, 100.0)), "bad")
    assert "hardly opens" in said(replace(data, opening=np.full(FRAMES, 0.02)), "bad")
    still = data.motion.map(head_rotation=torch.zeros(FRAMES, 3))
    assert "hardly turns" in said(replace(data, motion=still, raw_pose=np.zeros((FRAMES, 6))), "note")
    assert "above the noise or the music" in said(replace(data, loudness=np.full(FRAMES, -20.0)), "bad")
    assert "overdriven" in said(replace(data, clipped=0.01), "note")
    repeated = data.change.copy()
    repeated[::2] = 0
    assert "repeat the one before" in said(replace(data, change=repeated), "note")
    found = data.found.copy()
    found[:1000] = False
    assert "missing in 20.0% of the frames (from 0.0 to 40.0 s)" in said(replace(data, found=found), "bad")


def test_audio_that_ends_before_the_video_is_no_quiet_room() -> None:
    data = good_video()
    assert data.loudness is not None
    whole = said(data, "good")
    loudness = data.loudness.copy()
    loudness[:250] = loudness[4500:] = np.nan
    told = said(replace(data, loudness=loudness), "bad")
    assert "There is no audio from 0.0 to 10.0 s and from 180.0 to 200.0 s" in told
    assert "40 dB above the noise" in said(replace(data, loudness=loudness), "good")
    assert "40 dB above the noise" in whole  # the same as where it does not end
    assert said(replace(data, loudness=loudness, found=~flags((0, 250), (4490, FRAMES))), "bad").count("audio") == 0


def test_frames_beyond_the_ends_of_the_audio_have_no_loudness(tmp_path) -> None:
    folder = make_person(tmp_path / "p", frames=100)
    for name, values in (("residual", np.ones(100)), ("raw_pose", np.zeros((100, 6)))):
        np.save(folder / "refine" / f"{name}.npy", values.astype(np.float32))
    for name, count in (("sharpness", 100), ("change", 99)):
        np.save(folder / "track" / f"{name}.npy", np.ones(count, np.float32))
    write_result(folder, RefineResult(camera=person_info().camera))
    ctx = StageContext(person=PersonFolder(folder), video=tmp_path / "v.mp4", config=PrepareConfig())
    whole = report.measure(ctx).loudness
    assert whole is not None and np.isfinite(whole).all()
    write_result(folder, ingest_result(num_frames=100, audio_span=[1.21, 2.5]))
    loudness = report.measure(StageContext(person=PersonFolder(folder), video=ctx.video, config=ctx.config)).loudness
    assert loudness is not None and np.flatnonzero(np.isfinite(loudness)).tolist() == list(range(31, 62))


def flags(*spans: tuple[int, int]) -> np.ndarray:
    return within(spans, FRAMES)


def test_what_is_left_out_is_told_with_its_time() -> None:
    data = good_video()
    hand = replace(data, covered=flags((80, 125), (200, 225), (400, 410)))
    assert "before the mouth or the chin from 3.2 to 5.0 s and from 8.0 to 9.0 s and 1 more times" in said(hand, "note")
    assert "left out" in said(hand, "note") and said(hand, "bad") == ""
    assert said(replace(data, covered=flags((80, 84))), "note") == ""  # a flicker is shown, not told
    microphone = replace(data, covered=flags((0, FRAMES)))
    assert "for 200 of 200 s" in said(microphone, "bad") and "free mouth" in said(microphone, "bad")
    assert "stands still from 4.0 to 8.0 s" in said(replace(data, still=flags((100, 200))), "note")
    assert "stands still" in said(replace(data, still=flags((100, 1200))), "bad")
    spans = report.flag_spans(replace(hand, still=flags((600, 700))))
    assert [(s.start, s.reason) for s in spans][:2] == [(600, "a still image"), (80, "the mouth is covered")]


def test_held_out_part_without_a_face_is_told() -> None:
    data = good_video()
    outro = replace(data, found=~flags((FRAMES - 400, FRAMES)), change=np.where(np.arange(FRAMES - 1) > 4600, 0, 1.0))
    assert "held-out last part only 20% shows the face" in said(outro, "bad")
    assert "repeat" not in said(outro, "note")  # a black screen is no low frame rate
    assert "held-out" not in said(replace(data, found=~flags((0, 400))), "bad")


def test_zoom_at_a_cut_is_told() -> None:
    data = replace(good_video(), segments=[(0, 1000), (1000, 2000), (2000, FRAMES)])
    near = torch.tensor([0.0, 0.0, 80.0]).repeat(FRAMES, 1)
    assert "zoom" not in said(replace(data, motion=data.motion.map(head_translation=near)), "note")
    near[1000:2000, 2] /= 1.35
    told = said(replace(data, motion=data.motion.map(head_translation=near)), "note")
    assert "cut at 40.0 s (1.35 times as large) and at 1 more" in told


def test_spans_are_found_with_their_reason() -> None:
    data = good_video()
    data.residual[100:130] = 5.0
    data.sharpness[300:340] = 2.0
    data.raw_pose[400, 1] += np.radians(10)
    spans = report.flag_spans(replace(data, found=~flags((600, 660))))
    assert [(s.start, s.end, s.reason) for s in spans] == [
        (600, 660, "no face"), (300, 340, "blurred"), (100, 130, "covered or mistracked"), (400, 401, "the pose leaps")
    ]  # fmt: skip


def test_blinks_are_counted_once_each() -> None:
    assert report.count_blinks(good_video().motion.arkit.numpy()) == 50


def test_sync_is_reported() -> None:
    for delay, level, words in (
        (0.2, "note", "after video by 200 ms (5.0 frames)"), (-0.12, "note", "before video by 120 ms (3.0 frames)"),
        (0.0, "good", "in sync"),
    ):  # fmt: skip
        (finding,) = report.judge_sync(SyncResult(has_audio=True, audio_delay_s=delay), 25.0)
        assert finding.level == level and words in finding.text
    unsure = SyncResult(has_audio=True, audio_delay_s=0.0, trusted=False, doubt="the lips do not follow")
    (finding,) = report.judge_sync(unsure, 25.0)
    assert finding.level == "bad" and "the lips do not follow" in finding.text and "--audio-delay-s" in finding.text
    given = SyncResult(has_audio=True, audio_delay_s=0.3, given=True)
    assert report.judge_sync(given, 25.0)[0].level == "good"
    assert report.judge_sync(SyncResult(has_audio=False, audio_delay_s=0.0), 25.0) == []


def test_plots_are_a_picture() -> None:
    assert plots(good_video(), [FlaggedSpan(start=10, end=20, reason="blurred")]).startswith(
        "data:image/png;base64,iVBOR"
    )


def test_names_that_are_no_utf_8_are_escaped_in_the_page(tmp_path, monkeypatch) -> None:
    folder = tmp_path / os.fsdecode(b"ann\xe9")
    for result in (
        ingest_result(source=os.fsdecode(b"films/caf\xe9 \x1b[8m.mp4")), RefineResult(camera=person_info().camera)
    ):  # fmt: skip
        write_result(folder, result)
    monkeypatch.setattr(report_page, "sample_images", lambda *_: [])
    monkeypatch.setattr(report_page, "plots", lambda *_: "data:,")
    ctx = StageContext(person=PersonFolder(folder), video=tmp_path / "v.mp4", config=PrepareConfig())
    shown = report_page.page(ctx, good_video(), [], []).encode().decode()
    assert "<title>ann\\udce9: quality" in shown and "caf\\udce9 \\x1b[8m.mp4, 96x96" in shown


def test_findings_are_told_behind_plain_marks(tmp_path, capsys):
    findings = [
        Finding(level="note", text="The face is 131 pixels high [1]."), Finding(level="good", text="Still."),
    ]  # fmt: skip
    person = PersonFolder(tmp_path)
    for result in (ReportResult(findings=findings, flagged=[]), ingest_result()):
        write_result(tmp_path, result)
    tell(StageContext(person=person, video=tmp_path / "v.mp4", config=PrepareConfig()))
    lines = capsys.readouterr().err.splitlines()
    assert "  + Still." in lines and "  o The face is 131 pixels high [1]." in lines


def test_loudness_is_measured_per_frame(tmp_path):
    rng = np.random.default_rng(0)
    samples = (0.1 * rng.standard_normal(16000 * 4)).astype(np.float32)
    samples[16000:32000] *= 0.1
    samples[40000:40100] = 1.0
    write_wav(tmp_path / "a.wav", samples)
    whole, clipped = report.frame_loudness(tmp_path / "a.wav", 110, 25.0)
    assert len(whole) == 110 and clipped == 100 / 64000
    np.testing.assert_allclose(whole[:25].mean() - whole[25:50].mean(), 20, atol=0.3)
    np.testing.assert_allclose(whole[100:], -100)  # the audio ends before the video
