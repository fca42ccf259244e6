"""`avatar demo` goes on where it was, and mixes nothing into a folder of another demo."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
import torch

from avatar.cli.main import main
from avatar.eval.options import EvalOptions
from avatar.infer.avatar import Avatar
from tests.fake_avatar import SIZE, FakeAvatar


class SpeakingAvatar(FakeAvatar):
    """Shows grey frames while it speaks."""

    def speak(self, audio: Path):
        for _ in range(5):
            yield torch.full((SIZE, SIZE, 3), 90, dtype=torch.uint8)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What is filmed and what is trained, instead of doing so."""
    calls: list[tuple] = []

    def film(folder: Path, *options: object, seed: int, quiet: bool) -> None:
        calls.append(("film", *options, seed))
        for name in ("video.mp4", "truth.json"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()

    def create(video, prepare, train, evaluate) -> None:
        assert evaluate is None  # measuring can wait until there is something to look at
        calls.append(("create", video.name, train.quality, train.out.name, train.person.name))

    def evaluate(run: Path, options: EvalOptions) -> tuple[str, str]:
        assert (run.parent / "new.mp4").is_file()
        calls.append(("evaluate", run.name, options.frames))
        return "numbers", "page"

    monkeypatch.setattr("avatar.eval.run.evaluate", evaluate)
    monkeypatch.setattr("avatar.eval.report.show", lambda *shown: calls.append(("show", *shown)))
    monkeypatch.setattr("avatar.synth.make.make_subject", film)
    monkeypatch.setattr("avatar.create.create", create)
    monkeypatch.setattr(Avatar, "load", lambda run: SpeakingAvatar(run))
    return calls


def test_a_demo_is_made_goes_on_and_stays_apart(made: list[tuple], tmp_path: Path, capsys) -> None:
    out = tmp_path / "demo"
    command = ["demo", "--out", str(out), "--size", "96", "--seconds", "6", "--say", "Hello."]
    assert main(command) == 0
    created = ("create", "video.mp4", "draft", "run", "run.person")
    measured = [("evaluate", "run", 150), ("show", "numbers", "page")]
    assert made == [("film", 6.0, 96, 0), created, *measured]
    with av.open(str(out / "new.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == 5 and len(video.streams.audio) == 1
    assert main(command) == 0  # nothing is filmed twice; what `create` has finished is its own affair
    assert made[4:] == [created, *measured]
    before = json.loads((out / "demo.json").read_text())
    assert main([*command, "--seed", "3"]) == 2 and len(made) == 7
    assert "other settings" in " ".join(capsys.readouterr().err.split())
    assert json.loads((out / "demo.json").read_text()) == before


def test_a_video_that_is_too_short_is_refused_before_anything_is_kept(
    made: list[tuple], tmp_path: Path, capsys
) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo"), "--seconds", "4"]) == 2
    assert "--seconds 4 is too short" in " ".join(capsys.readouterr().err.split())
    assert made == [] and not (tmp_path / "demo").exists()


def test_a_text_with_nothing_to_say_is_refused_before_anything_is_filmed(
    made: list[tuple], tmp_path: Path, capsys
) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo"), "--say", "..."]) == 2
    assert "nothing to say" in " ".join(capsys.readouterr().err.split()) and made == []


def test_a_demo_takes_no_folder_of_the_users(made: list[tuple], tmp_path: Path, capsys) -> None:
    (tmp_path / "photo.jpg").touch()
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "is not empty" in " ".join(capsys.readouterr().err.split()) and made == []
