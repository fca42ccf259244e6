"""Volume rendering of packed samples along rays as a torch operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.checks import check_tensor, float_tensor
from avatar.native.library import runs_native
from avatar.native.operators import Kernels, operator


def march_rays(
    offsets: Tensor, starts: Tensor, ends: Tensor, densities: Tensor, colors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Color, opacity and depth of rays (Max 1995; the arithmetic of nerfacc's ``rendering``, without background).

    A sample is an interval of constant density and color. With tau = density * length, its alpha is 1 - exp(-tau), its
    weight alpha times what the samples before it let through. NaN reaches the results of its ray, and no other.

    Args:
        offsets: int32 [R+1], from 0 to S without going down; ray r owns the samples offsets[r] to offsets[r+1].
        starts: [S] distance at which each interval starts, along the ray in its order; not differentiated.
        ends: [S] distance at which it ends; not differentiated.
        densities: [S], per unit of distance.
        colors: [S, C], 1 to 32 channels (3 is fastest).

    Returns:
        color [R, C] (sum of weight * color), opacity [R] (sum of weight) and depth [R] (mean of the intervals' middles
        by weight; 0 where nothing was hit). Differentiable in densities and colors.

    Raises:
        AvatarError: Wrong shapes or dtypes; on the CPU, where it costs no wait, also wrong numbers in ``offsets``.
    """
    starts, ends, densities, colors = check_samples(offsets, starts, ends, densities, colors)
    if not runs_native(colors):
        return reference.march_rays(offsets, starts, ends, densities, colors)
    return _march(offsets.contiguous(), starts.detach(), ends.detach(), densities, colors)[:3]


def check_samples(
    offsets: Tensor, starts: Tensor, ends: Tensor, densities: Tensor, colors: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The arguments of :func:`march_rays` after ``offsets``, dense.

    Raises:
        AvatarError: They do not fit together.
    """
    colors = float_tensor("colors", colors, ("S", "C"))
    samples = colors.shape[0]
    starts = float_tensor("starts", starts, (samples,), like=colors)
    ends = float_tensor("ends", ends, (samples,), like=colors)
    densities = float_tensor("densities", densities, (samples,), like=colors)
    check_tensor("offsets", offsets, ("R+1",))
    if offsets.dtype != torch.int32 or offsets.device != colors.device:
        raise AvatarError(
            f"offsets is {offsets.dtype} {list(offsets.shape)} on {offsets.device};",
            why=f"expected torch.int32 [R+1] on {colors.device}.",
        )
    if offsets.device.type == "cpu" and (offsets[0] != 0 or offsets[-1] != samples or (offsets.diff() < 0).any()):
        raise AvatarError(
            f"offsets run from {int(offsets[0])} to {int(offsets[-1])};",
            why=f"expected 0 to {samples}, the number of samples, without going down.",
        )
    return starts, ends, densities, colors


def _rendered(
    offsets: Tensor, starts: Tensor, ends: Tensor, densities: Tensor, colors: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """color [R, C], opacity [R], depth [R], transmittance before each sample [S]."""
    rays, like = offsets.shape[0] - 1, colors.new_empty
    return like(rays, colors.shape[1]), like(rays), like(rays), torch.empty_like(densities)


def _compute(native: Kernels, *inputs: Tensor) -> tuple[Tensor, ...]:
    offsets, colors = inputs[0], inputs[4]
    results = _rendered(*inputs)
    native.call("march_rays", colors, *inputs, len(offsets) - 1, colors.shape[1], *results)
    return results


def _gradients(
    offsets: Tensor,
    starts: Tensor,
    ends: Tensor,
    densities: Tensor,
    colors: Tensor,
    opacity: Tensor,
    depth: Tensor,
    transmittance: Tensor,
    v_color: Tensor,
    v_opacity: Tensor,
    v_depth: Tensor,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(densities), torch.empty_like(colors)


def _compute_gradients(native: Kernels, *inputs: Tensor) -> tuple[Tensor, ...]:
    offsets, colors = inputs[0], inputs[4]
    gradients = _gradients(*inputs)
    native.call(
        *("march_rays_backward", colors, *inputs[:5], len(offsets) - 1, colors.shape[1], *inputs[5:], *gradients)
    )
    return gradients


_march_backward = operator("march_rays_backward", _gradients, _compute_gradients)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, opacity, depth, transmittance = output
    ctx.save_for_backward(*inputs, opacity, depth, transmittance)
    ctx.mark_non_differentiable(transmittance)


def _vjp(ctx: Any, v_color: Tensor, v_opacity: Tensor, v_depth: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    cotangents = (v_color.contiguous(), v_opacity.contiguous(), v_depth.contiguous())
    v_densities, v_colors = _march_backward(*ctx.saved_tensors, *cotangents)
    return None, None, None, v_densities, v_colors


_march = operator("march_rays", _rendered, _compute, _vjp, _setup)
