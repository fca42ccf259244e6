"""nerfacc as the marcher: :func:`avatar.native.march_rays` with its CUDA scans."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from avatar.native.march_rays import check_samples

_DEVICE = torch.device("cuda")


def march_rays(
    offsets: Tensor, starts: Tensor, ends: Tensor, densities: Tensor, colors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Color, opacity and depth of rays; see :func:`avatar.native.march_rays`. Computed in float32.

    Raises:
        AvatarError: Wrong shapes or dtypes.
    """
    nerfacc: Any = importlib.import_module("nerfacc")
    check_samples(offsets, starts, ends, densities, colors)
    home, dtype = colors.device, colors.dtype
    rays = len(offsets) - 1
    offsets = offsets.to(_DEVICE, torch.int64)
    starts, ends, densities, colors = (x.to(_DEVICE, torch.float32) for x in (starts, ends, densities, colors))
    starts, ends = starts.detach(), ends.detach()
    if len(starts) == 0:
        nothing = (0 * (densities.sum() + colors.sum())).to(home, dtype).expand(rays)  # a gradient finds its way
        return nothing[:, None].expand(rays, colors.shape[1]), nothing, nothing
    counts = offsets.diff()
    ray = torch.repeat_interleave(torch.arange(rays, device=_DEVICE), counts)
    chunks = torch.stack([offsets[:-1], counts], -1)
    weights, _, _ = nerfacc.render_weight_from_density(starts, ends, densities, packed_info=chunks)
    middles = 0.5 * (starts + ends)[:, None]
    color = nerfacc.accumulate_along_rays(weights, colors, ray, rays)
    opacity = nerfacc.accumulate_along_rays(weights, None, ray, rays)[:, 0]
    depth = nerfacc.accumulate_along_rays(weights, middles, ray, rays)[:, 0]
    depth = depth / opacity.clamp_min(torch.finfo(torch.float32).eps)
    return color.to(home, dtype), opacity.to(home, dtype), depth.to(home, dtype)
