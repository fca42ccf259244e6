"""Speech networks of audio that the lips do not follow, as in a dubbed video, and of a few seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from avatar.audio.encoders.registry import speech_encoder
from avatar.audio2motion import personal_training
from avatar.audio2motion.base import motion_of
from avatar.audio2motion.ensemble import Ensemble
from avatar.audio2motion.load import PERSONAL, SHARED, STREAMING, load_speech, networks_of
from avatar.audio2motion.personal import PersonalSpeech
from avatar.audio2motion.personal_training import share_of, train_personal
from avatar.audio2motion.shared import SharedSpeech
from avatar.audio2motion.shared_adaptation import _Regression
from avatar.io.audio import write_wav
from avatar.motion import Motion
from avatar.motion.mouth import CHANNELS
from avatar.train.speech import train_speech
from tests.person import person_info
from tests.unit.test_personal import FPS, track_of, voice_and_mouth
from tests.unit.test_personal import person as speaking_person
from tests.unit.test_prior import some_prior

FRAMES = 400


def quick(*given: Any, **options: Any) -> PersonalSpeech:
    return train_personal(*given, **options | {"steps": 2, "progress": lambda done, total: None})


def test_a_dubbed_video_leaves_the_lips_to_the_prior(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(personal_training, "train_personal", quick)
    folder = speaking_person(tmp_path / "person", frames=FRAMES)
    audio, other = folder / "ingest" / "audio.wav", voice_and_mouth(seed=5, frames=FRAMES)[0]
    write_wav(audio, other)
    info = person_info(fps=FPS, num_frames=FRAMES, test_start=FRAMES - 10)
    data: Any = SimpleNamespace(folder=folder, audio_path=audio, info=info, test_start=FRAMES - 10, fps=FPS)
    run, prior = tmp_path / "run", some_prior()
    run.mkdir()
    (run / PERSONAL).touch()  # of an interrupted training
    train_speech(data, run, prior, encoder="mel", seed=0, keep=False)
    assert networks_of(run) == "shared"
    warned = " ".join(capsys.readouterr().err.split())
    assert warned.count("too little to teach") == 1 and "Check that this person speaks in the audio." in warned
    motion = Motion.load(folder / "motion.safetensors")[: data.test_start]
    for file, plain in ((SHARED, prior.person(motion, FPS)), (STREAMING, prior.streaming().person(motion, FPS))):
        network = SharedSpeech.load(run / file)
        assert not network.corrected and network.voice_db == plain.voice_db
        torch.testing.assert_close(motion_of(network, other[:32000]).face, motion_of(plain, other[:32000]).face)
    run = tmp_path / "alone"
    run.mkdir()
    train_speech(data, run, None, encoder="mel", seed=0, keep=False)
    assert networks_of(run) == "personal", "nothing else would drive the lips"


@pytest.mark.parametrize(
    ("correlation", "share"), [(-0.2, 0), (0.3, 0), (0.35, 0.125), (0.4, 0.25), (0.5, 0.5), (0.9, 0.5)]
)
def test_a_personal_network_weighs_as_much_as_it_follows_the_lips(correlation: float, share: float) -> None:
    assert share_of(correlation) == pytest.approx(share, abs=1e-9)
    assert correlation < 0.5 or share_of(correlation) == 0.5, "a plain mean, bit for bit"


def test_the_ensemble_of_a_run_weighs_its_members(tmp_path: Path) -> None:
    samples, opening = voice_and_mouth(frames=200)
    motion, new = track_of(opening), samples[:32000]
    personal = replace(quick(motion, samples, speech_encoder("mel")), voice_db=None)
    shared = some_prior().person(motion, FPS)
    shared.save(tmp_path / SHARED)
    shared = SharedSpeech.load(tmp_path / SHARED)
    mine, general = (motion_of(member, new).face for member in (personal, shared))
    for share in (0.5, 0.2):
        replace(personal, share=share).save(tmp_path / PERSONAL)
        network = load_speech(tmp_path, FPS)
        assert isinstance(network, Ensemble)
        spoken = motion_of(network, new).face
        torch.testing.assert_close(spoken, share * mine + (1 - share) * general, atol=1e-5, rtol=0)
        if share == 0.5:
            assert torch.equal(spoken, motion_of(Ensemble([personal, shared]), new).face)


@pytest.mark.parametrize(("rows", "closer", "taken"), [(300, 0.02, False), (300, 0.05, True), (400, 0.02, True)])
def test_few_seconds_correct_only_what_they_clearly_improve(rows: int, closer: float, taken: bool) -> None:
    """The error falls by 4 or by 10 percent, in 12 and in 16 seconds."""
    rng = np.random.default_rng(0)
    real = rng.standard_normal((rows, CHANNELS))
    expected = 0.7 * real + rng.standard_normal((rows, CHANNELS))
    fit = _Regression(np.ones((rows, 3)), real, expected)
    assert fit.is_better(expected + closer * (real - expected)) == taken
    assert not fit.is_better(expected), "no gain"
    assert not fit.is_better(np.zeros_like(real)), "less of an error, but the lips do not follow"
