"""Whether a training learnt anything: a broken method must not end as a success."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor

from avatar.errors import AvatarError


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether every value of every tensor is a number; by sums, in one pass over memory."""
    return bool(torch.stack([tensor.detach().sum() for tensor in tensors]).isfinite().all())


def check_learnt(frames: Sequence[int], left_out: Collection[int]) -> None:
    """Refuse a training that left out most of its steps, as a very short one of a broken method does.

    Args:
        frames: The frame of each step.
        left_out: Frames that gave no finite numbers.

    Raises:
        AvatarError: More than half of the steps were left out.
    """
    count = sum(frame in left_out for frame in frames) if left_out else 0
    if 2 * count > len(frames):
        raise AvatarError(
            f"{count} of {len(frames)} training steps were left out, because their numbers were not finite.",
            why="What it learnt is no model.",
            fix="Lower the learning rates (see `avatar train --help`), or report it to those who wrote the method.",
        )
