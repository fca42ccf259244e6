"""Linear blend skinning of canonical points by head and torso, and the linear face mesh on top of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from avatar.geometry.se3 import axis_angle_to_matrix, axis_angle_to_quat, quat_multiply
from avatar.geometry.warp import cells
from avatar.motion.face_channels import EYE_RADIUS, IRIS
from avatar.native import skin_gaussians


class Pose(NamedTuple):
    """State of one frame: axis-angle rotations [3], translations [3] and the torso's warp, as in `Motion`."""

    head_rotation: Tensor
    head_translation: Tensor
    torso_rotation: Tensor
    torso_translation: Tensor
    torso_warp: Tensor


class Skinning(nn.Module):
    """Moves canonical points with the head, the torso, or a blend of both (linear blend skinning).

    The canonical space is the world at a reference frame, so the torso's rest and the head's reference pose share it;
    a neck Gaussian in between blends the two rigid motions by its learned weight, and no seam can open.

    Args:
        head_rotation: [3] reference head pose, axis-angle.
        head_translation: [3] centimetres.
        torso_pivot: [3] centimetres.
        warp_box: [2, 2] corners of the grid of the torso's warp, centimetres from the pivot in its plane.
    """

    head_rotation: Tensor
    head_translation: Tensor
    torso_pivot: Tensor
    warp_box: Tensor

    def __init__(self, head_rotation: Tensor, head_translation: Tensor, torso_pivot: Tensor, warp_box: Tensor) -> None:
        super().__init__()
        self.register_buffer("head_rotation", head_rotation.clone())
        self.register_buffer("head_translation", head_translation.clone())
        self.register_buffer("torso_pivot", torso_pivot.clone())
        self.register_buffer("warp_box", warp_box.clone())

    def to_canonical(self, head_points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Canonical positions of points [..., 3] in head axes."""
        return head_points @ axis_angle_to_matrix(self.head_rotation).T + self.head_translation

    def directions_to_canonical(self, head_directions: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Canonical directions of directions [..., 3] in head axes."""
        return head_directions @ axis_angle_to_matrix(self.head_rotation).T

    def to_head(self, canonical: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Head-frame positions of canonical points [..., 3]."""
        return (canonical - self.head_translation) @ axis_angle_to_matrix(self.head_rotation)

    def rotate_to_canonical(self, vectors: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Canonical directions of head-frame displacements [..., 3]."""
        return vectors @ axis_angle_to_matrix(self.head_rotation).T

    def torso_at_rest(self, points: Tensor, rotation: Tensor, translation: Tensor, warp: Tensor) -> Tensor:
        """Undo the torso's motion of points [N, 3], approximately for its warp, which must be small."""
        rigid = (points - self.torso_pivot - translation) @ axis_angle_to_matrix(rotation) + self.torso_pivot
        return rigid - self.warp(rigid, warp)

    def warp(self, means: Float[Tensor, "N 3"], warp: Float[Tensor, " WIDTH"]) -> Float[Tensor, "N 3"]:
        """Displacements [N, 3] of canonical points by the torso's warp [WIDTH], parallel to the image plane.

        The grid lies in the plane of the pivot; a point moves with what it covers there.
        """
        still = means.detach()
        nearness = self.torso_pivot[2] / still[:, 2:].clamp_min(1e-3)
        index, weight = cells(still[:, :2] * nearness - self.torso_pivot[:2], self.warp_box)
        moved = F.embedding_bag(index, warp.view(-1, 2), mode="sum", per_sample_weights=weight) / nearness
        return F.pad(moved, (0, 1))

    def forward(
        self, means: Float[Tensor, "N 3"], quats: Float[Tensor, "N 4"], weight: Float[Tensor, "N 1"], pose: Pose
    ) -> tuple[Float[Tensor, "N 3"], Float[Tensor, "N 4"]]:
        """Posed means [N, 3] and quaternions [N, 4].

        Args:
            means: [N, 3] canonical, after the deformation.
            quats: [N, 4] wxyz.
            weight: [N, 1] skinning weight, 1 for the head and 0 for the torso.
            pose: Rigid state of the frame.
        """
        rotations = torch.stack(
            [
                axis_angle_to_matrix(pose.head_rotation) @ axis_angle_to_matrix(self.head_rotation).T,
                axis_angle_to_matrix(pose.torso_rotation),
            ]
        )
        centers = torch.stack([self.head_translation, self.torso_pivot])
        to = torch.stack([pose.head_translation, self.torso_pivot + pose.torso_translation])
        transforms = torch.cat([rotations, (to - (rotations @ centers[:, :, None])[:, :, 0])[:, :, None]], dim=2)
        q_head = quat_multiply(axis_angle_to_quat(pose.head_rotation), axis_angle_to_quat(-self.head_rotation))
        q_torso = axis_angle_to_quat(pose.torso_rotation)
        q_head = torch.where((q_head * q_torso).sum() < 0, -q_head, q_head)
        offsets = self.warp(means, pose.torso_warp)
        return skin_gaussians(means, quats, weight[:, 0], offsets, transforms, torch.stack([q_head, q_torso]))


class LandmarkBasis(nn.Module):
    """Landmark displacements as a linear function of Motion's face channels, fitted to this person's own track.

    Those of the irises follow the gaze, which turns an eyeball.

    It turns any motion (tracked, predicted or hand-made) into a moving face mesh before anything is learned, so lips
    move from the first training step, and views or mouth shapes outside the training set stay plausible.
    """

    matrix: Tensor
    gaze: Tensor

    def __init__(self, matrix: Tensor, gaze: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.register_buffer("gaze", gaze.clone())

    @staticmethod
    def fit(channels: Tensor, displacements: Tensor, gaze: Tensor, ridge: float = 1e-2) -> LandmarkBasis:
        """Ridge regression without intercept.

        Args:
            channels: [T, C] face channels.
            displacements: [T, V, 3] landmarks minus the neutral face, head axes, centimetres.
            gaze: [2] yaw and pitch at which irises are not displaced, radians.
            ridge: Penalty relative to the mean channel energy.
        """
        c = channels.double()
        gram = c.T @ c
        gram += ridge * gram.diagonal().mean() * torch.eye(gram.shape[0], dtype=gram.dtype)
        solution = torch.linalg.solve(gram, c.T @ displacements.double().flatten(1))
        return LandmarkBasis(solution.float(), gaze)

    def forward(self, channels: Float[Tensor, " C"], gaze: Float[Tensor, " 2"]) -> Float[Tensor, "V 3"]:
        """Displacements [V, 3] for one frame's channels [C] and gaze [2]."""
        moved = (channels @ self.matrix).view(-1, 3)
        yaw, pitch = (EYE_RADIUS * (gaze.sin() - self.gaze.sin())).unbind()
        iris = torch.stack([yaw, -pitch, torch.zeros_like(yaw)])  # y points down
        first = min(IRIS["right"])
        return torch.cat([moved[:first], iris.expand(len(moved) - first, 3)])
