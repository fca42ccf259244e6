"""The true rate of a video that stores some frames twice: 25 frames per second in a file of 30, 30 in 60, 24 in 30.

A repeated frame differs from the one before by next to nothing, even where it was coded again. A sensor's noise and a
speaking mouth change every true frame. The repeats of a conversion lie in a fixed pattern, which this looks for; what
stands still now and then follows none, and is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

_TRUE_RATES = [Fraction(r) for r in ("10", "12", "25/2", "15", "20", "24000/1001", "24", "25", "30000/1001", "30", "50")]
_SHARES = [Fraction(1, 2), Fraction(1, 3), Fraction(2, 3), Fraction(3, 4), Fraction(4, 5), Fraction(5, 6)]
_LEAST_SHARE = 0.2  # of the frames that are new
_PHASES = 60
_AGREE = 0.94  # of the repeats, and of the new frames, where the pattern says
_CLEAR = 4.0  # times that a new frame changes more than a repeat
_NO_CHANGE = 0.6  # levels, in the block that changes most: less may be a repeat
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
    few = changes < _NO_CHANGE
    if len(slots) < _LEAST_FRAMES or few.mean() < 0.03 or (~few).mean() < _LEAST_SHARE:
        return None
    shares = {rate / fps for rate in _TRUE_RATES} | set(_SHARES)
    best: tuple[float, Fraction, np.ndarray] | None = None
    phases = np.arange(_PHASES) / _PHASES
    for share in sorted(s for s in shares if _LEAST_SHARE <= s < 0.97):
        at = np.floor(slots[None] * float(share) + phases[:, None] + 1e-9)
        new = at > np.floor((slots[None] - 1) * float(share) + phases[:, None] + 1e-9)
        agree = np.minimum(_mean(few, ~new), _mean(~few, new))
        if best is None or agree.max() > best[0] + 1e-6:
            best = float(agree.max()), share, phases[agree > agree.max() - 1e-6]
            predicted = new[int(agree.argmax())]
            clear = float(np.median(changes[predicted])) > _CLEAR * float(np.median(changes[~predicted]))
            if not clear:
                best = 0.0, share, phases
    if best is None or best[0] < _AGREE:
        return None
    _, share, fitting = best
    phase = _middle(fitting)
    begin = -phase / float(share) + 0.5
    if begin < -0.5:
        begin += 1 / float(share)
    return Cadence(share * fps, begin, (1 / float(share) - 1) / 2)


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Share of ``values`` [N] that hold where the rows of ``where`` [P, N] do; 0 for none."""
    return (values[None] & where).sum(1) / np.maximum(1, where.sum(1))


def _middle(phases: np.ndarray) -> float:
    """Middle of neighbouring phases on the circle of 1."""
    angle = np.angle(np.exp(2j * np.pi * phases).mean()) / (2 * np.pi)
    return float(angle % 1)
