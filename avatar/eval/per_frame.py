"""Numbers of every frame as CSV, and how sure it is that two avatars differ on the same frames.

What is hard for one avatar of a person is hard for the other. So the interval of their difference is much narrower than
those of their numbers suggest: both series are resampled with the same blocks, and each resample gives one difference.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from avatar.errors import AvatarError
from avatar.eval import bootstrap
from avatar.eval.bootstrap import Bootstrap
from avatar.eval.summary import METRICS, Series, as_real
from avatar.writing import atomic_file

REAL = "real"
KEYS = ("video", "frame", "seconds")  # the first columns
# What tells videos apart: numbers of the image, not such as a rounding turns from 0 to 1, or as need words or audio.
TELLING = ("opening", "mouth_gradient", "seam_gradient", "seam_change")
ALIKE = 0.05  # of the largest number: so much may a real frame read otherwise on another machine


class PerFrame(NamedTuple):
    """What a file of numbers per frame holds.

    Attributes:
        path: The file.
        first: The first frame of the person.
        series: Per video, numbers [T], NaN where one is missing.
    """

    path: Path
    first: int
    series: dict[str, Series]

    def require_frames(self, first: int, last: int) -> None:
        """Refuse other frames than ``first`` to ``last`` (exclusive).

        Raises:
            AvatarError: The file is of others.
        """
        own = self.first, self.first + _length(self.series)
        if own != (first, last):
            raise AvatarError(
                f"{self.path} is of the frames {own[0]} to {own[1] - 1}.",
                why=f"This measures {first} to {last - 1}.", fix="Measure both avatars on the same frames.",
            )  # fmt: skip

    def require_video(self, real: Series) -> None:
        """Refuse another video than that of which the series are given.

        Raises:
            AvatarError: The file is of another.
        """
        own = self.series[REAL]
        shared = [name for name in TELLING if name in own and name in real]
        if not shared or not all(_alike(real[name], own[name]) for name in shared):
            raise AvatarError(f"{self.path} is of another video.", fix="Measure both avatars with the same person.")


def write(path: Path, series: Mapping[str, Series], first: int, fps: float) -> None:
    """Write a row per video and frame; a number that a frame does not have is left empty.

    Args:
        path: CSV.
        series: Per video, numbers [T].
        first: The first frame of the person.
        fps: Frames per second.

    Raises:
        AvatarError: The file cannot be written.
    """
    names = sorted({name for video in series.values() for name in video})
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow([*KEYS, *names])
        for video, numbers in series.items():
            for t in range(len(next(iter(numbers.values())))):
                cells = (_text(numbers[name][t]) if name in numbers else "" for name in names)
                rows.writerow([video, first + t, f"{(first + t) / fps:.3f}", *cells])


def read(path: Path) -> PerFrame:
    """Read what :func:`write` wrote.

    Raises:
        AvatarError: There is no such file, or it holds something else.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *lines = csv.reader(file)
        names = header[len(KEYS) :]
        if tuple(header[: len(KEYS)]) != KEYS or any(len(line) != len(header) for line in lines):
            raise ValueError("other columns")
        numbers: dict[str, list[list[float]]] = {}
        for video, _, _, *cells in lines:
            numbers.setdefault(video, []).append([float(cell or "nan") for cell in cells])
        first = next(int(line[1]) for line in lines if line[0] == REAL)
        if len({len(rows) for rows in numbers.values()}) > 1:
            raise ValueError("some videos lack rows")
    except FileNotFoundError:
        raise AvatarError(f"{path} does not exist.", fix="Write it with `avatar eval --per-frame`.") from None
    except (ValueError, StopIteration, csv.Error, OSError) as error:
        raise AvatarError(
            f"{path} holds no numbers per frame.", fix="Give a CSV that `avatar eval --per-frame` wrote."
        ) from error
    tables = {video: np.array(values) for video, values in numbers.items()}
    known = {
        video: {name: table[:, i] for i, name in enumerate(names) if np.isfinite(table[:, i]).any()}
        for video, table in tables.items()
    }
    return PerFrame(path, first, known)


def differences(own: Mapping[str, Series], other: Mapping[str, Series], fps: float) -> dict[str, dict[str, Any]]:
    """Each metric of one avatar minus that of another.

    Args:
        own, other: Series by video, of the same frames; both hold the video "real".
        fps: Frames per second.

    Returns:
        For each rendered video that both have, ``{metric: difference, "intervals": {metric: [low, high]}}``. A metric
        that one of them lacks is left out.
    """
    resamples = Bootstrap(_length(own), fps)
    real = as_real(own[REAL]), as_real(other[REAL])
    shared = [name for name in own if name in other and name != REAL]
    return {name: _difference(own[name] | real[0], other[name] | real[1], resamples) for name in shared}


def compared(own: Mapping[str, Series], other: PerFrame, fps: float, notes: list[str]) -> dict[str, Any] | None:
    """Measured series against those of a file, as the JSON has it.

    Where it is of another video there is None and a note: what was measured, perhaps for hours, is worth keeping.
    """
    try:
        other.require_video(own[REAL])
    except AvatarError as error:
        notes.append(f"Not compared with another avatar: {error}")
        return None
    return {"file": other.path.name, "videos": differences(own, other.series, fps)}


def _difference(own: Series, other: Series, resamples: Bootstrap) -> dict[str, Any]:
    result: dict[str, Any] = {}
    intervals: dict[str, list[float]] = {}
    for metric, (statistic, needed) in METRICS.items():
        if not all(name in series for series in (own, other) for name in needed):
            continue
        parts = _in_common([[series[name] for name in needed] for series in (own, other)])
        first, second = (bootstrap.value(statistic, *part) for part in parts)
        if first is None or second is None:
            continue
        result[metric] = first - second
        if (interval := resamples.interval_of_difference(statistic, *parts)) is not None:
            intervals[metric] = interval
    return result | {"intervals": intervals}


def _in_common(parts: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """The series of both sides without frames that one of them lacks: hard frames would count on one side only."""
    known = [np.logical_and.reduce([np.isfinite(series) for series in pair]) for pair in zip(*parts, strict=True)]
    return [[np.where(k, series, np.nan) for k, series in zip(known, part, strict=True)] for part in parts]


def _length(series: Mapping[str, Series]) -> int:
    return len(next(iter(series[REAL].values())))


def _alike(own: np.ndarray, other: np.ndarray) -> bool:
    if not np.isfinite(own).any():
        return True
    return np.allclose(own, other, rtol=0, atol=ALIKE * np.nanmax(abs(own)), equal_nan=True)


def _text(number: float) -> str:
    return f"{number:.9g}" if np.isfinite(number) else ""
