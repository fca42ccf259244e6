"""Whether the face of a recording is one person's: an interview may cut between two people who sit alike.

There is no face recognition here, only shape and colour, so the answer is a hint. Measured on the probes of 30 clips
and of their 420 pairs: none of the clips was taken for two people, and 77 % of the pairs were.
"""

from __future__ import annotations

import functools

import numpy as np

from avatar.geometry.mesh import FACE_OVAL, STEADY

SHAPES_APART = 4.0  # distance of the two mean shapes over their spread
COLOURS_APART = 6.0  # distance of the two mean colours over their spread
LEAST = 3  # views of each
_TRIES = 6
_ROUNDS = 30
_NOISE = 0.005  # of the logarithm of a colour


def second_person(landmarks: np.ndarray, colours: np.ndarray) -> np.ndarray | None:
    """Find the views that look like those of another person.

    Args:
        landmarks: [N, 478, 3] pixels.
        colours: [N, 3] mean colour of the face in each view, 0..255.

    Returns:
        bool [N], true for the rarer person; None where all views look like one.
    """
    if len(landmarks) < 2 * LEAST:
        return None
    shapes = np.stack([_head_shape(points) for points in landmarks])
    labels = _two_groups(shapes)
    if labels is None or min(labels.sum(), (~labels).sum()) < LEAST:
        return None
    one, other = shapes[labels].mean(0), shapes[~labels].mean(0)
    along = shapes @ (other - one) / np.linalg.norm(other - one)
    light = np.log(colours + 1.0)
    far = np.linalg.norm(other - one) / _spread(along[:, None], labels)
    tint = np.linalg.norm(light[labels].mean(0) - light[~labels].mean(0)) / (_spread(light, labels) + _NOISE)
    if far < SHAPES_APART or tint < COLOURS_APART:
        return None
    return labels if labels.mean() <= 0.5 else ~labels


def _spread(values: np.ndarray, labels: np.ndarray) -> float:
    """Standard deviation within the two groups, mean over columns."""
    return float(np.sqrt(np.mean([values[chosen].var(0).mean() for chosen in (labels, ~labels)]))) + 1e-9


@functools.lru_cache
def _canonical() -> tuple[list[int], np.ndarray]:
    from avatar.assets.canonical_face import canonical_face

    points = sorted({*STEADY, *FACE_OVAL})
    shape = canonical_face()[0][points] * [1.0, -1.0, -1.0]  # y down and z away, as landmarks
    return points, shape - shape.mean(0)


def _head_shape(landmarks: np.ndarray) -> np.ndarray:
    """Turn the bony points of a face [478, 3] to the front and scale them to one size (Umeyama 1991); flat."""
    points, canonical = _canonical()
    shape = landmarks[points].astype(np.float64)
    shape -= shape.mean(0)
    u, _, vt = np.linalg.svd(shape.T @ canonical)
    turn = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
    return (shape @ turn / np.linalg.norm(shape)).ravel()


def _two_groups(values: np.ndarray) -> np.ndarray | None:
    """Split rows into two by k-means, bool [N]; None where they are all alike."""
    best, labels = np.inf, None
    for seed in range(_TRIES):
        centres = values[np.random.default_rng(seed).choice(len(values), 2, replace=False)]
        nearer = np.zeros(len(values), bool)
        for _ in range(_ROUNDS):
            away = np.linalg.norm(values[:, None] - centres, axis=-1)
            nearer = away[:, 0] < away[:, 1]
            if nearer.all() or not nearer.any():
                break
            centres = np.stack([values[nearer].mean(0), values[~nearer].mean(0)])
        else:
            error = float(np.square(values - np.where(nearer[:, None], centres[0], centres[1])).sum())
            if error < best:
                best, labels = error, nearer
    return labels
