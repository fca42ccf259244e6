"""Options are read into the command's own dataclass, and the help is laid out by what a person wants to do."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import tyro

from avatar.cli import options
from avatar.cli.main import COMMANDS, main, read_options


@dataclass(frozen=True, kw_only=True)
class Part:
    """Weights."""

    share: float = 0.5
    """How much of it, a text that goes on
    in the next line."""


@dataclass(frozen=True, kw_only=True)
class Shared:
    """Options of several commands."""

    mode: Literal["calm", "lively"] = "calm"
    """How it moves."""
    again: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """May be repeated."""


@dataclass(frozen=True, kw_only=True)
class Config:
    run: Annotated[Path, tyro.conf.Positional]
    """A folder."""
    out: Path
    """A file."""
    size: int | None = None
    """A size; default: as it was."""
    device: str = "cpu"
    """Where."""
    part: Part = field(default_factory=Part)
    shared: tyro.conf.OmitArgPrefixes[Shared] = field(default_factory=Shared)


ROOT = Path(__file__).resolve().parents[2]
GROUPS = {"movement": ("mode", "again"), "hardware": ("device",)}


def read(*argv: str, **more: Any) -> Config:
    return options.parse(Config, argv, prog="avatar try", description="Try.", groups=GROUPS, **more)


def shown(capsys: pytest.CaptureFixture[str], *argv: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    with pytest.raises(SystemExit) as stop:
        read(*argv)
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_options_of_all_boxes_reach_their_dataclass():
    given = [
        "r",
        "--out",
        "o",
        "--mode",
        "lively",
        "--again",
        "a",
        "--again",
        "b",
        "--part.share",
        "0.25",
        "--size",
        "3",
    ]
    assert read(*given) == Config(
        run=Path("r"), out=Path("o"), size=3, part=Part(share=0.25), shared=Shared(mode="lively", again=("a", "b"))
    )
    assert read("r", "--out", "o") == Config(run=Path("r"), out=Path("o"))


def test_a_given_default_shows_and_yields(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    preset = Config(run=tyro.MISSING, out=tyro.MISSING, part=Part(share=0.75), shared=Shared(mode="lively"))
    assert read("r", "--out", "o", default=preset).part.share == 0.75
    explicit = read("r", "--out", "o", "--part.share", "0.5", "--mode", "calm", default=preset)
    assert explicit == Config(run=Path("r"), out=Path("o"))
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        read("--help", default=preset)
    assert "(default: 0.75)" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        read("r", default=preset)  # --out is required all the same
    assert stop.value.code == 2


def test_help_is_grouped_and_not_ragged(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    text = shown(capsys, "--help", columns=100, monkeypatch=monkeypatch)
    frame = " ─╭╮"
    titles = [line.strip(frame) for line in text.splitlines() if line.strip(frame).endswith(("options", "arguments"))]
    assert titles == ["positional arguments", "options", "movement options", "hardware options", "part options"]
    assert text.index("--out") < text.index("--size") < text.index("--mode") < text.index("--device")
    assert "How much of it, a text that goes on in the next line. (default: 0.5)" in text
    assert text.index("part options") < text.index(" Weights. ") < text.index("--part.share")
    assert "--size INT" in text and "None" not in text
    assert "RUN" in text.splitlines()[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_group_names_options_of_its_command(name: str):
    module = importlib.import_module(COMMANDS[name][0])
    kinds = [getattr(kind, "__origin__", kind) for kind in getattr(module.Config, "__args__", (module.Config,))]
    known = {option.path[-1] for kind in kinds for option in options._options(kind, None)}
    grouped = [option for group in getattr(module, "GROUPS", {}).values() for option in group]
    assert set(grouped) <= known and len(grouped) == len(set(grouped))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("columns", [80, 140])
def test_the_help_of_each_command_fits_the_terminal(
    name: str, columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main([name, "--help"]) == 0
    help_text = capsys.readouterr().out
    long = [line for line in help_text.splitlines()[1:] if len(line) > columns]
    assert not long
    assert "{None}" not in help_text and "(default: None)" not in help_text


def test_lines_of_a_paragraph_are_joined():
    assert options.reflow("One\n    line.\n\n    Another,\n    and ``code``.") == "One line.\n\nAnother, and `code`."
    assert options.reflow("Choose:\n- one\n  thing\n- two") == "Choose:\n\n- one thing\n\n- two"


def test_options_that_have_their_text_are_read_without_the_source_of_classes(monkeypatch: pytest.MonkeyPatch):
    """For a text, tyro parses the whole module of each class: half of the time of a command line."""
    module = importlib.import_module(COMMANDS["render"][0])
    line = ["runs/me", "--audio", "a.wav", "--emotion", "happy:0.5"]
    read = read_options(module, "render", line)

    def found(_: Any) -> Any:
        raise AssertionError("the source was read")

    monkeypatch.setattr(inspect, "findsource", found)
    assert read_options(module, "render", line) == read


def test_help_imports_nothing_heavy():
    """Commands that load torch, onnxruntime or MediaPipe do so when they run."""
    code = (
        "import sys; from avatar.cli.main import COMMANDS, main\n"
        "for name in COMMANDS: assert main([name, '--help']) == 0\n"
        "sys.exit(' '.join(sys.modules.keys() & {'torch', 'scipy', 'cv2', 'av', 'mediapipe', 'matplotlib'}) or None)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_names_that_begin_with_a_dash_are_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-my take").write_text("")
    (tmp_path / "--x").mkdir()
    argv = ["-take.mp4", "--out", "-o.mp4", "-my take", "--x", "-o", "-1.5", "--loss.lpips", "-0.5,1", "--a=-b.mp4"]
    named = ["./-take.mp4", "--out", "./-o.mp4", "./-my take", "./--x", *argv[5:]]
    assert options.plain_names(argv) == named
    assert options.plain_names(["--out", "p", "--", "-take.mp4"]) == ["--out", "p", "--", "-take.mp4"]
    assert options.plain_names(["-" + "x" * 5000, "-\0"]) == ["-" + "x" * 5000, "-\0"]


@pytest.mark.parametrize(
    "line", [["-take.mp4", "--out", "p"], ["--out", "p", "--", "-take.mp4"], ["./-take.mp4", "--out", "-p.dir"]]
)
def test_a_video_with_a_dash_is_looked_for_under_its_name(tmp_path, monkeypatch, capfd, line):
    from avatar.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *line]) == 2
    assert "The file -take.mp4 does not exist." in " ".join(capfd.readouterr().err.split())


def test_a_folder_with_a_dash_is_answered_by_how_to_write_it(capfd):
    from avatar.cli.main import main

    assert main(["prepare", "a.mp4", "--out", "-person"]) == 2
    assert "If -person is the name of a file or a folder, write ./-person" in capfd.readouterr().err


def test_the_next_command_quotes_what_a_shell_would_take_apart():
    from avatar import log

    assert [log.word(name) for name in ("runs/me", "-me", "my run", "a;b")] == ["runs/me", "./-me", "'my run'", "'a;b'"]
