"""Projection of 3D Gaussians as a torch operator."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.checks import float_tensor, image_size, number
from avatar.native.library import runs_native
from avatar.native.operators import Kernels, address, operator, wanted


def project_gaussians(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    eps2d: float = 0.3,
    near_plane: float = 0.01,
    *,
    implementation: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]] | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Project 3D Gaussians to ellipses in the image (EWA, Zwicker et al. 2001; conventions of gsplat).

    Args:
        means: [N, 3] world coordinates.
        quats: [N, 4] wxyz, of any length but zero.
        scales: [N, 3] standard deviations along the axes of the Gaussian, world units.
        viewmat: [4, 4] world to camera, OpenCV axes.
        K: [3, 3] pinhole intrinsics in pixels; not differentiated.
        width: Image width in pixels.
        height: Image height in pixels.
        eps2d: Added to the diagonal of the 2D covariance, square pixels.
        near_plane: Gaussians whose mean is nearer than this are culled.
        implementation: Another project's code; takes the checked arguments by position.

    Returns:
        radii int32 [N] (3 standard deviations along the longer axis, rounded up; 0 means culled and the other outputs
        are zero), means2d [N, 2] in pixels, depths [N] (camera z) and conics [N, 3] (a, b, c of the inverse 2D
        covariance [[a, b], [b, c]]). Differentiable in means, quats, scales and viewmat. A Gaussian with NaN or
        infinity in its mean, quaternion or scales is culled, and has gradients of zero.

    Raises:
        AvatarError: Wrong shapes, dtypes or sizes; on the CPU, where it costs no wait, also a camera that is not finite
            or whose focal lengths are not positive.
    """
    image_size(width, height)
    means = float_tensor("means", means, ("N", 3))
    quats = float_tensor("quats", quats, (len(means), 4), like=means)
    scales = float_tensor("scales", scales, (len(means), 3), like=means)
    viewmat = float_tensor("viewmat", viewmat, (4, 4), like=means)
    K = float_tensor("K", K, (3, 3), like=means)
    number("eps2d", eps2d, 0)
    number("near_plane", near_plane, 0)
    if means.device.type == "cpu":
        _camera(viewmat, K)
    arguments = (means, quats, scales, viewmat, K, width, height, eps2d, near_plane)
    if implementation is not None:
        return implementation(*arguments)
    if not runs_native(means):
        return reference.project_gaussians(*arguments)
    means2d, depths, conics, radii = _project(*arguments)
    return radii, means2d, depths, conics


def _camera(viewmat: Tensor, K: Tensor) -> None:
    """Refuse a camera through which nothing would be seen, or a mirror image."""
    for name, matrix in (("viewmat", viewmat), ("K", K)):
        if not all(math.isfinite(x) for row in matrix.tolist() for x in row):
            raise AvatarError(f"{name} {list(matrix.shape)} holds NaN or infinity;", why="expected finite numbers.")
    if not (K[0, 0] > 0 and K[1, 1] > 0):
        focal = f"{K[0, 0].item():g} and {K[1, 1].item():g}"
        raise AvatarError(f"K {list(K.shape)} has focal lengths {focal};", why="expected positive pixels.")


def _projected(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    eps2d: float,
    near_plane: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """means2d, depths, conics, radii."""
    n = means.shape[0]
    return means.new_empty(n, 2), means.new_empty(n), means.new_empty(n, 3), means.new_empty(n, dtype=torch.int32)


def _compute(native: Kernels, *inputs: Any) -> tuple[Tensor, ...]:
    means = inputs[0]
    means2d, depths, conics, radii = results = _projected(*inputs)
    native.call("project", means, *inputs[:5], len(means), *inputs[5:], radii, means2d, depths, conics)
    return results


def _gradients(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    eps2d: float,
    radii: Tensor,
    v_means2d: Tensor,
    v_depths: Tensor,
    v_conics: Tensor,
    need_viewmat: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like = torch.empty_like
    return like(means), like(quats), like(scales), wanted(viewmat, need_viewmat)


def _compute_gradients(native: Kernels, *inputs: Any) -> tuple[Tensor, ...]:
    means, need_viewmat = inputs[0], inputs[-1]
    gradients = _gradients(*inputs)
    native.call(
        *("project_backward", means, *inputs[:5], len(means), *inputs[5:-1], *gradients[:3]),
        *(address(gradients[3], need_viewmat), native.workspace("project_workspace", means, len(means))),
    )
    return gradients


_project_backward = operator("project_gaussians_backward", _gradients, _compute_gradients)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    means, quats, scales, viewmat, K, ctx.width, ctx.height, ctx.eps2d, _ = inputs
    ctx.save_for_backward(means, quats, scales, viewmat, K, output[3])
    ctx.mark_non_differentiable(output[3])


def _vjp(ctx: Any, v_means2d: Tensor, v_depths: Tensor, v_conics: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    means, quats, scales, viewmat, K, radii = ctx.saved_tensors
    need_viewmat = ctx.needs_input_grad[3]
    v_means, v_quats, v_scales, v_viewmat = _project_backward(
        *(means, quats, scales, viewmat, K, ctx.width, ctx.height, ctx.eps2d, radii),
        *(v_means2d.contiguous(), v_depths.contiguous(), v_conics.contiguous(), need_viewmat),
    )
    return v_means, v_quats, v_scales, v_viewmat if need_viewmat else None, None, None, None, None, None


_project = operator("project_gaussians", _projected, _compute, _vjp, _setup)
