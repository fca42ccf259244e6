"""The sound-picture offset: found on a synthetic mouth and on real footage, and not invented where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avatar.data.person import PersonFolder, PersonInfo
from avatar.io.audio import load_audio, write_wav
from avatar.motion.arkit import INDEX
from avatar.preprocess import sync
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.stage import StageContext
from tests.person import ingest_result, person_info, write_result

FPS = 25.0


def talking(seconds: float = 30.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A voice [N], and how far the mouth is open at every 10 ms: syllables whose timbre and level follow the mouth."""
    rng = np.random.default_rng(seed)
    count = round(seconds * 100)
    opening = np.zeros(count)
    time = 20
    while time < count - 40:
        length = int(rng.integers(12, 30))
        opening[time : time + length] += rng.uniform(0.3, 1) * np.sin(np.pi * np.arange(length) / length) ** 2
        time += length + int(rng.choice([0, 0, 5, 60], p=[0.4, 0.3, 0.2, 0.1]))
    fine = np.interp(np.arange(count * 160) / 160, np.arange(count), opening)
    carrier = rng.standard_normal(len(fine))
    low = np.convolve(carrier, np.ones(8) / 8, "same")
    voice = 0.3 * fine * (fine * low + (1 - fine) * 0.3 * carrier) + 1e-3 * carrier
    return voice.astype(np.float32), opening


