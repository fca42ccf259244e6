"""Depth of the whole head in one frame: the tracked face mesh, and the fitted hair and skull around it."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.interpolate import LinearNDInterpolator

from avatar.data.footage import Footage, pose_at
from avatar.geometry.mesh import FACE_OVAL
from avatar.preprocess.bust import Bust

_NOSE, _EYES = 2, ((33, 133), (263, 362))  # vertices of the face mesh: under its tip, and the corners of each eye


def inside_face(data: Footage, frame: int) -> np.ndarray:
    """Bool [H, W], true within the outline of the face's landmarks."""
    return _within(np.asarray(data.landmarks[frame])[:, :2], data)


def still_face(data: Footage, frame: int) -> np.ndarray:
    """Bool [H, W], what no expression moves: the face above the tip of the nose, without the eyes."""
    points = np.asarray(data.landmarks[frame])[:, :2]
    y, x = np.mgrid[: data.height, : data.width] + 0.5
    still = inside_face(data, frame) & (y <= points[_NOSE, 1])
    for corners in _EYES:
        middle, reach = points[list(corners)].mean(0), 0.75 * np.linalg.norm(np.subtract(*points[list(corners)]))
        still &= (x - middle[0]) ** 2 + ((y - middle[1]) * 1.2) ** 2 >= reach**2
    return still


def _within(points: np.ndarray, data: Footage) -> np.ndarray:
    """Bool [H, W], true within the outline of a face whose landmarks are at pixels [N, 2]."""
    inside = np.zeros((data.height, data.width), np.uint8)
    cv2.fillPoly(inside, [np.round(points[list(FACE_OVAL)]).astype(np.int32)], 1)
    return inside > 0


def shown(masks: dict[str, np.ndarray]) -> np.ndarray:
    """Which part of a person each pixel shows, [H, W].

    0 is the head with its hair, 1 the neck, 2 clothes.
    """
    return np.stack([masks["hair"] + masks["face"], masks["neck"], masks["clothes"]]).argmax(0)


def head_depth(data: Footage, bust: Bust, frame: int) -> np.ndarray:
    """Depth [H, W] of the head in a frame, centimetres; NaN where no head is."""
    camera, (rotation, translation) = data.camera, pose_at(data, frame)
    mesh = data.shape[:468] @ rotation.T + translation
    pixels = mesh[:, :2] / mesh[:, 2:] * camera.focal + (camera.cx, camera.cy)
    y, x = np.mgrid[: data.height, : data.width] + 0.5
    depth = np.asarray(LinearNDInterpolator(pixels, mesh[:, 2])(x, y))
    face = _within(pixels, data)
    depth[~face] = np.nan
    masks = data.masks(frame)
    around = ~face & (masks["background"] < 0.5) & (shown(masks) == 0)
    rays = np.stack([(x - camera.cx) / camera.focal, (y - camera.cy) / camera.focal, np.ones_like(x)], -1)[around]
    depth[around] = bust.head.meet(-translation @ rotation, rays @ rotation, translation[2])
    return depth
