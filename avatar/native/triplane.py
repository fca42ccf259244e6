"""Tri-plane hash-grid features as a torch operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.checks import check_tensor, float_tensor
from avatar.native.library import require_library, runs_native


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
    table = float_tensor("table", table, (3, "L", "T", "F"), like=points)
    levels = table.shape[1]
    if isinstance(resolutions, Tensor):
        check_tensor("resolutions", resolutions, (levels,))
        resolutions = resolutions.tolist()
    sizes = [size for size in resolutions if isinstance(size, int) and 1 <= size <= 65535]
    if len(sizes) != len(resolutions):
        raise AvatarError(f"resolutions are {list(resolutions)};", why="expected whole numbers from 1 to 65535.")
    if len(sizes) != levels:
        raise AvatarError(f"resolutions has {len(sizes)} entries;", why=f"table has {levels} levels.")
    if not runs_native(points):
        return reference.triplane_encode(points, table, sizes)
    return _encode(points, table, sizes)


@torch.library.custom_op("avatar::triplane_encode", mutates_args=(), device_types="cpu")
def _encode(points: Tensor, table: Tensor, resolutions: Sequence[int]) -> Tensor:
    planes, levels, rows, features = table.shape
    out = points.new_empty(len(points), planes * levels * features)
    sizes = torch.tensor(resolutions, dtype=torch.int32)
    require_library().call(
        "avatar_triplane_encode", points.dtype, points, table, sizes, len(points), levels, rows, features, out
    )
    return out


@_encode.register_fake
def _(points: Tensor, table: Tensor, resolutions: Sequence[int]) -> Tensor:
    return points.new_empty(points.shape[0], table.shape[0] * table.shape[1] * table.shape[3])


@torch.library.custom_op("avatar::triplane_encode_backward", mutates_args=(), device_types="cpu")
def _encode_backward(
    v_out: Tensor, points: Tensor, table: Tensor, resolutions: Sequence[int], need_points: bool, need_table: bool
) -> tuple[Tensor, Tensor]:
    _, levels, rows, features = table.shape
    native = require_library()
    v_points = torch.empty_like(points) if need_points else points.new_empty(0)
    v_table = torch.empty_like(table) if need_table else table.new_empty(0)
    size = len(points) if need_table else 0
    native.call(
        "avatar_triplane_encode_backward",
        *(points.dtype, points, table, torch.tensor(resolutions, dtype=torch.int32)),
        *(len(points), levels, rows, features, v_out),
        *(v_points if need_points else None, v_table if need_table else None),
        native.workspace("avatar_triplane_workspace", points.dtype, size, levels, features),
    )
    return v_points, v_table


@_encode_backward.register_fake
def _(
    v_out: Tensor, points: Tensor, table: Tensor, resolutions: Sequence[int], need_points: bool, need_table: bool
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty_like(points) if need_points else points.new_empty(0),
        torch.empty_like(table) if need_table else table.new_empty(0),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    points, table, ctx.resolutions = inputs
    ctx.save_for_backward(points, table)


def _vjp(ctx: Any, v_out: Tensor) -> tuple[Tensor | None, ...]:
    points, table = ctx.saved_tensors
    need_points, need_table = ctx.needs_input_grad[:2]
    v_points, v_table = _encode_backward(v_out.contiguous(), points, table, ctx.resolutions, need_points, need_table)
    return v_points if need_points else None, v_table if need_table else None, None


_encode.register_autograd(_vjp, setup_context=_setup)
