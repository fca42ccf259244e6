"""Linear blend skinning of Gaussians as a torch operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avatar.native import reference
from avatar.native.checks import float_tensor
from avatar.native.library import runs_native
from avatar.native.operators import Kernels, address, operator, wanted


def skin_gaussians(
    means: Tensor, quats: Tensor, weights: Tensor, offsets: Tensor, transforms: Tensor, transform_quats: Tensor
) -> tuple[Tensor, Tensor]:
    """Blend two rigid transforms of Gaussians, by a weight for each (linear blend skinning with two bones).

    Args:
        means: [N, 3].
        quats: [N, 4] wxyz, of any length.
        weights: [N] share of the first transform, usually 0..1; the second has the rest.
        offsets: [N, 3] added to the means before the second transform.
        transforms: [2, 3, 4] rotation and translation side by side.
        transform_quats: [2, 4] their rotations as quaternions wxyz; opposite signs of the two are the caller's to
            avoid.

    Returns:
        Means [N, 3], ``w (A m + a) + (1 - w) (B (m + offset) + b)``, and quaternions [N, 4],
        ``(w quat_a + (1 - w) quat_b) quat``, not normalised. Differentiable in everything; gradients are the same bits
        for any number of threads. NaN and infinity reach the Gaussians that depend on them.

    Raises:
        AvatarError: Wrong shapes or dtypes.
    """
    means = float_tensor("means", means, ("N", 3))
    n = means.shape[0]
    arguments = (
        means,
        float_tensor("quats", quats, (n, 4), like=means),
        float_tensor("weights", weights, (n,), like=means),
        float_tensor("offsets", offsets, (n, 3), like=means),
        float_tensor("transforms", transforms, (2, 3, 4), like=means),
        float_tensor("transform_quats", transform_quats, (2, 4), like=means),
    )
    return _skin(*arguments) if runs_native(means) else reference.skin_gaussians(*arguments)


def _skinned(
    means: Tensor, quats: Tensor, weights: Tensor, offsets: Tensor, transforms: Tensor, transform_quats: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(means), torch.empty_like(quats)


def _compute(native: Kernels, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    results = _skinned(*inputs)
    native.call("skin", inputs[0], *inputs, len(inputs[0]), *results)
    return results


def _gradients(
    means: Tensor,
    quats: Tensor,
    weights: Tensor,
    offsets: Tensor,
    transforms: Tensor,
    transform_quats: Tensor,
    v_posed_means: Tensor,
    v_posed_quats: Tensor,
    need_transforms: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = torch.empty_like
    return (
        *(like(means), like(quats), like(weights), like(offsets)),
        *(wanted(transforms, need_transforms), wanted(transform_quats, need_transforms)),
    )


def _compute_gradients(native: Kernels, *inputs: Any) -> tuple[Tensor, ...]:
    *tensors, need_transforms = inputs
    means = tensors[0]
    gradients = _gradients(*inputs)
    native.call(
        *("skin_backward", means, *tensors[:6], len(means), *tensors[6:], *gradients[:4]),
        *(address(x, need_transforms) for x in gradients[4:]),
        native.workspace("skin_workspace", means, len(means)),
    )
    return gradients


_skin_backward = operator("skin_gaussians_backward", _gradients, _compute_gradients)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs)


def _vjp(ctx: Any, v_means: Tensor, v_quats: Tensor) -> tuple[Tensor | None, ...]:
    need_transforms = ctx.needs_input_grad[4] or ctx.needs_input_grad[5]
    gradients = _skin_backward(*ctx.saved_tensors, v_means.contiguous(), v_quats.contiguous(), need_transforms)
    return gradients if need_transforms else (*gradients[:4], None, None)


_skin = operator("skin_gaussians", _skinned, _compute, _vjp, _setup)
