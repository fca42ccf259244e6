"""A synthetic model of any size, for benchmarks and tests; needs no person."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avatar.fields.gaussians import Gaussians, Seeds
from avatar.fields.skinning import LandmarkBasis, Skinning
from avatar.methods.condition import Conditioner
from avatar.methods.gaussian.config import GaussianConfig
from avatar.methods.gaussian.model import make_encoding
from avatar.motion import Motion
from avatar.motion.face_channels import CHANNELS, NUM_LANDMARKS

if TYPE_CHECKING:
    from avatar.fields.deformation import Encoding

RADII = (8.0, 10.0, 8.0)  # of the head, centimetres


def synthetic_parts(
    count: int, size: int, motion: Motion
) -> tuple[GaussianConfig, Gaussians, Skinning, LandmarkBasis, Conditioner, Encoding | None, Tensor]:
    """Make what an avatar of ``count`` Gaussians on a head-shaped shell consists of; see `Method.synthetic`.

    Returns:
        The arguments of `avatar.methods.gaussian.model.GaussianModel`.
    """
    config = GaussianConfig()
    g = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=-1)
    means = direction * (0.8 + 0.2 * torch.rand(count, 1, generator=g)) * torch.tensor(RADII)
    spacing = (4 * torch.pi * 80 / count) ** 0.5
    at_rest = motion.head_translation[0]
    gaussians = Gaussians(
        Seeds(
            means=means + at_rest,
            scales=0.65 * spacing * torch.exp(0.4 * torch.randn(count, 3, generator=g)),
            colors=torch.rand(count, 3, generator=g),
            opacities=0.1 + 0.85 * torch.rand(count, generator=g),
            skinning_weight=torch.full((count,), 0.98),
            bind_index=torch.randint(NUM_LANDMARKS, (count, 3), generator=g),
            bind_weight=torch.rand(count, 3, generator=g) / 3,
            region=torch.zeros(count, dtype=torch.uint8),
            quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
            normal=torch.zeros(count, 3),
        )
    )
    basis = LandmarkBasis(0.01 * torch.randn(len(CHANNELS), NUM_LANDMARKS * 3, generator=g), torch.zeros(2))
    clothes = torch.tensor([[-20.0, -10.0], [20.0, 10.0]])
    skinning = Skinning(torch.zeros(3), at_rest, at_rest + torch.tensor([0.0, 20.0, 3.0]), clothes)
    bounds = torch.stack([means.amin(0), means.amax(0)]) + at_rest
    torch.manual_seed(0)
    encoding = make_encoding(config, bounds)
    background = torch.full((size, size, 3), 0.4)
    return config, gaussians, skinning, basis, Conditioner.fit(motion), encoding, background
