"""Where a track was not measured for long."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avatar.motion.motion import Motion

LEAST_SECONDS = 1.5  # of a segment from which head motion can be learned
_GAP_SECONDS = 0.4  # shorter ones are bridged well, and a hand before the mouth leaves the head's pose as good as ever


def measured_segments(track: Motion, segments: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Cut segments where the face was lost for long.

    What bridges such a gap is a head that freezes or drifts.

    Args:
        track: The motion, T frames.
        segments: [start, end) frames without a cut inside.

    Returns:
        [start, end) of the parts between such gaps; ``segments`` themselves where none of them is long enough.
    """
    lost = ~track.valid.numpy()
    for start, end in np.flatnonzero(np.diff(np.r_[False, lost, False])).reshape(-1, 2).tolist():
        lost[start:end] = end - start > _GAP_SECONDS * track.fps
    parts: list[tuple[int, int]] = []
    for a, b in segments:
        edges = np.flatnonzero(np.diff(np.r_[False, ~lost[a:b], False]))
        parts += [(a + int(start), a + int(end)) for start, end in edges.reshape(-1, 2)]
    long_enough = any(end - start >= LEAST_SECONDS * track.fps for start, end in parts)
    return parts if long_enough else list(segments)