def landmarks_of(opening: np.ndarray, frames: int, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """[T, 478, 3] and [T] jaw, of a face whose picture is early by ``offset`` frames; with tracking noise."""
    rng = np.random.default_rng(1)
    at = (np.arange(frames) + 0.5 + offset) / FPS * 100
    gap = np.interp(at, np.arange(len(opening)), opening)
    points = np.zeros((frames, 478, 3))
    points[:, 33, 0], points[:, 263, 0] = -45, 45
    points[:, 61, 0], points[:, 291, 0] = -25 + 3 * gap, 25 - 3 * gap
    for upper, lower in ((13, 14), (82, 87), (312, 317)):
        points[:, upper, 1], points[:, lower, 1] = -10 * gap, 10 * gap
    points += rng.normal(0, 0.4, points.shape)
    return points.astype(np.float32), (gap + rng.normal(0, 0.1, frames)).astype(np.float32)


@pytest.mark.parametrize("offset", [-5.0, -2.5, 0.0, 1.0, 5.0])
def test_a_known_offset_is_found(offset: float) -> None:
    voice, opening = talking()
    points, jaw = landmarks_of(opening, 700, offset)
    measured = sync.measure_delay(voice, points, jaw, np.ones(700, bool), FPS)
    assert measured.trusted and measured.frames == pytest.approx(offset, abs=0.35)


def test_untracked_frames_are_left_out() -> None:
    voice, opening = talking()
    points, jaw = landmarks_of(opening, 700, 3.0)
    valid = np.ones(700, bool)
    valid[200:300] = False
    points[200:300] = 1e4 * np.random.default_rng(2).standard_normal((100, 478, 3))
    measured = sync.measure_delay(voice, points, jaw, valid, FPS)
    assert measured.trusted and measured.frames == pytest.approx(3.0, abs=0.5)


@pytest.mark.parametrize("kind", ["other speech", "noise", "silence"])
def test_no_offset_is_claimed_for_sound_that_is_not_this_mouth(kind: str) -> None:
    voice, opening = talking()
    other = {
        "other speech": talking(seed=5)[0],
        "noise": 0.1 * np.random.default_rng(3).standard_normal(len(voice)).astype(np.float32),
        "silence": np.zeros_like(voice),
    }[kind]
    points, jaw = landmarks_of(opening, 700, 0.0)
    measured = sync.measure_delay(other, points, jaw, np.ones(700, bool), FPS)
    assert not measured.trusted and sync.applied_delay(measured, FPS) == 0


@pytest.mark.parametrize(("confidence", "correlation"), [(1.0, 0.1), (0.5, 0.6)])
def test_a_peak_must_be_both_clear_and_stable(confidence: float, correlation: float) -> None:
    unsure = sync.Delay(frames=5.0, confidence=confidence, correlation=correlation, lags=np.zeros(1), curve=np.zeros(1))
    assert not unsure.trusted and sync.applied_delay(unsure, FPS) == 0


def test_too_short_a_video_is_not_judged() -> None:
    voice, opening = talking(4.0)
    points, jaw = landmarks_of(opening, 100, 4.0)
    assert not sync.measure_delay(voice, points, jaw, np.ones(100, bool), FPS).trusted


def test_small_offsets_are_left_alone() -> None:
    measured = sync.Delay(frames=0.8, confidence=1.0, correlation=0.6, lags=np.zeros(1), curve=np.zeros(1))
    assert sync.applied_delay(measured, 25.0) == 0
    assert sync.applied_delay(measured, 15.0) == 0.8 / 15  # 53 ms


def _person(folder: Path, offset: float) -> None:
    voice, opening = talking()
    points, jaw = landmarks_of(opening, 700, offset)
    blendshapes = np.zeros((700, 52), np.float32)
    blendshapes[:, INDEX["jawOpen"]] = jaw
    write_wav(folder / "ingest" / "audio.wav", voice)
    (folder / "track").mkdir()
    for name, array in (("landmarks", points), ("blendshapes", blendshapes), ("valid", np.ones(700, bool))):
        np.save(folder / "track" / f"{name}.npy", array)


def _context(folder: Path, test_start: int | None = None, **config: Any) -> StageContext:
    write_result(folder, ingest_result(fps=FPS, num_frames=700, test_start=test_start))
    return StageContext(person=PersonFolder(folder), video=folder / "v.mp4", config=PrepareConfig(**config))


def test_stage_reports_what_it_applies(tmp_path: Path) -> None:
    _person(tmp_path, 4.0)
    result = sync.run(_context(tmp_path), tmp_path)
    assert result.audio_delay_s == pytest.approx(4.0 / FPS, abs=0.4 / FPS) and result.trusted
    assert result.measured_delay_s == pytest.approx(result.audio_delay_s, abs=0.01)
    assert np.load(tmp_path / "curve.npy").shape == (25, 2)


def test_the_user_knows_better(tmp_path: Path) -> None:
    assert sync.run(_context(tmp_path, audio_delay_s=-0.1), tmp_path).audio_delay_s == -0.1
    assert sync.run(_context(tmp_path, audio=False), tmp_path).audio_delay_s == 0


@pytest.mark.parametrize("fps", [25.0, 24000 / 1001, 30000 / 1001, 59.94, 12.5])
@pytest.mark.parametrize("frames", [5.0, -2.53, 7.99, 0.0])
def test_a_delay_in_frames_comes_back_exactly(fps: float, frames: float, tmp_path: Path) -> None:
    measured = sync.Delay(frames=frames, confidence=1.0, correlation=1.0, lags=np.zeros(1), curve=np.zeros(1))
    person_info(fps=fps, audio_delay_s=sync.applied_delay(measured, fps)).write(tmp_path / "person.json")
    assert PersonInfo.read(tmp_path / "person.json").audio_delay_frames == frames


@pytest.mark.parametrize("test_start", [630, 450])  # the last tenth, and a dataset's own split
def test_held_out_frames_and_sound_change_nothing(tmp_path: Path, test_start: int) -> None:
    results = []
    for name in ("as filmed", "other"):
        folder = tmp_path / name
        _person(folder, 4.0)
        if name == "other":
            voice = load_audio(folder / "ingest" / "audio.wav")
            cut = round(test_start / FPS * 16000)
            voice[cut:] = 0.5 * np.sin(np.arange(len(voice) - cut) ** 1.2)
            write_wav(folder / "ingest" / "audio.wav", voice)
            for part in ("landmarks", "blendshapes"):
                values = np.load(folder / "track" / f"{part}.npy")
                values[test_start:] = values[test_start:][::-1] * 3 + 5
                np.save(folder / "track" / f"{part}.npy", values)
        result = sync.run(_context(folder, test_start), folder)
        results.append((result, np.load(folder / "curve.npy").tolist()))
    assert results[0] == results[1] and results[0][0].audio_delay_s == pytest.approx(4.0 / FPS, abs=0.4 / FPS)
