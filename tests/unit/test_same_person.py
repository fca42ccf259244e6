"""A training goes on only with the person that it began with, wherever the PERSON folder lies now."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avatar.data import PersonDataset
from avatar.data.person import FILE, MOTION, PersonInfo
from avatar.data.run import CHECKPOINT
from avatar.errors import AvatarError
from avatar.io.checkpoint import load_tensors, save_tensors
from avatar.motion import Motion
from avatar.train import run as training
from avatar.train.config import TrainConfig
from avatar.train.same_person import refuse_other_person
from tests.person import make_person, small_config, train


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """A run of one person."""
    folder = tmp_path_factory.mktemp("made")
    config = small_config(make_person(folder / "person", frames=20), folder / "run", steps=1)
    train(config)
    return config


@pytest.fixture
def person(made: TrainConfig, tmp_path: Path) -> Path:
    """A copy of the person, which may be changed."""
    return Path(shutil.copytree(made.person, tmp_path / "person"))


def changed(person: Path, **fields: Any) -> PersonDataset:
    replace(PersonInfo.read(person / FILE), **fields).write(person / FILE)
    return PersonDataset(person)


def test_the_avatar_of_somebody_else_stays_as_it_is(made: TrainConfig, tmp_path: Path, monkeypatch) -> None:
    other = make_person(tmp_path / "other", frames=30)
    monkeypatch.setattr(training, "load_prior", lambda path: None)
    before = {path: path.read_bytes() for path in made.out.rglob("*") if path.is_file()}
    with pytest.raises(AvatarError, match=r"was not trained on .*other as it is now"):
        training.train(replace(made, person=other, resume=True))
    assert {path: path.read_bytes() for path in made.out.rglob("*") if path.is_file()} == before


def test_a_moved_person_is_the_same(made: TrainConfig, person: Path) -> None:
    refuse_other_person(made.out, PersonDataset(person))
    refuse_other_person(made.out, changed(person, audio_delay_s=0.2, source="/elsewhere/video.mp4"))


@pytest.mark.parametrize("fields", [{"test_start": 15}, {"crop": (8, 0, 96, 96)}])
def test_another_preparation_is_refused(made: TrainConfig, person: Path, fields: dict[str, Any]) -> None:
    with pytest.raises(AvatarError, match=f"the {next(iter(fields))} differs"):
        refuse_other_person(made.out, changed(person, **fields))


def test_another_tracking_is_refused(made: TrainConfig, person: Path, tmp_path: Path) -> None:
    motion = Motion.load(person / MOTION)
    motion.head_rotation[3, 0] += 1e-4
    motion.save(person / MOTION)
    with pytest.raises(AvatarError, match="the motion differs"):
        refuse_other_person(made.out, PersonDataset(person))

    old = Path(shutil.copytree(made.out, tmp_path / "old"))  # of a version that kept no hash
    tensors, meta = load_tensors(old / CHECKPOINT)
    del meta["motion"]
    save_tensors(old / CHECKPOINT, tensors, meta)
    refuse_other_person(old, PersonDataset(person))
    with pytest.raises(AvatarError, match="the test_start differs"):
        refuse_other_person(old, changed(person, test_start=15))
