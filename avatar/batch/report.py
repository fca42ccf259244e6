"""The report of a batch: what became of each job, in jobs.json beside the videos."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avatar.batch.task import Task
from avatar.errors import AvatarError
from avatar.paths import read_json, write_json

REPORT = "jobs.json"
FORMAT = "avatar-jobs-1"
_ANY_FORMAT = "avatar-jobs-"  # of any version
WRITE_SECONDS = 1.0  # between two writings while jobs are done


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a job.

    Attributes:
        seconds: How long it took.
        frames: Frames of its video.
        error: Why it failed; empty where it did not.
        warnings: What was said about it.
    """

    seconds: float = 0.0
    frames: int = 0
    error: str = ""
    warnings: tuple[str, ...] = ()


class Report:
    """The report of a batch, kept on the disk while jobs are done.

    Args:
        folder: Where it is written.
        tasks: All jobs.
        marks: Their marks.
        done: Lines of the jobs whose videos are there already; what an earlier report says of them is kept.

    Raises:
        AvatarError: There is another file of this name, or it cannot be written.
    """

    def __init__(self, folder: Path, tasks: Sequence[Task], marks: dict[int, str], done: set[int]) -> None:
        self._path, self._written = folder / REPORT, 0.0
        known = _earlier(self._path)
        self._entries: dict[int, dict[str, Any]] = {}
        for task in tasks:
            entry = known.get(marks[task.line]) if task.line in done else None
            state = "done" if task.line in done else "waiting"
            nothing = {"seconds": None, "frames": None, "error": "", "warnings": []}
            self._entries[task.line] = nothing | (entry or {}) | {
                "line": task.line, "out": task.name, "run": str(task.run), "state": state, "mark": marks[task.line],
            }  # fmt: skip
        self.write()

    def add(self, task: Task, result: Result) -> None:
        """Note what became of a job."""
        self._entries[task.line] |= {
            "state": "failed" if result.error else "done", "seconds": round(result.seconds, 3),
            "frames": result.frames or None, "error": result.error, "warnings": list(result.warnings),
        }  # fmt: skip
        if time.monotonic() - self._written > WRITE_SECONDS:
            self.write()

    def count(self, state: str) -> int:
        """Count the jobs of a state: done, failed or waiting."""
        return sum(entry["state"] == state for entry in self._entries.values())

    def write(self) -> None:
        """Write it.

        Raises:
            AvatarError: It cannot be written.
        """
        self._written = time.monotonic()
        order = ("line", "out", "run", "state", "seconds", "frames", "error", "warnings", "mark")
        jobs = [{name: entry[name] for name in order} for entry in self._entries.values()]
        counts = {state: self.count(state) for state in ("done", "failed", "waiting")}
        write_json(self._path, {"format": FORMAT, **counts, "jobs": jobs})


def _earlier(path: Path) -> dict[str, dict[str, Any]]:
    """Seconds, frames and warnings of the jobs that an earlier report calls done, by their marks.

    Raises:
        AvatarError: It is no report.
    """
    found: dict[str, dict[str, Any]] = {}
    content: Any = None
    with suppress(AvatarError):
        content = read_json(path)
    if path.exists() and not (isinstance(content, dict) and str(content.get("format")).startswith(_ANY_FORMAT)):
        raise AvatarError(f"{path} is no report of a batch, and would be replaced.", fix="Choose another --out.")
    with suppress(AttributeError, KeyError, TypeError):  # a report is no input: a broken one says nothing
        for entry in content["jobs"]:
            if entry["state"] == "done":
                found[str(entry["mark"])] = {name: entry[name] for name in ("seconds", "frames", "warnings")}
    return found
