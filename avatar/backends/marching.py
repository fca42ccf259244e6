"""Volume rendering of samples along rays, in plain torch: the specification of every marcher."""

from __future__ import annotations

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native.checks import float_tensor


def render_rays(
    offsets: Tensor, starts: Tensor, ends: Tensor, densities: Tensor, colors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour, opacity and depth of rays from packed samples (Max 1995; what nerfacc's ``rendering`` computes).

    A sample is an interval of constant density and colour. Its weight is what the intervals in front of it let
    through, exp(-sum of density * length), times what it holds back itself, 1 - exp(-density * length).

    Args:
        offsets: int32 or int64 [R+1], from 0 to S without going down; ray r owns samples offsets[r] to offsets[r+1],
            nearest first.
        starts: [S] distances at which the intervals start; not differentiated.
        ends: [S] distances at which they end; not differentiated.
        densities: [S] per unit of distance.
        colors: [S, C].

    Returns:
        colors [R, C], black behind; opacities [R], the sum of the weights; depths [R], the mean of the intervals'
        middles by weight, 0 where nothing was hit. Differentiable in densities and colors.

    Raises:
        AvatarError: Wrong shapes, dtypes or offsets.
    """
    check_samples(offsets, starts, ends, densities, colors)
    counts = offsets.diff().long()
    rays, most = len(counts), int(counts.max()) if len(counts) else 0
    ray = torch.repeat_interleave(torch.arange(rays, device=colors.device), counts)
    place = torch.arange(len(ray), device=colors.device) - offsets[:-1].long()[ray]
    lengths = (ends - starts).detach()
    # One row per ray, so that a sum along one ray neither rounds nor spreads infinities into another.
    held = densities.new_zeros(rays, most + 1).index_put((ray, place + 1), densities * lengths)
    in_front = held.cumsum(1)[ray, place]
    weights = torch.exp(-in_front) * -torch.expm1(-densities * lengths)
    middles = (0.5 * (starts + ends)).detach()

    def along(values: Tensor) -> Tensor:
        return values.new_zeros(rays, *values.shape[1:]).index_add(0, ray, values)

    opacities = along(weights)
    depths = along(weights * middles) / opacities.clamp_min(torch.finfo(colors.dtype).eps)
    return along(weights[:, None] * colors), opacities, depths


def check_samples(offsets: Tensor, starts: Tensor, ends: Tensor, densities: Tensor, colors: Tensor) -> None:
    """Check the arguments of :func:`render_rays`.

    Raises:
        AvatarError: Wrong shapes, dtypes or offsets.
    """
    float_tensor("colors", colors, ("S", "C"))
    samples = len(colors)
    for name, tensor in (("starts", starts), ("ends", ends), ("densities", densities)):
        float_tensor(name, tensor, (samples,), like=colors)
    if offsets.dim() != 1 or len(offsets) == 0 or offsets.dtype not in (torch.int32, torch.int64):
        raise AvatarError(f"offsets is {offsets.dtype} {list(offsets.shape)};", "expected torch.int32 [R+1].")
    if int(offsets[0]) != 0 or int(offsets[-1]) != samples or bool((offsets.diff() < 0).any()):
        raise AvatarError(
            f"offsets run from {int(offsets[0])} to {int(offsets[-1])};",
            f"expected 0 to {samples}, the number of samples, without going down.",
        )
