"""Whose a RUN folder is: where its person lies now, and that `create` does not take it for somebody else's."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from avatar.cli import greeting
from avatar.cli.main import main
from avatar.create import create
from avatar.data import PersonDataset, consent
from avatar.data.run import TRAINING, find_person
from avatar.errors import AvatarError
from avatar.preprocess import pipeline
from avatar.preprocess.config import PrepareConfig
from avatar.train.run import describe
from tests.person import make_person, small_config


def project(folder: Path, frames: int = 12, finished: bool = True) -> Path:
    """A project whose run remembers its person as seen from the project's folder."""
    person = make_person(folder / "runs/draft.person", frames=frames)
    run = folder / "runs/me"
    run.mkdir()
    config = dataclasses.replace(small_config(Path("runs/draft.person"), Path("runs/me")), quality="draft")
    describe(run, config, PersonDataset(person))
    if finished:
        (run / TRAINING).write_text("{}")
    return run


def test_the_person_of_a_run_is_not_that_of_another_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    anna, bob = project(tmp_path / "anna"), project(tmp_path / "bob", frames=20)
    monkeypatch.chdir(tmp_path / "bob")
    assert find_person(Path("../anna/runs/me")).samefile(anna.parent / "draft.person")
    assert find_person(Path("runs/me")).samefile(bob.parent / "draft.person")
    shutil.rmtree(anna.parent / "draft.person")
    shutil.rmtree(bob.parent / "draft.person")
    with pytest.raises(AvatarError, match="not at"):
        find_person(Path("runs/me"))


def test_a_resume_is_offered_with_the_person_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project(tmp_path, finished=False)
    monkeypatch.chdir(tmp_path / "runs")
    commands = [line for one in greeting.suggestions(greeting.look(Path())) for line in one.commands]
    assert any(line.startswith("avatar train draft.person --out me ") for line in commands), commands


def test_another_video_is_not_passed_off_as_a_run_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is Anna's and her PERSON folder was deleted to save space; then somebody else's video is given."""
    run, person = tmp_path / "me", tmp_path / "me.person"
    anna = make_person(tmp_path / "before/me.person", frames=12)
    run.mkdir()
    train = dataclasses.replace(small_config(person, run), quality="draft")
    describe(run, train, PersonDataset(anna))
    (run / TRAINING).write_text("{}")
    hers = consent.Consent(relation="authorised", name="Anna", given="2026-01-01", scope=("likeness",))
    hers.write(run)

    def prepare(video: Path, out: Path, *_: Any, **__: Any) -> None:
        make_person(out, frames=12 if video.name == "anna.mp4" else 40)

    monkeypatch.setattr(pipeline, "prepare", prepare)
    for name in ("anna.mp4", "bob.mp4"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(AvatarError, match="another video"):
        create(tmp_path / "bob.mp4", PrepareConfig(), train, None, consent.own())
    assert consent.of_folder(run) == hers
    shutil.rmtree(person)
    create(tmp_path / "anna.mp4", PrepareConfig(), train, None)
    assert consent.of_folder(run) == hers


def test_a_filming_that_was_interrupted_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["synth", "--seconds", "0.2", "--size", "96", "--voice", "buzz", "--text", "Mama.", "--out"]

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for out in (tmp_path / "s", tmp_path / "a.mp4"):
        with monkeypatch.context() as patch:
            patch.setattr("avatar.synth.make._write_video", interrupted)
            assert main([*command, str(out)]) == 130
        assert main([*command, str(out)]) == 0
    assert not list(tmp_path.rglob(".synth-begun"))
    other = tmp_path / "b.consent.json"
    other.write_text("Anna's")
    capsys.readouterr()
    assert main([*command, str(tmp_path / "b.mp4")]) == 2
    assert "b.consent.json is there already" in " ".join(capsys.readouterr().err.split())
    assert other.read_text() == "Anna's" and not (tmp_path / "b.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demo", "--out", "d", "--size", "8"], "image size of 8"),
        (["bake", "me.avatar", "--out", "x"], "Baking needs the RUN folder"),
        (["bench", "--full", "--sizes", "512"], "--full and --sizes exclude each other"),
        (["bench", "--no-run", "--docs", "d", "--json", "a.json"], "--json and --no-run exclude each other"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_kept(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me.avatar").write_bytes(b"PK")
    assert main(arguments) == 2
    assert says in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["me.avatar"]
