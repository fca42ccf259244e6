"""`avatar bake`: a student learns from a teacher's images alone, speaks as it does, and is an ordinary run."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar.cli.main import main
from avatar.data.run import FILES, HEADMOTION, MODEL, TEACHER, TRACKING, TRAINING, RunInfo, open_person
from avatar.data.yaw import KEY, HeldOutYaw
from avatar.errors import AvatarError
from avatar.infer.avatar import Avatar
from avatar.infer.view_cone import ViewCone
from avatar.io.checkpoint import load_tensors
from avatar.motion import Motion
from avatar.paths import file_sha256
from avatar.train import run as training
from avatar.train.config import TrainConfig
from avatar.train.teacher import IMAGES, Teacher
from avatar.train.trainer import Trainer
from tests.nerf import nerf_config
from tests.person import make_person, small_config, train


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_person(tmp_path_factory.mktemp("made") / "person", frames=20)


@pytest.fixture(scope="module")
def teacher(person: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A radiance field of a few steps; what only has to be copied holds a word."""
    folder = tmp_path_factory.mktemp("teacher") / "field"
    train(nerf_config(person, folder, 2))
    (folder / TRAINING).write_text("{}")
    (folder / HEADMOTION).write_text("nods")
    return folder


@pytest.fixture(scope="module")
def unfilmed(person: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same person, whose film is gone: whoever reads a frame of it fails."""
    folder = tmp_path_factory.mktemp("unfilmed") / "person"
    shutil.copytree(person, folder)
    shutil.rmtree(folder / "ingest" / "frames")
    return folder


def student_config(person: Path, out: Path, teacher: Path, steps: int = 2) -> TrainConfig:
    return replace(small_config(person, out, steps), teacher=teacher)


@pytest.fixture(scope="module")
def student(unfilmed: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gaussians of two steps."""
    folder = tmp_path_factory.mktemp("student") / "student"
    training.train(student_config(unfilmed, folder, teacher))
    return folder


def test_two_steps_make_an_ordinary_run_without_a_frame_of_the_film(student, teacher, person):
    info = RunInfo.read(student)
    assert info.finished and info.method == "gaussian" and info.teacher == teacher
    about = {"run": str(teacher), "method": "nerf", "sha256": file_sha256(teacher / MODEL)}
    assert json.loads((student / TEACHER).read_text()) == about == info.training()["teacher"]
    assert (student / HEADMOTION).read_text() == "nods"
    assert {path.name for path in student.iterdir()} <= {*FILES, "checkpoints", "log", "previews"}  # images are gone
    avatar = Avatar.load(student)
    data = open_person(student, person)
    assert avatar.info["method"] == "gaussian"
    assert avatar.render(data.camera, data.motion, 3).shape == (data.height, data.width, 3)


def test_poses_are_those_that_the_teachers_training_corrected(student, teacher, person):
    filmed, corrected, own = (Motion.load(p) for p in (person / "motion.safetensors", teacher / TRACKING,
                                                       student / TRACKING))  # fmt: skip
    assert not torch.equal(corrected.head_translation, filmed.head_translation)
    assert torch.equal(own.head_translation, corrected.head_translation)
    assert torch.equal(own.head_rotation, corrected.head_rotation)


def test_images_are_the_teachers_at_its_poses_each_drawn_once(teacher, unfilmed, tmp_path):
    shown = Avatar.load(teacher)
    data = Teacher.load(teacher, "gaussian", "cpu").person(unfilmed, tmp_path)
    poses = Motion.load(teacher / TRACKING)
    expected = shown.render(shown.camera, poses, 4, torch.from_numpy(data.background(4))).numpy()
    assert np.array_equal(data.image(4), expected) and expected.std() > 5
    data.teacher = None  # pyright: ignore[reportAttributeAccessIssue]  # nobody is there to draw it again
    assert np.array_equal(data.image(4), expected)


def test_frames_that_the_teacher_never_saw_are_not_taught(teacher, unfilmed, tmp_path):
    run = tmp_path / "field"
    shutil.copytree(teacher, run)
    held_out = HeldOutYaw(share=0.1, turned=(2, 7), frontal=(4,), yaw=(-20.0, 20.0, 0.0))
    (run / TRAINING).write_text(json.dumps({KEY: held_out.to_json()}))
    taught = Teacher.load(run, "gaussian", "cpu")
    data = taught.person(unfilmed, tmp_path / "student")
    assert taught.held_out(data) == held_out and {2, 4, 7}.isdisjoint(data.train_frames) and 3 in data.train_frames


def test_a_training_that_was_killed_goes_on_to_the_same_end(unfilmed, teacher, student, tmp_path, monkeypatch):
    config = replace(student_config(unfilmed, tmp_path / "run", teacher), save_every=1)
    save = Trainer.save

    def killed(self, folder):
        save(self, folder)
        raise RuntimeError("killed")

    monkeypatch.setattr("avatar.infer.view_measure.measure_cone", lambda *_: ViewCone.unknown())
    monkeypatch.setattr(Trainer, "save", killed)
    with pytest.raises(RuntimeError, match="killed"):
        training.train(config)
    monkeypatch.undo()
    assert len(list((config.out / IMAGES).iterdir())) >= 2
    training.train(replace(config, resume=True))
    one, other = (load_tensors(folder / MODEL)[0] for folder in (student, config.out))
    assert one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_a_bake_that_was_killed_at_once_can_be_given_again(unfilmed, teacher, tmp_path, monkeypatch):
    """A folder with nothing but the teacher's name would be no run, and neither empty nor to be resumed."""
    config = student_config(unfilmed, tmp_path / "run", teacher)

    def killed(*_):
        raise RuntimeError("killed")

    for called in ("avatar.train.trainer.Trainer", "avatar.train.teacher.remember"):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
            patch.setattr(called, killed)
            training.train(config)
        config = replace(config, resume=True)
        assert training.open_run(config) == config.out  # it begins anew


def test_a_resumed_training_keeps_its_teacher(person, teacher, student, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "load_prior", lambda _: None)
    run, changed = tmp_path / "run", tmp_path / "changed"
    shutil.copytree(student, run)
    shutil.copytree(teacher, changed)
    model = bytearray((changed / MODEL).read_bytes())
    model[-1] ^= 1  # trained again
    (changed / MODEL).write_bytes(model)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    for other in (changed, None):
        config = replace(small_config(person, run, 2), teacher=other, resume=True)
        with pytest.raises(AvatarError, match=f"learns from {teacher} as it was then"):
            training.train(config)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_comes_from_the_teacher_is_no_option(unfilmed, teacher, tmp_path):
    config = replace(student_config(unfilmed, tmp_path / "run", teacher), hold_out_yaw=0.1)
    with pytest.raises(AvatarError, match="--hold-out-yaw cannot be given with --teacher"):
        training.train(config)


def refused(arguments: list[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["bake", *map(str, arguments)]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "Traceback" not in shown
    return shown


def test_what_cannot_be_baked_is_one_sentence(person, teacher, student, tmp_path, capsys):
    out, gaussian, unfinished, other = (tmp_path / name for name in ("out", "gaussian", "unfinished", "other"))
    train(small_config(person, gaussian, 1))
    (gaussian / TRAINING).write_text("{}")
    shutil.copytree(teacher, unfinished)
    (unfinished / TRAINING).unlink()
    make_person(other, frames=24)
    to = ["--out", out]
    assert "There is no run folder" in refused([tmp_path / "nobody", *to], capsys)
    assert "is a PERSON folder" in refused([person, *to], capsys)
    assert "is a run of the method gaussian already" in refused([gaussian, *to], capsys)
    assert f"learned from {teacher} itself" in refused([student, "--person", person, *to], capsys)
    assert "has not finished" in refused([unfinished, *to], capsys)
    assert "--to meshes is not known. Choose one of gaussians" in refused([teacher, "--to", "meshes", *to], capsys)
    assert "--quality best is not known" in refused([teacher, "--quality", "best", *to], capsys)
    assert "was not trained on" in refused([teacher, "--person", other, *to], capsys)
    assert "is not a prepared person" in refused([teacher, "--person", tmp_path / "gone", *to], capsys)
    assert not out.exists()


def test_a_folder_that_is_there_is_left_alone(teacher, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    assert "already holds a run or other files" in refused([teacher, "--out", out], capsys)
    assert "already holds a run" in refused([teacher, "--out", teacher], capsys)
    assert f"The teacher {teacher} lies in {teacher}" in refused([teacher, "--out", teacher, "--overwrite"], capsys)
    assert [path.name for path in out.iterdir()] == ["letter.txt"] and (teacher / MODEL).is_file()


def test_a_person_who_is_gone_is_asked_for(teacher, tmp_path, capsys):
    moved = tmp_path / "moved" / "field"
    shutil.copytree(teacher, moved)
    config = (moved / "config.toml").read_text()
    person = RunInfo.read(moved).person
    (moved / "config.toml").write_text(config.replace(str(person), str(tmp_path / "gone")))
    assert "is not at" in (shown := refused([moved, "--out", tmp_path / "out"], capsys)) and "--person" in shown
