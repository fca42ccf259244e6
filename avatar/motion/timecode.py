"""Time codes of motion files: written as Live Link Face does, and read whatever they count."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

PARTS_PER_SECOND = 60  # what the last field of Live Link Face's time codes counts, whatever the frame rate

_THOUSANDTHS = 1000 * PARTS_PER_SECOND  # of such a part, in a second
_DAY = 86_400  # seconds
_COUNTED = (60, 24, 25, 30, 48, 50, 100, 120, 240, 1000)  # what the last field may count; the app's first
_USUAL_RATES = (15.0, 125.0)  # frames per second of motion files
_BETTER = 0.005  # of a step, on average: a later reading must be more even by that
_ROUNDED = 0.0015  # of thousandths, cut or rounded
_CODE = re.compile(r"(\d{1,3})[:;](\d{1,2})[:;](\d{1,2})(?:([:;.,])(\d{1,9})(?:[.,](\d{1,9}))?)?")
_NO_CODE = "is not HH:MM:SS:FF"
_DROPPED = {30: 2, 60: 4}  # numbers that drop-frame time codes skip at most minutes, by their nominal rate
_NTSC = 1001 / 1000  # a drop-frame time code of N frames per second runs at N / 1.001


@dataclass(frozen=True)
class Stamps:
    """When the rows of a file are.

    Attributes:
        seconds: [T] float64.
        grain: Seconds that the last digit stands for.
        guessed: Whether another rate would fit as well, because they span less than a second.
    """

    seconds: Float64[np.ndarray, " T"]
    grain: float
    guessed: bool = False


def time_code(frame: int, fps: float) -> str:
    """HH:MM:SS:FF.mmm of a frame; FF counts 60ths of a second, whatever the rate. It starts again after a day.

    Each frame is rounded by itself, to 17 microseconds; so the steps never drift.
    """
    seconds, part = divmod(round(frame * _THOUSANDTHS / fps), _THOUSANDTHS)
    seconds %= _DAY
    clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{clock}:{part // 1000:02d}.{part % 1000:03d}"


def read_time_codes(codes: Sequence[str]) -> Stamps:
    """Read time codes whose last field counts 60ths, frames or thousandths; whichever makes the steps even.

    Drop-frame time codes (HH:MM:SS;FF, SMPTE 12M) run at 29.97 or 59.94 frames per second. After 23:59:59 comes the
    next day.

    Raises:
        ValueError: One is none; its arguments are its index and what is wrong with it.
    """
    matches = [_CODE.fullmatch(code.strip(" '")) for code in codes]
    for i, match in enumerate(matches):
        if match is None or int(match[2]) > 59 or int(match[3]) > 59:
            raise ValueError(i, _NO_CODE)
    fields = [match.groups() for match in matches if match]
    if len({(mark or "") in (".", ",") for *_, mark, _, _ in fields}) > 1:
        raise ValueError(next(i for i, f in enumerate(fields) if f[3] in (".", ",")), _NO_CODE)
    clock = np.array([[int(v) for v in f[:3]] for f in fields], np.int64) @ np.array([3600, 60, 1])
    clock += _DAY * np.cumsum(np.diff(clock, prepend=clock[:1]) < -_DAY // 2)
    if fields[0][3] in (".", ","):  # HH:MM:SS.sss
        return Stamps(clock + [float(f"0.{f[4]}") for f in fields], 10.0 ** -max(len(f[4]) for f in fields))
    count = np.array([int(f[4] or 0) for f in fields], np.int64)
    part = np.array([float(f"0.{f[5] or 0}") for f in fields])
    digits = max(len(f[5] or "") for f in fields)
    if count.max() >= _COUNTED[-1]:
        raise ValueError(int(count.argmax()), "counts more frames in a second than any camera takes")
    marks = any(f[3] == ";" for f in fields)
    if _repeats(count, part):
        part = np.zeros(len(part))
    likely = _evenest(list(_readings(clock, count, part, 10.0**-digits, marks)))
    chosen = likely[0] if digits else next(filter(_usual, likely), likely[0])
    steps = np.diff(count + part)
    guessed = len(set(clock.tolist())) == 1 and len(steps) > 0 and float(np.median(np.abs(steps))) < 1.5
    return Stamps(chosen.seconds, chosen.grain, guessed)


def _readings(clock: np.ndarray, count: np.ndarray, part: np.ndarray, grain: float, marks: bool) -> Iterator[Stamps]:
    """What the codes may mean, the likeliest first."""
    for nominal, dropped in _DROPPED.items():
        if count.max() < nominal and _drops(clock, count, nominal, dropped, marks):
            minutes = clock // 60
            frames = nominal * clock - dropped * (minutes - minutes // 10) + count + part
            yield Stamps(frames * _NTSC / nominal, grain * _NTSC / nominal)
    for base in _COUNTED:
        if base > count.max():
            yield Stamps(clock + (count + part) / base, grain / base)


def _repeats(count: np.ndarray, part: np.ndarray) -> bool:
    """Whether the part is the time within the second, as some programs write it, and not within the frame."""
    rates = (rate for rate in _COUNTED if count.max() < rate <= _USUAL_RATES[1])
    return bool(part.any()) and any(bool((np.abs(part - count / rate) < _ROUNDED).all()) for rate in rates)


def _evenest(readings: Sequence[Stamps]) -> list[Stamps]:
    """Those readings whose steps are the most even."""
    oddness = [_oddness(reading) for reading in readings]
    return [reading for reading, odd in zip(readings, oddness, strict=True) if odd <= min(oddness) + _BETTER]


def _drops(clock: np.ndarray, count: np.ndarray, nominal: int, dropped: int, marks: bool) -> bool:
    """Whether frame numbers are skipped at full minutes, other than every tenth."""
    first = (clock[1:] % 60 == 0) & (clock[1:] // 60 % 10 != 0) & (clock[1:] - clock[:-1] == 1)
    first &= count[:-1] == nominal - 1
    return bool((count[1:][first] == dropped).all()) if first.any() else marks


def _oddness(stamps: Stamps) -> float:
    """Mean deviation of the steps from their median, as a share of it."""
    steps = np.diff(stamps.seconds)
    step = _step(steps)
    return float(np.mean(np.abs(steps / step - 1))) if step > 0 else np.inf


def _usual(stamps: Stamps) -> bool:
    """Whether the frame rate is a usual one."""
    step = _step(np.diff(stamps.seconds))
    return step > 0 and _USUAL_RATES[0] <= 1 / step <= _USUAL_RATES[1]


def _step(steps: np.ndarray) -> float:
    """The median of steps between different times."""
    return float(np.median(steps[steps != 0])) if steps.any() else 0.0
