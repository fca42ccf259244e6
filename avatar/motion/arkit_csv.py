"""Coefficients as CSV: what Live Link Face writes, and what spreadsheets and other programs make of it."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float64

from avatar import log
from avatar.checks import FRAME_RATES, read_text, reading
from avatar.errors import AvatarError
from avatar.motion.even_rate import LONGEST_GAP, even_rate
from avatar.motion.timecode import Stamps, read_time_codes
from avatar.writing import atomic_file

MOST = 1e6  # of any number in a file: seconds, degrees or coefficients

_COUNT = "blendshapecount"  # a column: how many channels were measured; 0 where the face was lost
_NOT_MEASURED = {"timecode", "time", _COUNT, "numproperties"}
_NO_TIME = "Add a column Time, in seconds."
_SECONDS = "Give its Time in seconds."
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+(?:[eE][+-]?\d+)?")
_SEPARATORS = ",;\t"


@dataclass(frozen=True, eq=False)
class Table:
    """Channels of a file at an even frame rate.

    Attributes:
        columns: [T] float64 of each channel, by its name in the file.
        fps: Frames per second.
        measured: [T] whether the file has the frame; others are interpolated.
    """

    columns: dict[str, Float64[np.ndarray, " T"]]
    fps: float
    measured: Bool[np.ndarray, " T"]


@dataclass(frozen=True)
class _Sheet:
    """Rows of text; `lines` says where in the file each is, and `lost` which hold no measurement."""

    path: Path
    names: list[str]
    rows: list[list[str]]
    lines: list[int]
    lost: Bool[np.ndarray, " T"]

    def column(self, name: str) -> list[str]:
        index = [n.lower() for n in self.names].index(name.lower())
        return [row[index] for row in self.rows]

    def has(self, name: str) -> bool:
        return name in (n.lower() for n in self.names)


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a header and rows, separated by commas, a line feed after each."""
    with atomic_file(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(rows)


def read_csv(path: Path, angles: Iterable[str] = ()) -> Table:
    """Read channels, and bring them to an even frame rate.

    Values are separated by commas, semicolons or tabs; numbers may have decimal commas. Times are in a column Time, in
    seconds, or in time codes. Dropped frames, and those in which the face was lost, are interpolated.

    Args:
        path: The file.
        angles: Names in lower case of columns in radians, which may go once around.

    Raises:
        AvatarError: The file is damaged, says no times, or its times go back or leave out a second or more.
    """
    sheet = _sheet(path)
    stamps = _stamps(sheet)
    _refuse_gaps(sheet, stamps.seconds)
    try:
        even = even_rate(stamps.seconds, stamps.grain)
    except ValueError as problem:
        raise AvatarError(f"{path} cannot be read: {problem}.", fix="Export it again.") from None
    if not FRAME_RATES[0] <= even.fps <= FRAME_RATES[1]:
        raise AvatarError(f"{path}: the number of frames per second is {even.fps:.4g},",
                          why="not from {:g} to {:g}.".format(*FRAME_RATES), fix=_SECONDS)  # fmt: skip
    seen, around = ~sheet.lost, set(angles)
    columns = {}
    for name in (n for n in sheet.names if n.lower() not in _NOT_MEASURED):
        values = _numbers(sheet, name)
        if name.lower() in around and np.abs(values[seen]).max() < 4:
            values[seen] = np.unwrap(values[seen])
        columns[name] = even.resample(values, seen)
    table = Table(columns, even.fps, even.measured(seen))
    if not even.fits:
        log.info(f"{path}: the times of its frames are uneven; they were brought to {even.fps:g} frames per second.")
    _tell(path, sheet, stamps, table)
    return table


def _tell(path: Path, sheet: _Sheet, stamps: Stamps, table: Table) -> None:
    """Say what else was done to the recording."""
    added = int((~table.measured).sum())
    shared = len(sheet.rows) - len(np.unique(stamps.seconds))
    if added:
        log.info(f"{path}: {added} of {len(table.measured)} frames are missing and were interpolated.")
    if shared:
        log.warn(f"{path}: {shared} rows have the time of another; their mean is taken.")
    if stamps.guessed:
        log.warn(f"{path}: time codes of less than a second leave the rate open; {table.fps:g} frames per second are "
                 "assumed. A column Time, in seconds, would say it.")  # fmt: skip


# --- text -------------------------------------------------------------------------------------------------------------


def _sheet(path: Path) -> _Sheet:
    text = read_text(path, "a CSV file")
    with reading(path, "a CSV file"):
        separator, text, skipped = _separator(text)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        numbered = [(reader.line_num + skipped, [v.strip() for v in row]) for row in reader]
    numbered = [(line, row) for line, row in numbered if any(row)]
    names = _names(path, numbered[0][1]) if numbered else []
    if len(numbered) > 2 and text[-1] not in "\r\n" and len(numbered[-1][1]) < len(names):
        log.warn(f"{path}: its last line is cut off and left out.")
        numbered.pop()
    if len(numbered) < 2:
        raise AvatarError(f"{path} holds no frames.")
    channels = [i for i, name in enumerate(names) if name.lower() not in _NOT_MEASURED]
    counts = [i for i, name in enumerate(names) if name.lower() == _COUNT]
    rows = [row + [""] * (len(names) - len(row)) for _, row in numbered[1:]]
    empty = [not any(row[i] for i in channels) for row in rows]
    zero = [any(_is_zero(row[i]) for i in counts) for row in rows]
    for (line, row), left_out in zip(numbered[1:], map(any, zip(empty, zero, strict=True)), strict=True):
        _check_width(path, line, row, len(names), left_out)
    lost = empty if all(zero) else [a or b for a, b in zip(empty, zero, strict=True)]  # some programs count nothing
    if all(lost):
        raise AvatarError(f"{path} holds no frame in which a face was tracked.")
    return _Sheet(path, names, rows, [line for line, _ in numbered[1:]], np.array(lost))


def _separator(text: str) -> tuple[str, str, int]:
    """What separates values, the text from its header on, and how many lines were before."""
    lines = io.StringIO(text, newline="")
    for skipped, line in enumerate(lines):
        if found := re.fullmatch(r"sep=([,;\t])", line.strip("\r\n \ufeff")):  # as spreadsheets write it
            return found[1], lines.read(), skipped + 1
        if line.strip():
            widths = {mark: len(next(csv.reader([line], delimiter=mark))) for mark in _SEPARATORS}
            return max(widths, key=lambda mark: widths[mark]), line + lines.read(), skipped
    return ",", "", 0


def _names(path: Path, header: list[str]) -> list[str]:
    """The names of the columns, without empty ones at the end."""
    while header and not header[-1]:
        header = header[:-1]
    if "" in header:
        raise AvatarError(f"{path}: its column {header.index('') + 1} has no name.")
    return list(different(path, header))


def _check_width(path: Path, line: int, row: list[str], width: int, lost: bool) -> None:
    """Refuse a row that has more or fewer values than there are names; one without a face may have fewer."""
    if any(row[width:]) or (len(row) < width and not lost):
        commas = len(row) > 1.5 * width
        raise AvatarError(
            f"{path}, line {line} has {len(row)} values, the header has {width} names.",
            fix="Write decimal points, or separate the values by semicolons." if commas else "",
        )


def _is_zero(value: str) -> bool:
    return _float(value) == 0


def different(path: Path, names: Sequence[str]) -> Sequence[str]:
    """The names, if no two are the same."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise AvatarError(f"{path} names the channel {name!r} more than once.")
        seen.add(name.lower())
    return names


# --- numbers and times ------------------------------------------------------------------------------------------------


def _numbers(sheet: _Sheet, name: str) -> Float64[np.ndarray, " T"]:
    """A column; zero where the row holds no measurement."""
    bridged = sheet.lost if name.lower() not in _NOT_MEASURED else np.zeros(len(sheet.rows), bool)
    texts = ["0" if skip else text for skip, text in zip(bridged, sheet.column(name), strict=True)]
    texts = [text.replace(",", ".") if "," in text and _DECIMAL_COMMA.fullmatch(text) else text for text in texts]
    try:
        out = np.array(texts, np.float64)
    except ValueError:
        out = np.array([_float(text) for text in texts])
    wrong = ~(np.abs(out) <= MOST)  # true for NaN
    if wrong.any():
        i = int(wrong.argmax())
        shown = f"{sheet.path}, line {sheet.lines[i]}: {name} is {sheet.column(name)[i][:80]!r}"
        raise AvatarError(f"{shown}, not a number to {MOST:g}.")
    return out


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return np.nan


def _stamps(sheet: _Sheet) -> Stamps:
    if sheet.has("time"):
        name = next(n for n in sheet.names if n.lower() == "time")
        texts = sheet.column(name)
        digits = max(len(re.split("[.,]", text)[-1]) if re.search("[.,]", text) else 0 for text in texts)
        grain = 0.0 if any("e" in text.lower() for text in texts) else 10.0 ** -min(digits, 12)
        return Stamps(_numbers(sheet, name), grain)
    if not sheet.has("timecode"):
        raise AvatarError(f"{sheet.path} does not say when its frames are.", fix=_NO_TIME)
    codes = sheet.column("timecode")
    try:
        return read_time_codes(codes)
    except ValueError as problem:
        index, what = problem.args
        where = f"{sheet.path}, line {sheet.lines[index]}: the Timecode {codes[index][:80]!r}"
        raise AvatarError(f"{where} {what}.", fix=_NO_TIME) from None


def _refuse_gaps(sheet: _Sheet, seconds: np.ndarray) -> None:
    """Refuse times that go back, and gaps that are too long to be bridged."""
    name = "time" if sheet.has("time") else "timecode"
    shown = sheet.column(name)
    steps = np.diff(seconds)
    if (steps < 0).any():
        i = int((steps < 0).argmax())
        raise AvatarError(f"{sheet.path}, line {sheet.lines[i + 1]}: the times must increase,",
                          why=f"but {shown[i + 1]} comes after {shown[i]}.", fix="Cut the file there.")  # fmt: skip
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    # Between rows, and between faces; before the first face and behind the last one, the face is held.
    for marks in (np.arange(len(seconds)), np.flatnonzero(~sheet.lost)):
        gaps = np.diff(seconds[marks])
        long = (gaps >= LONGEST_GAP - 1e-9) & (gaps > 1.5 * usual)
        if long.any():
            i = int(long.argmax())
            before, after = marks[i], marks[i + 1]
            raise AvatarError(
                f"{sheet.path}, line {sheet.lines[after]}: {gaps[i]:.1f} s are missing,",
                why=f"from {shown[before]} to {shown[after]}.", fix="Cut the file there, or record it again.",
            )  # fmt: skip
