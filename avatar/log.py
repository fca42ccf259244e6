"""Messages and progress: Python's `logging` underneath, a coloured terminal on top where the command line asks for it.

Every message goes to a logger below ``avatar`` that is named after the module which says it. As a library the package
prints nothing by itself: a server or a notebook shows, redirects and levels it as it does any other.

    logging.getLogger("avatar").setLevel(logging.WARNING)

The command line runs inside :func:`on_terminal`, which prints to stderr, with bars for long work. Where the output is
no terminal, long work says how far it is by a line now and then.
"""

from __future__ import annotations

import logging
import shlex
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from rich.console import Console
from rich.text import Text

from avatar.errors import printable

T = TypeVar("T")
FIRST_LINE_SECONDS = 5.0  # of work, after which it first says how far it is; shorter work says nothing
LINE_SECONDS = 30.0  # between further lines

logger = logging.getLogger("avatar")
logger.addHandler(logging.NullHandler())  # without it, Python prints the warnings of a program that set up no logging
_progress_logger = logging.getLogger("avatar.progress")
_Part = tuple[str, str]  # text and its style


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which ends in silence; rich would end it as a failure."""
        raise BrokenPipeError


console = _Console(stderr=True, highlight=False)


# --- messages ----------------------------------------------------------------------------------------------------


def info(message: str, style: str = "") -> None:
    """Log a message. Brackets in it are no markup: it may hold the name of any file."""
    _log(logging.INFO, (message, style))


def item(message: str, mark: str, style: str) -> None:
    """Log an item of a list, after a coloured mark."""
    _log(logging.INFO, ("  ", ""), (mark, style), (f" {message}", ""))


def warn(message: str) -> None:
    """Log a warning; the terminal shows it after "warning:"."""
    _log(logging.WARNING, (message, ""))


def word(path: object) -> str:
    """Write a path as one word of a command line, quoted where a shell would split it."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def one_line(text: str) -> str:
    """Write what a stranger's file says as one line without control characters: it cannot pass for a line of ours."""
    return printable(" ".join(text.split()))


def next_command(command: str) -> None:
    """Close a command by naming the one that naturally follows."""
    if not _inside:
        _log(logging.INFO, ("\nNext: ", ""), (command, "bold"))


_inside: list[str] = []


@contextmanager
def part_of(command: str) -> Generator[None]:
    """While a larger command runs this one, the smaller one does not name what would follow it alone."""
    _inside.append(command)
    try:
        yield
    finally:
        _inside.pop()


def _log(level: int, *parts: _Part) -> None:
    """Log a message under the name of the module that calls the function which calls this one."""
    parts = tuple((printable(text), style) for text, style in parts)
    name = sys._getframe(2).f_globals.get("__name__", "")  # pyright: ignore[reportPrivateUsage]
    speaker = logging.getLogger(name) if name.startswith("avatar.") else logger
    text = "".join(text for text, _ in parts).lstrip("\n")
    speaker.log(level, text, extra={"parts": parts}, stacklevel=3)


class TerminalHandler(logging.Handler):
    """Prints messages on the console, in colour where it has some, above the bars of long work."""

    def emit(self, record: logging.LogRecord) -> None:
        parts = getattr(record, "parts", ((printable(record.getMessage()), ""),))
        mark = [("warning:", "yellow"), (" ", "")] if record.levelno >= logging.WARNING else []
        console.print(Text.assemble(*mark, *parts), soft_wrap=True)


_handler = TerminalHandler()


@contextmanager
def on_terminal() -> Generator[None]:
    """Print messages and progress while a command runs; the settings of the logger are as before afterwards."""
    if _handler in logger.handlers:  # a command that runs another
        yield
        return
    level, propagate = logger.level, logger.propagate
    logger.addHandler(_handler)
    logger.setLevel(level or logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(_handler)
        logger.setLevel(level)
        logger.propagate = propagate


# --- progress ----------------------------------------------------------------------------------------------------


def progress() -> Any:
    """A progress display for long work; use as a context manager, ``add_task(label, total=n, info="")`` inside.

    Tasks carry an ``info`` field (for example a loss), shown at the end of the line.

    Returns:
        A rich `Progress` on a terminal that can draw it, else a :class:`LineProgress`, which has the same methods.
    """
    drawn = console.is_terminal and not console.is_dumb_terminal  # a dumb one would show nothing until the end
    return _bars() if _handler in logger.handlers and drawn else LineProgress()


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate over ``items`` and show how far it is."""
    with progress() as bar:
        task = bar.add_task(label, total=total if total is not None else len(items), info="")  # type: ignore[arg-type]
        for item in items:
            yield item
            bar.advance(task)


@dataclass
class _Task:
    """How far a task is, and how far it was at its start and at its last line."""

    label: str
    total: float | None
    completed: float
    info: str
    begun: float
    last_time: float
    last_completed: float
    lines: int = 0


class LineProgress:
    """Write a line now and then about how far long work is.

    It says what is done, the total, share, rate and the time that is left.

    The first line comes after ``FIRST_LINE_SECONDS``, further ones every ``LINE_SECONDS``; one more tells the end.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tasks: list[_Task] = []

    def __enter__(self) -> LineProgress:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Nothing: there is no display to begin."""

    def stop(self) -> None:
        """Write a last line for each task that has written one."""
        for task in self._tasks:
            if task.lines and task.completed != task.last_completed:
                self._write(task, self._clock())

    def add_task(self, description: str, total: float | None = None, completed: float = 0, info: str = "") -> int:
        """Begin a task, of which ``completed`` steps were done before; returns its number."""
        now = self._clock()
        self._tasks.append(_Task(description, total, completed, info, now, now, completed))
        return len(self._tasks) - 1

    def advance(self, task: int, advance: float = 1) -> None:
        """Count further steps."""
        self.update(task, completed=self._tasks[task].completed + advance)

    def update(
        self,
        task: int,
        *,
        completed: float | None = None,
        total: float | None = None,
        description: str | None = None,
        info: str | None = None,
    ) -> None:
        """Set what is known anew."""
        one = self._tasks[task]
        one.completed = one.completed if completed is None else completed
        one.total = one.total if total is None else total
        one.label = one.label if description is None else description
        one.info = one.info if info is None else info
        now = self._clock()
        due = one.last_time + LINE_SECONDS if one.lines else one.begun + FIRST_LINE_SECONDS
        if now >= due:
            self._write(one, now)

    def _write(self, task: _Task, now: float) -> None:
        seconds, steps = now - task.last_time, task.completed - task.last_completed
        rate = steps / seconds if seconds > 0 else 0.0
        text = f"{task.label}: {task.completed:g}"
        if task.total:
            text += f" of {task.total:g} ({task.completed / task.total:.0%})"
        text += f", {rate:.3g} /s"
        if task.total and rate > 0 and task.completed < task.total:
            text += f", {_span((task.total - task.completed) / rate)} left"
        if task.total and task.completed >= task.total:
            text += f", done after {_span(now - task.begun)}"
        _progress_logger.info(text + (f", {task.info}" if task.info else ""))
        task.last_time, task.last_completed, task.lines = now, task.completed, task.lines + 1


def _span(seconds: float) -> str:
    """A time as h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def _bars() -> Any:
    """Rich's bars, with rate and time left."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        SpinnerColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    class RateColumn(ProgressColumn):
        """Items per second, averaged by rich over the recent past."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("- /s" if speed is None else f"{speed:.1f} /s", style="progress.data.speed")

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}", markup=False),
        console=console,
        refresh_per_second=4,
    )
