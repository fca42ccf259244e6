"""Where points of a moving face are when the face is at rest: the face mesh carries the space around it.

A field that is evaluated there need not learn how jaw, lips and lids move, only what they look like (the idea of
INSTA, Zielonka et al. 2023). At rest the face is as it is on average: space is then stretched as little as can be.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from avatar.fields.skinning import LandmarkBasis
from avatar.motion.face_channels import CHANNELS, IRIS, NUM_LANDMARKS

CELLS = (56, 72, 16)  # of the grid of displacements, along x, y and z
_SKIN = min(IRIS["right"])  # vertices before the irises, which move with the gaze and not with the skin
_NEIGHBOURS = 4  # whose mean distance is the reach of a vertex
_REACH = (0.3, 1.2)  # its limits, centimetres: teeth are farther behind the lips than these carry
_AROUND = 2.0  # centimetres of the grid around the mesh
_FADE = 1.0  # centimetres at the grid's borders over which displacements fade out
_STILL = 0.01  # weight of no displacement, which counts where no vertex is near
_NOTHING = 1e-12  # weight along an axis that counts as none: products of smaller ones are denormal, which is slow


class _Tables(NamedTuple):
    """What follows from the mesh at rest: the grid's corners [2, 3], reach [S] and weight [S] of the vertices, the
    grid's places along the axes, and how much of a displacement is left in it [Z, Y, X]."""

    box: Tensor
    reach: Tensor
    weight: Tensor
    axes: list[Tensor]
    fade: Tensor


class MeshWarp(nn.Module):
    """Displacements of the space around a face, from its mesh.

    Args:
        shape: [V, 3] vertices at rest, head axes, centimetres.
        face: [C] face channels at rest.

    Attributes:
        rest: [S, 3] vertices of the skin at rest.
        face: [C] face channels at rest.
    """

    rest: Tensor
    face: Tensor

    def __init__(self, shape: Float[Tensor, "V 3"], face: Float[Tensor, " C"]) -> None:
        super().__init__()
        self.register_buffer("rest", shape[:_SKIN].clone())
        self.register_buffer("face", face.clone())
        self._fixed: _Tables | None = None

    @staticmethod
    def empty() -> MeshWarp:
        """One of the right shapes, to load a checkpoint into."""
        return MeshWarp(torch.zeros(NUM_LANDMARKS, 3), torch.zeros(len(CHANNELS)))

    @property
    def corners(self) -> list[list[float]]:
        """The grid's lower and upper corner, on the host."""
        return self._tables().box.tolist()

    def _tables(self) -> _Tables:
        """What follows from the mesh at rest."""
        if self._fixed is None:
            near = torch.cdist(self.rest, self.rest).topk(_NEIGHBOURS + 1, largest=False).values[:, 1:].mean(1)
            reach = near.clamp(*_REACH)
            low, high = self.rest.amin(0) - _AROUND, self.rest.amax(0) + _AROUND
            axes = [a + (b - a) * torch.linspace(0, 1, n).to(a) for a, b, n in zip(low, high, CELLS, strict=True)]
            x, y, z = (torch.minimum(at - at[0], at[-1] - at).div(_FADE).clamp(max=1) for at in axes)
            # Sparse vertices reach far: where others are denser they must not count.
            weight = (reach.amin() / reach).square()
            fade = z[:, None, None] * y[:, None] * x
            self._fixed = _Tables(torch.stack([low, high]), reach, weight, axes, fade)
        return self._fixed

    @torch.no_grad()
    def displacements(self, basis: LandmarkBasis, face: Float[Tensor, " C"]) -> Float[Tensor, "1 3 Z Y X"]:
        """Displacement from rest of the space around a face with channels [C], on a grid.

        Each vertex of the moved mesh passes its displacement on, weighted by a Gaussian of the distance. That is a
        product of three functions of one axis each, so all weights of the grid are one matrix product.
        """
        _, reach, weight, _, fade = self._tables()
        moved = ((face - self.face) @ basis.matrix).view(-1, 3)[:_SKIN]
        here = self.rest + moved
        x, y, z = self._weights(here)
        passed = torch.cat([moved, torch.ones_like(reach)[:, None]], 1) * weight[:, None]
        left = (passed[:, :, None] * z[:, None, :]).flatten(1)
        right = (y[:, :, None] * x[:, None, :]).flatten(1)
        total = (left.T @ right).view(4, *CELLS[::-1])
        return (total[:3] * (fade / (total[3] + _STILL)))[None]

    def _weights(self, here: Float[Tensor, "S 3"]) -> list[Tensor]:
        """Weights [S, X], [S, Y] and [S, Z] that vertices at ``here`` have along each axis of the grid."""
        tables = self._tables()
        weights = (
            (-0.5 * ((places - along[:, None]) / tables.reach[:, None]).square()).exp()
            for places, along in zip(tables.axes, here.unbind(1), strict=True)
        )
        return [F.threshold(values, _NOTHING, 0.0) for values in weights]

    def at_rest(self, points: Float[Tensor, "N 3"], moved: Float[Tensor, "1 3 Z Y X"]) -> Float[Tensor, "N 3"]:
        """Places at rest [N, 3] of points [N, 3]; ``moved`` is from :meth:`displacements`."""
        low, high = self._tables().box
        scale = 2 / (high - low)
        unit = torch.addcmul(-1 - low * scale, points, scale)
        # Torch shares out a batch among threads, not the points of one grid.
        parts = 1 if torch.is_grad_enabled() or points.is_cuda else torch.get_num_threads()
        each = -(-len(unit) // parts)
        unit = F.pad(unit, (0, 0, 0, parts * each - len(unit))).view(parts, 1, 1, each, 3)
        found = F.grid_sample(moved.expand(parts, -1, -1, -1, -1), unit, padding_mode="border", align_corners=True)
        return points - found.view(parts, 3, each).transpose(1, 2).reshape(-1, 3)[: len(points)]

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)  # pyright: ignore[reportArgumentType]
        self._fixed = None

    def _apply(self, *args: object, **kwargs: object) -> MeshWarp:
        self._fixed = None
        return super()._apply(*args, **kwargs)  # pyright: ignore[reportArgumentType]
