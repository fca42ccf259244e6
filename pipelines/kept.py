"""Steps that a pipeline keeps in its folder, so that an interrupted one goes on where it was.

A kept step stands for nothing but the options that it was made with, so these lie beside it: others are refused where
they would need another training, and measured again where they would not. A record that is made of kept steps names the
commits of all of them, because the newest is not the one that its numbers are from. What a step took is the sum of its
parts, also of those that failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avatar.data.run import RunInfo
from avatar.environment import commit
from avatar.errors import AvatarError
from avatar.paths import file_sha256, read_json, write_json

ASKED = "asked.json"  # in the folder of a pipeline: what all of its steps were asked for


def require(folder: Path, asked: Mapping[str, Any]) -> None:
    """Refuse a folder whose steps were asked for something else; in a new one, write down what is asked.

    Args:
        folder: Of the pipeline; made where it is missing.
        asked: By option, what JSON holds.

    Raises:
        AvatarError: Options differ, or the folder holds steps and does not say what they were asked for.
    """
    file, fix = folder / ASKED, "Choose another --out, or give the options of before."
    if not file.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            why = f"It has no {ASKED}, so numbers of other options or of another video could pass for those of this."
            raise AvatarError(
                f"{folder} does not say what its steps were asked for.", why=why, fix="Choose another --out."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, dict(asked))
        return
    before = read_json(file, fix)
    for name in dict.fromkeys([*before, *asked]):
        if before.get(name) != asked.get(name):
            what = f"{folder} holds steps that were made with {name} {before.get(name)}, not {asked.get(name)}."
            raise AvatarError(what, fix=fix)


def person(folder: Path) -> dict[str, str]:
    """What tells a PERSON folder from others: its name, and what `avatar prepare` says about it."""
    return {"person": folder.name, "person.json": file_sha256(folder / "person.json")}


def stands(result: Path, asked: Mapping[str, Any]) -> bool:
    """Whether a measurement is there, and is one of these options."""
    file = _asked_of(result)
    return result.is_file() and file.is_file() and read_json(file) == dict(asked)


@contextmanager
def measuring(result: Path, asked: Mapping[str, Any]) -> Generator[None, None, None]:
    """Write down beside a measurement what it was asked for, once it is done."""
    file = _asked_of(result)
    file.unlink(missing_ok=True)  # a kill between result and options must not leave those of the result before
    yield
    write_json(file, dict(asked))


def forget(results: Iterable[Path]) -> None:
    """Remove measurements of an avatar that was trained anew."""
    for result in results:
        result.unlink(missing_ok=True)
        _asked_of(result).unlink(missing_ok=True)


def _asked_of(result: Path) -> Path:
    return result.with_suffix(f".{ASKED}")


def trained_at(run: Path) -> list[dict[str, Any]]:
    """Date and commit of every part of a training, oldest first, as a record keeps them under "training"."""
    found = RunInfo.read(run).training()
    parts = [*found.get("earlier", []), found]
    return [{name: part.get(name) for name in ("date", "commit")} for part in parts]


def measured_at(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Date and commit of what `avatar eval` wrote, as a record keeps them."""
    return {name: metrics.get(name) for name in ("date", "commit")}


def command(*arguments: Any, cost: Path | None = None, resumes: bool = False) -> dict[str, float]:
    """Run a command of `avatar` in a process of its own.

    Args:
        arguments: Its words.
        cost: What it takes is added to this file, also where it fails or is interrupted.
        resumes: Whether it goes on with what another one began; see `begin`.

    Returns:
        Its seconds on the clock and of processor time, and its peak memory.

    Raises:
        AvatarError: It failed.
        KeyboardInterrupt: Ctrl-C was pressed; the command, which is told as well, has ended.
    """
    words = [str(argument) for argument in arguments]
    if cost is not None:
        begin(cost, resumes=resumes)
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "avatar.cli.main", *words])
    pressed = False
    while True:
        try:
            _, status, usage = os.wait4(process.pid, 0)
            break
        except KeyboardInterrupt:  # the command is told as well, keeps what it has, and ends
            pressed = True
    process.returncode = os.waitstatus_to_exitcode(status)
    used = {
        "seconds": time.monotonic() - began,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }
    if cost is not None:
        end(cost, used, done=process.returncode == 0)
    if pressed:
        raise KeyboardInterrupt
    if process.returncode != 0:
        raise AvatarError(f"avatar {words[0]} failed.", why="Its message is above.", fix="Mend it, and run this again.")
    return used


def begin(cost: Path, *, resumes: bool = False) -> None:
    """Write down that a part of a step begins: where its end is missing later, what it took was lost.

    Args:
        cost: File of the step.
        resumes: Whether there was a part before, of which a missing file knows nothing.
    """
    kept = read_json(cost) if cost.is_file() else {"begun": int(resumes), "ended": 0}
    write_json(cost, kept | {"begun": kept["begun"] + 1, "done": False})


def end(cost: Path, used: Mapping[str, float], *, done: bool = True) -> None:
    """Add what a part of a step took: seconds are added up, and the largest peak of the memory counts."""
    kept = read_json(cost)
    kept |= {name: kept.get(name, 0.0) + used[name] for name in ("seconds", "cpu_seconds")}
    kept["peak_memory_bytes"] = max(kept.get("peak_memory_bytes", 0), used["peak_memory_bytes"])
    commits = dict.fromkeys([*kept.get("commits", []), commit()])
    write_json(cost, kept | {"ended": kept["ended"] + 1, "done": done, "commits": list(commits)})


def is_done(cost: Path) -> bool:
    """Whether the last part of a step came to its end."""
    return cost.is_file() and bool(read_json(cost).get("done"))


def spent(cost: Path) -> dict[str, Any] | None:
    """What all parts of a step took; None where one was killed together with the pipeline: nobody knows its share."""
    found = read_json(cost) if cost.is_file() else {"begun": 1, "ended": 0}
    return found if found["begun"] == found["ended"] else None


def commits(cost: Path) -> list[dict[str, Any]]:
    """Commits at which parts of a step ran, as a record keeps them under "training"."""
    return [{"commit": one} for one in (read_json(cost).get("commits", []) if cost.is_file() else [])]
