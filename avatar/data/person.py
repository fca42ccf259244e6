"""Reading person.json and the records of the stages of `avatar prepare`, checked once for all who use them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from avatar.checks import MOST_FRAMES, SIDES, Record, number, picture_size, whole
from avatar.errors import AvatarError
from avatar.paths import read_json

FILE = "person.json"
_FAR = 1e6  # pixels: a focal length beyond is a mistake


def read_person(path: Path) -> dict[str, Any]:
    """Read a person.json.

    Returns:
        What it holds (docs/design.md); fields that are not known are kept.

    Raises:
        AvatarError: It is missing or damaged, or a field is missing, of another type or out of range.
    """
    data = Record(read_json(path), path)
    width, height = picture_size(data.value("width"), data.value("height"), path)
    frames = data.whole("num_frames", 1, MOST_FRAMES)
    checked = {
        "width": width, "height": height, "fps": data.frame_rate(), "num_frames": frames,
        "test_start": data.whole("test_start", 0, frames), "segments": segments(data, frames),
        "camera": _camera(data, "camera"), "has_audio": data.flag("has_audio"),
        "av_offset_frames": data.number("av_offset_frames", -_FAR, _FAR, 0.0),
    }  # fmt: skip
    return data.data | checked


def segments(data: Record, frames: int) -> list[list[int]]:
    """The field ``segments`` of a record: [start, end) in order, within ``frames``.

    Raises:
        AvatarError: It is missing or something else.
    """
    place, found, last = data.place("segments"), [], 0
    for pair in data.list("segments"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise AvatarError(f"{place} is not a list of [start, end].")
        start, end = whole(pair[0], place, last, frames), whole(pair[1], place, last, frames)
        if start > end:
            raise AvatarError(f"{place}: a segment ends before it starts.")
        found.append([start, end])
        last = end
    if not found:
        raise AvatarError(f"{place} is empty.")
    return found


def read_result(folder: Path, name: str) -> Result:
    """What a finished stage found: the ``result`` of its stage.json.

    Raises:
        AvatarError: The stage has not run, or its record is damaged.
    """
    path = Path(folder) / name / "stage.json"
    if not path.is_file():
        raise AvatarError(f"{folder} has no finished stage '{name}'.", fix="Run `avatar prepare` again.")
    return Result(Record(read_json(path), path).record("result"))


class Result(dict[str, Any]):
    """What a stage found; asking for a field that it lacks is an :class:`AvatarError`.

    Args:
        data: The ``result`` of a stage.json; fields that are known are checked where they are there.
    """

    def __init__(self, data: Record) -> None:
        self.where = data.where
        super().__init__(data.data | {name: _FIELDS[name](data, name) for name in data.data if name in _FIELDS})

    def __missing__(self, name: str) -> Any:
        raise AvatarError(f"{self.where} lacks {name}.", fix="Run `avatar prepare --force`.")


def _camera(data: Record, name: str) -> dict[str, float]:
    camera = data.record(name)
    return camera.data | {
        "focal": camera.number("focal", 1, _FAR),
        "cx": camera.number("cx", -_FAR, _FAR), "cy": camera.number("cy", -_FAR, _FAR),
    }  # fmt: skip


def _table(data: Record, name: str, rows: int, columns: int) -> list[Any]:
    place, table = data.place(name), data.list(name)
    lists = table if rows else [table]
    if len(lists) != max(rows, 1) or not all(isinstance(row, list) and len(row) == columns for row in lists):
        raise AvatarError(f"{place} does not hold {max(rows, 1)} times {columns} numbers.")
    numbers = [[number(value, place, -_FAR, _FAR) for value in row] for row in lists]
    return numbers if rows else numbers[0]


_FIELDS: dict[str, Callable[[Record, str], Any]] = {
    "size": lambda data, name: data.whole(name, *SIDES),
    "fps": lambda data, name: data.frame_rate(name),
    "num_frames": lambda data, name: data.whole(name, 1, MOST_FRAMES),
    "test_start": lambda data, name: data.whole(name, 0, MOST_FRAMES),
    "segments": lambda data, name: segments(data, MOST_FRAMES),
    "camera": _camera,
    "keyframes": lambda data, name: [whole(k, data.place(name), 0, MOST_FRAMES) for k in data.list(name)],
    "stride": lambda data, name: data.whole(name, 1, MOST_FRAMES),
    "offset_frames": lambda data, name: data.number(name, -_FAR, _FAR),
    "pivot": lambda data, name: _table(data, name, 0, 3),
    "warp_box": lambda data, name: _table(data, name, 2, 2),
    "encoder": lambda data, name: data.record(name).data,
}
