"""Tile-based rasterization of projected Gaussians as torch operators: one bins and sorts, one blends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.checks import check_tensor, float_tensor, picture_size
from avatar.native.library import require_library, runs_native

TILE = 16


def rasterize(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    depths: Tensor,
    radii: Tensor,
    width: int,
    height: int,
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Blend projected Gaussians front to back, with the thresholds of gsplat.

    A Gaussian adds alpha = min(0.999, opacity * exp(-sigma)) to a pixel, is skipped where that is below 1/255, and
    blending stops before the transmittance would fall to 1e-4.

    Args:
        means2d: [N, 2] pixels; call ``retain_grad()`` on it for density control.
        conics: [N, 3] inverse 2D covariances.
        colors: [N, C], 1 to 32 channels (3 and 4 are fastest).
        opacities: [N] in 0..1.
        depths: [N], the sorting key; equal depths keep the order of the index, NaN comes last. Not differentiated.
        radii: int [N]; Gaussians with radius 0 are left out.
        width: Picture width in pixels.
        height: Picture height in pixels.
        background: [C] or [height, width, C], blended behind; None leaves it black.

    A Gaussian with NaN or infinity in means2d, conics or opacities is left out; in colors or background, NaN and
    infinity reach the picture, so that a loss shows them.

    Returns:
        image [height, width, C] and alpha [height, width, 1]. Differentiable in means2d, conics, colors, opacities and
        background; gradients are the same bits for any number of threads.

    Raises:
        AvatarError: Wrong shapes, dtypes or sizes, or more than 2^31-1 pairs of tile and Gaussian.
    """
    picture_size(width, height)
    means2d = float_tensor("means2d", means2d, ("N", 2))
    n = means2d.shape[0]
    conics = float_tensor("conics", conics, (n, 3), like=means2d)
    colors = float_tensor("colors", colors, (n, "C"), like=means2d)
    opacities = float_tensor("opacities", opacities, (n,), like=means2d)
    depths = float_tensor("depths", depths, (n,), like=means2d)
    check_tensor("radii", radii, (n,))
    if radii.dtype not in (torch.int32, torch.int64) or radii.device != means2d.device:
        raise AvatarError(
            f"radii is {radii.dtype} {list(radii.shape)} on {radii.device};",
            why=f"expected torch.int32 [{n}] on {means2d.device}.",
        )
    if background is not None:
        channels = colors.shape[1]
        one_color = isinstance(background, Tensor) and background.dim() == 1
        shape = (channels,) if one_color else (height, width, channels)
        background = float_tensor("background", background, shape, like=means2d)
    if not runs_native(means2d):
        return reference.rasterize(
            means2d, conics, colors, opacities, depths, radii, width, height, background=background
        )
    radii = (radii if radii.dtype == torch.int32 else (radii > 0).to(torch.int32)).contiguous()
    tiles = _bin(means2d.detach(), conics.detach(), opacities.detach(), depths.detach(), radii, width, height)
    image, final_t, _ = _blend(means2d, conics, colors, opacities, background, *tiles, width, height)
    return image, (1 - final_t)[..., None]


