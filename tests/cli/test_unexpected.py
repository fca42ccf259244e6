"""What nobody expected is one line, numbers that no option can mean are refused, and a closed pipe ends in silence."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from avatar import checks
from avatar.cli.errors import DEBUG
from avatar.cli.main import COMMANDS, main
from avatar.cli.options import check_numbers
from avatar.doctor.checks import SYSTEM_LIBRARIES
from avatar.errors import AvatarError


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`avatar doctor`, made to raise what it is given."""
    module = importlib.import_module(COMMANDS["doctor"][0])

    def breaks(error: BaseException) -> None:
        def raises(_: object) -> None:
            raise error

        monkeypatch.setattr(module, "main", raises)

    return breaks


def test_a_bug_is_one_line_that_says_how_to_report_it(
    broken: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken(ZeroDivisionError("by\nnothing"))
    monkeypatch.setattr(checks, "last_read", "\udcff[/red].json")
    assert main(["doctor"]) == 1
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
    read = ", after reading \\udcff[/red].json: by nothing)"
    wanted = ("avatar doctor: this is a bug", "(ZeroDivisionError at", read, "report it", "AVATAR_DEBUG=1")
    assert all(part in said for part in wanted)
    monkeypatch.setenv(DEBUG, "1")
    for error in (ZeroDivisionError("by\nnothing"), OSError("the camera is asleep")):  # not of a file
        broken(error)
        assert main(["doctor"]) == 1
        said = capfd.readouterr().err
        assert "Traceback" in said and type(error).__name__ in said and "cannot be written" not in said


@pytest.mark.parametrize("debug", ["", "1"])
@pytest.mark.parametrize(
    "error",
    [
        ImportError("libGL.so.1: cannot open shared object file: No such file or directory"),
        OSError("/opt/libcudart.so.12: cannot open shared object file: No such file or directory"),
    ],
)
def test_a_library_that_the_system_lacks_is_no_bug(
    broken: Any, error: Exception, debug: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    broken(error)
    monkeypatch.setenv(DEBUG, debug)
    assert main(["doctor"]) == 2
    said = " ".join(capfd.readouterr().err.split())
    assert f"The library {str(error).partition(':')[0]} cannot be opened." in said and "bug" not in said
    assert SYSTEM_LIBRARIES in said and "avatar doctor" in said and "Traceback" not in said


def test_what_the_machine_refuses_is_no_bug(broken: Any, capfd: pytest.CaptureFixture[str]) -> None:
    broken(PermissionError(13, "Permission denied", "/root/x"))
    assert main(["doctor"]) == 2
    assert capfd.readouterr().err == "avatar doctor: /root/x cannot be used: Permission denied.\n"


def test_no_numeric_option_takes_what_is_no_number() -> None:
    """Every number in a configuration, wherever it is."""

    @dataclasses.dataclass(frozen=True)
    class Part:
        share: float = 0.5
        count: int = 1

    @dataclasses.dataclass(frozen=True)
    class Whole:
        fps: float = 25.0
        size: int | None = None
        times: tuple[float, ...] = ()
        flag: bool = True
        part: Part = dataclasses.field(default_factory=Part)

    check_numbers(Whole())
    for wrong, says in (
        (Whole(fps=float("nan")), "--fps nan"), (Whole(fps=-25), "--fps is -25"), (Whole(fps=1e12), "--fps is 10000"),
        (Whole(size=-3), "--size is -3"), (Whole(size=10**9), "--size is 1000000000"),
        (Whole(times=(1.0, float("inf"))), "--times inf"), (Whole(part=Part(share=float("-inf"))), "--part.share -inf"),
        (Whole(part=Part(count=10**30)), "--part.count 1"),
    ):  # fmt: skip
        with pytest.raises(AvatarError, match=says):
            check_numbers(wrong)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["synth", "--out", "s", "--fps", "-25"], "--fps is -25.0, not a number from 1 to 1000"),
        (["synth", "--out", "s", "--fps", "1e12"], "--fps is 1000000000000.0"),
        (["synth", "--out", "s", "--seconds", "nan"], "--seconds nan is no number"),
        (["train", "p", "--out", "r", "--model.lr.means", "nan"], "--model.lr.means nan is no number"),
        (["render", "r", "--idle", "inf"], "--idle inf is no number"),
        (["render", "r", "--frames", "1" + "0" * 30], "--frames 1"),
        (["prepare", "v.mp4", "--out", "p", "--audio-delay-s", "nan"], "--audio-delay-s nan is no number"),
        (["prepare", "v.mp4", "--out", "p", "--audio-delay-s", "1e30"], "--audio-delay-s 1e+30 is no number"),
        (["render", "\udcff\x1b[31m", "--idle", "1"], "no run folder \\udcff\\x1b[31m"),
    ],
)
def test_absurd_options_are_one_sentence(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert says in " ".join(capfd.readouterr().err.split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--help"], ["synth", "--help"], ["assets"], ["nonsense"]], ids=lambda a: a[0])
def test_a_reader_that_goes_away_ends_the_command_in_silence(arguments: list[str], tmp_path: Path) -> None:
    """As `avatar ... | head` does; the pipe is closed before the first line."""
    command = [
        sys.executable,
        "-c",
        "import time, sys, avatar.cli.main; time.sleep(0.2); sys.exit(avatar.cli.main.main())",
    ]
    for merged in (False, True):
        errors = tmp_path / "errors"
        with errors.open("wb") as file:
            process = subprocess.Popen(
                [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT if merged else file
            )
            assert process.stdout is not None
            process.stdout.close()
            process.wait(60)
        said = errors.read_text()
        assert "Traceback" not in said and "Exception" not in said and "BrokenPipe" not in said
        assert process.returncode in ((0, 1, 2, 141) if arguments != ["--help"] else (141,))
