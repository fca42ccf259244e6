"""Metrics of talking, and intervals: closures, pauses, the sync judge, the bootstrap."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from avatar.audio.levels import frame_levels, silent_frames
from avatar.errors import AvatarError
from avatar.eval import bootstrap, speech_metrics
from avatar.eval.bootstrap import Bootstrap
from avatar.eval.face_metrics import FaceTrack
from avatar.eval.speech_metrics import Speech
from avatar.paths import write_json

FPS = 25.0


def test_consonants_are_found_in_words() -> None:
    words = [(0.0, 0.5, "sil"), (0.5, 1.0, "bin"), (1.0, 1.2, "at"), (1.2, 1.6, "m"), (2.0, 3.0, "happy")]
    assert speech_metrics.closure_times(words) == pytest.approx([0.5, 1.6, 2.5])
    silent = ["photo", "climb", "debt", "psalms", "phone"]
    assert len(speech_metrics.closure_times([(0, 1, word) for word in silent])) == 2  # the m of climb and of psalms


def test_closure_needs_closed_lips_near_the_consonant() -> None:
    real = np.tile([0.0, 0.1, 0.2, 0.1], 25)
    opening = np.full(100, 0.2)
    opening[[12, 40]] = 0.01
    closures = np.array([10.9, 37.0, 60.0, 99.9, 140.0])  # 2 frames early, 3 frames early, never, never, too late
    closed = speech_metrics.closed_at(opening, real, closures, FPS)
    assert np.flatnonzero(np.isfinite(closed)).tolist() == [10, 37, 60, 99]
    assert closed[[10, 37, 60, 99]].tolist() == [1, 0, 0, 0]
    opening[8:13] = np.nan
    assert np.isnan(speech_metrics.closed_at(opening, real, closures, FPS)[10])
    assert np.isnan(speech_metrics.closed_at(opening, real * np.nan, closures, FPS)).all()


@pytest.mark.parametrize(("fps", "reach"), [(25.0, 2), (30.0, 2), (50.0, 4), (60.0, 5), (5.0, 1)])
def test_closure_is_looked_for_in_seconds(fps: float, reach: int) -> None:
    real, opening = np.tile([0.0, 0.2], 50), np.full(100, 0.2)
    opening[50] = 0.0
    at = np.arange(100) + 0.7  # a sound in the middle of a frame is heard while it is shown
    closed = speech_metrics.closed_at(opening, real, at, fps)
    assert np.flatnonzero(closed == 1).tolist() == list(range(50 - reach, 50 + reach + 1))
    assert np.array_equal(closed, speech_metrics.closed_at(opening, real, np.arange(100) / fps * fps, fps))


def test_words_are_read_or_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "words.json", {"unit": "seconds", "words": [[0, 0.5, "bin"]]})
    assert speech_metrics.read_words(tmp_path / "words.json") == [(0.0, 0.5, "bin")]
    for content in ({"words": [[0, "bin"]]}, {"unit": "frames", "words": []}, ["bin"], {}):
        write_json(tmp_path / "bad.json", content)
        with pytest.raises(AvatarError, match=r"bad\.json is not a file of words"):
            speech_metrics.read_words(tmp_path / "bad.json")


def test_silence_is_a_pause_and_stillness_is_seen() -> None:
    rng = np.random.default_rng(0)
    loud = 0.3 * rng.normal(size=16000 * 4).astype(np.float32)
    for start, seconds in ((0.8, 1.0), (2.4, 0.1), (3.0, 0.6)):  # the second is a closure, not a pause
        loud[int(start * 16000) : int((start + seconds) * 16000)] *= 1e-3
    levels = frame_levels([loud[:30001], loud[30001:]], 100, FPS)
    silent = silent_frames(levels, FPS)
    assert silent[20:45].all() and silent[75:90].all() and silent.sum() == 40
    moving = rng.normal(size=100)
    still = np.where(silent, 0.0, moving)
    spreads = []
    for opening in (moving, still):
        series = speech_metrics.stillness_series(opening, Speech(samples=loud), FPS, [(0, 50), (50, 100)])
        names = ("silent_velocity", "speech_velocity")
        spreads.append(bootstrap.value(bootstrap.spread_ratio, *(series[n] for n in names)))
        assert np.isnan(series["speech_velocity"][[0, 50]]).all()
    assert spreads[0] == pytest.approx(1, abs=0.3) and spreads[1] < 0.5 * spreads[0]
    ending = frame_levels([loud[:16000]], 100, FPS)
    assert (ending[30:] == -100).all()


class FakeJudge:
    def score(self, landmarks: np.ndarray, audio: np.ndarray, fps: float) -> SimpleNamespace:
        if len(audio) < 16000:
            raise AvatarError("The clip is too short to judge.")
        assert landmarks.dtype == np.float32 and landmarks.shape[1:] == (478, 2) and audio.dtype == np.float32
        return SimpleNamespace(confidence=np.float64(0.5), audio_delay_s=0.04, distance=0.25)


def test_a_judge_is_asked_and_may_refuse() -> None:
    track = FaceTrack(landmarks=np.zeros((50, 478, 2)), arkit=np.zeros((50, 52)))
    notes: list[str] = []

    def ask(judge: FakeJudge | None, samples: int) -> dict[str, float | None]:
        return speech_metrics.sync_metrics(judge, track, Speech(samples=np.zeros(samples, np.float32)), FPS, notes)

    names = ("sync_confidence", "sync_audio_delay_s", "sync_distance")
    assert ask(FakeJudge(), 32000) == dict(zip(names, (0.5, 0.04, 0.25), strict=True)) and not notes
    assert ask(FakeJudge(), 100) == ask(None, 32000) == dict.fromkeys(names)
    ask(FakeJudge(), 100)
    assert len(notes) == 1 and "too short" in notes[0]  # said once


def test_a_delay_that_the_judge_does_not_know_is_none() -> None:
    class AtTheBorder:
        def score(self, landmarks: np.ndarray, audio: np.ndarray, fps: float) -> SimpleNamespace:
            return SimpleNamespace(confidence=0.5, audio_delay_s=None, distance=0.25)

    track = FaceTrack(landmarks=np.zeros((50, 478, 2)), arkit=np.zeros((50, 52)))
    found = speech_metrics.sync_metrics(AtTheBorder(), track, Speech(samples=np.zeros(32000, np.float32)), FPS, [])
    assert found["sync_audio_delay_s"] is None and found["sync_confidence"] == 0.5


def test_without_a_judge_there_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise AvatarError("sync_judge.safetensors is missing.")

    monkeypatch.setattr(speech_metrics.SyncJudge, "load", missing)
    notes: list[str] = []
    assert speech_metrics.load_judge(notes) is None and "is missing" in notes[0]


def test_intervals_cover_the_truth_where_frames_are_alike() -> None:
    rng = np.random.default_rng(0)
    hits, widths = 0, []
    for _ in range(60):
        slow = np.repeat(rng.normal(size=60), 10)  # ten frames long: as little as 60 independent numbers
        low, high = Bootstrap(600, FPS).interval(bootstrap.mean, slow) or [1.0, 1.0]
        hits += low <= 0 <= high
        widths.append(high - low)
    assert hits >= 51  # 57 expected
    assert np.mean(widths) == pytest.approx(2 * 1.96 / 60**0.5, rel=0.15)


@pytest.mark.parametrize("blocks", [5, 10, 15])
def test_intervals_of_few_blocks_cover_the_truth(blocks: int) -> None:
    rng = np.random.default_rng(1)
    resamples = Bootstrap(blocks, 0.5)  # a frame each
    alone, apart = 0, 0
    for own, other in rng.normal(100.0, 1.0, (800, 2, blocks)):
        low, high = resamples.interval(bootstrap.mean, own) or [0.0, 0.0]
        alone += low <= 100.0 <= high
        low, high = resamples.interval_of_difference(bootstrap.mean, [own], [other]) or [1.0, 1.0]
        apart += low <= 0 <= high
    assert alone >= 0.93 * 800 and apart >= 0.93 * 800


def test_intervals_stay_where_their_statistics_can_be() -> None:
    rng = np.random.default_rng(0)
    resamples = Bootstrap(6, 0.5)  # a frame each
    a = np.array([0.1, 0.0, 0.2, 0.1, 4.0, 0.3])
    wide = bootstrap.widened(resamples.values(bootstrap.mean, a), float(a.mean()), 6)
    assert wide[0] < 0 and resamples.interval(bootstrap.mean, a) == [0.0, wide[1]]
    assert (resamples.interval(bootstrap.mean, a - 0.1) or [0.0])[0] < 0  # of numbers that may be negative
    low, high = resamples.interval(bootstrap.share, np.array([1.0, 1, 1, 0, 1, np.nan])) or [0.0, 0.0]
    assert 0 < low < high == 1.0  # a share
    low, high = resamples.interval(bootstrap.correlation, a, a + 0.3 * rng.normal(size=6)) or [0.0, 0.0]
    assert -1 <= low < high == 1.0
    assert resamples.interval(bootstrap.spread_ratio, a, a[::-1] + rng.normal(size=6))[0] == 0.0


def test_intervals_are_repeatable_paired_and_absent_where_nothing_is_known() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 400)) + 5
    intervals = [Bootstrap(400, FPS).interval(bootstrap.ratio, a, b) for _ in range(2)]
    assert intervals[0] == intervals[1]
    same = Bootstrap(400, FPS).interval(bootstrap.ratio, a, a)
    assert same == pytest.approx([1, 1])  # frame by frame, not one mean over another
    gone = np.full(400, np.nan)
    assert Bootstrap(400, FPS).interval(bootstrap.mean, gone) is None
    assert bootstrap.value(bootstrap.mean, gone) is None
    assert bootstrap.value(bootstrap.correlation, np.ones(400), a) is None
    assert Bootstrap(249, FPS).interval(bootstrap.mean, a[:249]) is None  # four blocks
    assert Bootstrap(249, FPS).interval_of_difference(bootstrap.mean, [a[:249]], [b[:249]]) is None
    assert Bootstrap(250, FPS).interval(bootstrap.mean, a[:250]) is not None
    holes = np.where(rng.random(400) < 0.5, np.nan, a)
    low, high = Bootstrap(400, FPS).interval(bootstrap.mean, holes) or [0, 0]
    assert low < np.nanmean(holes) < high and high - low < 1


def test_what_few_blocks_hold_is_known_no_better() -> None:
    """Five consonants of a minute are five, however long the video is; four say nothing of how much they differ."""
    rng = np.random.default_rng(0)
    resamples, closed, all_of_it = Bootstrap(1500, FPS), np.full(1500, np.nan), rng.normal(size=1500)
    closed[100:1500:300] = 1
    low, high = resamples.interval(bootstrap.share, closed) or [0.0, 0.0]
    assert low == pytest.approx(0.025 ** (1 / 5)) and high == 1  # Clopper and Pearson of five of five: 47.8 %
    none = resamples.interval(bootstrap.share, 1 - closed)
    assert none == pytest.approx([0, 1 - low])
    closed[1300] = np.nan
    assert resamples.interval(bootstrap.share, closed) is None
    few = np.where(np.arange(1500) < 250, all_of_it, np.nan)  # ten seconds of a minute
    alone = Bootstrap(250, FPS).interval(bootstrap.mean, few[:250]) or [0.0, 0.0]
    low, high = resamples.interval(bootstrap.mean, few) or [0.0, 0.0]
    assert high - low > 0.8 * (alone[1] - alone[0])
    apart = resamples.interval(bootstrap.spread_ratio, few, np.where(np.isnan(few), all_of_it, np.nan))
    assert apart is not None  # series of different frames, as silence and speech


def test_frames_that_were_chosen_close_together_are_one_block() -> None:
    far, near = (Bootstrap.of_chosen(range(0, 10 * gap, gap), FPS) for gap in (60, 8))
    assert far.blocks == 10 and near.blocks < 3 and Bootstrap.of_chosen([7], FPS).blocks < 5


def test_correlation_and_spread_are_the_usual_ones() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=300)
    b = a + rng.normal(size=300)
    b[10] = np.nan
    known = np.isfinite(b)
    assert bootstrap.value(bootstrap.correlation, a, b) == pytest.approx(np.corrcoef(a[known], b[known])[0, 1])
    assert bootstrap.value(bootstrap.spread_ratio, 2 * a, a) == pytest.approx(2)
    assert bootstrap.value(bootstrap.root_ratio, 4 * a**2, a**2) == pytest.approx(2)
