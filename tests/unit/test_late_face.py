"""A face that is seen late, or hardly at all, does not end the training of lips."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from avatar.audio.features import FrameFeatures
from avatar.audio2motion.base import motion_of
from avatar.audio2motion.load import load_streaming
from avatar.audio2motion.shared import SharedSpeech
from avatar.audio2motion.shared_adaptation import adapt_to_features
from avatar.io.audio import write_wav
from avatar.motion import Motion, mouth
from avatar.train import speech as training
from tests.mute import Mute
from tests.person import person_info
from tests.unit.test_prior import FRAMES, some_prior, talking, voice

FPS = 25.0


def seen(motion: Motion, first: int, last: int) -> Motion:
    """The face is tracked in these frames alone."""
    frames = torch.arange(len(motion))
    return motion.map(valid=(frames >= first) & (frames < last))


@pytest.mark.parametrize("rows", [0, 1, 4, 12, 30, 37])
def test_too_little_of_a_face_corrects_nothing(rows: int, tmp_path: Path) -> None:
    before = some_prior().person(talking(), FPS)
    features = FrameFeatures(
        1 + np.random.default_rng(0).standard_normal((FRAMES, 40)).astype(np.float32),
        np.full(FRAMES, -20, np.float32),
    )
    after = adapt_to_features(before, seen(talking(), 10, 10 + rows), features)
    assert after.kernel is None and after.correction is None and after.report == {"seconds": round(rows / FPS, 1)}
    after.save(tmp_path / "speech.safetensors")
    again, new = SharedSpeech.load(tmp_path / "speech.safetensors"), voice(2.0)
    torch.testing.assert_close(motion_of(again, new).face, motion_of(before, new).face)


def test_a_little_more_of_it_corrects() -> None:
    features = FrameFeatures(
        1 + np.random.default_rng(0).standard_normal((FRAMES, 40)).astype(np.float32),
        np.full(FRAMES, -20, np.float32),
    )
    for motion in (seen(talking(), 10, 48), seen(talking(), 0, 38)):
        assert "error" in adapt_to_features(some_prior().person(talking(), FPS), motion, features).report


def test_streaming_lips_learn_from_the_first_seconds_with_a_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A title of four seconds, and streaming lips that take four seconds."""
    monkeypatch.setattr(training, "STREAMING_SECONDS", 4.0)
    monkeypatch.setattr(
        "avatar.audio2motion.personal_training.train_personal",
        lambda *_, **__: Mute(FPS),
    )
    for name in ("person", "run"):
        (tmp_path / name).mkdir()
    write_wav(tmp_path / "person/audio.wav", voice())
    motion = seen(talking(), 100, FRAMES)
    motion.save(tmp_path / "person/motion.safetensors")
    data: Any = SimpleNamespace(
        folder=tmp_path / "person", audio_path=tmp_path / "person/audio.wav", info=person_info(num_frames=FRAMES),
        test_start=450, fps=FPS,
    )  # fmt: skip
    training.train_speech(data, tmp_path / "run", some_prior(), encoder="mel", seed=0, keep=False)
    report = load_streaming(tmp_path / "run", FPS).report  # type: ignore[attr-defined]
    assert report["seconds"] == 4.0 and "error" in report


@pytest.mark.parametrize("share", [0.08, 0.15, 0.3, 1.0])
def test_who_talks_a_little_of_the_time_has_the_lips_of_speech(share: float) -> None:
    """Somebody mostly listens, with a mouth that hardly moves."""
    rng, frames = np.random.default_rng(0), 2000
    said = 0.5 * np.abs(np.sin(np.arange(frames) * 0.9)) * rng.uniform(0.5, 1, frames)
    talks = np.arange(frames) >= (1 - share) * frames
    opening = np.where(talks, said, 0.01 * rng.standard_normal(frames))
    found = mouth.talking(opening, np.ones(frames, bool), FPS)
    assert found[talks].mean() > 0.9 and found[~talks].sum() <= FPS / 2
    assert opening[found].std() == pytest.approx(said[talks].std(), rel=0.1)


def test_the_beginning_of_a_track_is_counted_in_frames_with_a_face() -> None:
    motion = talking()
    assert len(training.first_seen(motion, 100)) == 100
    assert len(training.first_seen(seen(motion, 30, FRAMES), 100)) == 130
    assert len(training.first_seen(seen(motion, 30, 60), 100)) == FRAMES
    assert len(training.first_seen(seen(motion, 0, 0), 100)) == FRAMES
