"""Frames on a CPU: what is per Gaussian in one native call, what is per frame in plain numbers.

Draws what the model's own ``draw`` does, up to rounding, without its many small tensors: at 30000 Gaussians those take
longer than the arithmetic.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avatar.fields.skinning import Pose
from avatar.geometry.cameras import Camera
from avatar.geometry.warp import COLUMNS, ROWS
from avatar.methods.base import resized
from avatar.motion import Motion
from avatar.native import CanonicalGaussians, FrameMotion, animate_gaussians, draw
from avatar.native.bin_gaussians import TILE

if TYPE_CHECKING:
    from avatar.methods.gaussian.model import GaussianModel

REACH = 1.12  # times its radius, at least: alpha falls below 1/255, and drawing ends, at 3.33 standard deviations
Matrix = list[list[float]]
Quaternion = tuple[float, float, float, float]


class CpuFrames:
    """Draws frames of a model on the CPU, which must not change meanwhile."""

    @torch.inference_mode()
    def __init__(self, model: GaussianModel) -> None:
        self._model = model
        self._behind = model.background  # the own background, at the size that was asked for last
        g, skinning = model.gaussians, model.skinning
        self._gaussians = CanonicalGaussians(
            g.means, g.quats, g.scales, g.opacities, g.colors, torch.sigmoid(g.skinning_weight),
            g.bind_index.to(torch.int32), g.bind_weight,
        )  # fmt: skip
        self._warp_frame = torch.cat([skinning.torso_pivot, skinning.warp_box.flatten()])
        self._head_center, self._torso_center = skinning.head_translation.tolist(), skinning.torso_pivot.tolist()
        rest = skinning.head_rotation.tolist()
        self._from_rest = _transposed(rotation_matrix(rest))
        self._quat_from_rest = rotation_quaternion([-x for x in rest])

    @torch.inference_mode()
    def draw(self, camera: Camera, motion: Motion, index: int, background: Tensor | None = None) -> Tensor:
        """Draw one frame, uint8 RGB [H, W, 3]; arguments as for `Method.draw`."""
        radii, means2d, depths, conics, opacities, colors = animate_gaussians(
            self._gaussians,
            self._frame(motion, index),
            camera.viewmat,
            camera.K,
            camera.width,
            camera.height,
            camera.eps2d,
        )
        width, height = camera.width, camera.height
        if background is not None and background.shape[:2] == (height, width):
            box = touched(means2d, radii, width, height)
            if box is None:
                return background.clone()
            x0, y0, x1, y1 = box
            behind = background[y0:y1, x0:x1].float() / 255
            shifted = means2d - torch.tensor([x0, y0], dtype=means2d.dtype)
            image = background.clone()
            image[y0:y1, x0:x1] = draw(shifted, conics, colors, opacities, depths, radii, x1 - x0, y1 - y0, behind)
            return image
        behind = self._own(camera) if background is None else resized(background.float() / 255, camera)
        return draw(means2d, conics, colors, opacities, depths, radii, width, height, behind)

    def _own(self, camera: Camera) -> Tensor:
        """The model's background at the camera's size, which takes milliseconds to make."""
        behind = self._behind  # other threads may ask for another size meanwhile
        if behind.shape[:2] != (camera.height, camera.width):
            self._behind = behind = self._model.background_at(camera)
        return behind

    def _frame(self, motion: Motion, index: int) -> FrameMotion:
        model = self._model
        vertices = model.skinning.rotate_to_canonical(model.basis(motion.face[index], motion.gaze[index]))
        transforms, quats = self._transforms(
            Pose(
                motion.head_rotation[index], motion.head_translation[index],
                motion.torso_rotation[index], motion.torso_translation[index], motion.torso_warp[index],
            )
        )  # fmt: skip
        changes = model.changes(model.condition(motion, index))
        warp = motion.torso_warp[index].view(ROWS, COLUMNS, 2)
        return FrameMotion(changes, vertices, transforms, quats, warp, self._warp_frame)

    def _transforms(self, pose: Pose) -> tuple[Tensor, Tensor]:
        """Transforms [2, 3, 4] of head and torso, and their quaternions [2, 4]; see `Skinning.forward`."""
        turn = pose.head_rotation.tolist()
        head_turn = _product(rotation_matrix(turn), self._from_rest)
        head = rigid(head_turn, self._head_center, pose.head_translation.tolist())
        torso_turn, center = pose.torso_rotation.tolist(), self._torso_center
        to = [a + b for a, b in zip(center, pose.torso_translation.tolist(), strict=True)]
        torso = rigid(rotation_matrix(torso_turn), center, to)
        q_head = quaternion_product(rotation_quaternion(turn), self._quat_from_rest)
        q_torso = rotation_quaternion(torso_turn)
        if sum(a * b for a, b in zip(q_head, q_torso, strict=True)) < 0:
            q_head = tuple(-x for x in q_head)
        return torch.tensor([head, torso]), torch.tensor([q_head, q_torso])


def touched(means2d: Tensor, radii: Tensor, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Bound all pixels that projected Gaussians reach: the rest of a large image is background, and only copied.

    Args:
        means2d: [N, 2] pixels.
        radii: int32 [N], three standard deviations in pixels; 0: not seen.
        width, height: Of the image.

    Returns:
        x0, y0, x1, y1 in the image, the first two multiples of a tile; None where nothing is seen.
    """
    reach = radii[:, None] * REACH + 1
    low = torch.where(reach > 1, means2d - reach, torch.inf).amin(0).tolist()
    high = torch.where(reach > 1, means2d + reach, -torch.inf).amax(0).tolist()
    x0, y0 = (max(0, math.floor(value / TILE) * TILE) if math.isfinite(value) else 0 for value in low)
    x1, y1 = (
        min(end, math.ceil(value)) if math.isfinite(value) else 0
        for value, end in zip(high, (width, height), strict=True)
    )
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def rotation_matrix(axis_angle: list[float]) -> Matrix:
    """Rodrigues' formula for axis times angle [3], radians."""
    w, x, y, z = rotation_quaternion(axis_angle)
    return [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]


def rotation_quaternion(axis_angle: list[float]) -> Quaternion:
    """Unit quaternion wxyz of axis times angle [3], radians."""
    angle = math.sqrt(sum(x * x for x in axis_angle))
    scale = math.sin(angle / 2) / angle if angle > 1e-8 else 0.5
    x, y, z = (scale * value for value in axis_angle)
    return math.cos(angle / 2), x, y, z


def quaternion_product(a: Quaternion, b: Quaternion) -> Quaternion:
    """The rotation ``b`` and then ``a``."""
    aw, ax, ay, az = a
    bw, bx, by, bz = b
    return (
        aw * bw - ax * bx - ay * by - az * bz, aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx, aw * bz + ax * by - ay * bx + az * bw,
    )  # fmt: skip


def rigid(rotation: Matrix, center: list[float], to: list[float]) -> Matrix:
    """Rows [3, 4] of the transform that turns about ``center`` and takes it to ``to``."""
    return [
        [*row, target - sum(a * b for a, b in zip(row, center, strict=True))]
        for row, target in zip(rotation, to, strict=True)
    ]


def _product(a: Matrix, b: Matrix) -> Matrix:
    return [[sum(x * y for x, y in zip(row, column, strict=True)) for column in zip(*b, strict=True)] for row in a]


def _transposed(matrix: Matrix) -> Matrix:
    return [list(row) for row in zip(*matrix, strict=True)]