def _tile_count(width: int, height: int) -> int:
    return ((width + TILE - 1) // TILE) * ((height + TILE - 1) // TILE)


@torch.library.custom_op("avatar::bin_gaussians", mutates_args=(), device_types="cpu")
def _bin(
    means2d: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, radii: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Tile lists: limits [N], tile_offsets [tiles+1], ids [pairs], slots [pairs], slot_offsets [N+1]."""
    native, n, dtype = require_library(), len(means2d), means2d.dtype
    limits = means2d.new_empty(n)
    slot_offsets = torch.empty(n + 1, dtype=torch.int32)
    tile_offsets = torch.empty(_tile_count(width, height) + 1, dtype=torch.int32)
    pairs = torch.zeros(1, dtype=torch.int64)
    workspace = native.workspace("avatar_bin_workspace", dtype, n, width, height)
    native.call(
        "avatar_bin_count",
        *(dtype, means2d, conics, opacities, depths, radii, n, width, height),
        *(slot_offsets, tile_offsets, pairs, limits, workspace),
    )
    ids = torch.empty(int(pairs), dtype=torch.int32)
    slots = torch.empty_like(ids)
    native.call(
        "avatar_bin_fill",
        *(dtype, means2d, conics, opacities, n, width, height, slot_offsets, ids, slots, workspace),
    )
    return limits, tile_offsets, ids, slots, slot_offsets


@_bin.register_fake
def _(
    means2d: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, radii: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    n, pairs = means2d.shape[0], torch.library.get_ctx().new_dynamic_size()

    def integers(size: Any) -> Tensor:
        return radii.new_empty(size, dtype=torch.int32)

    return (
        means2d.new_empty(n),
        integers(_tile_count(width, height) + 1),
        integers(pairs),
        integers(pairs),
        integers(n + 1),
    )


def _background_arguments(background: Tensor | None) -> tuple[Tensor | None, int]:
    return background, background.shape[-1] if background is not None and background.dim() == 3 else 0


@torch.library.custom_op("avatar::rasterize", mutates_args=(), device_types="cpu")
def _blend(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    background: Tensor | None,
    limits: Tensor,
    tile_offsets: Tensor,
    ids: Tensor,
    slots: Tensor,
    slot_offsets: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """image [H, W, C], transmittance left [H, W], list index at which blending stopped int32 [H, W]."""
    native, (n, channels) = require_library(), colors.shape
    image, final_t = means2d.new_empty(height, width, channels), means2d.new_empty(height, width)
    last = torch.empty(height, width, dtype=torch.int32)
    native.call(
        "avatar_rasterize",
        *(means2d.dtype, means2d, conics, colors, opacities, n, channels, *_background_arguments(background)),
        *(width, height, limits, tile_offsets, ids, image, final_t, last),
        native.workspace("avatar_rasterize_workspace", means2d.dtype, n, 0, channels),
    )
    return image, final_t, last


@_blend.register_fake
def _(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    background: Tensor | None,
    limits: Tensor,
    tile_offsets: Tensor,
    ids: Tensor,
    slots: Tensor,
    slot_offsets: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        means2d.new_empty(height, width, colors.shape[1]),
        means2d.new_empty(height, width),
        ids.new_empty(height, width),
    )


@torch.library.custom_op("avatar::rasterize_backward", mutates_args=(), device_types="cpu")
def _blend_backward(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    background: Tensor | None,
    limits: Tensor,
    tile_offsets: Tensor,
    ids: Tensor,
    slots: Tensor,
    slot_offsets: Tensor,
    final_t: Tensor,
    last: Tensor,
    v_image: Tensor,
    v_final_t: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    native, dtype = require_library(), means2d.dtype
    n, channels = colors.shape
    height, width = final_t.shape
    v_means2d, v_conics = torch.empty_like(means2d), torch.empty_like(conics)
    v_colors, v_opacities = torch.empty_like(colors), torch.empty_like(opacities)
    native.call(
        "avatar_rasterize_backward",
        *(dtype, means2d, conics, colors, opacities, n, channels, *_background_arguments(background)),
        *(width, height, limits, tile_offsets, ids, slots, slot_offsets, final_t, last, v_image, v_final_t),
        *(v_means2d, v_conics, v_colors, v_opacities),
        native.workspace("avatar_rasterize_workspace", dtype, n, len(ids), channels),
    )
    return v_means2d, v_conics, v_colors, v_opacities


@_blend_backward.register_fake
def _(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    background: Tensor | None,
    limits: Tensor,
    tile_offsets: Tensor,
    ids: Tensor,
    slots: Tensor,
    slot_offsets: Tensor,
    final_t: Tensor,
    last: Tensor,
    v_image: Tensor,
    v_final_t: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(means2d),
        torch.empty_like(conics),
        torch.empty_like(colors),
        torch.empty_like(opacities),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, final_t, last = output
    ctx.save_for_backward(*inputs[:10], final_t, last)
    ctx.mark_non_differentiable(last)


def _vjp(ctx: Any, v_image: Tensor, v_final_t: Tensor, _: Any) -> tuple[Tensor | None, ...]:
    *inputs, final_t, last = ctx.saved_tensors
    v_image = v_image.contiguous()
    gradients = _blend_backward(*inputs, final_t, last, v_image, v_final_t.contiguous())
    v_background = None
    if ctx.needs_input_grad[4]:
        v_background = final_t[..., None] * v_image
        if inputs[4].dim() == 1:
            v_background = v_background.sum(dim=(0, 1))
    return *gradients, v_background, None, None, None, None, None, None, None


_blend.register_autograd(_vjp, setup_context=_setup)
