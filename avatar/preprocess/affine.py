"""Affine maps of the image plane, [..., 2, 3]: applied, inverted, composed, averaged."""

from __future__ import annotations

import numpy as np


def transform(matrices: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Apply affine [..., 2, 3] to a point [2]."""
    return matrices[..., :2] @ point + matrices[..., 2]


def invert(matrices: np.ndarray) -> np.ndarray:
    """Inverse of affine [..., 2, 3]."""
    inverse = np.linalg.inv(matrices[..., :2])
    return np.concatenate([inverse, -(inverse @ matrices[..., 2:])], -1)


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """``outer`` after ``inner``, affine [..., 2, 3]."""
    linear = outer[..., :2] @ inner[..., :2]
    return np.concatenate([linear, outer[..., :2] @ inner[..., 2:] + outer[..., 2:]], -1)


def middle_matrix(matrices: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """The similarity [2, 3] with the median scale, rotation and displacement (of ``centre``) of [T, 2, 3]."""
    a, b = np.median(matrices[:, 0, 0]), np.median(matrices[:, 1, 0])
    linear = np.array([[a, -b], [b, a]])
    return np.column_stack([linear, np.median(transform(matrices, centre), 0) - linear @ centre])
