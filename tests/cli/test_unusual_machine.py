"""Terminals without a width, with few characters or that cannot draw, an early Ctrl-C, and outputs that cannot be."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from avatar import log
from avatar.cli import bench
from avatar.cli import main as command_line
from avatar.cli.consent import answered
from avatar.cli.errors import exit_code
from avatar.cli.main import main
from avatar.data.consent import FILE, Consent
from avatar.errors import AvatarError
from avatar.paths import write_json
from tests.person import person_info


@pytest.mark.parametrize("columns", ["0", "7"])
def test_a_terminal_without_a_width_shows_everything(columns: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr("avatar.assets.store.states", lambda: {"face_landmarker": "cached"})
    monkeypatch.setattr("avatar.assets.store.ASSETS", {})
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["assets"]) == 0
    assert "part" in capsys.readouterr().out


def test_characters_that_the_output_does_not_know_are_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    person_info().write(tmp_path / "person.json")
    write_json(tmp_path / FILE, Consent(relation="self", name="Änne", scope=("live",)).as_json())
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["consent", str(tmp_path)]) == 0
    assert "(\\xc4nne)" in written.getvalue().decode("ascii")


def test_a_terminal_that_cannot_draw_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    for term, kind in (("dumb", True), ("xterm", False)):
        screen = Console(file=io.StringIO(), force_terminal=True, _environ={"TERM": term})
        monkeypatch.setattr(log, "console", screen)
        with log.on_terminal():
            assert isinstance(log.progress(), log.LineProgress) is kind, term


def test_ctrl_c_before_a_command_begins_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def stop(*_: object) -> Any:
        raise KeyboardInterrupt

    assert exit_code(stop) == 130 and capsys.readouterr().err == "\nInterrupted.\n"
    monkeypatch.setattr(command_line.importlib, "import_module", stop)
    assert main(["doctor"]) == 130


def test_a_library_that_a_command_lacks_at_once_is_named(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def lacks(*_: object) -> Any:
        raise ImportError("libopenblas.so.0: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(command_line.importlib, "import_module", lacks)
    assert main(["render", "run"]) == 2
    assert "The library libopenblas.so.0 cannot be opened" in " ".join(capsys.readouterr().err.split())


def test_the_bench_refuses_outputs_before_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avatar.bench.run.measure", lambda **_: pytest.fail("it was measured"))
    page = tmp_path / "README.md"
    page.write_text("# My project\n")
    (tmp_path / "file").touch()
    for config, words in (
        (bench.Config(docs=tmp_path), "was not written by"), (bench.Config(json=tmp_path), "is a folder"),
        (bench.Config(json=tmp_path / "file/a.json"), "Cannot write"), (bench.Config(docs=tmp_path / "file"), "Cannot"),
        (bench.Config(docs=tmp_path, run=False), "was not written by"),
    ):  # fmt: skip
        with pytest.raises(AvatarError, match=words):
            bench.main(config)
    assert page.read_text() == "# My project\n"


def test_prior_eval_refuses_its_output_before_it_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avatar.cli import prior

    monkeypatch.setattr("avatar.corpus.evaluate.evaluate_prior", lambda *_, **__: pytest.fail("it was measured"))
    (tmp_path / "file").touch()
    for out, words in ((tmp_path, "is a folder"), (tmp_path / "file", "is one of the inputs")):
        with pytest.raises(AvatarError, match=words):
            prior.main(prior.Eval(prior=tmp_path / "file", videos=(tmp_path / "a.mp4",), json=out))


def test_consent_of_a_person_who_is_being_prepared_is_shown(tmp_path: Path, capsys) -> None:
    from avatar.data.person import MARKER

    write_json(tmp_path / MARKER, {})
    assert main(["consent", str(tmp_path)]) == 0 and "not stated" in capsys.readouterr().out


def test_nobody_is_asked_where_the_input_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "me.mp4").touch()
    for name in ("stdin", "stderr"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, name, None)
            assert answered(None, tmp_path / "me.mp4", tmp_path / "person") is None


def test_a_cache_that_may_not_be_looked_into_is_no_broken_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from avatar.doctor import checks

    def denied(*_: object, **__: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("AVATAR_CACHE", "/closed/to/all")
    monkeypatch.setattr(Path, "exists", denied)
    (found,) = [f for f in checks.check_machine() if f.part == "disk"]
    assert found.state != "broken" and found.detail.endswith(" in /")
