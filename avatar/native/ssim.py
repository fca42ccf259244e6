"""Structural similarity as a torch operator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avatar.native import reference
from avatar.native.checks import float_tensor
from avatar.native.library import runs_native
from avatar.native.operators import Kernels, address, operator


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity of two images (Wang et al. 2004).

    11x11 Gaussian window of standard deviation 1.5, zero padding, data range 1, averaged over pixels and channels.

    Args:
        a: [H, W, C], values 0..1.
        b: [H, W, C], values 0..1.

    Returns:
        A scalar, 1 for equal images; NaN if there is NaN or infinity in one. Differentiable in both.

    Raises:
        AvatarError: Wrong shapes or dtypes.
    """
    a = float_tensor("a", a, ("H", "W", "C"))
    b = float_tensor("b", b, tuple(a.shape), like=a)
    if not runs_native(a):
        return reference.ssim(a, b)
    grad = torch.is_grad_enabled()
    return _ssim(a, b, grad and a.requires_grad, grad and b.requires_grad)[0]


def _partials_like(image: Tensor, needed: bool) -> Tensor:
    return image.new_empty((3, *image.shape) if needed else (0,))


def _similarity(a: Tensor, b: Tensor, need_a: bool, need_b: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The mean, and what the backward pass needs: derivatives of the local SSIM by the local moments."""
    return a.new_empty(()), _partials_like(a, need_a), _partials_like(b, need_b)


def _compute(native: Kernels, a: Tensor, b: Tensor, need_a: bool, need_b: bool) -> tuple[Tensor, Tensor, Tensor]:
    mean, for_a, for_b = _similarity(a, b, need_a, need_b)
    native.call(
        *("ssim", a, a, b, *a.shape, mean, address(for_a, need_a), address(for_b, need_b)),
        native.workspace("ssim_workspace", a, *native.threads, *a.shape),
    )
    return mean, for_a, for_b


def _gradient(a: Tensor, b: Tensor, partials: Tensor, v_mean: Tensor) -> Tensor:
    return torch.empty_like(a)


def _compute_gradient(native: Kernels, a: Tensor, b: Tensor, partials: Tensor, v_mean: Tensor) -> Tensor:
    v_a = _gradient(a, b, partials, v_mean)
    if native.cuda:  # reads the cotangent on the device: nothing waits
        native.call("ssim_backward", a, a, b, partials, v_mean.contiguous(), *a.shape, v_a)
        return v_a
    work = native.workspace("ssim_workspace", a, *native.threads, *a.shape)
    native.call("ssim_backward", a, a, b, partials, float(v_mean), *a.shape, v_a, work)
    return v_a


_ssim_backward = operator("ssim_backward", _gradient, _compute_gradient)


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


_ssim = operator("ssim", _similarity, _compute, _vjp, _setup)
