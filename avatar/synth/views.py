"""The synthetic person from any camera: image, depth, what is seen, and where nobody is.

The video is filmed by sorting triangles (`avatar.synth.raster`), which is right from the front. Here every pixel finds
its nearest surface, so that ear, hair, neck and shoulder hide each other as they do in space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from avatar.geometry.cameras import Camera
from avatar.synth.raster import interpolate, nearest_ids
from avatar.synth.shot import Shot
from avatar.synth.strands import Strand, draw_catch_light, draw_line
from avatar.synth.subject import REGIONS, Subject

GREY = (0.5, 0.5, 0.5)
_BEHIND = {"lash": 0.6, "hair": 0.8}  # centimetres by which a line may be behind a surface and still be seen


@dataclass(frozen=True)
class View:
    """What a camera sees of a subject.

    Attributes:
        rgb: float32 [H, W, 3] sRGB 0 to 1, over the background.
        depth: float32 [H, W] centimetres along the camera's axis; 0 where nobody is.
        region: uint8 [H, W] index into `avatar.synth.subject.REGIONS`; 0 where nobody is.
        alpha: float32 [H, W] share of the pixel that the subject covers.
    """

    rgb: np.ndarray
    depth: np.ndarray
    region: np.ndarray
    alpha: np.ndarray


def draw_view(
    subject: Subject, shot: Shot, camera: Camera, background: Sequence[float] = GREY, supersample: int = 2
) -> View:
    """Draw a posed subject from any camera.

    Head, torso and lights stand still in the world, where the filming camera is at the origin; turn around the subject
    with `Camera.orbit`. Gloss follows the camera; catch lights stay where the filming camera sees them.

    Args:
        subject: The person.
        shot: Where everything is.
        camera: Any camera.
        background: RGB 0 to 1 behind the person.
        supersample: Samples per pixel and axis.
    """
    large = camera.resized(camera.width * supersample, camera.height * supersample)
    turn, shift = camera.viewmat[:3, :3].double().numpy(), camera.viewmat[:3, 3].double().numpy()
    centre = np.array([large.cx, large.cy])
    world = subject.posed(shot)
    local = world @ turn.T + shift
    points = local[:, :2] / local[:, 2:] * large.focal + centre
    ids = _visible(subject, points, local[:, 2], large)
    attributes = np.concatenate([subject.texture_at, subject.light(world, -turn.T @ shift)], 1)
    attributes = np.concatenate([attributes, 1 / local[:, 2:]], 1)
    covered, values = interpolate(ids, points, subject.faces, attributes[subject.faces])
    canvas = np.full((large.height, large.width, 3), background, np.float32)
    depth = np.full(ids.size, np.inf, np.float32)
    canvas.reshape(-1, 3)[covered] = subject.colours(values[:, :4])
    depth[covered] = 1 / values[:, 4]
    region = np.zeros(ids.size, np.uint8)
    region[covered] = subject.region[ids.reshape(-1)[covered]]
    depth, region = depth.reshape(ids.shape), region.reshape(ids.shape)

    def project(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        at = at @ turn.T + shift
        return at[..., :2] / at[..., 2:] * large.focal + centre, at[..., 2]

    scale = large.focal / (turn @ shot.head_translation + shift)[2]
    lines = np.zeros_like(depth)  # depth of lines
    for strand in subject.strands(world, shot):
        _line(canvas, depth, lines, strand, *project(strand.points), max(1, round(strand.width * scale)))
    loose = (lines > 0) & (region == 0)
    region[loose], depth[loose] = REGIONS.index("hair"), lines[loose]
    for side in ("Right", "Left"):
        light = subject.catch_light(world, shot, side)
        at, z = project(light.point)
        if _in_front(depth, at[None], z[None], 0.6)[0]:
            draw_catch_light(canvas, at, project(light.opening)[0], scale)
    return _reduced(canvas, depth, region, camera.width, camera.height)


def _visible(subject: Subject, points: np.ndarray, depth: np.ndarray, camera: Camera) -> np.ndarray:
    """[H, W] which triangle is in front."""
    corners, z = points[subject.faces], depth[subject.faces]
    seen = (z > 1).all(1) & (corners.max(1) > 0).all(1) & (corners.min(1) < (camera.width, camera.height)).all(1)
    e, f = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]
    seen &= np.where(subject.one_sided, -area, np.abs(area)) > 0.05
    return nearest_ids(points, z, subject.faces, np.flatnonzero(seen), camera.width, camera.height)


def _in_front(depth: np.ndarray, at: np.ndarray, z: np.ndarray, behind: float) -> np.ndarray:
    """Whether points [N, 2] at depths [N] are not hidden; ``behind`` is the tolerance in centimetres."""
    height, width = depth.shape
    x, y = (np.clip(np.floor(at[:, k]).astype(int), 0, n - 1) for k, n in enumerate((width, height)))
    return z < depth[y, x] + behind


def _line(
    canvas: np.ndarray, depth: np.ndarray, lines: np.ndarray, strand: Strand, at: np.ndarray, z: np.ndarray, width: int
) -> None:
    """Draw the visible stretches of a line, and their depth into ``lines``."""
    shown = _in_front(depth, at, z, _BEHIND[strand.of])
    changes = np.flatnonzero(np.diff(np.concatenate([[False], shown, [False]]).astype(int))).reshape(-1, 2)
    for start, end in changes:
        if end - start > 1:
            draw_line(canvas, at[start:end], strand.colour, width)
            draw_line(lines, at[start:end], (float(z[start:end].mean()),), width)


def _reduced(canvas: np.ndarray, depth: np.ndarray, region: np.ndarray, width: int, height: int) -> View:
    """The image at its size: colours and coverage averaged, depth over what is covered, the most frequent region."""

    def small(image: np.ndarray) -> np.ndarray:
        return cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)

    covered = region > 0
    alpha = small(covered)
    share = np.stack([small(region == k) for k in range(1, len(REGIONS))])
    total = small(np.where(covered, depth, 0))
    return View(
        rgb=np.clip(small(canvas), 0, 1),  # bright hair shines beyond white; a video ends there as well
        depth=np.where(alpha > 0, total / np.maximum(alpha, 1e-6), 0).astype(np.float32),
        region=np.where(alpha >= 0.5, share.argmax(0) + 1, 0).astype(np.uint8),
        alpha=alpha,
    )
