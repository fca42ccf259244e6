"""Depth of the whole head in one frame: the tracked face mesh, and the fitted hair and skull around it."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.interpolate import LinearNDInterpolator

from avatar.data.footage import Footage
from avatar.geometry.mesh import FACE_OVAL
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.preprocess.bust import Bust


def pose_at(data: Footage, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [3, 3] and translation [3] of the head in one frame, float64."""
    motion = data.motion
    return (
        axis_angle_to_matrix(motion.head_rotation[index].double()).numpy(),
        motion.head_translation[index].double().numpy(),
    )


def inside_face(data: Footage, frame: int) -> np.ndarray:
    """Bool [H, W], true within the outline of the face's landmarks."""
    inside = np.zeros((data.height, data.width), np.uint8)
    cv2.fillPoly(inside, [np.round(np.asarray(data.landmarks[frame])[list(FACE_OVAL), :2]).astype(np.int32)], 1)
    return inside > 0


def head_depth(data: Footage, bust: Bust, frame: int) -> np.ndarray:
    """Depth [H, W] of the head in a frame, centimetres; NaN where no head is."""
    camera, (rotation, translation) = data.camera, pose_at(data, frame)
    mesh = data.shape[:468] @ rotation.T + translation
    pixels = mesh[:, :2] / mesh[:, 2:] * camera.focal + (camera.cx, camera.cy)
    y, x = np.mgrid[: data.height, : data.width] + 0.5
    depth = np.asarray(LinearNDInterpolator(pixels, mesh[:, 2])(x, y))
    face = np.zeros((data.height, data.width), np.uint8)
    cv2.fillPoly(face, [np.round(pixels[list(FACE_OVAL)]).astype(np.int32)], 1)
    depth[face == 0] = np.nan
    masks = data.masks(frame)
    parts = np.stack([masks["hair"] + masks["face"], masks["neck"], masks["clothes"]])
    around = (face == 0) & (masks["background"] < 0.5) & (parts.argmax(0) == 0)
    rays = np.stack([(x - camera.cx) / camera.focal, (y - camera.cy) / camera.focal, np.ones_like(x)], -1)[around]
    start, along = -translation @ rotation, rays @ rotation
    found = np.full(len(rays), translation[2])
    for _ in range(6):  # where the rays meet the front of the head
        local = start + along * found[:, None]
        found = found + 0.8 * (bust.head.front_depth(local[:, 0], local[:, 1]) - local[:, 2]) / along[:, 2]
    depth[around] = found
    return depth
