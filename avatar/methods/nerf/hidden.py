"""What lies behind a surface: no frame shows it, but a view from the side may."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.native import RaySamples

SOLID = 10.0  # density per centimetre that is wanted behind a surface: one that nothing shines through ...
_LEAST = 0.01  # ... and the one that counts as empty
_SURELY = 8  # power of the share that is hidden: what shines through a little may be air
_DENSITY = 0.1  # weight of the lack of density beside the squared difference of colors


def hidden_error(
    samples: RaySamples, densities: Float[Tensor, " S"], colors: Float[Tensor, "S 3"], shown: Float[Tensor, "N 3"]
) -> Float[Tensor, " N"]:
    """How far what lies behind surfaces is from solid, and from the color of what hides it.

    Nothing else trains it, so it would stay as random as it begins: dark specks and slits, from the side. Where other
    frames show it as air or in another color, their loss outweighs this one.

    Args:
        samples: Samples of N rays.
        densities: [S] per centimetre.
        colors: [S, 3] of the samples.
        shown: [N, 3] colors that the rays show; no gradient reaches them.

    Returns:
        [N] sums over a ray's samples, each times the share of it that is hidden.
    """
    offsets = samples.offsets.long()
    rays = torch.arange(len(shown), device=shown.device)
    ray = rays.repeat_interleave(offsets[1:] - offsets[:-1], output_size=len(colors))
    with torch.no_grad():
        own = densities.double() * (samples.ends - samples.starts)
        passed = torch.cat([own.new_zeros(1), own.cumsum(0)])  # float32 would not hold thousands of opaque samples
        hidden = 1 - (passed[offsets[:-1]][ray] - passed[:-1]).exp().float()
    difference = (colors - shown.detach()[ray]).square().sum(-1)
    lack = (math.log(SOLID) - (densities + _LEAST).log()).clamp_min(0) / math.log(SOLID / _LEAST)
    error = hidden * difference + _DENSITY * hidden.pow(_SURELY) * lack
    return torch.zeros_like(shown[:, 0]).index_add(0, ray, error)
