"""What :func:`avatar.native.animate_gaussians` and :func:`avatar.native.draw_field` are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor


class CanonicalGaussians(NamedTuple):
    """Gaussians as they are learned, and what binds them.

    Attributes:
        means: [N, 3] centimetres.
        quats: [N, 4] wxyz, of any length.
        scales: [N, 3] logarithms of standard deviations.
        opacities: [N, 1] logits.
        colors: [N, 3].
        weights: [N, 1] skinning weights, 0..1.
        bind_index: int32 [N, 3] vertices of the face mesh that move a Gaussian.
        bind_weight: [N, 3] their weights.
    """

    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    colors: Tensor
    weights: Tensor
    bind_index: Tensor
    bind_weight: Tensor


class FrameMotion(NamedTuple):
    """What moves all Gaussians in one frame.

    Attributes:
        changes: [M, 10] the deformation field's, of means (3), scales (3), opacity (1) and color (3); of the first
            M <= N Gaussians.
        vertices: [V, 3] displacements of the face mesh.
        transforms: [2, 3, 4] as in :func:`avatar.native.skin_gaussians`.
        transform_quats: [2, 4] likewise.
        warp: [R, C, 2] displacements of the torso at the nodes of a grid, in the plane of its pivot; 2 to 1024 a side.
        warp_frame: [7] the pivot, and the lower and upper corner of the grid from there.
    """

    changes: Tensor
    vertices: Tensor
    transforms: Tensor
    transform_quats: Tensor
    warp: Tensor
    warp_frame: Tensor


class FieldSpace(NamedTuple):
    """Where a radiance field has something; head axes, centimetres.

    Attributes:
        box: [2, 3] lower and upper corner.
        held: [2, 3] those of its part outside of which no cell is set.
        occupancy: uint8 [Z, Y, X/8], as for :func:`avatar.native.sample_rays`.
        step, max_samples: As there.
        front: [R, C] depths (z) over the box, at the middles of its parts, before which there is nothing.
        rise: Depth within which the density rises to its own behind the front.
        neck: y = neck[0] + neck[2] max(z - neck[1], 0) is where the head begins to fade, at rest; the field has faded
            out neck[3] below.
        moved: [3, Z, Y, X] displacements from rest, at nodes on the corners of ``moved_box``.
        moved_box: [2, 3].
    """

    box: Sequence[Sequence[float]]
    held: Sequence[Sequence[float]]
    occupancy: Tensor
    step: float
    max_samples: int
    front: Tensor
    rise: float
    neck: Sequence[float]
    moved: Tensor
    moved_box: Sequence[Sequence[float]]


class FieldFeatures(NamedTuple):
    """The tri-plane of a radiance field.

    Attributes:
        bounds: [2, 3] corners of the box that it encodes.
        table: [3, L, T, F], as for :func:`avatar.native.triplane_encode`.
        resolutions: L cells along a side.
    """

    bounds: Sequence[Sequence[float]]
    table: Tensor
    resolutions: Sequence[int]
