"""Measuring the cone of directions from which an avatar looks right: small turned renderings, of any method."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.infer.view_cone import AZIMUTHS, ELEVATIONS, SOFTNESS, HeadLimits, Limits, ViewCone
from avatar.infer.view_quality import Silhouette, holes
from avatar.methods.base import PIVOT, Method
from avatar.motion import Motion

SIZE = 128  # pixels of the longer side of a rendering
SAME_COLOR = 0.15  # largest difference of a channel between two views of one point
SAME_DEPTH = 1.5  # centimetres
HEAD_MARGIN = 4.0  # degrees that a head may turn or tilt further than it was filmed; then neck and hair tear
EXTREME = 0.02  # share of the frames beyond the directions that count as filmed

# What is wrong in a view, as a share of the silhouette: what can be seen through, such as a halo, a torn edge, a hole;
# points of another colour than where they were filmed; and, with less weight because it may be right all the same, what
# no filmed direction shows. How much of the body ends in the air above the image's lower edge adds to it.
UNSEEN_WEIGHT = 0.05
CUT_WEIGHT = 0.03
BLIND_PER_DEGREE = 0.0008  # for each degree beyond what was filmed, of a method without depth
HALF_CONFIDENCE = 0.02  # share that is wrong at which the confidence is 0.5
# No view is good that is so many degrees beyond what was filmed: sides of the head and neck are a guess there, and the
# numbers above do not see one that is smooth. By the eye, drafts and standard runs of four people, of both methods, are
# good up to about 30 degrees, and were filmed up to 2 to 9. Five degrees before, it costs next to nothing.
FURTHEST, STEEP = 30.0, 16


def measure_cone(model: Method, camera: Camera, motion: Motion) -> ViewCone:
    """Measure from which directions a trained model looks right.

    Small renderings of the model's reference pose are compared with those from the directions that were filmed, for
    which the video vouches. No image of the video is read.

    Args:
        model: The trained model, on any device.
        camera: The camera that filmed the person.
        motion: The training part of the person's motion.
    """
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return _measure(model, camera, motion)
    finally:
        model.train(training)


def _measure(model: Method, camera: Camera, motion: Motion) -> ViewCone:
    reference = model.reference_motion(motion.fps)
    rotation, translation = reference.head_rotation[0], reference.head_translation[0]
    grid = np.ones((len(ELEVATIONS), len(AZIMUTHS)))
    cone = ViewCone(
        azimuths=AZIMUTHS, elevations=ELEVATIONS, grid=grid, head_rotation=tuple(rotation.tolist()),
        head_translation=tuple(translation.tolist()),
    )  # fmt: skip
    directions = cone.directions(motion)
    filmed = directions[motion.valid, :2] if bool(motion.valid.any()) else directions[:, :2]
    low, middle, high = torch.quantile(filmed, torch.tensor([EXTREME, 0.5, 1 - EXTREME]), dim=0).tolist()
    extremes = ((low[0], middle[1]), (high[0], middle[1]), (middle[0], low[1]), (middle[0], high[1]))
    draw = _Drawing(model, camera, reference, torch.tensor(PIVOT) @ axis_angle_to_matrix(rotation).T + translation)
    front = draw(0.0, 0.0)
    sources = [front, *(draw(*view) for view in extremes)]
    least = _faults(front, sources, 0.0)
    for row, elevation in enumerate(ELEVATIONS):
        for column, azimuth in enumerate(AZIMUTHS):
            across = max(low[0] - azimuth, azimuth - high[0], 0.0)
            along = max(low[1] - elevation, elevation - high[1], 0.0)
            faults = _faults(draw(azimuth, elevation), sources, math.hypot(across, along))
            grid[row, column] = confidence_of(faults.beside(least))
    return replace(cone, grid=grid, head=head_limits(directions, cone.limits()))


def head_limits(directions: Tensor, limits: Limits) -> HeadLimits:
    """How far a head may turn: a little further than it was filmed, no further than its views are good.

    What was filmed is never slowed down.

    Args:
        directions: [T, 3] of the person's own motion; see `ViewCone.directions`.
        limits: Of the views that are good.
    """
    low, high = directions.amin(0).clamp(max=0).tolist(), directions.amax(0).clamp(min=0).tolist()
    furthest = Limits(-low[0], high[0], -low[1], high[1])
    views = Limits(*(min(limit, reached + HEAD_MARGIN) for limit, reached in zip(limits, furthest, strict=True)))
    asked = max(views.ratio(*view) for view in directions[:, :2].tolist())
    free = 1 - SOFTNESS - 0.01  # share of the way to a limit on which nothing is slowed down
    scale, roll = max(1.0, asked / free), max(high[2], -low[2])
    return HeadLimits(Limits(*(scale * limit for limit in views)), max(roll / free, roll + HEAD_MARGIN))


def confidence_of(wrong: float) -> float:
    """Confidence, 0 to 1, in a view by the share of it that is wrong."""
    return 1 / (1 + (max(wrong, 0.0) / HALF_CONFIDENCE) ** 2) if math.isfinite(wrong) else 0.0


class _Seen(NamedTuple):
    """A small rendering: its camera, RGB over grey [H, W, 3], coverage [H, W], and depth [H, W] where there is one."""

    camera: Camera
    rgb: Tensor
    alpha: Tensor
    depth: Tensor | None


class _Faults(NamedTuple):
    """What is wrong in a view, as shares of its silhouette.

    Attributes:
        soft: What is half transparent, the outline above all.
        gaps: What the interior lacks of being solid.
        other: The rest.
    """

    soft: float
    gaps: float
    other: float

    def beside(self, front: _Faults) -> float:
        """What is wrong more than in the frontal view.

        An outline that is shorter or sharper than from the front makes nothing good that is wrong elsewhere.
        """
        return sum(max(here - there, 0.0) for here, there in zip(self, front, strict=True))


class _Drawing:
    """Draws the reference pose of a model from any view, small."""

    def __init__(self, model: Method, camera: Camera, reference: Motion, pivot: Tensor) -> None:
        shrink = min(1.0, SIZE / max(camera.width, camera.height))
        self._camera = camera.resized(*(max(2, round(n * shrink)) for n in (camera.width, camera.height)))
        self._model, self._motion, self._pivot = model, reference.to(model.device), pivot
        self._grey = torch.full((self._camera.height, self._camera.width, 3), 0.5, device=model.device)

    def __call__(self, azimuth: float, elevation: float) -> _Seen:
        camera = self._camera.orbit(self._pivot, azimuth, elevation)
        out = self._model(self._motion, 0, camera.to(self._model.device), background=self._grey, with_depth=True)
        depth = None if out.depth is None else out.depth[..., 0].float().cpu()
        return _Seen(camera, out.rgb.float().cpu(), out.alpha[..., 0].float().cpu(), depth)


def _faults(view: _Seen, sources: list[_Seen], outside: float) -> _Faults:
    """What is wrong in a view.

    Args:
        view: The view.
        sources: The views that were filmed.
        outside: Degrees from the view to those.
    """
    alpha = view.alpha.clamp(0, 1)
    area = float(alpha.sum())
    if area < 1:  # nothing is there
        return _Faults(0.0, 0.0, 1.0)
    soft = float((4 * alpha * (1 - alpha)).sum()) / area
    thin = holes(Silhouette.of(alpha.numpy()))["thinness"]
    gaps = thin if math.isfinite(thin) else 0.0  # somebody so small has no interior
    other = CUT_WEIGHT * _cut(alpha) + HALF_CONFIDENCE * (outside / FURTHEST) ** STEEP
    if view.depth is None or any(source.depth is None for source in sources):
        return _Faults(soft, gaps, other + BLIND_PER_DEGREE * outside)
    points = _points(view)
    seen, difference = torch.zeros_like(alpha, dtype=torch.bool), torch.ones_like(alpha)
    for source in sources:
        visible, color = _looked_up(source, points)
        seen |= visible
        here = (color - view.rgb).abs().amax(-1)
        difference = torch.where(visible, torch.minimum(difference, here), difference)
    unseen = float((alpha * ~seen * (alpha > 0.1)).sum()) / area
    recolored = float((alpha * (seen & (alpha > 0.5) & (difference > SAME_COLOR))).sum()) / area
    return _Faults(soft, gaps, other + UNSEEN_WEIGHT * unseen + recolored)


def _cut(alpha: Tensor) -> float:
    """Share of the body's width that does not reach the lower edge of an image; coverage [H, W]."""
    widths = alpha[alpha.shape[0] // 2 :].sum(1)
    return 1 - float(widths[-1] / widths.max().clamp_min(1e-6))


def _points(view: _Seen) -> Tensor:
    """World points [H, W, 3] that the pixels of a view show."""
    camera, depth = view.camera, view.depth
    assert depth is not None
    y, x = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
    origin, rays = camera.rays(torch.stack([x, y], -1))
    return origin + rays * depth[..., None]


def _looked_up(source: _Seen, points: Tensor) -> tuple[Tensor, Tensor]:
    """Whether world points [H, W, 3] are visible in another view, and the colours [H, W, 3] there."""
    camera = source.camera
    assert source.depth is not None
    local = points @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3]
    pixels = camera.project(points)
    grid = 2 * pixels / torch.tensor([camera.width, camera.height]) - 1
    layers = torch.cat([source.rgb, source.alpha[..., None], source.depth[..., None]], -1).permute(2, 0, 1)
    found = torch.nn.functional.grid_sample(layers[None], grid[None], align_corners=False)[0]
    visible = (found[3] > 0.5) & ((local[..., 2] - found[4]).abs() < SAME_DEPTH)
    return visible, found[:3].permute(1, 2, 0)
