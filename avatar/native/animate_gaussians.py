"""One frame of playback as a torch operator: canonical Gaussians to projected ones, in one pass over memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.checks import check_tensor, float_tensor, image_size, number
from avatar.native.frames import CanonicalGaussians, FrameMotion
from avatar.native.library import runs_native
from avatar.native.operators import Kernels, operator

NEAR_PLANE = 0.01  # as project_gaussians by default


def animate_gaussians(
    gaussians: CanonicalGaussians, motion: FrameMotion, viewmat: Tensor, K: Tensor, width: int, height: int,
    eps2d: float = 0.3,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Deform, skin, activate and project canonical Gaussians, for playback: there is no gradient.

    Args:
        gaussians: N of them. Their indices are not checked: one out of range reads the last vertex.
        motion: Of the frame.
        viewmat, K, width, height: As in :func:`avatar.native.project_gaussians`, and not looked at.
        eps2d: As there.

    Returns:
        radii, means2d, depths and conics as :func:`avatar.native.project_gaussians` gives them; opacities [N] and
        colors [N, 3].

    Raises:
        AvatarError: Wrong shapes or dtypes, or a gradient is asked for.
    """
    image_size(width, height)
    number("eps2d", eps2d, 0)
    means = float_tensor("means", gaussians.means, ("N", 3))
    n, arguments = len(means), [means]
    for name, size in (("quats", 4), ("scales", 3), ("opacities", 1), ("colors", 3), ("weights", 1)):
        arguments.append(float_tensor(name, getattr(gaussians, name), (n, size), like=means))
    check_tensor("bind_index", gaussians.bind_index, (n, 3))
    if gaussians.bind_index.dtype != torch.int32 or gaussians.bind_index.device != means.device:
        raise AvatarError(f"bind_index is {gaussians.bind_index.dtype} on {gaussians.bind_index.device};",
                          why=f"expected torch.int32 on {means.device}.")  # fmt: skip
    arguments += [gaussians.bind_index.contiguous(), float_tensor("bind_weight", gaussians.bind_weight, (n, 3), means)]
    arguments += _motion(motion, means)
    arguments += [float_tensor("viewmat", viewmat, (4, 4), means), float_tensor("K", K, (3, 3), means)]
    if torch.is_grad_enabled() and any(x.requires_grad for x in arguments):
        raise AvatarError("animate_gaussians has no gradient;", why="an argument requires one.",
                          fix="Use skin_gaussians and project_gaussians.")  # fmt: skip
    if not runs_native(means):
        canonical, frame = CanonicalGaussians._make(arguments[:8]), FrameMotion._make(arguments[8:14])
        return reference.animate_gaussians(canonical, frame, arguments[14], arguments[15], width, height, eps2d)
    return _animate(*arguments, width, height, eps2d)


def _motion(motion: FrameMotion, means: Tensor) -> list[Tensor]:
    changes = float_tensor("changes", motion.changes, ("N", 10), like=means)
    if len(changes) > len(means):
        raise AvatarError(f"changes has shape {list(changes.shape)};", why=f"there are {len(means)} Gaussians.")
    return [
        changes,
        float_tensor("vertices", motion.vertices, ("V", 3), like=means),
        float_tensor("transforms", motion.transforms, (2, 3, 4), like=means),
        float_tensor("transform_quats", motion.transform_quats, (2, 4), like=means),
        float_tensor("warp", motion.warp, ("G", "G", 2), like=means),
        float_tensor("warp_frame", motion.warp_frame, (7,), like=means),
    ]


def _animated(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    weights: Tensor,
    bind_index: Tensor,
    bind_weight: Tensor,
    changes: Tensor,
    vertices: Tensor,
    transforms: Tensor,
    transform_quats: Tensor,
    warp: Tensor,
    warp_frame: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    eps2d: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """radii, means2d, depths, conics, opacities, colors."""
    n, new = means.shape[0], means.new_empty
    return new(n, dtype=torch.int32), new(n, 2), new(n), new(n, 3), new(n), new(n, 3)


def _compute(native: Kernels, *inputs: Any) -> tuple[Tensor, ...]:
    changes, vertices, transforms, transform_quats, warp, warp_frame, viewmat, K, width, height, eps2d = inputs[8:]
    results = _animated(*inputs)
    native.call(
        *("animate", inputs[0], *inputs[:8], len(inputs[0]), changes, len(changes), vertices, len(vertices)),
        *(transforms, transform_quats, warp, *warp.shape[:2], warp_frame, viewmat, K, width, height),
        *(eps2d, NEAR_PLANE, *results),
    )
    return results


_animate = operator("animate_gaussians", _animated, _compute)
