"""Tile-based rasterization of projected Gaussians as a torch operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.bin_gaussians import bin_gaussians, tile_lists
from avatar.native.checks import check_tensor, float_tensor, image_size
from avatar.native.library import runs_native
from avatar.native.operators import Kernels, operator


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
    *,
    implementation: Callable[..., tuple[Tensor, Tensor]] | None = None,
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
        width: Image width in pixels.
        height: Image height in pixels.
        background: [C] or [height, width, C], blended behind; None leaves it black.
        implementation: Another project's code; takes the checked arguments by position.

    A Gaussian with NaN or infinity in means2d, conics or opacities is left out; in colors or background, NaN and
    infinity reach the image, so that a loss shows them.

    Returns:
        image [height, width, C] and alpha [height, width, 1]. Differentiable in means2d, conics, colors, opacities and
        background; gradients are the same bits for any number of threads.

    Raises:
        AvatarError: Wrong shapes, dtypes or sizes, or more than 2^31-1 pairs of tile and Gaussian.
    """
    arguments = _checked(means2d, conics, colors, opacities, depths, radii, width, height, background)
    if implementation is not None:
        return implementation(*arguments)
    if not runs_native(means2d):
        return reference.rasterize(*arguments)
    image, final_t, _ = _blend(*_with_tiles(*arguments))
    return image, (1 - final_t)[..., None]


def draw(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    depths: Tensor,
    radii: Tensor,
    width: int,
    height: int,
    background: Tensor | None = None,
) -> Tensor:
    """Blend as :func:`rasterize` does, straight to bytes, for playback: there is no gradient.

    Returns:
        uint8 [height, width, C]: 255 for 1 and above, 0 for 0 and below and for NaN.

    Raises:
        AvatarError: As :func:`rasterize`.
    """
    arguments = _checked(means2d, conics, colors, opacities, depths, radii, width, height, background)
    with torch.no_grad():
        if not runs_native(means2d):
            return reference.draw(*arguments)
        return _draw(*_with_whole_radii(*arguments))


def _checked(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    depths: Tensor,
    radii: Tensor,
    width: int,
    height: int,
    background: Tensor | None,
) -> tuple[Any, ...]:
    image_size(width, height)
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
    return means2d, conics, colors, opacities, depths, radii, width, height, background


def _with_tiles(*arguments: Any) -> tuple[Any, ...]:
    """The arguments of the operators, with tile lists."""
    means2d, conics, colors, opacities, depths, radii, width, height, background = _with_whole_radii(*arguments)
    tiles = bin_gaussians(means2d.detach(), conics.detach(), opacities.detach(), depths.detach(), radii, width, height)
    return means2d, conics, colors, opacities, background, *tiles, width, height


def _with_whole_radii(*arguments: Any) -> tuple[Any, ...]:
    """The same arguments, radii as the kernels take them."""
    *projected, radii, width, height, background = arguments
    radii = (radii if radii.dtype == torch.int32 else (radii > 0).to(torch.int32)).contiguous()
    return *projected, radii, width, height, background


def _background_arguments(background: Tensor | None) -> tuple[Tensor | None, int]:
    return background, background.shape[-1] if background is not None and background.dim() == 3 else 0


def _blended(
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
    return (
        means2d.new_empty(height, width, colors.shape[1]),
        means2d.new_empty(height, width),
        ids.new_empty(height, width),
    )


def _compute(native: Kernels, *inputs: Any) -> tuple[Tensor, ...]:
    means2d, conics, colors, opacities, background, limits, tile_offsets, ids, _, _, width, height = inputs
    n, channels = colors.shape
    results = _blended(*inputs)
    work = () if native.cuda else (native.workspace("rasterize_workspace", means2d, n, 0, channels),)
    native.call(
        *("rasterize", means2d, means2d, conics, colors, opacities, n, channels, *_background_arguments(background)),
        *(width, height, limits, tile_offsets, ids, *results, *work),
    )
    return results


def _gradients(
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
    like = torch.empty_like
    return like(means2d), like(conics), like(colors), like(opacities)


def _compute_gradients(native: Kernels, *inputs: Any) -> tuple[Tensor, ...]:
    means2d, conics, colors, opacities, background, *lists, final_t, last, v_image, v_final_t = inputs
    (n, channels), (height, width), pairs = colors.shape, final_t.shape, len(lists[2])
    if native.cuda:
        count, work = (pairs,), native.workspace("rasterize_workspace", means2d, pairs, channels, width, height)
    else:
        count, work = (), native.workspace("rasterize_workspace", means2d, n, pairs, channels)
    gradients = _gradients(*inputs)
    native.call(
        *("rasterize_backward", means2d, means2d, conics, colors, opacities, n, channels),
        *(*_background_arguments(background), width, height, *lists, *count),
        *(final_t, last, v_image, v_final_t, *gradients, work),
    )
    return gradients


def _bytes(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    depths: Tensor,
    radii: Tensor,
    width: int,
    height: int,
    background: Tensor | None,
) -> Tensor:
    return colors.new_empty(height, width, colors.shape[1], dtype=torch.uint8)


def _compute_bytes(native: Kernels, *inputs: Any) -> Tensor:
    means2d, conics, colors, opacities, depths, radii, width, height, background = inputs
    limits, tile_offsets, ids, _, _ = tile_lists(
        native, means2d, conics, opacities, depths, radii, width, height, backward=False
    )
    n, channels = colors.shape
    image = _bytes(*inputs)
    work = () if native.cuda else (native.workspace("rasterize_workspace", means2d, n, 0, channels),)
    native.call(
        *("draw", means2d, means2d, conics, colors, opacities, n, channels, *_background_arguments(background)),
        *(width, height, limits, tile_offsets, ids, image, *work),
    )
    return image


_draw = operator("draw", _bytes, _compute_bytes)
_blend_backward = operator("rasterize_backward", _gradients, _compute_gradients)


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


_blend = operator("rasterize", _blended, _compute, _vjp, _setup)
