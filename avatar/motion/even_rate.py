"""The even frame rate under the times of recorded rows, and the rows brought to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

LONGEST_GAP = 1.0  # seconds: what is longer is not interpolated

_EXACT = 0.02  # of a step: recorders' clocks are as even as that
_ROUNDED = 0.35  # of a step: rounding of the times beyond that hides what was dropped
_NEAR = 0.01  # of a rate: uneven recordings are brought to a usual rate that is as near as that
_USUAL = (24.0, 25.0, 30.0, 48.0, 50.0, 60.0, 100.0, 120.0)
_MOST_ADDED = 3  # times as many frames as rows: more is no recording with gaps
_ALWAYS_ADDED = 300  # frames


@dataclass(frozen=True)
class EvenRate:
    """A track at an even rate.

    Attributes:
        fps: Frames per second.
        places: [N] float64, increasing: where the rows with different times are, in frames; the first is at 0.
        rows: [T] the index in `places` of each row.
        frames: How many frames there are.
        fits: Whether the rows are at frames, and not between them.
    """

    fps: float
    places: Float64[np.ndarray, " N"]
    rows: np.ndarray
    frames: int
    fits: bool = True

    def resample(self, values: Float[np.ndarray, " T"], measured: Bool[np.ndarray, " T"]) -> Float[np.ndarray, " F"]:
        """Values [T] of the rows at the frames: linear between rows, the mean of rows at one time.

        Args:
            values: One channel.
            measured: [T] rows to use; the others are bridged.
        """
        index = self.rows[measured]
        weight = np.bincount(index, minlength=len(self.places))
        total = np.bincount(index, values[measured], len(self.places))
        known = weight > 0
        return np.interp(np.arange(self.frames), self.places[known], total[known] / weight[known])

    def measured(self, measured: Bool[np.ndarray, " T"]) -> Bool[np.ndarray, " F"]:
        """[F] whether a row was measured less than a frame away."""
        known = np.unique(self.places[self.rows[measured]])
        frames = np.arange(self.frames)
        after = np.searchsorted(known, frames)
        nearest = np.minimum(np.abs(frames - known[after.clip(max=len(known) - 1)]),
                             np.abs(frames - known[(after - 1).clip(min=0)]))  # fmt: skip
        return nearest < 0.999


def even_rate(seconds: Float64[np.ndarray, " T"], grain: float) -> EvenRate:
    """Find the frame rate of rows, some of which may be missing or share a time.

    Rows whose times fit an even rate keep their values. Others are interpolated by their times.

    Args:
        seconds: Times, not decreasing.
        grain: Seconds that the last digit of a time stands for.

    Raises:
        ValueError: All times are the same, or hardly any frame of the time they span is there; says which.
    """
    times, rows = np.unique(seconds, return_inverse=True)
    if len(times) == 1:
        if len(seconds) > 1:
            raise ValueError("the times of its frames are all the same")
        return EvenRate(25.0, np.zeros(1), rows, 1)
    steps = np.diff(times)
    span = float(times[-1] - times[0])
    uneven = _usual_step(steps)
    if span / uneven > _MOST_ADDED * len(seconds) + _ALWAYS_ADDED:
        raise ValueError("most of its frames are missing")
    guesses = np.arange(len(times), dtype=np.float64), _counted(times, uneven)  # nothing is missing, or something
    for slack in (_EXACT * uneven, min(_EXACT * uneven + 1.01 * grain, _ROUNDED * uneven)):
        for places in guesses:
            step, offset = np.polyfit(places, times - times[0], 1).tolist()
            if step > 0 and np.abs(times - times[0] - offset - step * places).max() <= slack:
                return EvenRate(_simplest(1 / step, grain / span), places, rows, int(places[-1]) + 1)
    mean = span / len(steps)
    usual = (rate for step in (uneven, mean) for rate in _USUAL if abs(rate * step - 1) <= _NEAR)
    fps = next(usual, round(1 / uneven, 3))
    places = (times - times[0]) * fps
    return EvenRate(fps, places, rows, int(places[-1] + 1e-6) + 1, fits=False)


def _usual_step(steps: np.ndarray) -> float:
    """The step of rows between which nothing is missing."""
    middle = np.median(steps)
    return float(steps[(steps > 0.5 * middle) & (steps < 1.5 * middle)].mean())


def _counted(times: np.ndarray, step: float) -> np.ndarray:
    """Frame numbers of times, where steps of several frames have gaps in them."""
    places = np.zeros(len(times))
    for _ in range(3):
        places[1:] = np.cumsum(np.maximum(np.rint(np.diff(times) / step), 1))
        step = float((times[-1] - times[0]) / places[-1])
    return places


def _simplest(rate: float, error: float) -> float:
    """The plainest rate within a relative error: a whole number, one of NTSC's, one of few digits."""
    plain = (float(round(rate)), round(1.001 * rate) / 1.001, round(rate, 1), round(rate, 2), round(rate, 3))
    return next((c for c in plain if abs(c - rate) <= rate * (error + 1e-9)), rate)
