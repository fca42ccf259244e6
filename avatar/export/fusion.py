"""The surface of a head from images with depth of all sides: of all that a method draws, whatever it is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy import ndimage
from torch import Tensor

from avatar import log
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.methods.base import Method
from avatar.motion import Motion

AZIMUTHS = range(-180, 180, 20)  # degrees around the head
ELEVATIONS = (-25, 0, 30)
SIZE = 448  # pixels of the longer side of each image
COVERED = 0.3  # alpha from which a pixel shows the person
EDGE_CM = 1.5  # difference of depth between neighbours from which a pixel is on an outline, and its depth a mixture
CELLS = 3  # that the surface of one image is blurred over
VISIBLE_CM = 0.6  # how far behind the depth of an image a vertex may lie and be seen in it
FILMED = 0.2  # radians from the filming camera over which images lose weight: further round, less was filmed
LEAST_FACING = 0.1  # added to the cosine of a view: normals in folds, as around the eyes, are not sure
GUESSED = 0.02  # weight that is left to images from where nothing was filmed
SMOOTH = 0.8  # cells that the distances are smoothed over
MARGIN_CM = 1.0  # around the head
FILLED = 0.95  # of the image by a head of which the filming camera shows a part


@dataclass(frozen=True, eq=False)
class Shot:
    """One image with depth: float32 RGB [H, W, 3], depth [H, W] in centimetres, and what each pixel is worth.

    Attributes:
        camera: Where from.
        rgb, depth: The image; depth is infinite where nothing is.
        sure: [H, W] bool, not on an outline.
    """

    camera: Camera
    rgb: Float[Tensor, "H W 3"]
    depth: Float[Tensor, "H W"]
    sure: Tensor


@dataclass(frozen=True, eq=False)
class Fusion:
    """Images of a head from all sides.

    Attributes:
        shots: The images.
        box: [2, 3] corners of the head, head axes, centimetres.
        rotation, translation: Head axes to world.
    """

    shots: Sequence[Shot]
    box: Float[Tensor, "2 3"]
    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, " 3"]

    def density(self, resolution: int) -> Float32[np.ndarray, "N N N"]:
        """How much each cell is inside: a truncated signed distance (Curless and Levoy 1996), 0 to 1, surface at 0.5.

        What some image shows to be free is outside; what no image can see is inside.
        """
        axes = [torch.linspace(float(low), float(high), resolution) for low, high in self.box.T]
        reach = CELLS * float((self.box[1] - self.box[0]).max()) / (resolution - 1)
        layers = []
        for x in log.track(axes[0], "fusing the views", total=resolution):
            points = torch.cartesian_prod(x[None], axes[1], axes[2])
            total, weight = torch.zeros(len(points)), torch.zeros(len(points))
            for shot in self.shots:
                before, sure, within = self._before(shot, points)
                counts = within & sure & (before > -reach)
                total += torch.where(counts, (before / reach).clamp(-1, 1), 0.0)
                weight += counts
            distance = torch.where(weight > 0, total / weight.clamp_min(1), -1.0)
            layers.append((0.5 - 0.5 * distance).reshape(resolution, resolution))
        return ndimage.gaussian_filter(torch.stack(layers).numpy(), SMOOTH, mode="nearest")

    def colors(self, points: Float32[np.ndarray, "V 3"], outward: Float32[np.ndarray, "V 3"]) -> np.ndarray:
        """Colors [V, 3] of points of the surface in head axes, from images that face them and were nearly filmed."""
        where = torch.from_numpy(np.ascontiguousarray(points)).float()
        normal = torch.nn.functional.normalize(torch.from_numpy(np.ascontiguousarray(outward)).float(), dim=-1)
        total, weight = torch.zeros(len(where), 3), torch.full((len(where), 1), 1e-8)
        nearest, least = torch.zeros(len(where), 3), torch.full((len(where),), torch.inf)
        for shot in self.shots:
            before, sure, within = self._before(shot, where)
            pixels = shot.camera.project(self._world(where))
            color = torch.nn.functional.grid_sample(
                shot.rgb.permute(2, 0, 1)[None],
                (2 * pixels / torch.tensor([shot.camera.width, shot.camera.height]) - 1)[None, None],
                align_corners=False,
            )[0, :, 0].T  # fmt: skip
            eye = (shot.camera.position - self.translation) @ self.rotation
            facing = (normal * torch.nn.functional.normalize(eye - where, dim=-1)).sum(-1).clamp_min(0)
            seen = within & sure & (before.abs() < VISIBLE_CM)
            turned = float(torch.acos(shot.camera.viewmat[2, 2].clamp(-1, 1)))
            trust = GUESSED + math.exp(-((turned / FILMED) ** 2))
            share = torch.where(seen, trust * (facing + LEAST_FACING) ** 2, 0.0)[:, None]
            total, weight = total + share * color, weight + share
            closer = within & (before.abs() < least)
            nearest, least = torch.where(closer[:, None], color, nearest), torch.where(closer, before.abs(), least)
        return torch.where(weight > 1e-4, total / weight, nearest).numpy()

    def _world(self, points: Tensor) -> Tensor:
        return points @ self.rotation.T + self.translation

    def _before(self, shot: Shot, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How far points [N, 3] are before what an image shows; whether that is sure; whether they are in the image."""
        camera = shot.camera
        world = self._world(points)
        depth = (world @ camera.viewmat[:3, :3].T + camera.viewmat[:3, 3])[:, 2]
        pixels = camera.project(world).floor().long()
        within = (depth > 0) & (pixels >= 0).all(-1)
        within &= (pixels[:, 0] < camera.width) & (pixels[:, 1] < camera.height)
        x, y = pixels.clamp_min(0).T
        x, y = x.clamp(max=camera.width - 1), y.clamp(max=camera.height - 1)
        return shot.depth[y, x] - depth, shot.sure[y, x], within


