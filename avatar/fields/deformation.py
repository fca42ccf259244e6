"""The deformation field: changes of position, scale, opacity and colour of canonical Gaussians under a condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from avatar.native import deform_code, deform_mlp

if TYPE_CHECKING:
    from avatar.backends.tinycudann import TinyCudaTriplane
    from avatar.fields.triplane import TriplaneHash

    Encoding = TriplaneHash | TinyCudaTriplane

# How far a unit of network output moves each attribute; the last layer starts at zero, so training starts undeformed.
_SCALE = {"means": 0.5, "scales": 0.3, "opacities": 1.0, "colors": 0.3}
_WIDTH = {"means": 3, "scales": 3, "opacities": 1, "colors": 3}


class Deformation(NamedTuple):
    """Per-Gaussian changes: centimetres, log scale, opacity logit, colour 0..1."""

    means: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor


def attribute_widths() -> list[int]:
    """Numbers per Gaussian of each attribute of a :class:`Deformation`, in order."""
    return [_WIDTH[name] for name in Deformation._fields]


class DeformationField(nn.Module):
    """Tri-plane features, modulated by the condition through a region attention, then a small MLP.

    Args:
        encoding: Of canonical positions; None where only their embeddings distinguish Gaussians.
        condition: Width of the condition.
        hidden: Width of the network.
        embedding: Width of the Gaussians' embeddings.
        deforms: The attributes that may change.

    The condition is one vector for all Gaussians; each Gaussian weights it per hidden channel by an attention read
    off its position (ER-NeRF's region attention), so that lips depend on lip channels and lids on lid channels.
    """

    output_scale: Tensor

    def __init__(
        self, encoding: Encoding | None, condition: int, hidden: int = 64, *, embedding: int = 0,
        deforms: Sequence[str] = Deformation._fields,
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoding = encoding
        self.spatial = nn.Linear((encoding.width if encoding else 0) + embedding, 2 * hidden)
        self.condition = nn.Linear(condition, hidden, bias=False)
        self.middle = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, sum(_WIDTH.values()))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        scale = torch.cat([torch.full((_WIDTH[n],), _SCALE[n] * (n in deforms)) for n in _WIDTH])
        self.register_buffer("output_scale", scale)

    def features(self, points: Float[Tensor, "N 3"], embedding: Float[Tensor, "N E"]) -> Float[Tensor, "N F"]:
        """Input features of Gaussians at canonical positions [N, 3] with embeddings [N, E]."""
        if self.encoding is None:
            return embedding
        encoded = self.encoding(points)
        return torch.cat([encoded, embedding], -1) if embedding.shape[1] else encoded

    def spatial_code(self, points: Float[Tensor, "N 3"], embedding: Float[Tensor, "N E"]) -> Float[Tensor, "N H"]:
        """Code [N, 2 hidden] of Gaussians, arguments as in :meth:`features`: base and attention.

        It depends on nothing else, so it is constant once training is over, and inference caches it.
        """
        base, attention = self.spatial(self.features(points, embedding)).chunk(2, -1)
        return torch.cat([base, torch.sigmoid(attention) * 2], -1)

    def forward(
        self, points: Float[Tensor, "N 3"], embedding: Float[Tensor, "N E"], condition: Float[Tensor, " C"]
    ) -> Deformation:
        """Changes of Gaussians under one condition vector [condition]; other arguments as in :meth:`features`."""
        features = self.features(points, embedding)
        return self._split(deform_mlp(features, self.spatial.weight, self.spatial.bias, *self._layers(condition)))

    def from_code(self, code: Float[Tensor, "N H"], condition: Float[Tensor, " C"]) -> Deformation:
        """The same from :meth:`spatial_code`, without gradients."""
        return self._split(self.changes(code, condition))

    def changes(self, code: Float[Tensor, "N H"], condition: Float[Tensor, " C"]) -> Float[Tensor, "N 10"]:
        """The same as one tensor [N, 10], attributes side by side."""
        return deform_code(code, *self._layers(condition))

    def _layers(self, condition: Tensor) -> tuple[Tensor, ...]:
        middle, head = self.middle, self.head
        hidden = self.condition(condition)
        return hidden, middle.weight, middle.bias, head.weight, head.bias, self.output_scale

    def _split(self, out: Tensor) -> Deformation:
        return Deformation(*out.split(attribute_widths(), -1))
