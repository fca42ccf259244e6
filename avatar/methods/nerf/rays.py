"""Rays from pixels into head axes, and the part of an image that a box around the head shows in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.methods.batch import Box
from avatar.motion import Motion

ASIDE = 0.35  # cosine
NEAREST = 1.0  # centimetres before the camera: a box that comes nearer can show anywhere


class Rays(NamedTuple):
    """Rays in head axes.

    Attributes:
        origins, directions: [N, 3], the latter of length 1.
        slope: [N] part of a direction along the camera's axis.
        middle: [] distance from the camera to the head's origin, centimetres.
    """

    origins: Tensor
    directions: Tensor
    slope: Tensor
    middle: Tensor


def head_rays(motion: Motion, index: int, camera: Camera, pixels: Tensor) -> Rays:
    """Rays through pixels [N, 2] in head axes; gradients reach the head's pose."""
    origin, directions = camera.rays(pixels)
    turn, place = axis_angle_to_matrix(motion.head_rotation[index]), motion.head_translation[index]
    length = directions.norm(dim=-1)
    origins = ((origin - place) @ turn).expand(len(pixels), 3)
    return Rays(origins, directions @ turn / length[:, None], 1 / length, (place - origin).norm().detach())


def head_view(motion: Motion, index: int, camera: Camera) -> tuple[list[float], list[list[float]]]:
    """The same rays for `avatar.native.draw_field`: where they begin, and the matrix from pixels to directions."""
    turn, place = axis_angle_to_matrix(motion.head_rotation[index]), motion.head_translation[index]
    lens = torch.tensor([[1, 0, -camera.cx], [0, 1, -camera.cy], [0, 0, camera.focal]]).to(turn) / camera.focal
    toward = turn.T @ camera.viewmat[:3, :3].T @ lens
    return ((camera.position - place) @ turn).tolist(), toward.tolist()


@torch.no_grad()
def from_aside(motion: Motion, index: int, camera: Camera) -> bool:
    """Whether a camera looks at a head from more than about 70 degrees aside of its front, or from behind."""
    turn, place = axis_angle_to_matrix(motion.head_rotation[index]).cpu(), motion.head_translation[index].cpu()
    toward = (camera.position.cpu() - place) @ turn
    return float(toward[2]) > -ASIDE * float(toward.norm())


def pixels_in(box: Box, camera: Camera) -> Tensor:
    """Pixels [N, 2] of a part of an image, row by row."""
    x0, y0, x1, y1 = box
    device = camera.viewmat.device
    y, x = torch.meshgrid(torch.arange(y0, y1, device=device), torch.arange(x0, x1, device=device), indexing="ij")
    return torch.stack([x, y], -1).view(-1, 2)


@torch.no_grad()
def shown_in(corners: Sequence[Sequence[float]], motion: Motion, index: int, camera: Camera) -> Box:
    """The part of an image that a box, from one corner to the other in head axes, can show in."""
    whole = (0, 0, camera.width, camera.height)
    ends = torch.tensor(corners)
    points = torch.stack(torch.meshgrid(*ends.unbind(1), indexing="ij"), -1).view(-1, 3)
    turn = axis_angle_to_matrix(motion.head_rotation[index]).cpu()
    world = points @ turn.T + motion.head_translation[index].cpu()
    viewmat = camera.viewmat.cpu()
    local = world @ viewmat[:3, :3].T + viewmat[:3, 3]
    if not bool((local[:, 2] > NEAREST).all() and torch.isfinite(local).all()):
        return whole
    pixels = local[:, :2] / local[:, 2:] * camera.focal + torch.tensor([camera.cx, camera.cy])
    low, high = pixels.amin(0).floor().tolist(), pixels.amax(0).ceil().tolist()
    x0, y0 = (int(min(max(v, 0), n)) for v, n in zip(low, whole[2:], strict=True))
    x1, y1 = (int(min(max(v, a), n)) for v, a, n in zip(high, (x0, y0), whole[2:], strict=True))
    return x0, y0, x1, y1
