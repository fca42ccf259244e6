"""Packed samples along rays, where an occupancy grid is set, as a torch operator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.checks import INT32_MAX, check_tensor, float_tensor, number
from avatar.native.library import runs_native
from avatar.native.operators import Kernels, operator


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
        The samples, in the order of the rays. A ray with NaN has none. Differentiable, through the
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
    occupancy = checked_occupancy(occupancy, origins)
    corners = checked_box(box)
    checked_steps(corners, step, max_samples, budget)
    if rays * max_samples > INT32_MAX:
        raise AvatarError(f"{rays} rays of {max_samples} samples:", why="expected fewer than 2^31 samples in all.")
    places = (corners, occupancy, step, max_samples, limits, jitter, budget)
    if not runs_native(origins):
        return RaySamples(*reference.sample_rays(origins, directions, *places))
    starts, ends, offsets, totals = _sample(origins.detach(), directions.detach(), *places)
    return RaySamples(_points(offsets, starts, ends, origins, directions), starts, ends, offsets, int(totals[1]))


def pack_occupancy(occupied: Tensor) -> Tensor:
    """Pack an occupancy grid, bool [Z, Y, X], into bits.

    Returns:
        uint8 [Z, Y, X/8]; cell x is bit x % 8 of byte x // 8.

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


def checked_steps(corners: Sequence[float], step: float, max_samples: int, budget: int | None = None) -> None:
    """Check the step in a box from one corner to the other, flat, and the limits of the samples."""
    number("step", step, math.dist(corners[:3], corners[3:]) / reference.STEPS_MAX)
    for name, value, most in (("max_samples", max_samples, reference.STEPS_MAX), ("budget", budget, INT32_MAX)):
        if value is not None and not (isinstance(value, int) and 1 <= value <= most):
            raise AvatarError(f"{name} is {value};", why=f"expected a whole number from 1 to {most}.")


def checked_occupancy(occupancy: Tensor, like: Tensor) -> Tensor:
    """An occupancy grid, checked."""
    check_tensor("occupancy", occupancy, ("B", "B", "B"))
    if occupancy.dtype != torch.uint8 or occupancy.device != like.device:
        raise AvatarError(
            f"occupancy is {occupancy.dtype} on {occupancy.device};",
            why=f"expected torch.uint8 [Z, Y, X/8] on {like.device}.",
            fix="pack_occupancy makes it of bool [Z, Y, X].",
        )
    return occupancy.contiguous()


def checked_box(box: Sequence[Sequence[float]] | Tensor) -> list[float]:
    """Both corners of a box, checked, flat."""
    if isinstance(box, Tensor):
        check_tensor("box", box, (2, 3))
        box = box.tolist()
    try:
        low, high = ([float(x) for x in corner] for corner in box)
        good = len(low) == len(high) == 3 and all(
            a < b and math.isfinite(b - a) for a, b in zip(low, high, strict=True)
        )
    except (TypeError, ValueError):
        good, low, high = False, [], []
    if not good:
        raise AvatarError(f"box is {box};", why="expected its lower and its upper corner, [2, 3].")
    return [*low, *high]


# ---- which intervals -----------------------------------------------------------------------------------------------


def _intervals(
    origins: Tensor,
    directions: Tensor,
    box: Sequence[float],
    occupancy: Tensor,
    step: float,
    max_samples: int,
    limits: Tensor | None,
    jitter: Tensor | None,
    budget: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """starts [S], ends [S], offsets [R+1], totals [2] on the CPU: samples and complete rays."""
    starts = origins.new_empty(torch.library.get_ctx().new_dynamic_size())
    offsets = origins.new_empty(origins.shape[0] + 1, dtype=torch.int32)
    return starts, torch.empty_like(starts), offsets, torch.empty(2, dtype=torch.int32)


def _compute(
    native: Kernels,
    origins: Tensor,
    directions: Tensor,
    box: Sequence[float],
    occupancy: Tensor,
    step: float,
    max_samples: int,
    limits: Tensor | None,
    jitter: Tensor | None,
    budget: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rays = len(origins)
    offsets, totals = origins.new_empty(rays + 1, dtype=torch.int32), origins.new_empty(2, dtype=torch.int32)
    work = native.workspace("sample_rays_workspace", origins, rays, max_samples)
    corners = torch.tensor(box, dtype=torch.float64, device="cpu")
    native.call(
        *("sample_rays_count", origins, origins, directions, limits, jitter, rays, corners, occupancy),
        *(*occupancy.shape, step, max_samples, INT32_MAX if budget is None else budget, offsets, totals, work),
    )
    totals = totals.cpu()
    starts = origins.new_empty(int(totals[0]))
    ends = torch.empty_like(starts)
    native.call("sample_rays_fill", origins, rays, step, max_samples, offsets, starts, ends, work)
    return starts, ends, offsets, totals


_sample = operator("sample_rays", _intervals, _compute)


# ---- where they are ------------------------------------------------------------------------------------------------


def _middles(offsets: Tensor, starts: Tensor, ends: Tensor, origins: Tensor, directions: Tensor) -> Tensor:
    return starts.new_empty(starts.shape[0], 3)


def _compute_middles(native: Kernels, *inputs: Tensor) -> Tensor:
    points, origins = _middles(*inputs), inputs[3]
    native.call("ray_points", origins, *inputs, len(origins), points)
    return points


def _gradients(
    v_points: Tensor, offsets: Tensor, starts: Tensor, ends: Tensor, origins: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(origins), torch.empty_like(origins)


def _compute_gradients(
    native: Kernels, v_points: Tensor, offsets: Tensor, starts: Tensor, ends: Tensor, origins: Tensor
) -> tuple[Tensor, Tensor]:
    gradients = _gradients(v_points, offsets, starts, ends, origins)
    native.call("ray_points_backward", origins, offsets, starts, ends, v_points, len(origins), *gradients)
    return gradients


_points_backward = operator("ray_points_backward", _gradients, _compute_gradients)


def _setup(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:4])


def _vjp(ctx: Any, v_points: Tensor) -> tuple[Tensor | None, ...]:
    return None, None, None, *_points_backward(v_points.contiguous(), *ctx.saved_tensors)


_points = operator("ray_points", _middles, _compute_middles, _vjp, _setup)
