"""The smooth step from 0 to 1, for numbers, NumPy arrays and tensors alike."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from torch import Tensor

T = TypeVar("T", float, np.ndarray, Tensor)


def smooth(t: T) -> T:
    """Ease what goes evenly from 0 to 1: level at both ends.

    Args:
        t: 0..1, of any shape.

    Returns:
        0..1, of the same shape.
    """
    return t * t * (3 - 2 * t)


def smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise smoothly from 0 at ``low`` to 1 at ``high``; constant beyond."""
    return smooth(np.clip((x - low) / (high - low), 0, 1))
