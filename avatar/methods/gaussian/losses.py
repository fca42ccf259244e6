"""Regularizers of method ``gaussian``."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avatar.fields.deformation import Deformation
from avatar.fields.gaussians import REGIONS, Gaussians
from avatar.geometry.se3 import quat_to_matrix

# How strongly a Gaussian of each region (`REGIONS`) is held to its surface. A turning head shows how deep its parts
# are, a torso that only sways does not. Lids that wander paint the iris, which then stays behind when the eye turns.
HELD = (0.5, 50.0, 0.0, 0.0, 100.0, 0.5, 2.0, 4.0)
ALONG = (0.5, 0.08, 0.5, 0.5, 0.03, 0.5, 0.5, 0.5)  # centimetres that each may go along it
NEIGHBOURS = 4  # of a Gaussian, whose deformations are compared with its own


def deformation_size(change: Deformation) -> Tensor:
    """Mean squares of the deformation of means, scales and colours, added."""
    return change.means.square().mean() + change.scales.square().mean() + change.colors.square().mean()


def color_distance(gaussians: Gaussians) -> Tensor:
    """Mean squared difference between colours and initial colours."""
    return (gaussians.colors - gaussians.color_prior).square().mean()


def oversize(gaussians: Gaussians, max_scale_cm: float) -> Tensor:
    """Mean squared excess, in log units, of Gaussians of neck and clothes over a size in centimetres.

    Adam turns tiny gradients into steps of usual length, so Gaussians that no view shows drift and grow. Behind face
    and hair that is harmless: they back the surface when the avatar is seen from the side.
    """
    excess = (gaussians.scales - math.log(max_scale_cm)).clamp(min=0)
    return (excess * (gaussians.region >= REGIONS.index("neck"))[:, None]).square().mean()


def surface_distance(gaussians: Gaussians, held: Tensor, slack_cm: float) -> Tensor:
    """Mean squared excess of the distance from the place on the surface.

    Along the surface Gaussians of most regions may go further than away from it: they crowd where there is texture.
    What few frames show would else leave gaps behind the outline, and spikes beside them.

    Args:
        gaussians: All of them.
        held: [2, R] weight, and way along the surface in centimetres, of each region: `HELD`, `ALONG`.
        slack_cm: Way off the surface that costs nothing.
    """
    weight, reach = held[:, gaussians.region.long()]
    offset = gaussians.means - gaussians.anchor
    away = (offset * gaussians.normal).sum(-1, keepdim=True)
    along = ((offset - away * gaussians.normal).square().sum(-1) + 1e-8).sqrt()
    excess = (away[:, 0].abs() - slack_cm).clamp(min=0).square() + (along - reach).clamp(min=0).square()
    return (weight * excess).mean()


def thickness(gaussians: Gaussians, most_cm: float) -> Tensor:
    """Mean squared excess of the standard deviation along the surface's normal, square centimetres."""
    axes = quat_to_matrix(torch.nn.functional.normalize(gaussians.quats, dim=-1))
    along = (axes.transpose(1, 2) @ gaussians.normal[..., None])[..., 0]  # the normal in each Gaussian's own axes
    deviation = ((along * gaussians.scales.exp()).square().sum(-1) + 1e-8).sqrt()
    return (deviation - most_cm).clamp(min=0).square().mean()


def nearest_neighbours(means: Float[Tensor, "N 3"]) -> Tensor:
    """Indices [N, NEIGHBOURS] of the nearest other points of each of ``means`` [N, 3]."""
    from scipy.spatial import KDTree

    points = means.detach().cpu().numpy()
    nearest = np.asarray(KDTree(points).query(points, k=NEIGHBOURS + 1)[1])
    return torch.from_numpy(nearest[:, 1:]).to(means.device)


def roughness(change: Tensor, neighbours: Tensor) -> Tensor:
    """Mean squared difference between the displacements [N, 3] of neighbours, square centimetres."""
    return (change[neighbours] - change[:, None]).square().mean()
