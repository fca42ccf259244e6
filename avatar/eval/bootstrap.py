"""Statistics of per-frame series, and how sure they are: block bootstrap over time.

Neighbouring frames are alike, so that resampling single frames would promise too much. Blocks of two seconds are drawn
instead (seconds that follow each other are alike, too: their correlation is 0.3 to 0.6 on two of three people), from a
circle so that all frames are equally likely: Politis and Romano, "A circular block-resampling procedure for stationary
data", 1992. What the interval knows nothing of: another video, another person, another training run.

Percentiles of the resamples of few blocks are too narrow: at 5 blocks they cover 85 %, at 10 90 %, not 95 %. So they
are moved away from the statistic as :func:`widened` says.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy.special import ndtri, stdtrit

BLOCK_SECONDS = 2.0
RESAMPLES = 1000
CONFIDENCE = 0.95
SEED = 0
_TAIL = (1 - CONFIDENCE) / 2
LEAST_BLOCKS = 5  # fewer hardly tell how much blocks differ
LEAST_SHARE = 0.5  # of the resamples that must have a value

Statistic = Callable[..., np.ndarray]  # of series [..., T], to [...]; NaN marks frames without the number


def mean(x: np.ndarray) -> np.ndarray:
    """Over the frames that have the number."""
    return np.nanmean(x, -1)


def share(x: np.ndarray) -> np.ndarray:
    """Of the frames that have a 1, not a 0."""
    return mean(x)


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


# What a statistic cannot leave, whatever its series; the ratios are of energies and of spreads.
RANGES: dict[Statistic, tuple[float, float]] = {
    correlation: (-1.0, 1.0), share: (0.0, 1.0),
    **dict.fromkeys((root_mean, ratio, root_ratio, spread_ratio), (0.0, np.inf)),
}  # fmt: skip


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
        block_seconds: Length of a block; frames that were chosen apart from each other need less.

    Attributes:
        blocks: How many there are in the series.
    """

    def __init__(self, frames: int, fps: float, seed: int = SEED, block_seconds: float = BLOCK_SECONDS) -> None:
        block = max(1, round(block_seconds * fps))
        self.blocks = frames / block
        self._begins = np.arange(0, frames, block)
        rng = np.random.default_rng(seed)
        starts = rng.integers(frames, size=(RESAMPLES, -(-frames // block), 1))
        self._index = ((starts + np.arange(block)) % frames).reshape(RESAMPLES, -1)[:, :frames]

    @classmethod
    def of_chosen(cls, frames: Sequence[int], fps: float) -> Bootstrap:
        """Resamples of frames that were chosen evenly from a video: those of two seconds are one block.

        Args:
            frames: Their numbers, in order.
            fps: Frames per second of the video.
        """
        between = (frames[-1] - frames[0]) / max(1, len(frames) - 1)
        return cls(len(frames), fps / max(between, 1.0))

    def interval(self, statistic: Statistic, *series: np.ndarray) -> list[float] | None:
        """Compute the 95 % interval [low, high], from percentiles of the resamples; see :func:`widened`.

        None where the statistic has no value, or where fewer than five blocks have the number. A share of 0 or 1 has
        no spread: its other end is where so many blocks would all be alike by chance (Clopper and Pearson, 1934).

        Args:
            statistic: As for :func:`value`.
            series: [frames] each.
        """
        at, blocks = value(statistic, *series), self._with_number(*series)
        if at is None or blocks < LEAST_BLOCKS:
            return None
        if statistic is share and at in (0.0, 1.0):
            alike = _TAIL ** (1 / blocks)
            return [alike, 1.0] if at else [0.0, 1 - alike]
        return _interval(self.values(statistic, *series), at, blocks, _range(statistic, series))

    def interval_of_difference(
        self, statistic: Statistic, own: Sequence[np.ndarray], other: Sequence[np.ndarray]
    ) -> list[float] | None:
        """As :meth:`interval`, of one statistic minus that of other series of the same frames."""
        first, second = (value(statistic, *series) for series in (own, other))
        blocks = self._with_number(*own, *other)
        if first is None or second is None or blocks < LEAST_BLOCKS:
            return None
        draws = self.values(statistic, *own) - self.values(statistic, *other)
        return _interval(draws, first - second, blocks, (-np.inf, np.inf))

    def values(self, statistic: Statistic, *series: np.ndarray) -> np.ndarray:
        """The statistic of each resample, [RESAMPLES]; arguments as for :meth:`interval`."""
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            return statistic(*(x[self._index] for x in series))

    def _with_number(self, *series: np.ndarray) -> float:
        """How many blocks hold a number of the series that has the fewest: what few of them hold is known no better."""
        held = [np.logical_or.reduceat(np.isfinite(x), self._begins).sum() for x in series]
        return min(self.blocks, float(min(held)))


def _interval(values: np.ndarray, at: float, blocks: float, within: tuple[float, float]) -> list[float] | None:
    values = values[np.isfinite(values)]
    if len(values) < LEAST_SHARE * RESAMPLES:
        return None
    return [float(bound) for bound in np.clip(widened(values, at, blocks), *within)]


def widened(values: np.ndarray, at: float, blocks: float) -> list[float]:
    """The 95 % interval [low, high] of a statistic, from its resamples of few blocks.

    Resamples of n blocks spread by sqrt((n - 1) / n) too little, and n blocks say how much they spread no better than a
    sample of n does. So the percentiles are moved away from the statistic by Student's t over the normal quantile,
    times sqrt(n / (n - 1)): Hesterberg, "What Teachers Should Know About the Bootstrap", 2015, on its narrowness.

    Args:
        values: [RESAMPLES].
        at: The statistic of the series itself.
        blocks: Blocks of the series that have a number, n; of two series that are compared, the fewer.
    """
    wider = stdtrit(blocks - 1, 1 - _TAIL) / ndtri(1 - _TAIL) * np.sqrt(blocks / (blocks - 1))
    low, high = np.percentile(values, [100 * _TAIL, 100 * (1 - _TAIL)])
    return [float(at + wider * min(low - at, 0.0)), float(at + wider * max(high - at, 0.0))]


def _range(statistic: Statistic, series: Sequence[np.ndarray]) -> tuple[float, float]:
    """What a statistic cannot leave, as far as that is known: a mean of nothing negative is not negative."""
    if statistic is not mean:
        return RANGES.get(statistic, (-np.inf, np.inf))
    return 0.0 if np.nanmin(series[0]) >= 0 else -np.inf, np.inf


def _common(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = np.isfinite(a) & np.isfinite(b)
    return np.where(known, a, np.nan), np.where(known, b, np.nan)


def _positive(x: np.ndarray, least: float = 0.0) -> np.ndarray:
    return np.where(x > least, x, np.nan)
