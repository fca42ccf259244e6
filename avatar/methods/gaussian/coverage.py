"""Which Gaussians training frames showed, and what happens to those that they did not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from avatar.backends import RendererName
from avatar.fields.gaussians import REGIONS, Gaussians
from avatar.geometry.cameras import Camera
from avatar.methods.gaussian.splats import Splats, project, rasterize

FRAMES = 32  # looked at, evenly over the yaw of the head
HIDDEN = 0.01  # share of a Gaussian's footprint that a frame shows; with less in every frame it is hidden ...
WELL = 0.25  # ... and from here on it is seen well
_SOLID = 0.9  # least opacity of a hidden Gaussian
_TINT = 0.03  # by which the color of one may differ that is hardly seen
_FOLLOWS = 0.02  # share of the head's motion that one of the torso begins with
_MORE = 1.2  # of either for each share that is seen


@torch.enable_grad()
def measure(
    pose: Callable[[int], Splats], rotation: Tensor, camera: Camera, renderer: RendererName,
    before: Callable[[int], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """How much of each Gaussian the frame shows that shows most of it.

    A Gaussian's share of an image is the derivative of the image's sum by its color.

    Args:
        pose: Gives the posed Gaussians of a training frame.
        rotation: [T, 3] of the head in these frames.
        camera: The filming camera.
        renderer: What draws.
        before: Gives [H, W, 1] of a frame, how much of the light what is before the Gaussians lets through.

    Returns:
        [N] share of its footprint, 0..1.
    """
    best: Tensor | None = None
    for index in over_yaw(rotation):
        with torch.no_grad():
            splats = pose(index)
            projected = project(splats, camera, renderer)
        colors = torch.ones(len(splats), 1, device=splats.means.device, requires_grad=True)
        image, _, _ = rasterize(replace(splats, colors=colors), projected, camera, None, renderer)
        shown = image if before is None else image * before(index)
        (drawn,) = torch.autograd.grad(shown.sum(), colors)
        conics = projected.conics
        area = 2 * math.pi / (conics[:, 0] * conics[:, 2] - conics[:, 1] ** 2).clamp_min(1e-9).sqrt()
        share = drawn[:, 0] / (area * splats.opacities).clamp_min(1e-6)
        share = torch.where(projected.radii > 0, share, 0).clamp(0, 1)
        best = share if best is None else torch.maximum(best, share)
    assert best is not None
    return best


def over_yaw(rotation: Tensor) -> list[int]:
    """Choose `FRAMES` frames evenly over the yaw of the head; ``rotation`` is [T, 3]."""
    order = rotation[:, 1].cpu().argsort()
    return order[torch.linspace(0, len(order) - 1, min(FRAMES, len(order))).long()].tolist()


@torch.no_grad()
def settle(gaussians: Gaussians, visible: Tensor) -> None:
    """Take back what training did to Gaussians for which it had little reason.

    Adam turns tiny gradients into steps of usual length. Those that no frame shows have drifted: they go back on their
    surface, solid and in their initial colors, if they belong to one. Of those of which a frame shows little, single
    ones have taken any color, and would be a halo from the side: the less is seen of one, the nearer it keeps to its
    initial color. Single ones of the torso have learned to follow the head, and would be a spot on the jacket when it
    turns: the less is seen of one, the less it follows.

    Args:
        gaussians: All, changed in place.
        visible: [N] as from :func:`measure`.
    """
    hidden = (visible < HIDDEN) & (gaussians.normal.square().sum(-1) > 0.5)
    away = ((gaussians.means - gaussians.anchor) * gaussians.normal).sum(-1, keepdim=True) * gaussians.normal
    gaussians.means[hidden] -= away[hidden]
    gaussians.opacities[hidden] = gaussians.opacities[hidden].clamp_min(math.log(_SOLID / (1 - _SOLID)))
    prior = gaussians.color_prior
    gaussians.colors[hidden] = prior[hidden]
    free = torch.where(visible < WELL, _TINT + _MORE * visible, torch.inf)[:, None]
    gaussians.colors.copy_(torch.clamp(gaussians.colors, prior - free, prior + free))
    held = (visible < WELL) & (gaussians.region == REGIONS.index("torso"))
    most = torch.where(held, torch.logit(_FOLLOWS + _MORE * visible), torch.inf)[:, None]
    gaussians.skinning_weight.copy_(torch.minimum(gaussians.skinning_weight, most))
