"""tiny-cuda-nn as the encoding: a tri-plane of its 2-D hash grids, with the interface of `avatar.fields.triplane`."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from avatar.errors import AvatarError

_DEVICE = torch.device("cuda")
_FEATURES = (1, 2, 4, 8)  # what its kernels are compiled for


class TinyCudaTriplane(nn.Module):
    """Learned features of points; arguments and ``width`` as :class:`avatar.fields.triplane.TriplaneHash`.

    The same class of functions, but not the same function of the same numbers: tiny-cuda-nn has another hash, another
    layout and vertices half a cell aside. A model keeps the encoding that it was trained with.

    Raises:
        AvatarError: A number of features that it has no kernels for.
    """

    middle: Tensor
    extent: Tensor

    def __init__(
        self, bounds: Tensor, *, levels: int, features: int, coarsest: int, finest: int, log2_table: int
    ) -> None:
        super().__init__()
        if features not in _FEATURES:
            raise AvatarError(
                f"--encoding tinycudann has no kernel for {features} features per level.", why="It has 1, 2, 4 and 8.",
                fix="Set --model.features to one of them.",
            )  # fmt: skip
        self.register_buffer("middle", bounds.mean(0))
        self.register_buffer("extent", (bounds[1] - bounds[0]) / 2)
        # It counts vertices along a side, of which there is one more than cells.
        growth = ((finest + 1) / (coarsest + 1)) ** (1 / max(levels - 1, 1))
        grid: dict[str, Any] = {
            "otype": "Grid", "type": "Hash", "interpolation": "Linear", "n_levels": levels,
            "n_features_per_level": features, "log2_hashmap_size": log2_table, "base_resolution": coarsest + 1,
            "per_level_scale": growth,
        }  # fmt: skip
        # float32 like the native encoding; half precision would need a scaled loss.
        tinycudann: Any = importlib.import_module("tinycudann")
        seeds = torch.randint(2**31, (3,)).tolist()
        self.planes = nn.ModuleList(tinycudann.Encoding(2, grid, seed=s, dtype=torch.float32) for s in seeds)
        self.width = 3 * levels * features

    def forward(self, points: Tensor) -> Tensor:
        """Features [N, width] of points [N, 3]."""
        unit = ((points - self.middle) / self.extent).clamp(-1, 1)
        unit = (0.5 * (unit + 1)).to(_DEVICE)
        parts = [plane(unit[:, axes]) for plane, axes in zip(self.planes, ([0, 1], [1, 2], [0, 2]), strict=True)]
        return torch.cat(parts, 1).to(points)
