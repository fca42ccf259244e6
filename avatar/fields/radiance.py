"""The radiance field: density and color of points in head axes, under a condition that acts where attention lets it.

The network of ER-NeRF (Li et al. 2023) on its tri-plane of hash grids, with three groups of conditions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from avatar.native import radiance_mlp

if TYPE_CHECKING:
    from avatar.backends.tinycudann import TinyCudaTriplane
    from avatar.fields.triplane import TriplaneHash

    Encoding = TriplaneHash | TinyCudaTriplane

ATTENTION = 16  # width of the network that computes the gates
_CONDITION = 32  # hidden width of the network of a group's condition
_FIRST_DENSITY = 0.0  # logit of the density, per centimetre, that a field begins with


class RadianceField(nn.Module):
    """Density and color of points, from their tri-plane features and the condition of one frame.

    Args:
        encoding: Of points in head axes.
        groups: Indices into the condition, one list per group (mouth, eyes, pose); each has a gate of its own.
        hidden: Width of the density and the color network.
        geometry: Features that the density network hands to the color network.
    """

    def __init__(self, encoding: Encoding, groups: Sequence[Sequence[int]], hidden: int, geometry: int) -> None:
        super().__init__()
        self.encoding = encoding
        self.groups = [list(group) for group in groups]
        self.attention = nn.Linear(encoding.width, ATTENTION)
        self.gate = nn.Linear(ATTENTION, len(groups))
        self.base = nn.Linear(encoding.width, hidden)
        self.conditions = nn.ModuleList(
            nn.Sequential(nn.Linear(len(group), _CONDITION), nn.ReLU(), nn.Linear(_CONDITION, hidden))
            for group in groups
        )
        self.density = nn.Linear(hidden, 1 + geometry)
        self.color = nn.Linear(geometry, hidden)
        self.rgb = nn.Linear(hidden, 3)
        with torch.no_grad():
            self.density.bias[0] = _FIRST_DENSITY

    def under(self, condition: Float[Tensor, " C"]) -> Float[Tensor, "G H"]:
        """What a condition [C] adds to the density network, one vector per group."""
        return torch.stack(
            [network(condition[group]) for network, group in zip(self.conditions, self.groups, strict=True)]
        )

    def forward(
        self, points: Float[Tensor, "N 3"], conditions: Float[Tensor, "G H"], *, bfloat16: bool = False
    ) -> tuple[Float[Tensor, " N"], Float[Tensor, "N 3"], Float[Tensor, "N G"]]:
        """Evaluate points.

        Args:
            points: [N, 3] head axes, centimetres.
            conditions: From :meth:`under`.
            bfloat16: Round to bfloat16 where the processor gains by it; without gradients only.

        Returns:
            Densities [N] per centimetre, colors [N, 3] 0..1, gates [N, G] 0..1.
        """
        return radiance_mlp(self.encoding(points), *self.layers(conditions), bfloat16=bfloat16)

    def layers(self, conditions: Float[Tensor, "G H"]) -> tuple[Tensor, ...]:
        """All networks under a condition from :meth:`under`: what `radiance_mlp` takes after the features."""
        modules = (self.attention, self.gate, self.base, self.density, self.color, self.rgb)
        attention, gate, base, density, color, rgb = ((module.weight, module.bias) for module in modules)
        return *attention, *gate, *base, conditions, *density, *color, *rgb
