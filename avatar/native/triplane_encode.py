"""Tri-plane hash-grid features as a torch operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.checks import check_tensor, float_tensor
from avatar.native.library import runs_native
from avatar.native.operators import Kernels, address, operator, wanted


def triplane_encode(points: Tensor, table: Tensor, resolutions: Sequence[int] | Tensor) -> Tensor:
    """Features of points, read bilinearly from three axis-aligned planes at several resolutions.

    A level of resolution R has (R+1)^2 vertices that span [-1, 1]. It is stored row-major where that fits into the T
    rows of the table, and otherwise through the spatial hash of instant-ngp (Mueller et al. 2022, equation 4) in 2D.

    Args:
        points: [N, 3], clamped to [-1, 1]; NaN makes features of NaN.
        table: [3, L, T, F] with planes xy, yz, xz; up to 64 levels, at least 4 rows, up to 16 features. A power of two
            for T is fastest. NaN and infinity reach the features that are read with them.
        resolutions: [L] cells per side, 1 to 65535.

    Returns:
        [N, 3*L*F], plane-major, then level, then feature. Differentiable in points and table.

    Raises:
        AvatarError: Wrong shapes or resolutions.
    """
    points = float_tensor("points", points, ("N", 3))
    table, sizes = checked_grid(table, resolutions, points)
    if not runs_native(points):
        return reference.triplane_encode(points, table, sizes)
    return _encode(points, table, sizes)


def checked_grid(
    table: Tensor, resolutions: Sequence[int] | Tensor, like: Tensor | None = None
) -> tuple[Tensor, list[int]]:
    """The table and the resolutions of a tri-plane, checked."""
    table = float_tensor("table", table, (3, "L", "T", "F"), like=like)
    levels = table.shape[1]
    if isinstance(resolutions, Tensor):
        check_tensor("resolutions", resolutions, (levels,))
        resolutions = resolutions.tolist()
    sizes = [size for size in resolutions if isinstance(size, int) and 1 <= size <= 65535]
    if len(sizes) != len(resolutions):
        raise AvatarError(f"resolutions are {list(resolutions)};", why="expected whole numbers from 1 to 65535.")
    if len(sizes) != levels:
        raise AvatarError(f"resolutions has {len(sizes)} entries;", why=f"table has {levels} levels.")
    return table, sizes


def _features(points: Tensor, table: Tensor, resolutions: Sequence[int]) -> Tensor:
    return points.new_empty(points.shape[0], table.shape[0] * table.shape[1] * table.shape[3])


def _compute(native: Kernels, points: Tensor, table: Tensor, resolutions: Sequence[int]) -> Tensor:
    out = _features(points, table, resolutions)
    sizes = torch.tensor(resolutions, dtype=torch.int32, device="cpu")  # CUDA's launch copies it
    native.call("triplane_encode", points, points, table, sizes, len(points), *table.shape[1:], out)
    return out


def _gradients(
    v_out: Tensor, points: Tensor, table: Tensor, resolutions: Sequence[int], need_points: bool, need_table: bool
) -> tuple[Tensor, Tensor]:
    return wanted(points, need_points), wanted(table, need_table)


def _compute_gradients(
    native: Kernels,
    v_out: Tensor,
    points: Tensor,
    table: Tensor,
    resolutions: Sequence[int],
    need_points: bool,
    need_table: bool,
) -> tuple[Tensor, Tensor]:
    v_points, v_table = _gradients(v_out, points, table, resolutions, need_points, need_table)
    _, levels, rows, features = table.shape
    native.call(
        *("triplane_encode_backward", points, points, table),
        *(torch.tensor(resolutions, dtype=torch.int32, device="cpu"), len(points), levels, rows, features, v_out),
        *(address(v_points, need_points), address(v_table, need_table)),
    )
    return v_points, v_table


_encode_backward = operator("triplane_encode_backward", _gradients, _compute_gradients)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    points, table, ctx.resolutions = inputs
    ctx.save_for_backward(points, table)


def _vjp(ctx: Any, v_out: Tensor) -> tuple[Tensor | None, ...]:
    points, table = ctx.saved_tensors
    need_points, need_table = ctx.needs_input_grad[:2]
    v_points, v_table = _encode_backward(v_out.contiguous(), points, table, ctx.resolutions, need_points, need_table)
    return v_points if need_points else None, v_table if need_table else None, None


_encode = operator("triplane_encode", _features, _compute, _vjp, _setup)
