"""Tables of metrics that fit a terminal: intervals below their numbers, or columns in several tables, where need be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

PADDING = 2  # columns of the terminal on both sides of a column of the table
LEAST_LABEL = 16  # columns of the terminal that a label keeps before the table is parted


@dataclass(frozen=True)
class Cell:
    """A number as text.

    Attributes:
        text: The number.
        spread: Half of its interval, such as "±0.42"; may be empty.
        mark: A sign of something that is said below the table; may be empty.
    """

    text: str
    spread: str = ""
    mark: str = ""

    def lines(self, stacked: bool) -> list[str]:
        """What is shown: in one line, or the interval below the number."""
        number = self.text + self.mark
        if not self.spread:
            return [number]
        return [number, self.spread] if stacked else [f"{number} {self.spread}"]


Columns = Mapping[str, Sequence[Cell]]


def tables(title: str, labels: Sequence[str], columns: Columns, width: int) -> list[Table]:
    """Lay metrics out in a table that is at most ``width`` wide, or in several where one would be wider.

    Args:
        title: Above the first.
        labels: Of the rows.
        columns: Cells by the title of their column, one per label.
        width: Columns of the terminal.
    """
    label = max(map(cell_len, labels), default=0)
    for stacked in (False, True):
        if label + PADDING + _width(columns, stacked) <= width:
            return [_table(title, labels, columns, stacked)]
    parts: list[dict[str, Sequence[Cell]]] = [{}]
    for name, cells in columns.items():
        if parts[-1] and min(label, LEAST_LABEL) + PADDING + _width({**parts[-1], name: cells}, True) > width:
            parts.append({})
        parts[-1][name] = cells
    return [_table("" if i else title, labels, part, True) for i, part in enumerate(parts)]


def _heading(name: str, stacked: bool) -> str:
    return "\n".join(name.split()) if stacked else name.replace(" ±", "\n±")


def _width(columns: Columns, stacked: bool) -> int:
    """Columns of the terminal that the numbers take."""
    total = 0
    for name, cells in columns.items():
        shown = [*_heading(name, stacked).split("\n"), *(line for cell in cells for line in cell.lines(stacked))]
        total += PADDING + max(map(cell_len, shown))
    return total


def _table(title: str, labels: Sequence[str], columns: Columns, stacked: bool) -> Table:
    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("")  # gets narrower, and its labels longer, before a number would be cut
    for name in columns:
        table.add_column(_heading(name, stacked), justify="right", no_wrap=True)
    for i, label in enumerate(labels):
        table.add_row(label, *(_shown(cells[i], stacked) for cells in columns.values()))
    return table


def _shown(cell: Cell, stacked: bool) -> Text:
    number, *below = cell.lines(stacked)
    return Text.assemble(number, *(("\n" + line, "dim") for line in below))
