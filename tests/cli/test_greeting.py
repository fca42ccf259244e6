"""`avatar` without a command offers what to do next in the current folder, quickly, whatever lies there."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tomli_w

from avatar.cli import greeting, train
from avatar.cli.main import COMMANDS, main, read_options
from avatar.data import PersonDataset, bundle, person, run
from avatar.data.photo import KIND
from avatar.methods import options
from avatar.paths import read_json, write_json
from avatar.provenance.source_type import TRAINED, write_source_type

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str]) -> str:
    assert main([]) == 0
    return capsys.readouterr().out


def make_run(path: Path, *, finished: bool, **more: str) -> None:
    path.mkdir(parents=True)
    config = {"format": run.FORMAT, "method": "gaussian", "quality": "draft"} | more
    (path / run.CONFIG).write_text(tomli_w.dumps(config))
    (path / person.FILE).write_text(json.dumps({"format": person.FORMAT}))
    if finished:
        (path / run.TRAINING).write_text("{}")


def make_prepared(path: Path, *, finished: bool, source: str) -> None:
    path.mkdir(parents=True)
    (path / person.MARKER).write_text(json.dumps({"format": greeting.MARKER_FORMAT, "source": source}))
    if finished:
        (path / person.FILE).write_text(json.dumps({"format": person.FORMAT, "source": source}))


def test_names_are_those_of_the_package() -> None:
    assert (greeting.PERSON, greeting.PERSON_FORMAT, greeting.MARKER) == (person.FILE, person.FORMAT, person.MARKER)
    assert (greeting.CONFIG, greeting.RUN_FORMAT, greeting.TRAINING) == (run.CONFIG, run.FORMAT, run.TRAINING)
    assert f'"{greeting.MARKER_FORMAT}"' in (ROOT / "avatar/preprocess/pipeline.py").read_text()
    assert (greeting.PERSON_SUFFIX, greeting.BUNDLE) == (run.PERSON_SUFFIX, bundle.SUFFIX)
    assert greeting.PHOTO == KIND == options.PHOTO


def test_an_empty_folder_gets_first_steps(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = said(capsys)
    assert "avatar demo --out demo" in shown and "avatar create VIDEO --out runs/me" in shown
    assert len(shown.splitlines()) < 12 and max(map(len, shown.splitlines())) <= 80


def test_each_thing_gets_its_next_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "me.mp4").write_bytes(b"video")
    (here / "made.mov").write_bytes(b"video")
    (here / "hello.wav").write_bytes(b"audio")
    (here / "ann.avatar").write_bytes(b"bundle")
    make_run(here / "runs/eve", finished=True, person="runs/eve.person")
    make_run(here / "runs/bob", finished=False, person="people/bob")
    make_prepared(here / "runs/eve.person", finished=True, source=str(here / "made.mov"))
    make_prepared(here / "people/kim", finished=True, source="elsewhere.mp4")
    make_prepared(here / "runs/lee.person", finished=False, source="lee film.mp4")
    shown = said(capsys)
    for command in (
        "avatar render runs/eve --audio hello.wav --out runs/eve/speech.mp4", "avatar view runs/eve",
        "avatar train people/bob --out runs/bob --config runs/bob/config.toml --resume",
        "avatar render ann.avatar --audio hello.wav --out ann.mp4", "avatar train people/kim --out people/kim-run",
        "avatar create 'lee film.mp4' --out runs/lee", "avatar create me.mp4 --out runs/me",
    ):  # fmt: skip
        assert f"    {command}\n" in shown, (command, shown)
    assert "made.mov" not in shown and "eve.person" not in shown  # an avatar was made of both


def test_what_is_offered_does_not_write_over_the_video_of_the_person(here: Path, capsys) -> None:
    (here / "me.avatar").write_bytes(b"bundle")
    (here / "me.mp4").write_bytes(b"video")
    (here / "me-2.mp4").write_bytes(b"video")
    assert "avatar render me.avatar --audio SPEECH.wav --out me-3.mp4\n" in said(capsys)


def test_every_command_that_is_offered_exists(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import importlib

    test_each_thing_gets_its_next_command(here, capsys)
    offered = [line.strip() for one in greeting.suggestions(greeting.look(here)) for line in one.commands]
    for command in offered:
        name, *rest = shlex.split(command)[1:]
        read_options(importlib.import_module(COMMANDS[name][0]), name, rest)
    assert len(offered) >= 7


def test_of_a_prepared_photo_a_training_is_offered_that_takes_photos(here: Path) -> None:
    from avatar.train import photo
    from tests.person import make_person

    info = read_json(make_person(here / "ann", frames=2) / "person.json")
    write_json(here / "ann/person.json", info | {"kind": KIND, "photo": {"sha256": "0" * 64}})
    ((offered,),) = [one.commands for one in greeting.suggestions(greeting.look(Path()))]
    photo.require_kind(PersonDataset(here / "ann"), read_options(train, "train", shlex.split(offered)[2:]))


def test_a_resume_that_is_offered_keeps_all_options(here: Path) -> None:
    from avatar.train.run import describe
    from tests.person import make_person, small_config

    folder = make_person(here / "ann", frames=12)
    (here / "run").mkdir()
    config = dataclasses.replace(
        small_config(Path("ann"), Path("run"), steps=9), seed=3, prior=Path("my prior.safetensors"), quality="draft"
    )
    describe(here / "run", config, PersonDataset(folder))
    (offered,) = [line for one in greeting.suggestions(greeting.look(Path())) for line in one.commands if "run" in line]
    name, *rest = shlex.split(offered)[1:]
    given = read_options(train, name, rest)
    assert given == dataclasses.replace(config, config=Path("run/config.toml"), resume=True)


def test_names_are_words_of_a_command_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "my film's.mp4").write_bytes(b"video")
    (here / "-take.mp4").write_bytes(b"video")
    (here / "evil\x1b[31m.mp4").write_bytes(b"video")
    (here / os.fsdecode(b"\xff.mp4")).write_bytes(b"video")
    (here / "runs").mkdir()
    (here / "runs/-take").mkdir()
    make_run(here / "mine", finished=False, person="a\n    avatar rm -rf", quality="\x1b[2J")
    shown = said(capsys)
    commands = [shlex.split(line) for line in shown.splitlines() if line.startswith("    avatar")]
    assert ["avatar", "create", "my film's.mp4", "--out", "runs/my film's"] in commands
    assert ["avatar", "create", "./-take.mp4", "--out", "runs/-take-2"] in commands
    assert "\x1b" not in shown and "evil" not in shown and "rm -rf" not in shown and "avatar train PERSON" in shown


def test_rendered_videos_are_no_people(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "speech.mp4").write_bytes(b"\0\0\0\x08ftyp")
    write_source_type(here / "speech.mp4", TRAINED)
    assert "speech.mp4" not in said(capsys)


def test_broken_things_do_no_harm(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in {"a": "{", "b": "[1]", "c": "[" * 100_000, "d": '{"format": 3}', "e": "\0"}.items():
        for folder, file in (("p", person.FILE), ("r", run.CONFIG), ("m", person.MARKER)):
            (here / f"{folder}{name}").mkdir()
            (here / f"{folder}{name}" / file).write_text(text)
    (here / "large").mkdir()
    with open(here / "large" / person.FILE, "wb") as file:
        file.truncate(1 << 33)
    (here / "bytes").mkdir()
    (here / "bytes" / run.CONFIG).write_bytes(b"\xff\xfe\xff")
    (here / "closed").mkdir(mode=0)
    os.symlink("loop.mp4", here / "loop.mp4")
    os.symlink(here, here / "again")
    os.mkfifo(here / "pipe.mp4")
    (here / "none.mp4").touch()
    (here / "box.mp4").write_bytes(b"\0\0\0\0moov")
    shown = said(capsys)
    assert "avatar create box.mp4" in shown and shown.count("    avatar ") == 1
    (here / "closed").chmod(0o700)


def test_a_folder_that_is_gone_is_an_empty_one(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "gone").mkdir()
    os.chdir(here / "gone")
    (here / "gone").rmdir()
    assert "avatar demo" in said(capsys)


def test_of_many_things_a_few_are_shown(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(greeting.MOST_ENTRIES + 50):
        (here / f"{i}.mp4").write_bytes(b"x")
    shown = said(capsys)
    assert shown.count("    avatar create") == greeting.MOST_SHOWN and "There is more in this folder." in shown
    assert greeting.look(here).more


def test_it_loads_next_to_nothing(here: Path) -> None:
    """Processor time is what loading costs; a list of what must not be loaded is the same on every machine."""
    (here / "me.mp4").write_bytes(b"video")
    heavy = ("torch", "numpy", "rich", "tyro", "av", "cv2", "scipy")
    code = f"import sys; from avatar.cli.main import main; main([]); sys.exit(any(m in sys.modules for m in {heavy}))"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    (here / "größe.mp4").write_bytes(b"video")
    result = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, env=environment)
    assert result.returncode == 0 and "avatar create me.mp4 --out runs/me" in result.stdout, result.stderr
