"""What :func:`avatar.native.animate_gaussians` is given: the Gaussians, and the motion of one frame."""

from __future__ import annotations

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
