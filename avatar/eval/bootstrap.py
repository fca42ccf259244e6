"""Statistics of per-frame series, and how sure they are: block bootstrap over time.

Neighbouring frames are alike, so that resampling single frames would promise too much. Blocks of a second are drawn
instead, from a circle so that all frames are equally likely: Politis and Romano, "A circular block-resampling procedure
for stationary data", 1992. What the interval knows nothing of: another video, another person, another training run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

BLOCK_SECONDS = 1.0
RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 0
LEAST_BLOCKS = 3  # below, all resamples are nearly the same
LEAST_SHARE = 0.5  # of the resamples that must have a value

Statistic = Callable[..., np.ndarray]  # of series [..., T], to [...]; NaN marks frames without the number


def mean(x: np.ndarray) -> np.ndarray:
    """Over the frames that have the number."""
    return np.nanmean(x, -1)


def root_mean(x: np.ndarray) -> np.ndarray:
    """Square root of the mean of squares that were taken already."""
    return np.sqrt(np.nanmean(x, -1))


def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the means; frames that lack one of the two are left out of both."""
    a, b = _common(a, b)
    return np.nanmean(a, -1) / _positive(np.nanmean(b, -1))


def root_ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the roots of the means."""
    return np.sqrt(ratio(a, b))


def spread_ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the standard deviations, each over its own frames."""
    return np.nanstd(a, -1) / _positive(np.nanstd(b, -1))


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pearson's; NaN where one of the two does not move."""
    a, b = _common(a, b)
    a, b = (x - np.nanmean(x, -1, keepdims=True) for x in (a, b))
    spread = np.nanmean(a * a, -1) * np.nanmean(b * b, -1)
    return np.nanmean(a * b, -1) / np.sqrt(_positive(spread, 1e-18))


def value(statistic: Statistic, *series: np.ndarray) -> float | None:
    """The statistic of series [T]; None where it has no value."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of means over nothing
        result = float(statistic(*series))
    return result if np.isfinite(result) else None


class Bootstrap:
    """The same resamples for every metric of a video, so that intervals can be compared.

    Args:
        frames: Length of the series.
        fps: Frames per second.
        seed: Of the draws; two parts that are compared with each other need different ones.
    """

    def __init__(self, frames: int, fps: float, seed: int = SEED) -> None:
        block = max(1, round(BLOCK_SECONDS * fps))
        self._enough = frames >= LEAST_BLOCKS * block
        rng = np.random.default_rng(seed)
        starts = rng.integers(frames, size=(RESAMPLES, -(-frames // block), 1))
        self._index = ((starts + np.arange(block)) % frames).reshape(RESAMPLES, -1)[:, :frames]

    def interval(self, statistic: Statistic, *series: np.ndarray) -> list[float] | None:
        """Compute the 95 % interval [low, high], from percentiles of the resamples.

        None where the statistic has no value, or where there are fewer than three blocks.

        Args:
            statistic: As for :func:`value`.
            series: [frames] each.
        """
        return self._interval(self.values(statistic, *series)) if self._enough else None

    def interval_of_difference(
        self, statistic: Statistic, own: Sequence[np.ndarray], other: Sequence[np.ndarray]
    ) -> list[float] | None:
        """As :meth:`interval`, of one statistic minus that of other series of the same frames."""
        if not self._enough:
            return None
        return self._interval(self.values(statistic, *own) - self.values(statistic, *other))

    def values(self, statistic: Statistic, *series: np.ndarray) -> np.ndarray:
        """The statistic of each resample, [RESAMPLES]; arguments as for :meth:`interval`."""
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return statistic(*(x[self._index] for x in series))

    @staticmethod
    def _interval(values: np.ndarray) -> list[float] | None:
        values = values[np.isfinite(values)]
        return percentiles(values) if len(values) >= LEAST_SHARE * RESAMPLES else None


def percentiles(values: np.ndarray) -> list[float]:
    """The 95 % interval [low, high] of what resamples gave."""
    tail = 50 * (1 - CONFIDENCE)
    return [float(v) for v in np.percentile(values, [tail, 100 - tail])]


def _common(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(a) & np.isfinite(b)
    return np.where(known, a, np.nan), np.where(known, b, np.nan)


def _positive(x: np.ndarray, least: float = 0.0) -> np.ndarray:
    return np.where(x > least, x, np.nan)
