"""The image loss of training as a torch operator: weighted L1 and structural similarity in one sweep."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.checks import float_tensor, number
from avatar.native.library import runs_native
from avatar.native.operators import Kernels, address, operator, wanted


class ImageLoss(NamedTuple):
    """The loss, and what it consists of for the log (scalars without gradient).

    Attributes:
        loss: (1 - ssim_weight) * l1 + ssim_weight * (1 - ssim), differentiable in the image.
        l1: Mean of weight * |difference|.
        ssim: Mean structural similarity.
        mse: Mean squared difference, unweighted.
    """

    loss: Tensor
    l1: Tensor
    ssim: Tensor
    mse: Tensor


def l1_ssim(image: Tensor, target: Tensor, ssim_weight: float, weight: Tensor | None = None) -> ImageLoss:
    """Weighted L1 and structural similarity of an image to its target (the photometric loss of 3DGS).

    Args:
        image: [H, W, C], values 0..1; differentiated.
        target: [H, W, C]; not differentiated.
        ssim_weight: Share of the structural term, 0..1; L1 has the rest.
        weight: [H, W, 1] weight of L1, not differentiated; None weighs all pixels alike.

    NaN and infinity in any of them reach the loss.

    Raises:
        AvatarError: Wrong shapes or dtypes, or ``target`` or ``weight`` asks for a gradient.
    """
    image = float_tensor("image", image, ("H", "W", "C"))
    target = float_tensor("target", target, tuple(image.shape), like=image)
    number("ssim_weight", ssim_weight, 0, 1)
    if weight is not None:
        weight = float_tensor("weight", weight, (*image.shape[:2], 1), like=image)
    for name, tensor in (("target", target), ("weight", weight)):
        if tensor is not None and tensor.requires_grad:
            raise AvatarError(
                f"{name} requires a gradient;", why="l1_ssim differentiates image alone.", fix="Detach it."
            )
    if not runs_native(image):
        return ImageLoss(*reference.l1_ssim(image, target, ssim_weight, weight))
    terms, _ = _l1_ssim(image, target, weight, ssim_weight, torch.is_grad_enabled() and image.requires_grad)
    return ImageLoss(terms[0], *terms[1:].detach().unbind())


def _terms(
    image: Tensor, target: Tensor, weight: Tensor | None, ssim_weight: float, need_image: bool
) -> tuple[Tensor, Tensor]:
    """Loss, L1, SSIM and squared error [4] (only the loss has a gradient), and that gradient by the image."""
    return image.new_empty(4), wanted(image, need_image)


def _compute(native: Kernels, *inputs: Any) -> tuple[Tensor, Tensor]:
    image, need_image = inputs[0], inputs[-1]
    terms, v_image = _terms(*inputs)
    native.call(
        *("l1_ssim", image, *inputs[:-1], *image.shape, terms, address(v_image, need_image)),
        native.workspace("l1_ssim_workspace", image, *native.threads, *image.shape),
    )
    return terms, v_image


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


def _vjp(ctx: Any, v_terms: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    (v_image,) = ctx.saved_tensors
    return v_image * v_terms[0], None, None, None, None


_l1_ssim = operator("l1_ssim", _terms, _compute, _vjp, _setup)
