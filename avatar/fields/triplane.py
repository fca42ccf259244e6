"""Multi-resolution hash tri-plane: three 2-D feature grids over the xy, yz and xz planes of the canonical space.

Instant-NGP's encoding (Mueller et al. 2022) on the tri-plane factorisation of ER-NeRF (Li et al. 2023): 2-D grids
collide far less than a 3-D one of the same size, and stay small enough for the cache of a laptop.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from avatar.native import triplane_encode


class TriplaneHash(nn.Module):
    """Learned features of points.

    Args:
        bounds: [2, 3] lower and upper corner of the encoded box, in the units of the points.
        levels: Number of resolutions.
        features: Numbers per level and plane.
        coarsest, finest: Cells along a side at the first and the last level; geometric in between.
        log2_table: Log2 of the entries per level and plane; levels that fit are stored densely.
    """

    resolutions: Tensor
    middle: Tensor
    extent: Tensor

    def __init__(
        self, bounds: Tensor, *, levels: int, features: int, coarsest: int, finest: int, log2_table: int
    ) -> None:
        super().__init__()
        growth = (finest / coarsest) ** (1 / max(levels - 1, 1))
        resolutions = torch.tensor([round(coarsest * growth**i) for i in range(levels)], dtype=torch.int32)
        self.register_buffer("resolutions", resolutions)
        self.register_buffer("middle", bounds.mean(0))
        self.register_buffer("extent", (bounds[1] - bounds[0]) / 2)
        # Entries beyond what the finest level can address would never be read.
        entries = min(2**log2_table, int((resolutions.max().item() + 1) ** 2))
        self.table = nn.Parameter(torch.empty(3, levels, entries, features).uniform_(-1e-4, 1e-4))
        self.width = 3 * levels * features
        self._sizes: list[int] | None = None

    @property
    def sizes(self) -> list[int]:
        """The resolutions on the host: reading them off a GPU would wait for it."""
        if self._sizes is None:
            self._sizes = self.resolutions.tolist()
        return self._sizes

    @property
    def bounds(self) -> list[list[float]]:
        """Both corners of the encoded box, on the host."""
        return torch.stack([self.middle - self.extent, self.middle + self.extent]).tolist()

    def forward(self, points: Float[Tensor, "N 3"]) -> Float[Tensor, "N F"]:
        """Features [N, width] of points [N, 3]."""
        unit = ((points - self.middle) / self.extent).clamp(-1, 1)
        return triplane_encode(unit, self.table, self.sizes)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._sizes = None
