"""Packed samples along rays, where an occupancy grid is set, as a torch operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.checks import INT32_MAX, check_tensor, float_tensor, number


class RaySamples(NamedTuple):
    """Samples of rays, packed: ray r owns the samples offsets[r] to offsets[r+1], as :func:`march_rays` takes them."""

    positions: Tensor
    """[S, 3] middles of the intervals, cm, in the axes of the rays; differentiable in origins and directions."""
    starts: Tensor
    """[S] distance along the ray, cm, at which each interval starts."""
    ends: Tensor
    """[S] distance, cm, at which it ends."""
    offsets: Tensor
    """int32 [R+1]."""
    rays: int
    """Rays, from the first on, all of whose samples fit into the budget; those behind them have none."""


def sample_rays(
    origins: Tensor,
    directions: Tensor,
    box: Sequence[Sequence[float]] | Tensor,
    occupancy: Tensor,
    step: float,
    max_samples: int,
    *,
    limits: Tensor | None = None,
    jitter: Tensor | None = None,
    budget: int | None = None,
) -> RaySamples:
    """Sample rays at even steps, inside a box, where its occupancy grid is set.

    A ray enters at t = max(0, limits[:, 0], the box) and leaves at min(limits[:, 1], the box). Interval k runs from
    enter + (k + jitter) step to enter + (k + 1 + jitter) step. It becomes a sample where its middle lies before the
    exit and in a cell that is set, until the ray has ``max_samples`` (the occupancy grid of Instant-NGP, Mueller et
    al. 2022, without its growing steps).

    Args:
        origins: [R, 3], cm, in the axes of the box (the head's).
        directions: [R, 3] of length 1.
        box: [2, 3] lower and upper corner, cm. A tensor on a GPU costs a wait.
        occupancy: uint8 [Z, Y, X/8], one bit per cell (:func:`pack_occupancy`).
        step: Length of an interval, cm; at least 1/4096 of the box's diagonal.
        max_samples: Most samples of a ray, 1 to 4096.
        limits: [R, 2] nearest and farthest distance on each ray, cm: of the camera, or a window around a known depth.
        jitter: [R] in steps, 0 to 1, usually uniform; None: 0.
        budget: Most samples of all rays together. The first ray that does not fit, and all after it, get none.

    Returns:
        The samples, in the order of the rays. A ray with NaN or without length has none. Differentiable, through the
        positions, in origins and directions.

    Raises:
        AvatarError: Wrong shapes, dtypes or numbers.
    """
    origins = float_tensor("origins", origins, ("N", 3))
    rays = len(origins)
    directions = float_tensor("directions", directions, (rays, 3), like=origins)
    if limits is not None:
        limits = float_tensor("limits", limits, (rays, 2), like=origins)
    if jitter is not None:
        jitter = float_tensor("jitter", jitter, (rays,), like=origins)
    occupancy = _checked_occupancy(occupancy, origins)
    corners = _checked_box(box)
    number("step", step, math.dist(corners[:3], corners[3:]) / reference.STEPS_MAX)
    for name, value, most in (("max_samples", max_samples, reference.STEPS_MAX), ("budget", budget, INT32_MAX)):
        if value is not None and not (isinstance(value, int) and 1 <= value <= most):
            raise AvatarError(f"{name} is {value};", why=f"expected a whole number from 1 to {most}.")
    return RaySamples(
        *reference.sample_rays(
            origins, directions, corners, occupancy, step, max_samples, limits, jitter, budget
        )
    )  # fmt: skip


def pack_occupancy(occupied: Tensor) -> Tensor:
    """Pack an occupancy grid, bool [Z, Y, X], into bits, uint8 [Z, Y, X/8]: cell x is bit x % 8 of byte x // 8.

    Raises:
        AvatarError: Not bool, or X is no multiple of 8.
    """
    check_tensor("occupied", occupied, ("B", "B", "B"))
    if occupied.dtype != torch.bool or occupied.shape[2] % 8:
        raise AvatarError(
            f"occupied is {occupied.dtype} {list(occupied.shape)};",
            why="expected torch.bool [Z, Y, X] with X a multiple of 8.",
        )
    bits = 1 << torch.arange(8, device=occupied.device)
    return (occupied.unflatten(2, (-1, 8)) * bits).sum(-1, dtype=torch.uint8)


def _checked_occupancy(occupancy: Tensor, like: Tensor) -> Tensor:
    check_tensor("occupancy", occupancy, ("B", "B", "B"))
    if occupancy.dtype != torch.uint8 or occupancy.device != like.device:
        raise AvatarError(
            f"occupancy is {occupancy.dtype} on {occupancy.device};",
            why=f"expected torch.uint8 [Z, Y, X/8] on {like.device}.",
            fix="pack_occupancy makes it of bool [Z, Y, X].",
        )
    return occupancy.contiguous()


def _checked_box(box: Sequence[Sequence[float]] | Tensor) -> list[float]:
    """Both corners, flat."""
    if isinstance(box, Tensor):
        check_tensor("box", box, (2, 3))
        box = box.tolist()
    corners = [float(x) for corner in box for x in corner]
    if len(corners) != 6 or not all(low < high for low, high in zip(corners[:3], corners[3:], strict=True)):
        raise AvatarError(f"box is {list(box)};", why="expected its lower and its upper corner, [2, 3].")
    return corners
