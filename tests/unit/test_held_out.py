"""What is held out changes nothing that is learnt: everything after the training part is replaced, nothing differs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from safetensors import safe_open

from avatar.audio2motion import personal_training
from avatar.audio2motion.load import PERSONAL, SHARED, STREAMING
from avatar.data import PersonDataset
from avatar.headmotion.generator import training_track
from avatar.io.audio import SAMPLE_RATE, load_audio, write_wav
from avatar.motion import Motion
from avatar.train.run import save_tracking
from avatar.train.speech import train_speech
from avatar.train.trainer import Trainer
from tests.person import make_person, person_info, small_config
from tests.swaying import swaying
from tests.unit.test_personal import FPS
from tests.unit.test_personal import person as speaking_person
from tests.unit.test_prior import some_prior

FRAMES, TEST_START, LATE = 400, 360, 3.0  # of test_personal's person; the sound is late by three


def other_motion(motion: Motion, first: int) -> Motion:
    """A track that is another from a frame on, and just as plausible."""
    order = torch.cat([torch.arange(first), torch.arange(len(motion) - 1, first - 1, -1)])
    after = (torch.arange(len(motion)) >= first)[:, None]
    return motion[order].map(face=motion.face[order] * torch.where(after, 1.7, 1.0))


def other_sound(path: Path, seconds: float) -> None:
    """Loud noise from a moment on."""
    samples = load_audio(path)
    first = round(seconds * SAMPLE_RATE)
    samples[first:] = 0.5 * np.random.default_rng(9).standard_normal(len(samples) - first)
    write_wav(path, samples)


# --- lips -----------------------------------------------------------------------------------------------------------


def content(path: Path) -> dict[str, Any]:
    """Numbers and metadata of a safetensors file; their order in it is not fixed."""
    with safe_open(str(path), "np") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118 (not a mapping)
        return tensors | dict(file.metadata())


def speech_files(folder: Path, first_other: int | None) -> dict[str, dict[str, Any]]:
    """What `avatar train` learns to speak with, of a person who is another from a frame on."""

    def change(motion: Motion) -> Motion:
        return motion if first_other is None else other_motion(motion, first_other)

    person = speaking_person(folder / "person", change, FRAMES)
    audio = person / "ingest" / "audio.wav"
    info = person_info(fps=FPS, num_frames=FRAMES, test_start=TEST_START, audio_delay_s=LATE / FPS)
    info.write(person / "person.json")
    if first_other is not None:
        other_sound(audio, (first_other + LATE) / FPS)
    data: Any = SimpleNamespace(folder=person, audio_path=audio, info=info,
                                test_start=TEST_START, fps=FPS)  # fmt: skip
    run = folder / "run"
    run.mkdir()
    train_speech(data, run, some_prior(), encoder="mel", seed=0, keep=False)
    return {name: content(run / name) for name in (PERSONAL, SHARED, STREAMING)}


def test_no_lips_hear_or_see_what_is_held_out(tmp_path: Path, monkeypatch) -> None:
    quick = functools.partial(personal_training.train_personal, steps=2, progress=lambda done, total: None)
    monkeypatch.setattr(personal_training, "train_personal", quick)
    files = speech_files(tmp_path / "a", None)
    held_out_differs = speech_files(tmp_path / "b", TEST_START)
    assert [name for name in files if files[name] != held_out_differs[name]] == []
    trained_differs = speech_files(tmp_path / "c", TEST_START - 3)  # the test itself
    assert [name for name in files if files[name] == trained_differs[name]] == []


def test_generated_motion_hears_nothing_of_what_is_held_out() -> None:
    track, sound = swaying(20.0)
    motion = track[:400]

    def heard(first: float) -> torch.Tensor:
        changed = sound.copy()
        changed[round(first * SAMPLE_RATE) :] = 0.9
        return training_track(motion, [(0, 400)], changed, 2 / 25)[2]

    whole = training_track(motion, [(0, 400)], sound, 2 / 25)[2]
    assert torch.equal(heard(402 / 25), whole)
    assert not torch.equal(heard(399 / 25), whole)  # the test itself


# --- pictures -------------------------------------------------------------------------------------------------------


def other_frames(folder: Path, first: int) -> None:
    """Noise in the place of pictures and masks, and another track, from a frame on."""
    rng = np.random.default_rng(3)
    for name in ("landmarks", "blendshapes"):
        values = np.load(folder / "track" / f"{name}.npy")
        values[first:] = values[first:] * 0.8 + 3 * rng.random(values[first:].shape)
        np.save(folder / "track" / f"{name}.npy", values)
    motion = Motion.load(folder / "motion.safetensors")
    other = other_motion(motion, first)
    after = (torch.arange(len(motion)) >= first)[:, None]
    other = other.map(head_translation=other.head_translation + 4.0 * after, gaze=other.gaze + 0.2 * after)
    other.save(folder / "motion.safetensors")
    for path in [*(folder / "ingest/frames").iterdir(), *(folder / "parse/masks").iterdir()]:
        if int(path.stem) >= first:
            image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(path), rng.integers(0, 255, image.shape, dtype=np.uint8))


def trained(folder: Path, change: Callable[[Path], None]) -> dict[str, torch.Tensor]:
    person = make_person(folder / "person")
    change(person)
    data = PersonDataset(person)
    trainer = Trainer(data, small_config(person, folder / "run", steps=6))
    trainer.run(folder / "run")
    return {name: value.clone() for name, value in trainer.state().items()}


def test_no_picture_or_pose_that_is_held_out_reaches_the_avatar(tmp_path: Path) -> None:
    first = PersonDataset(make_person(tmp_path / "p")).test_start
    plain = trained(tmp_path / "a", lambda folder: None)
    changed = trained(tmp_path / "b", lambda folder: other_frames(folder, first))
    assert [name for name in plain if not torch.equal(plain[name], changed[name])] == []
    all_differ = trained(tmp_path / "c", lambda folder: other_frames(folder, 0))  # the test itself
    assert not torch.equal(plain["model.gaussians.means"], all_differ["model.gaussians.means"])


def test_the_motion_that_a_run_speaks_with_ends_with_the_training_part(tmp_path: Path) -> None:
    data = PersonDataset(make_person(tmp_path / "person"))
    trainer = Trainer(data, small_config(data.folder, tmp_path / "run", steps=1))
    save_tracking(trainer, tmp_path / "run")
    assert len(Motion.load(tmp_path / "run" / "motion.safetensors")) == data.test_start
    assert len(Motion.load(tmp_path / "run" / "tracking.safetensors")) == data.num_frames