@torch.inference_mode()
def look_around(model: Method, motion: Motion, camera: Camera, box: Float[Tensor, "2 3"]) -> Fusion:
    """Draw a head from all sides.

    Args:
        model: Of a method with depth.
        motion: Its first frame is shown, the head at rest.
        camera: The filming camera.
        box: Where the head is; see `Method.head_box`.
    """
    pose = axis_angle_to_matrix(motion.head_rotation[0].cpu()), motion.head_translation[0].cpu()
    box = torch.stack([box[0] - MARGIN_CM, box[1] + MARGIN_CM]).cpu()
    scale = min(1.0, SIZE / max(camera.width, camera.height))
    small = camera.resized(round(camera.width * scale), round(camera.height * scale))
    pivot, middle = model.pivot.cpu(), pose[0] @ box.mean(0) + pose[1]
    radius = float((box[1] - box[0]).max() / 2 + (middle - pivot).norm())
    small = with_all_of_it(small, pivot, radius)
    views = [small.orbit(pivot, a, e) for e in ELEVATIONS for a in AZIMUTHS]
    shots = [_shot(model, motion, view) for view in log.track(views, "looking around")]
    return Fusion(shots, box, *pose)


def with_all_of_it(camera: Camera, pivot: Float[Tensor, " 3"], radius: float) -> Camera:
    """The camera, or one of shorter focal length whose image holds a ball around the pivot, centimetres.

    A close-up does not show the whole head, and what is cut off in all images would get flat walls.
    """
    x, y, depth = (camera.viewmat[:3, :3] @ pivot + camera.viewmat[:3, 3]).tolist()
    half = math.asin(min(radius / math.hypot(x, y, depth), 0.97))  # angle from the pivot to the ball's outline
    middles = [math.atan2(abs(side), depth) for side in (x, y)]
    reach = max(math.tan(min(middle + half, 1.5)) - math.tan(middle) for middle in middles)
    focal = min(camera.focal, FILLED * min(camera.width, camera.height) / 2 / reach)
    column, row = camera.project(pivot).tolist()
    if min(column, row, camera.width - column, camera.height - row) >= camera.focal * reach:
        return camera
    cx, cy = camera.width / 2 - focal * x / depth, camera.height / 2 - focal * y / depth
    return replace(camera, focal=focal, cx=cx, cy=cy)


def _shot(model: Method, motion: Motion, camera: Camera) -> Shot:
    out = model(motion, 0, camera.to(model.device), with_depth=True, part="person")
    assert out.depth is not None
    alpha, depth = out.alpha[..., 0].cpu(), out.depth[..., 0].cpu()
    shown = alpha >= COVERED
    depth = torch.where(shown, depth, torch.inf)
    largest = torch.nn.functional.max_pool2d(torch.where(shown, depth, -torch.inf)[None], 3, 1, 1)[0]
    least = -torch.nn.functional.max_pool2d(-depth[None], 3, 1, 1)[0]
    return Shot(camera, (out.rgb.cpu() / alpha[..., None].clamp_min(1e-3)).clamp(0, 1), depth,
                ~shown | (largest - least < EDGE_CM))  # fmt: skip
