"""The true rate of a video that stores some frames twice, such as 25 frames per second in a file of 30.

A repeated frame differs from the one before by next to nothing, even where it was coded again. A sensor's noise and a
speaking mouth change every true frame. The repeats of a conversion lie in a fixed pattern, which this looks for; what
stands still now and then follows none, and is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

_TRUE_RATES = [
    Fraction(r) for r in ("10", "12", "25/2", "15", "20", "24000/1001", "24", "25", "30000/1001", "30", "50")
]
_SHARES = [Fraction(1, 2), Fraction(1, 3), Fraction(2, 3), Fraction(3, 4), Fraction(4, 5), Fraction(5, 6)]
_LEAST_SHARE = 0.2  # of the frames that are new
_PHASES = 60
_APART = 0.93  # chance that a new frame changes more than a repeat: 0.5 is none, by luck it reaches 0.7
_LUCK = 0.5  # more of that chance, by the number of repeats: a few are small by accident
_CLEAR = 2.0  # times that it changes more, in the middle
_LEVEL = 0.1  # levels: smaller changes are none
_AROUND = 4  # frames before and after
_LEAST_FRAMES = 48


@dataclass(frozen=True)
class Cadence:
    """A pattern of repeats.

    Attributes:
        rate: True frames per second.
        begin: Slot at which frame 0 was taken, on average over the pattern; a slot is one stored frame.
        pick: Slots after that moment at which the frame is the nearest one for sure.
    """

    rate: Fraction
    begin: float
    pick: float


def find_cadence(slots: np.ndarray, changes: np.ndarray, fps: Fraction) -> Cadence | None:
    """Find the pattern in which a video repeats its frames.

    Args:
        slots: [N] number of a stored frame, counted from the first one of the video.
        changes: [N] levels by which it differs from the one before, where it differs most.
        fps: Stored frames per second.

    Returns:
        None where there are no repeats, or no pattern.
    """
    if len(slots) < _LEAST_FRAMES:
        return None
    shares = {rate / fps for rate in _TRUE_RATES} | set(_SHARES)
    phases = np.arange(_PHASES) / _PHASES
    relative = _relative(changes)
    ranks = _ranks(relative)
    best: float | None = None
    share, fitting = Fraction(1), phases
    for tried in sorted((s for s in shares if _LEAST_SHARE <= s < 0.97), key=lambda s: s.denominator):
        now = np.floor(slots * float(tried) + phases[:, None] + 1e-9)
        new = now > np.floor((slots - 1) * float(tried) + phases[:, None] + 1e-9)
        apart = _apart(ranks, new)
        pattern = new[int(apart.argmax())]
        if apart.max() < _APART + _LUCK / max(1, int((~pattern).sum())):
            continue
        if np.median(relative[pattern]) - np.median(relative[~pattern]) < np.log(_CLEAR):
            continue
        # Of a pattern and others within it, the one that parts large changes from small ones.
        gap = float(np.percentile(relative[pattern], 20) - np.percentile(relative[~pattern], 80))
        if best is None or gap > best + 1e-6:
            best, share, fitting = gap, tried, phases[apart > apart.max() - 1e-6]
    if best is None:
        return None
    begin = 0.5 - _middle(fitting) / float(share)
    if begin < -0.5:
        begin += 1 / float(share)
    return Cadence(share * fps, begin, (1 / float(share) - 1) / 2)


def _relative(changes: np.ndarray) -> np.ndarray:
    """Logarithm [N] of changes [N] over what is usual about them: a person moves now more and now less."""
    logs = np.log(changes + _LEVEL)
    padded = np.pad(logs, _AROUND, mode="reflect")
    return logs - np.lib.stride_tricks.sliding_window_view(padded, 2 * _AROUND + 1).mean(1)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Rank [N] of every value from 1, the same for equal ones."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[which]


def _apart(ranks: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Chance [P] that a frame of pattern [P, N] changes more than one outside it (Mann-Whitney)."""
    inside = new.sum(1)
    outside = new.shape[1] - inside
    above = (ranks * new).sum(1) - inside * (inside + 1) / 2
    return above / np.maximum(1, inside * outside)


def _middle(phases: np.ndarray) -> float:
    """Middle of neighbouring phases on the circle of 1."""
    angle = np.angle(np.exp(2j * np.pi * phases).mean()) / (2 * np.pi)
    return float(angle % 1)
