"""The delay between audio and video: found for any talking mouth, and not invented where it cannot be known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avatar.data.person import PersonFolder, PersonInfo
from avatar.data.results import SyncResult
from avatar.io.audio import load_audio, write_wav
from avatar.preprocess import sync
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.stage import StageContext
from avatar.sync.judge import SyncJudge
from avatar.sync.offset import MAX_SECONDS, Offset, measure
from avatar.synth.make import SCRIPT
from pipelines.offsets import drifting, jumping, moved
from tests.person import ingest_result, person_info, write_result
from tests.talking import seen_speaking

FPS = 25.0


@pytest.fixture(scope="module")
def clip() -> tuple[np.ndarray, np.ndarray]:
    """24 s of a mouth and its voice, in step."""
    landmarks, voice = seen_speaking(" ".join(SCRIPT[:4]))
    return landmarks[:600], voice[: 24 * 16000]


@pytest.fixture(scope="module")
def judge() -> SyncJudge:
    return SyncJudge.load()


@pytest.mark.parametrize("shift", [-2.0, -1.5, -0.7, -0.1, 0.0, 0.04, 0.4, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("seconds", [12, 24])
def test_a_shift_is_found(judge: SyncJudge, clip: tuple[np.ndarray, np.ndarray], seconds: int, shift: float) -> None:
    """1 s late (25 frames) was once taken for half a second early: the border of the range."""
    landmarks, voice = clip[0][: 25 * seconds], clip[1][: 16000 * seconds]
    found = measure(judge, landmarks, moved(voice, shift), FPS)
    assert found.trusted and found.audio_delay_s * FPS == pytest.approx(shift * FPS, abs=1)


@pytest.mark.parametrize("fps", [12.5, 24000 / 1001, 30.0, 60.0])
def test_any_frame_rate_will_do(judge: SyncJudge, fps: float) -> None:
    landmarks, voice = seen_speaking(SCRIPT[0] + " " + SCRIPT[1], fps, late=-0.6 * fps)
    found = measure(judge, landmarks, voice, fps)
    assert found.trusted and found.audio_delay_s == pytest.approx(0.6, abs=0.04)


@pytest.mark.parametrize("shift", [-5.0, -3.0, -2.6, 2.6, 3.0, 4.0])
@pytest.mark.parametrize("seconds", [8, 24])
def test_a_delay_out_of_range_is_not_trusted(
    judge: SyncJudge, clip: tuple[np.ndarray, np.ndarray], seconds: int, shift: float
) -> None:
    assert abs(shift) > MAX_SECONDS
    landmarks, voice = clip[0][: 25 * seconds], clip[1][: 16000 * seconds]
    found = measure(judge, landmarks, moved(voice, shift), FPS)
    assert not found.trusted
    if seconds == 24:  # long enough to say where it is
        assert f"{shift:+.1f} s" in found.doubt


def _other_speech(voice: np.ndarray) -> np.ndarray:
    return np.resize(seen_speaking(" ".join(SCRIPT[6:9]), seed=3)[1], len(voice))


def _noise(voice: np.ndarray) -> np.ndarray:
    return (0.1 * np.random.default_rng(3).standard_normal(len(voice))).astype(np.float32)


def _music(voice: np.ndarray) -> np.ndarray:
    """Chords on a beat."""
    at = np.arange(len(voice)) / 16000
    notes = sum(np.sin(2 * np.pi * pitch * 2 ** (np.floor(at * 2) % 5 / 12) * at) for pitch in (220, 277, 330))
    return (0.1 * notes * np.exp(-6 * (at * 2 % 1))).astype(np.float32)


@pytest.mark.parametrize("other", [_other_speech, _noise, _music, np.zeros_like])
def test_no_delay_is_claimed_for_audio_of_something_else(
    judge: SyncJudge, clip: tuple[np.ndarray, np.ndarray], other: Any
) -> None:
    found = measure(judge, clip[0], other(clip[1]), FPS)
    assert not found.trusted and sync.applied_delay(found, FPS) == 0


def test_no_delay_is_claimed_for_a_mouth_that_rests(judge: SyncJudge, clip: tuple[np.ndarray, np.ndarray]) -> None:
    still = clip[0][:1] + np.random.default_rng(0).normal(0, 0.3, clip[0].shape)
    assert not measure(judge, still, clip[1], FPS).trusted


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda voice: drifting(voice, 0.01), "changes steadily, by [+]0.2"),
        (lambda voice: drifting(voice, -0.01), "changes steadily, by -0.2"),
        (lambda voice: jumping(voice, 0.8), ""),
        (lambda voice: np.r_[voice[: 15 * 16000], moved(voice, -0.5)[15 * 16000 :]], r"-0.5\d s between"),
    ],
)
def test_a_delay_that_changes_is_not_trusted(
    judge: SyncJudge, clip: tuple[np.ndarray, np.ndarray], change: Any, words: str
) -> None:
    import re

    found = measure(judge, clip[0], change(clip[1]), FPS)
    assert not found.trusted and re.search(words, found.doubt)


def test_too_short_a_video_is_not_judged(judge: SyncJudge, clip: tuple[np.ndarray, np.ndarray]) -> None:
    for seconds in (0, 1, 3):
        found = measure(judge, clip[0][: 25 * seconds], clip[1][: 16000 * seconds], FPS)
        assert not found.trusted and found.doubt
    filled = np.r_[clip[1][: 3 * 16000], np.zeros(21 * 16000, np.float32)]
    assert "less than 4 s" in measure(judge, clip[0], filled, FPS).doubt


def test_untracked_frames_are_left_out(judge: SyncJudge, clip: tuple[np.ndarray, np.ndarray]) -> None:
    landmarks = clip[0].copy()
    landmarks[200:300] = np.nan
    found = measure(judge, landmarks, moved(clip[1], 0.3), FPS)
    assert found.trusted and found.audio_delay_s == pytest.approx(0.3, abs=0.04)


def _measured(seconds: float, doubt: str = "") -> Offset:
    curve = np.zeros(1)
    return Offset(
        audio_delay_s=seconds, z_score=9.0, margin=5.0, stability=1.0, doubt=doubt, delays=curve, curve=curve
    )  # fmt: skip


def test_what_is_in_doubt_is_not_corrected() -> None:
    assert sync.applied_delay(_measured(0.2), FPS) == 0.2
    assert sync.applied_delay(_measured(0.2, "several delays fit about as well"), FPS) == 0


def test_small_delays_are_left_alone() -> None:
    assert sync.applied_delay(_measured(0.032), 25.0) == 0
    assert sync.applied_delay(_measured(0.8 / 15), 15.0) == 0.8 / 15  # 53 ms


def test_what_is_done_is_said() -> None:
    late = SyncResult(has_audio=True, audio_delay_s=1.0248)
    assert sync.describe(late, 25.0) == "Audio comes after video by 1025 ms (25.6 frames); this is corrected."
    unknown = sync.describe(
        SyncResult(has_audio=True, audio_delay_s=0.0, trusted=False, doubt="the audio is silent"), 25.0
    )
    assert "could not be measured: the audio is silent." in unknown and "--audio-delay-s" in unknown


def _person(folder: Path, clip: tuple[np.ndarray, np.ndarray], shift: float) -> None:
    landmarks, voice = clip
    deep = np.concatenate([landmarks, np.zeros((len(landmarks), 478, 1), np.float32)], 2)
    write_wav(folder / "ingest" / "audio.wav", 0.4 * moved(voice, shift))  # quiet: is read and written again unchanged
    (folder / "track").mkdir()
    for name, array in (("landmarks", deep), ("valid", np.ones(len(deep), bool))):
        np.save(folder / "track" / f"{name}.npy", array)


def _context(folder: Path, test_start: int | None = None, **config: Any) -> StageContext:
    write_result(folder, ingest_result(fps=FPS, num_frames=600, test_start=test_start))
    return StageContext(person=PersonFolder(folder), video=folder / "v.mp4", config=PrepareConfig(**config))


def test_stage_reports_what_it_applies(tmp_path: Path, clip: tuple[np.ndarray, np.ndarray]) -> None:
    _person(tmp_path, clip, 0.4)
    result = sync.run(_context(tmp_path), tmp_path)
    assert result.audio_delay_s == pytest.approx(0.4, abs=0.04) and result.trusted
    assert result.measured_delay_s == pytest.approx(result.audio_delay_s, abs=0.01)
    assert np.load(tmp_path / "curve.npy").shape == (501, 2)


def test_stage_leaves_alone_what_it_cannot_measure(tmp_path: Path, clip: tuple[np.ndarray, np.ndarray]) -> None:
    _person(tmp_path, (clip[0], _other_speech(clip[1])), 0.0)
    result = sync.run(_context(tmp_path), tmp_path)
    assert not result.trusted and result.audio_delay_s == 0 and result.doubt
    said = sync.describe(result, 25.0)
    assert "could not be measured" in said and "--audio-delay-s" in said


def test_a_part_too_short_to_decide_is_measured_with_the_held_out_one(
    tmp_path: Path, clip: tuple[np.ndarray, np.ndarray]
) -> None:
    """A video of 12 s of which 4 s are held out, and audio that is 1 s late."""
    _person(tmp_path, (clip[0][:300], clip[1][: 12 * 16000]), 1.0)
    write_result(tmp_path, ingest_result(fps=FPS, num_frames=300, test_start=90))
    ctx = StageContext(person=PersonFolder(tmp_path), video=tmp_path / "v.mp4", config=PrepareConfig())
    result = sync.run(ctx, tmp_path)
    assert result.whole and result.trusted and result.audio_delay_s == pytest.approx(1.0, abs=0.04)


def test_the_user_knows_better(tmp_path: Path, clip: tuple[np.ndarray, np.ndarray]) -> None:
    _person(tmp_path, clip, 0.0)
    assert sync.run(_context(tmp_path, audio_delay_s=-0.1), tmp_path).audio_delay_s == -0.1
    assert sync.run(_context(tmp_path, audio=False), tmp_path).audio_delay_s == 0


@pytest.mark.parametrize("fps", [25.0, 24000 / 1001, 30000 / 1001, 59.94, 12.5])
@pytest.mark.parametrize("frames", [5.0, -2.53, 7.99, 0.0])
def test_a_delay_in_frames_comes_back_exactly(fps: float, frames: float, tmp_path: Path) -> None:
    person_info(fps=fps, audio_delay_s=sync.applied_delay(_measured(frames / fps), fps)).write(tmp_path / "person.json")
    assert PersonInfo.read(tmp_path / "person.json").audio_delay_frames == frames


@pytest.mark.parametrize("test_start", [540, 400])  # the last tenth, and a dataset's own split
def test_held_out_frames_and_audio_change_nothing(
    tmp_path: Path, clip: tuple[np.ndarray, np.ndarray], test_start: int
) -> None:
    results = []
    for name in ("as filmed", "other"):
        folder = tmp_path / name
        _person(folder, clip, 0.16)
        if name == "other":
            voice = load_audio(folder / "ingest" / "audio.wav")
            cut = round(test_start / FPS * 16000)
            voice[cut:] = 0.5 * np.sin(np.arange(len(voice) - cut) ** 1.2)
            write_wav(folder / "ingest" / "audio.wav", voice)
            landmarks = np.load(folder / "track" / "landmarks.npy")
            landmarks[test_start:] = landmarks[test_start:][::-1] * 3 + 5
            np.save(folder / "track" / "landmarks.npy", landmarks)
        result = sync.run(_context(folder, test_start), folder)
        results.append((result, np.load(folder / "curve.npy").tolist()))
    assert (
        results[0] == results[1]
        and not results[0][0].whole
        and results[0][0].audio_delay_s == pytest.approx(0.16, abs=0.04)
    )
