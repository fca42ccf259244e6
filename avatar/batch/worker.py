"""Who renders the jobs of a batch: one avatar is loaded at a time, and stays for the next job."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from avatar import log
from avatar.batch.report import Result
from avatar.batch.task import Loading, Task
from avatar.data.disclosed import disclosed
from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.infer.avatar import Avatar


class Worker:
    """Renders jobs, one after the other.

    Args:
        loading: How avatars are loaded.
        folder: Folder that relative paths are relative to; None: the one that this process is in.
    """

    def __init__(self, loading: Loading, folder: Path | None = None) -> None:
        if folder is not None:
            os.chdir(folder)
        self._loading = loading
        self._run: Path | None = None
        self._avatar: Avatar | None = None
        self._broken: dict[Path, str] = {}

    def ready(self) -> bool:
        """Answer that it lives."""
        return True

    def render(self, task: Task, mark: str) -> Result:
        """Render a job; what goes wrong is in the result, and concerns no other job."""
        began, frames, error = time.perf_counter(), 0, ""
        with _warnings() as said:
            try:
                avatar = self._load(task.run)
                frames = task.render(avatar, mark, disclosed(avatar.run, self._loading.disclosure))
            except AvatarError as failure:
                error = str(failure)
            except OSError as failure:  # the machine, not the program
                error = f"{failure.filename or 'A file'} cannot be used: {failure.strerror or failure}."
            except Exception as failure:  # a bug must not take the other jobs along
                error = f"A bug: {type(failure).__name__}: {failure}"
        return Result(seconds=time.perf_counter() - began, frames=frames, error=error, warnings=tuple(said))

    def _load(self, run: Path) -> Avatar:
        if run in self._broken:
            raise AvatarError(self._broken[run])
        if self._avatar is None or run != self._run:
            self._run = self._avatar = None  # two avatars may not fit into memory
            try:
                self._avatar = self._loading.load(run)
            except AvatarError as error:
                self._broken[run] = str(error)
                raise
            self._run = run
        return self._avatar


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


@contextmanager
def _warnings() -> Generator[list[str]]:
    """Collect the warnings that are said meanwhile."""
    collector = _Collector()
    log.logger.addHandler(collector)
    try:
        yield collector.said
    finally:
        log.logger.removeHandler(collector)
