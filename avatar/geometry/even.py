"""Points that cover a density without crowds and gaps, which random ones have."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

ROUNDS = 1  # more would thin out where the density is high: equal distances are what they lead to
TRIES = 20  # candidates per point, so that each finds one in the middle of its cell ...
MOST, LEAST = 120_000, 5  # ... but with many points no more in all, and no fewer per point


def candidates(count: int) -> int:
    """How many candidates `evenly` wants for a number of points."""
    return max(min(TRIES * count, MOST), LEAST * count)


def evenly(around: Float[np.ndarray, "M D"], count: int) -> Int[np.ndarray, " N"]:
    """Choose points, each in the middle of a cell of its own; all cells hold equally many candidates (Lloyd 1982).

    Args:
        around: Places drawn at random from the density; more than ``count`` of them, see :func:`candidates`.
        count: Number of points, N; at most M.

    Returns:
        Indices of the chosen places.
    """
    count, places = min(count, len(around)), KDTree(around)
    chosen = places.query(_means(around, _halves(around, count), count))[1]
    for _ in range(ROUNDS):
        cell = np.asarray(KDTree(around[chosen]).query(around)[1])
        moved = places.query(_means(around, cell, count))[1]
        chosen = np.where(np.bincount(cell, minlength=count) > 0, moved, chosen)
    return np.asarray(chosen)


def _means(around: np.ndarray, cell: np.ndarray, count: int) -> np.ndarray:
    """Mean [N, D] of the places in each cell; zero where there is none."""
    size = np.bincount(cell, minlength=count)
    sums = np.stack([np.bincount(cell, axis, count) for axis in around.T], -1)
    return sums / np.maximum(size, 1)[:, None]


def _halves(points: np.ndarray, count: int) -> np.ndarray:
    """Cells [M] of points, by cutting them in two, and the halves again, across the side that is longest."""
    cell = np.zeros(len(points), int)
    waiting, done = [(np.arange(len(points)), count)], 0
    while waiting:
        index, parts = waiting.pop()
        if parts <= 1:
            cell[index] = done
            done += parts
            continue
        left = parts // 2
        cut = len(index) * left // parts
        axis = int(np.ptp(points[index], axis=0).argmax())
        index = index[np.argpartition(points[index, axis], cut)]
        waiting += [(index[:cut], left), (index[cut:], parts - left)]
    return cell
