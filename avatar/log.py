"""Terminal output: one shared console, progress bars with rate and ETA, and the closing hint of a command."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
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
from rich.text import Text

from avatar.errors import printable

T = TypeVar("T")


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which ends the command in silence; rich would end it as if it had failed."""
        raise BrokenPipeError


console = _Console(stderr=True, highlight=False)


class RateColumn(ProgressColumn):
    """Items per second, averaged by rich over the recent past."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("- /s" if speed is None else f"{speed:.1f} /s", style="progress.data.speed")


def progress() -> Progress:
    """A progress display for long work; use as a context manager, ``add_task(label, total=n)`` inside.

    Tasks may carry a free ``info`` field (for example a loss), shown at the end of the line.
    """
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[info]}"),
        console=console,
        refresh_per_second=4,
    )


def track(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Iterate over ``items`` behind a progress bar."""
    with progress() as bar:
        task = bar.add_task(label, total=total if total is not None else len(items), info="")  # type: ignore[arg-type]
        for item in items:
            yield item
            bar.advance(task)


def info(message: str, style: str = "") -> None:
    """Print a line. Brackets in it are no markup: it may hold the name of any file."""
    console.print(Text(printable(message), style), soft_wrap=True)


def item(message: str, mark: str, style: str) -> None:
    """Print a line of a list behind a coloured mark."""
    console.print(Text.assemble("  ", (mark, style), f" {printable(message)}"), soft_wrap=True)


def warn(message: str) -> None:
    """Print a line that begins with "warning:"."""
    console.print(Text.assemble(("warning:", "yellow"), f" {printable(message)}"), soft_wrap=True)


_inside: list[str] = []


@contextmanager
def part_of(command: str) -> Iterator[None]:
    """While a larger command runs this one, the smaller one does not name what would follow it alone."""
    _inside.append(command)
    try:
        yield
    finally:
        _inside.pop()


def next_command(command: str) -> None:
    """Close a command by naming the one that naturally follows."""
    if not _inside:
        console.print(Text.assemble("\nNext: ", (printable(command), "bold")), soft_wrap=True)
