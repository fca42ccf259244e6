"""The canonical Gaussians: learned attributes, and the fixed binding of each to the face mesh."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

# Learned, one row per Gaussian. Names and parametrisation are gsplat's where gsplat has one; colours are plain RGB.
ATTRIBUTES = {"means": 3, "quats": 4, "scales": 3, "opacities": 1, "colors": 3, "skinning_weight": 1}
REGIONS = ("face", "lid", "mouth_upper", "mouth_lower", "eye", "hair", "neck", "torso")  # lids with the skin around


class Seeds(NamedTuple):
    """Starting values for N Gaussians.

    Attributes:
        means: [N, 3] canonical centimetres.
        scales: [N, 3] standard deviations, centimetres.
        colors: [N, 3] RGB 0..1.
        opacities: [N] 0..1.
        skinning_weight: [N] 0..1, 1 follows the head and 0 the torso.
        bind_index: [N, 3] int64, landmark vertices whose displacement moves the Gaussian.
        bind_weight: [N, 3], zero rows for Gaussians that no landmark moves.
        region: [N] uint8, index into `REGIONS`.
        quats: [N, 4] wxyz.
        normal: [N, 3] canonical unit normal of the surface that it begins on; zeros where there is none.
    """

    means: Tensor
    scales: Tensor
    colors: Tensor
    opacities: Tensor
    skinning_weight: Tensor
    bind_index: Tensor
    bind_weight: Tensor
    region: Tensor
    quats: Tensor
    normal: Tensor

    @staticmethod
    def cat(parts: list[Seeds]) -> Seeds:
        """All parts in one set."""
        return Seeds(*(torch.cat(column) for column in zip(*parts, strict=True)))


class Gaussians(nn.Module):
    """N canonical Gaussians, in the order of their regions.

    Attributes:
        means: [N, 3] centimetres. quats: [N, 4] wxyz, any length. scales: [N, 3] log centimetres.
        opacities: [N, 1] logits. colors: [N, 3] RGB. skinning_weight: [N, 1] logits, high ones follow the head.
        color_prior: [N, 3] initial RGB, the target of a regulariser; not part of the state.
        anchor, normal: [N, 3] a place on the surface that a Gaussian belongs to, and the unit normal there, zero where
            it belongs to none; regularisers use them; not part of the state.
        seen: [N] uint8, how well training frames showed a Gaussian, 255 for well; known once training is over.
        embedding: [N, E] learned input of the deformation field, in addition to the position; may be empty.
    """

    means: nn.Parameter
    quats: nn.Parameter
    scales: nn.Parameter
    opacities: nn.Parameter
    colors: nn.Parameter
    skinning_weight: nn.Parameter
    embedding: Tensor
    color_prior: Tensor
    anchor: Tensor
    normal: Tensor
    bind_index: Tensor
    bind_weight: Tensor
    region: Tensor
    seen: Tensor

    def __init__(self, seeds: Seeds, embedding: int = 0) -> None:
        super().__init__()
        n = seeds.means.shape[0]
        seeds = Seeds(*(column[seeds.region.argsort(stable=True)] for column in seeds))
        self.means = nn.Parameter(seeds.means.clone())
        self.quats = nn.Parameter(seeds.quats.clone())
        self.scales = nn.Parameter(seeds.scales.log())
        self.opacities = nn.Parameter(torch.logit(seeds.opacities, eps=1e-3)[:, None])
        self.colors = nn.Parameter(seeds.colors.clone())
        self.skinning_weight = nn.Parameter(torch.logit(seeds.skinning_weight, eps=5e-3)[:, None])
        empty = torch.zeros(n, embedding)
        if embedding:
            self.embedding = nn.Parameter(empty)
        else:
            self.register_buffer("embedding", empty, persistent=False)
        self.register_buffer("color_prior", seeds.colors.clone(), persistent=False)
        self.register_buffer("anchor", seeds.means.clone(), persistent=False)
        self.register_buffer("normal", seeds.normal.clone(), persistent=False)
        self.register_buffer("bind_index", seeds.bind_index)
        self.register_buffer("bind_weight", seeds.bind_weight)
        self.register_buffer("region", seeds.region)
        self.register_buffer("seen", torch.full((n,), 255, dtype=torch.uint8))
        self._ends: tuple[Tensor, int, list[int]] | None = None  # regions, their version, where each region ends

    @staticmethod
    def empty(count: int, embedding: int = 0) -> Gaussians:
        """A set of the right size, to load a checkpoint into."""
        zeros = torch.zeros
        return Gaussians(
            Seeds(
                zeros(count, 3), torch.ones(count, 3), zeros(count, 3), zeros(count), zeros(count),
                zeros(count, 3, dtype=torch.long), zeros(count, 3), zeros(count, dtype=torch.uint8),
                torch.tensor([1.0, 0, 0, 0]).repeat(count, 1), zeros(count, 3),
            ),
            embedding,
        )  # fmt: skip

    @property
    def learned(self) -> tuple[str, ...]:
        """Names of the learned attributes."""
        return (*ATTRIBUTES, *(["embedding"] if self.embedding.shape[1] else []))

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def before_torso(self) -> int:
        """How many do not belong to the torso; these come first."""
        return self.rows("torso").start

    def rows(self, region: str) -> slice:
        """Find the Gaussians of a region, which stand together."""
        regions = self.region
        if self._ends is None or self._ends[0] is not regions or self._ends[1] != regions._version:
            count = torch.bincount(regions.long(), minlength=len(REGIONS))
            self._ends = regions, regions._version, [0, *count.cumsum(0).tolist()]
        number = REGIONS.index(region)
        return slice(*self._ends[2][number : number + 2])

    def keep(self, index: Tensor) -> None:
        """Keep some Gaussians, and let go of all others.

        Args:
            index: [M] int64, ascending; of those that stay.
        """
        for name in self.learned:
            setattr(self, name, nn.Parameter(getattr(self, name).detach()[index]))
        for name, rows in list(self.named_buffers()):
            setattr(self, name, rows[index])

    def displacement(self, vertices: Float[Tensor, "V 3"]) -> Float[Tensor, "N 3"]:
        """What the face mesh does to each Gaussian: [N, 3] from landmark displacements [V, 3]."""
        return F.embedding_bag(self.bind_index, vertices, mode="sum", per_sample_weights=self.bind_weight)
