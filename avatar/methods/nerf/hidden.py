"""What lies behind a surface: no frame shows its color, but a view from aside may."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.native import RaySamples


def hidden_error(
    samples: RaySamples, densities: Float[Tensor, " S"], colors: Float[Tensor, "S 3"], shown: Float[Tensor, "N 3"]
) -> Float[Tensor, " N"]:
    """How far the colors behind surfaces are from what hides them.

    Nothing else trains these colors, so they would stay as random as they begin: dark specks and lines, from aside.

    Args:
        samples: Samples of N rays.
        densities: [S] per centimetre; no gradient reaches them.
        colors: [S, 3] of the samples.
        shown: [N, 3] colors that the rays show; no gradient reaches them.

    Returns:
        [N] sums of squared differences over a ray's samples, each times the share of it that is hidden.
    """
    offsets = samples.offsets.long()
    rays = torch.arange(len(shown), device=shown.device)
    ray = rays.repeat_interleave(offsets[1:] - offsets[:-1], output_size=len(colors))
    with torch.no_grad():
        own = densities.double() * (samples.ends - samples.starts)
        passed = torch.cat([own.new_zeros(1), own.cumsum(0)])  # float32 would not hold thousands of opaque samples
        hidden = 1 - (passed[offsets[:-1]][ray] - passed[:-1]).exp().float()
    error = hidden * (colors - shown.detach()[ray]).square().sum(-1)
    return torch.zeros_like(shown[:, 0]).index_add(0, ray, error)
