"""Structural similarity as a torch operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avatar.native import reference
from avatar.native.checks import float_tensor
from avatar.native.library import num_threads, require_library, runs_native


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity of two pictures (Wang et al. 2004).

    11x11 Gaussian window of standard deviation 1.5, zero padding, data range 1, averaged over pixels and channels.

    Args:
        a: [H, W, C], values 0..1.
        b: [H, W, C], values 0..1.

    Returns:
        A scalar, 1 for equal pictures; NaN if there is NaN or infinity in one. Differentiable in both.

    Raises:
        AvatarError: Wrong shapes or dtypes.
    """
    a = float_tensor("a", a, ("H", "W", "C"))
    b = float_tensor("b", b, tuple(a.shape), like=a)
    if not runs_native(a):
        return reference.ssim(a, b)
    grad = torch.is_grad_enabled()
    return _ssim(a, b, grad and a.requires_grad, grad and b.requires_grad)[0]


def _partials_like(picture: Tensor, needed: bool) -> Tensor:
    return picture.new_empty((3, *picture.shape) if needed else (0,))


@torch.library.custom_op("avatar::ssim", mutates_args=(), device_types="cpu")
def _ssim(a: Tensor, b: Tensor, need_a: bool, need_b: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The mean, and what the backward pass needs: derivatives of the local SSIM by the local moments."""
    native, (height, width, channels) = require_library(), a.shape
    mean, for_a, for_b = a.new_empty(()), _partials_like(a, need_a), _partials_like(b, need_b)
    native.call(
        "avatar_ssim",
        *(a.dtype, a, b, height, width, channels, mean),
        *(for_a if need_a else None, for_b if need_b else None),
        native.workspace("avatar_ssim_workspace", a.dtype, num_threads(), height, width, channels),
    )
    return mean, for_a, for_b


@_ssim.register_fake
def _(a: Tensor, b: Tensor, need_a: bool, need_b: bool) -> tuple[Tensor, Tensor, Tensor]:
    return a.new_empty(()), _partials_like(a, need_a), _partials_like(b, need_b)


@torch.library.custom_op("avatar::ssim_backward", mutates_args=(), device_types="cpu")
def _ssim_backward(a: Tensor, b: Tensor, partials: Tensor, v_mean: Tensor) -> Tensor:
    native, (height, width, channels) = require_library(), a.shape
    v_a = torch.empty_like(a)
    native.call(
        "avatar_ssim_backward",
        *(a.dtype, a, b, partials, float(v_mean), height, width, channels, v_a),
        native.workspace("avatar_ssim_workspace", a.dtype, num_threads(), height, width, channels),
    )
    return v_a


@_ssim_backward.register_fake
def _(a: Tensor, b: Tensor, partials: Tensor, v_mean: Tensor) -> Tensor:
    return torch.empty_like(a)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    a, b, ctx.need_a, ctx.need_b = inputs
    _, for_a, for_b = output
    ctx.save_for_backward(a, b, for_a, for_b)
    ctx.mark_non_differentiable(for_a, for_b)


def _vjp(ctx: Any, v_mean: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    a, b, for_a, for_b = ctx.saved_tensors
    v_a = _ssim_backward(a, b, for_a, v_mean) if ctx.need_a else None
    v_b = _ssim_backward(b, a, for_b, v_mean) if ctx.need_b else None
    return v_a, v_b, None, None


_ssim.register_autograd(_vjp, setup_context=_setup)
