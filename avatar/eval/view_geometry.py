"""Geometry of free view against the person's face mesh: depth, normals, and landmarks in the turned image.

The mesh is the fitted neutral face, moved by the tracked landmarks of the frame and posed as the head is. It covers the
face alone, without ears, skull and neck, and its depth is as good as the fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from avatar.eval.face_metrics import REFERENCE_WIDTH
from avatar.eval.view_colors import OPAQUE, surface_depth, world_points
from avatar.geometry.cameras import Camera
from avatar.geometry.landmarks import landmarks_to_head
from avatar.geometry.mesh import face_normals, face_triangles
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.motion import Motion
from avatar.motion.face_channels import EYE_CORNERS, EYE_RIM, LIPS_INNER

if TYPE_CHECKING:
    from avatar.data import PersonDataset

OPENINGS = (LIPS_INNER, *EYE_RIM.values())  # of the mesh: what shows in them lies behind it
MESH = 468  # vertices of the mesh; the landmarks after them are the irises
FACING = 0.35  # cosine between normal and line of sight, from which on a surface is compared
LANDMARK_FACING = 0.15  # the same for landmarks
FAR = 8.0  # centimetres: a larger difference of depth counts as this much
BLUR = 0.008  # of the image's width: sigma over which normals are taken


@dataclass(frozen=True)
class FaceMesh:
    """The face of one frame in the world.

    Attributes:
        points: [468, 3] centimetres.
        normals: [468, 3] unit length, outward.
        eye_distance: Centimetres between the outer corners of the eyes.
    """

    points: np.ndarray
    normals: np.ndarray
    eye_distance: float

    @staticmethod
    def of(data: PersonDataset, frame: int, motion: Motion, index: int) -> FaceMesh | None:
        """The person's face in a frame, posed as in frame ``index`` of a motion; None without landmarks.

        Args:
            data: The person, with tracked landmarks.
            frame: Whose landmarks shape the face.
            motion, index: Where the head is.
        """
        pixels = torch.from_numpy(np.asarray(data.landmarks[frame : frame + 1])[..., :2]).float()
        if not bool(torch.isfinite(pixels).all()):
            return None
        pose = data.motion[frame : frame + 1]
        shape = torch.from_numpy(data.shape).float()
        head = landmarks_to_head(pixels, shape, pose.head_rotation, pose.head_translation, data.camera)[0, :MESH]
        turn = axis_angle_to_matrix(motion.head_rotation[index])
        points = (head @ turn.T + motion.head_translation[index]).double().numpy()
        outer = (EYE_CORNERS["right"][0], EYE_CORNERS["left"][0])
        return FaceMesh(points, face_normals(points), float(np.linalg.norm(points[outer[0]] - points[outer[1]])))

    def facing(self, camera: Camera) -> np.ndarray:
        """Cosine [468] between each vertex's normal and the line to the camera."""
        sight = camera.position.double().cpu().numpy() - self.points
        return (self.normals * sight).sum(1) / np.linalg.norm(sight, axis=1)

    def project(self, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
        """Pixels [468, 2], and depths [468] in centimetres along the camera's axis."""
        view = camera.viewmat.double().cpu().numpy()
        local = self.points @ view[:3, :3].T + view[:3, 3]
        return local[:, :2] / local[:, 2:] * camera.focal + [camera.cx, camera.cy], local[:, 2]


def mesh_depth(mesh: FaceMesh, camera: Camera) -> np.ndarray:
    """Depth [H, W] of the mesh in centimetres; NaN where it is not, faces away, or has an opening."""
    pixels, depth = mesh.project(camera)
    cosine, triangles = mesh.facing(camera), face_triangles()
    open_ = np.any([np.isin(triangles, rim).all(1) for rim in OPENINGS], axis=0)
    shown = (cosine[triangles].mean(1) > FACING) & ~open_
    order = np.argsort(-depth[triangles].mean(1))
    image = np.full((camera.height, camera.width), np.nan)
    if not np.isfinite(pixels).all() or (depth <= 0).any():
        return image
    for number in order:
        corners = triangles[number]
        _draw(image, pixels[corners], depth[corners], bool(shown[number]))
    return image


def depth_error(depth: np.ndarray, alpha: np.ndarray, of_mesh: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """How far the rendered surface is from the mesh.

    Returns:
        ``depth_error_cm``: mean distance along the camera's axis over the face; ``depth_bias_cm``: its median with the
        sign, positive where the rendering is behind. And the differences [H, W], NaN where nothing is compared.
    """
    difference = np.where(alpha > OPAQUE, depth - of_mesh, np.nan).clip(-FAR, FAR)
    known = difference[np.isfinite(difference)]
    if not known.size:
        return {"depth_error_cm": math.nan, "depth_bias_cm": math.nan}, difference
    return {
        "depth_error_cm": float(np.abs(known).mean()), "depth_bias_cm": float(np.median(known)),
    }, difference  # fmt: skip


def normal_error(depth: np.ndarray, alpha: np.ndarray, of_mesh: np.ndarray, camera: Camera) -> float:
    """Median angle in degrees between the normals of the rendered surface and of the mesh, over the face."""
    a, b = normals(surface_depth(depth, alpha), camera), normals(of_mesh, camera)
    cosine = (a * b).sum(-1)[alpha > OPAQUE]
    cosine = cosine[np.isfinite(cosine)]
    return float(np.degrees(np.median(np.arccos(cosine.clip(-1, 1))))) if cosine.size else math.nan


def normals(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Unit normals [H, W, 3] of a depth [H, W], in camera axes, towards the camera; NaN for none."""
    local = Camera.source(camera.focal, camera.cx, camera.cy, camera.width, camera.height)
    known = np.isfinite(depth)
    sigma = BLUR * depth.shape[1]
    weight = cv2.GaussianBlur(known.astype(np.float32), (0, 0), sigma)
    smooth = cv2.GaussianBlur(np.where(known, depth, 0).astype(np.float32), (0, 0), sigma) / np.maximum(weight, 1e-6)
    points = world_points(np.where(known, smooth, np.nan), local)
    across, down = np.gradient(points, axis=1), np.gradient(points, axis=0)
    normal = np.cross(down, across)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)


def landmark_error(landmarks: np.ndarray, mesh: FaceMesh, camera: Camera) -> dict[str, float]:
    """Distance of tracked landmarks from the mesh, over the vertices that face the camera.

    Args:
        landmarks: [478, 2] pixels in the turned image; NaN without a face.
        mesh: Posed as the head is.
        camera: Of the turned image.

    Returns:
        ``landmark_error_px`` in pixels of 512, and ``landmark_error`` as a share of the distance of the outer corners
        of the eyes, as wide as it is seen from the front.
    """
    pixels, depth = mesh.project(camera)
    shown = mesh.facing(camera) > LANDMARK_FACING
    error = np.linalg.norm(landmarks[:MESH] - pixels, axis=1)[shown]
    distance = float(error.mean()) if error.size else math.nan
    eyes = mesh.eye_distance / float(depth.mean()) * camera.focal
    return {"landmark_error_px": distance * REFERENCE_WIDTH / camera.width, "landmark_error": distance / eyes}


def _draw(image: np.ndarray, corners: np.ndarray, depth: np.ndarray, shown: bool) -> None:
    """Fill one triangle with its depth, or with NaN where it hides what is behind and is not to be compared."""
    height, width = image.shape
    x0, y0 = np.maximum(np.floor(corners.min(0) - 0.5).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(corners.max(0) + 0.5).astype(int), (width, height))
    if x0 >= x1 or y0 >= y1:
        return
    (ax, ay), e, f = corners[0], corners[1] - corners[0], corners[2] - corners[0]
    area = e[0] * f[1] - e[1] * f[0]
    if abs(area) < 1e-9:
        return
    x, y = np.arange(x0, x1)[None] + 0.5 - ax, np.arange(y0, y1)[:, None] + 0.5 - ay
    s, t = (x * f[1] - y * f[0]) / area, (y * e[0] - x * e[1]) / area
    inside = (s >= 0) & (t >= 0) & (s + t <= 1)
    inverse = 1 / depth[0] + s * (1 / depth[1] - 1 / depth[0]) + t * (1 / depth[2] - 1 / depth[0])
    part = image[y0:y1, x0:x1]
    part[inside] = (1 / inverse)[inside] if shown else np.nan
