"""One linear basis for everything about a face that is not rigid: face mesh and deformation field together.

The face mesh is linear in the motion's channels, the field nearly so. Principal components of what both do to each
Gaussian over many frames play any motion of the person, and a frame is a product of a matrix with a short vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from avatar.fields.deformation import attribute_widths
from avatar.methods.animated import ROW, AnimatedGaussians
from avatar.motion import Motion

# One over the change of an attribute that one just sees: centimetres, log scale, opacity logit, color.
VISIBLE = torch.cat([torch.full((w,), 1 / u) for w, u in zip(attribute_widths(), (0.02, 0.1, 0.2, 0.02), strict=True)])
STILL = 0.1  # of a change that one just sees: a Gaussian that never changes by more does not move
LEAST_SHOWN = 0.02  # of the mean share of the image: what shows less counts so much all the same

Frame = tuple[Motion, int]


class Basis(NamedTuple):
    """Mean and modes of the changes of N Gaussians, K of which move.

    Attributes:
        rest: [N, 10] changes at rest: the mean of all frames.
        moved: [K] indices of those that move, ascending.
        modes: [K, 10, M] what is added times each coefficient.
        weight: [K, 10] how much an error of each number shows.
        shown: [K] the part of it that differs between Gaussians; the other part is `VISIBLE`.
    """

    rest: Float[Tensor, "N 10"]
    moved: Int[Tensor, " K"]
    modes: Float[Tensor, "K 10 M"]
    weight: Float[Tensor, "K 10"]
    shown: Float[Tensor, " K"]


def fit_basis(
    gaussians: AnimatedGaussians, frames: Sequence[Frame], shown: Float[Tensor, " N"], modes: int
) -> Basis:  # fmt: skip
    """Fit a basis to frames of motions.

    Args:
        gaussians: The avatar.
        frames: What it is to play, in samples.
        shown: [N] how much of the image each Gaussian makes; an error of what is hidden does not show.
        modes: Components kept at most; fewer where the frames do not span as many.
    """
    count = len(gaussians)
    share = shown / shown.mean().clamp_min(1e-12)
    root = share.clamp_min(LEAST_SHOWN).sqrt()
    weight = root[:, None] * VISIBLE
    samples = torch.empty(len(frames), count, ROW)
    for row, (motion, index) in zip(samples, frames, strict=True):
        row.copy_(gaussians.changes(motion, index))
    rest = samples.mean(0)
    most = torch.zeros(count)
    for row in samples:
        row.sub_(rest)
        most = torch.maximum(most, (row.abs() * weight).amax(-1))
    moved = torch.nonzero(most > STILL)[:, 0]
    weight = weight[moved]
    flat = torch.stack([(row[moved] * weight).view(-1) for row in samples])
    del samples
    # The modes by way of the small matrix of products: frames are hundreds, numbers per frame hundreds of thousands.
    values, vectors = torch.linalg.eigh((flat @ flat.T).double())
    modes = min(modes, int((values > 1e-8 * values[-1]).sum()))
    # Coefficients are then about 1, and a mode is as large as the changes that it makes.
    basis = flat.T @ vectors[:, -modes:].flip(1).float() / len(frames) ** 0.5
    return Basis(rest, moved, (basis / weight.view(-1)[:, None]).view(len(moved), ROW, modes), weight, root[moved])
