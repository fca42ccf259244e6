"""Speech networks of a face that is covered at times, tracked in snatches, or filmed with audio that ends early."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from avatar.audio.encoders.registry import speech_encoder
from avatar.audio2motion import personal_training
from avatar.audio2motion.base import motion_of
from avatar.audio2motion.load import PERSONAL, SHARED, STREAMING, load_speech, networks_of
from avatar.audio2motion.personal import PersonalSpeech
from avatar.audio2motion.personal_training import TooLittleFace, train_personal
from avatar.data.person import PersonFolder
from avatar.motion import Motion
from avatar.train import speech
from avatar.train.speech import train_speech
from tests.person import person_info
from tests.unit.test_personal import FPS, opening_of, track_of, voice_and_mouth
from tests.unit.test_personal import person as speaking_person
from tests.unit.test_prior import some_prior

FRAMES, TEST_START = 400, 360


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked here needs no good network, unless a test says how many steps."""

    def quick(*given: Any, steps: int = 2, **options: Any) -> PersonalSpeech:
        return train_personal(*given, steps=steps, progress=lambda done, total: None, **options)

    monkeypatch.setattr(personal_training, "train_personal", quick)


def in_snatches(motion: Motion, on: int, off: int) -> Motion:
    """The face is tracked for so many frames, then lost for so many, and so on."""
    return motion.map(valid=torch.arange(len(motion)) % (on + off) < on)


def trained(folder: Path, change: Callable[[Motion], Motion], prior: Any = None, covered: slice = slice(0)) -> Path:
    """A RUN folder with what speaks for somebody whose track is changed; a hand is before the mouth while ``covered``.

    The stages that track the face call such frames valid; only the PERSON folder's own motion does not.
    """
    person = speaking_person(folder / "person", change, FRAMES)
    own = Motion.load(person / "motion.safetensors")
    own.valid[covered] = False
    own.save(person / "motion.safetensors")
    info = person_info(fps=FPS, num_frames=FRAMES, test_start=TEST_START)
    audio = person / "ingest" / "audio.wav"
    data: Any = SimpleNamespace(folder=person, audio_path=audio, info=info, test_start=TEST_START, fps=FPS)
    (folder / "run").mkdir()
    train_speech(data, folder / "run", prior, encoder="mel", seed=0, keep=False)
    return folder / "run"


def test_what_is_guessed_behind_a_hand_teaches_nothing(tmp_path: Path) -> None:
    def files(name: str, guess: float, covered: slice) -> dict[str, dict[str, torch.Tensor]]:
        def guessed(motion: Motion) -> Motion:
            face = motion.face.clone()
            face[110:130] += guess
            return motion.map(face=face)

        run = trained(tmp_path / name, guessed, some_prior(), covered)
        return {file: load_file(run / file) for file in (PERSONAL, SHARED, STREAMING)}

    right, wrong = (files(name, guess, slice(80, 160)) for name, guess in (("a", 0.0), ("b", 0.2)))
    seen = files("c", 0.2, slice(0))  # the test itself
    for file, tensors in right.items():
        assert [name for name in tensors if not torch.equal(tensors[name], wrong[file][name])] == []
        assert any(not torch.equal(tensors[name], seen[file][name]) for name in tensors)


@pytest.mark.parametrize(("frames", "on", "off", "steps"), [(117, 117, 0, 200), (1000, 60, 15, 60)])
def test_short_and_patchy_tracks_teach_every_member(frames: int, on: int, off: int, steps: int) -> None:
    voice, opening = voice_and_mouth(frames=frames)
    motion = in_snatches(track_of(opening), on, off)
    speech = personal_training.train_personal(motion, voice, speech_encoder("mel"), steps=steps)
    heard, real = voice_and_mouth(seed=7, frames=500)
    for member in speech.members:
        speech.members = [member]
        said = opening_of(motion_of(speech, heard))
        assert np.cov(said, real)[0, 1] > 0.3 * real.var()


def test_a_member_that_would_hear_noise_alone_is_left_out() -> None:
    """The face is seen in the first and the last fifth; without the last, snatches are left, and so on."""
    voice, opening = voice_and_mouth(frames=FRAMES)
    frames = torch.arange(FRAMES)
    motion = track_of(opening).map(valid=(frames < 80) | ((frames >= 320) & (frames % 4 < 2)))
    speech = personal_training.train_personal(motion, voice, speech_encoder("mel"))
    assert len(speech.members) == personal_training.MEMBERS - 1  # without the first fifth, nothing is whole
    assert all(bool(torch.isfinite(getattr(speech, name)).all()) for name in ("gain", "rest", "output_std"))


def test_a_face_in_snatches_leaves_the_lips_to_the_prior(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path / "a", lambda motion: in_snatches(motion, 3, 3), some_prior())
    assert "shared by all people will drive" in capsys.readouterr().err
    assert networks_of(run) == "shared" and len(motion_of(load_speech(run, FPS), voice_and_mouth()[0][:32000])) == 50
    with pytest.raises(TooLittleFace, match="snatches"):
        trained(tmp_path / "b", lambda motion: in_snatches(motion, 3, 3))


@pytest.mark.parametrize("delay", [0.0, 0.4])
def test_frames_without_audio_teach_no_lips(delay: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The video has audio from 2 to 10 s, which comes ``delay`` late."""
    folder = speaking_person(tmp_path / "person", frames=FRAMES)
    data: Any = SimpleNamespace(folder=folder, info=person_info(num_frames=FRAMES, audio_delay_s=delay))
    assert bool(speech._tracked_motion(data).valid.all()), "nothing is said of its audio"
    monkeypatch.setattr(PersonFolder, "is_finished", lambda *_: True)
    monkeypatch.setattr(PersonFolder, "result", lambda *_: SimpleNamespace(audio_span=[2.0, 10.0]))
    seen = speech._tracked_motion(data).valid.nonzero()[:, 0]
    assert (int(seen[0]), int(seen[-1])) == (50 - round(delay * FPS), 249 - round(delay * FPS))
    assert len(seen) == 200


@pytest.mark.parametrize("missing", [0.9, 4.0])
@pytest.mark.parametrize("seed", range(3))
def test_audio_that_ends_before_the_video_teaches_as_well(missing: float, seed: int) -> None:
    """It is early by so many seconds, or was cut off."""
    voice, opening = voice_and_mouth()
    track = track_of(opening)
    for sound, delay in ((voice[round(missing * 16000) :], -missing), (voice[: -round(missing * 16000)], 0.0)):
        material = personal_training._Material.of(track, sound, speech_encoder("mel"), delay, seed)
        assert all(bool(np.isfinite(copy.inputs).all()) for copy in material.copies)
