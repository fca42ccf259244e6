"""The deformation field: where is each canonical Gaussian, and how does it look, under this motion?"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
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

    The condition is one vector for all Gaussians; each Gaussian weights it per hidden channel by an attention read
    off its position (ER-NeRF's region attention), so that lips listen to lip channels and lids to lid channels.
    """

    output_scale: Tensor

    def __init__(self, encoding: Encoding, condition: int, hidden: int = 64) -> None:
        super().__init__()
        self.encoding = encoding
        self.spatial = nn.Linear(encoding.width, 2 * hidden)
        self.condition = nn.Linear(condition, hidden, bias=False)
        self.middle = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, sum(_WIDTH.values()))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        scale = torch.cat([torch.full((_WIDTH[n],), _SCALE[n]) for n in _WIDTH])
        self.register_buffer("output_scale", scale)

    def spatial_code(self, points: Tensor) -> Tensor:
        """Code [N, 2 hidden] of canonical positions [N, 3]: base and attention.

        It depends on nothing else, so it is constant once training is over, and inference caches it.
        """
        base, attention = self.spatial(self.encoding(points)).chunk(2, -1)
        return torch.cat([base, torch.sigmoid(attention) * 2], -1)

    def forward(self, points: Tensor, condition: Tensor) -> Deformation:
        """Changes of Gaussians at canonical positions [N, 3] under one condition vector [condition]."""
        out = deform_mlp(self.encoding(points), self.spatial.weight, self.spatial.bias, *self._layers(condition))
        return self._split(out)

    def from_code(self, code: Tensor, condition: Tensor) -> Deformation:
        """The same from :meth:`spatial_code`, without gradients."""
        return self._split(deform_code(code, *self._layers(condition)))

    def _layers(self, condition: Tensor) -> tuple[Tensor, ...]:
        middle, head = self.middle, self.head
        hidden = self.condition(condition)
        return hidden, middle.weight, middle.bias, head.weight, head.bias, self.output_scale

    def _split(self, out: Tensor) -> Deformation:
        return Deformation(*out.split(attribute_widths(), -1))
