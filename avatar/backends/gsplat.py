"""gsplat as the renderer: ``project_gaussians`` and ``rasterize`` with the contracts of :mod:`avatar.native`.

Both follow the same mathematics (EWA splatting, pixel centres at +0.5, alpha at least 1/255 and at most 0.999, an end
at transmittance 1e-4), so a model trained with one is drawn by the other. Both take float32 only. What is translated
here: gsplat has a radius per image axis, leaves what it culled uninitialised, and culls with another radius than
ours. A Gaussian whose long axis comes near the image, but no part of it that could be seen, has radius 0 here.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import project_gaussians as native_project
from avatar.native import rasterize as native_rasterize

TILE = 16
ALPHA_MIN = 1 / 255
_DEVICE = torch.device("cuda")


def _project(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    gsplat: Any = importlib.import_module("gsplat")
    means, quats, scales, viewmat, K, width, height, eps2d, near_plane = arguments
    home = means.device
    means, quats, scales, viewmat, K = _on_gpu(means=means, quats=quats, scales=scales, viewmat=viewmat, K=K)
    if len(means) == 0:
        return _home(home, means.new_empty(0, dtype=torch.int32), means[:, :2], means[:, 0], means)
    reach, means2d, depths, conics, _ = gsplat.fully_fused_projection(
        means, None, quats, scales, viewmat[None], K[None], width, height, eps2d=eps2d, near_plane=near_plane
    )
    means2d, depths, conics = means2d[0], depths[0], conics[0]
    drawn = (reach[0] > 0).all(-1)
    radii = torch.where(drawn, _radii(means2d, conics, width, height), 0).to(torch.int32)
    seen, zero = radii > 0, means2d.new_zeros(())
    means2d = torch.where(seen[:, None], means2d, zero)
    conics = torch.where(seen[:, None], conics, zero)
    return _home(home, radii, means2d, torch.where(seen, depths, zero), conics)


def _rasterize(*arguments: Any) -> tuple[Tensor, Tensor]:
    gsplat: Any = importlib.import_module("gsplat")
    means2d, conics, colors, opacities, depths, radii, width, height, background = arguments
    home = means2d.device
    means2d, conics, colors, opacities, depths = _on_gpu(
        means2d=means2d, conics=conics, colors=colors, opacities=opacities, depths=depths
    )
    columns, rows = -(-width // TILE), -(-height // TILE)
    with torch.no_grad():
        reach = _reach(conics, opacities, radii.to(_DEVICE))
        keys = ids = torch.empty(0)
        if len(reach):
            _, keys, ids = gsplat.isect_tiles(means2d[None], reach[None], depths[None], TILE, columns, rows)
    if len(ids):
        offsets = gsplat.isect_offset_encode(keys, 1, columns, rows)
        image, alpha = gsplat.rasterize_to_pixels(
            *(means2d[None], conics[None], colors[None], opacities[None], width, height, TILE, offsets, ids)
        )
        image, alpha = image[0], alpha[0]
    else:  # nothing to draw; still a function of the inputs, with gradients of zero
        nothing = 0 * (means2d.sum() + conics.sum() + colors.sum() + opacities.sum())
        image, alpha = nothing.expand(height, width, colors.shape[1]), nothing.expand(height, width, 1)
    if background is not None:  # gsplat knows one color, ours may be an image
        image = image + (1 - alpha) * background.to(_DEVICE)
    return image.to(home), alpha.to(home)


def _radii(means2d: Tensor, conics: Tensor, width: int, height: int) -> Tensor:
    """Three standard deviations along the longer axis, rounded up; 0 where that square misses the image."""
    with torch.no_grad():
        a, b, c = conics.unbind(-1)
        inverse = 1 / (a * c - b * b)  # determinant of the covariance
        middle = 0.5 * (a + c) * inverse
        reach = 3 * torch.sqrt(middle + torch.sqrt(torch.clamp(middle * middle - inverse, min=0)))
        x, y = means2d.unbind(-1)
        seen = (x + reach > 0) & (x - reach < width) & (y + reach > 0) & (y - reach < height)
        return torch.where(seen & torch.isfinite(reach), torch.ceil(reach), 0)


def _reach(conics: Tensor, opacities: Tensor, radii: Tensor) -> Tensor:
    """Half sizes int32 [N, 2] of the box in which a Gaussian's alpha is at least 1/255, 0 for none."""
    a, b, c = conics.unbind(-1)
    variances = torch.stack([c, a], -1) / (a * c - b * b)[:, None]  # along x and y
    half = torch.ceil(torch.sqrt(2 * torch.log(opacities / ALPHA_MIN)[:, None] * variances))
    drawn = (radii > 0) & (opacities > ALPHA_MIN)
    return torch.where(drawn[:, None], half, 0).to(torch.int32)


def _on_gpu(**tensors: Tensor) -> list[Tensor]:
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32:
            fix = "Use --renderer native for other types."
            raise AvatarError(f"{name} is {tensor.dtype};", why="gsplat computes in torch.float32.", fix=fix)
    return [tensor.to(_DEVICE).contiguous() for tensor in tensors.values()]


def _home(device: torch.device, *tensors: Tensor) -> Any:
    return tuple(tensor.to(device) for tensor in tensors)


# Signatures and checks of arguments are those of the native functions.
project_gaussians = functools.partial(native_project, implementation=_project)
rasterize = functools.partial(native_rasterize, implementation=_rasterize)
