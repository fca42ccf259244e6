"""Colours of free view that the frontal view does not show at the same place: clouds behind the head, speckles.

Nothing is assumed about what is not seen from the front but that it looks like what is near it. So a pattern that comes
into sight counts too: compare views of one person, and avatars of one person from one view.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.spatial import KDTree

from avatar.geometry.cameras import Camera

OPAQUE = 0.9  # coverage of pixels whose colour and depth are read
WINDOW = 0.04  # of the image's width, over which the depth of a surface is taken
COARSE = 0.012  # of the image's width: sigma over which colours are averaged, so that strands and eyes are no outliers
JUMP = 2.0  # centimetres of depth within it, from which on a pixel lies at a border and is not tested
LIGHTNESS = 0.6  # weight of lightness where colours are averaged: the side of a head is darker than its front
OUTLIER = 8.0  # distance in CIELAB from which on a colour is another
NEIGHBOURS, MATCHES = 48, 3  # colours of the frontal view, nearest in space, and how many must be like a colour
FAR = 1.0  # centimetres: where the frontal view shows nothing so near, ...
FAR_NEIGHBOURS, FAR_MATCHES = 1500, 8  # ... more colours are compared: hair goes on where a cheek ended
POINTS = 12_000  # pixels of a view that are read

FACE_POINTS, FACE_NEIGHBOURS, FACE_MATCHES = 6000, 40, 2  # the same on the face, where colours are not averaged
FACE_NEAR = 0.5  # centimetres: the frontal view must show the face so near
ON_FACE = 1.0  # centimetres from the face mesh: what is further off is hair, or a hand


@dataclass(frozen=True)
class Surface:
    """Opaque pixels of a view and where they are in space.

    Attributes:
        pixels: [N] flat indices into the image.
        points: [N, 3] centimetres in the world.
        colors: [N, 3] CIELAB.
    """

    pixels: np.ndarray
    points: np.ndarray
    colors: np.ndarray

    @staticmethod
    def coarse(rgb: np.ndarray, alpha: np.ndarray, depth: np.ndarray, camera: Camera) -> Surface:
        """The whole person with averaged colours, borders in depth left out.

        Args:
            rgb: [H, W, 3] RGB 0..1, not composited.
            alpha: [H, W] coverage.
            depth: [H, W] centimetres along the camera's axis.
            camera: What sees this.
        """
        sigma = COARSE * alpha.shape[1]
        solid = (alpha > OPAQUE).astype(np.float32)
        weight = np.maximum(cv2.GaussianBlur(solid, (0, 0), sigma), 1e-3)[..., None]
        colors = cv2.GaussianBlur(lab(rgb) * solid[..., None], (0, 0), sigma) / weight * [LIGHTNESS, 1, 1]
        surface = surface_depth(depth, alpha).astype(np.float32)
        radius = max(1, round(sigma))
        window = np.ones((2 * radius + 1, 2 * radius + 1), np.uint8)
        farthest, nearest = cv2.dilate(surface * solid, window), cv2.erode(np.where(solid > 0, surface, np.inf), window)
        inner = (solid > 0) & (farthest - nearest < JUMP)
        return Surface.of(inner, colors, surface, camera, POINTS)

    @staticmethod
    def face(rgb: np.ndarray, alpha: np.ndarray, depth: np.ndarray, of_mesh: np.ndarray, camera: Camera) -> Surface:
        """The face with its own colours, at the depth [H, W] of the face mesh; arguments as for :meth:`coarse`."""
        with np.errstate(invalid="ignore"):
            on_face = (alpha > OPAQUE) & (np.abs(surface_depth(depth, alpha) - of_mesh) < ON_FACE)
        inner = cv2.erode(on_face.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        return Surface.of(inner, lab(rgb), of_mesh, camera, FACE_POINTS)

    @staticmethod
    def of(mask: np.ndarray, colors: np.ndarray, depth: np.ndarray, camera: Camera, most: int) -> Surface:
        """At most so many pixels of a mask [H, W], evenly spread."""
        found = np.flatnonzero(mask)
        chosen = found[:: max(1, -(-len(found) // most))]
        points = world_points(depth, camera).reshape(-1, 3)[chosen]
        return Surface(chosen, points, colors.reshape(-1, 3)[chosen])

    def moved(self, rotation: np.ndarray, shift: np.ndarray) -> Surface:
        """The same pixels elsewhere: ``rotation`` [3, 3] and ``shift`` [3] in the world."""
        return Surface(self.pixels, self.points @ rotation.T + shift, self.colors)


def out_of_place(surface: Surface, front: Surface) -> np.ndarray:
    """Which pixels [N] have colours that the frontal view does not show near the same place in space.

    Each is compared with the `NEIGHBOURS` points of the frontal view that are nearest to it, and is out of place where
    too few of them are within `OUTLIER` of its colour. A place that the frontal view does not show is compared with
    more of what is around.

    Args:
        surface, front: Both :meth:`Surface.coarse`, in the same frame.
    """
    if len(front.pixels) < NEIGHBOURS or not len(surface.pixels):
        return np.zeros(len(surface.pixels), bool)
    tree = KDTree(front.points)
    distance, near = tree.query(surface.points, NEIGHBOURS)
    found = _alike(surface.colors, front.colors[near]) < MATCHES
    rest = np.flatnonzero(found & (distance[:, 0] > FAR))
    if len(rest):
        around = tree.query(surface.points[rest], min(FAR_NEIGHBOURS, len(front.pixels)))[1]
        found[rest] = _alike(surface.colors[rest], front.colors[around]) < FAR_MATCHES
    return found


def speckled(face: Surface, front: Surface) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels of the face have a colour that it does not have there in the frontal view.

    The face mesh says what place that is, also where the rendering has a gap and shows what lies behind.

    Args:
        face, front: Both :meth:`Surface.face`.

    Returns:
        [N] bool, and which pixels [N] could be tested at all: those that the frontal view shows.
    """
    if len(front.pixels) < FACE_NEIGHBOURS or not len(face.pixels):
        return np.zeros(len(face.pixels), bool), np.zeros(len(face.pixels), bool)
    distance, near = KDTree(front.points).query(face.points, FACE_NEIGHBOURS)
    tested = distance[:, 0] < FACE_NEAR
    return tested & (_alike(face.colors, front.colors[near]) < FACE_MATCHES), tested


def _alike(colors: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How many of the colours [N, K, 3] are like colours [N, 3], [N]."""
    return (np.linalg.norm(others - colors[:, None], axis=-1) < OUTLIER).sum(1)


def share(found: np.ndarray, tested: int) -> float:
    """Share of the tested pixels; NaN where none were."""
    return float(found.sum()) / tested if tested else math.nan


def surface_depth(depth: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Depth [H, W] of the surface around each pixel: a median, which passes over gaps.

    Args:
        depth: [H, W] centimetres.
        alpha: [H, W] coverage; only opaque pixels count. Far from any, the depth is as it was.
    """
    height, width = depth.shape
    step = max(1, round(WINDOW * width / 5))
    coarse = np.where(alpha > OPAQUE, depth, np.nan)[step // 2 :: step, step // 2 :: step]
    padded = np.pad(coarse, 2, constant_values=np.nan)
    rows, columns = coarse.shape
    shifts = [padded[y : y + rows, x : x + columns] for y in range(5) for x in range(5)]
    ordered = np.sort(shifts, axis=0)  # NaN comes last
    middle = np.maximum(np.isfinite(ordered).sum(0) - 1, 0)[None] // 2
    median = np.take_along_axis(ordered, middle, 0)[0]
    at = (np.minimum(np.arange(n) // step, m - 1) for n, m in ((height, rows), (width, columns)))
    fine = median[np.ix_(*at)]
    return np.where(np.isfinite(fine), fine, depth)


def world_points(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """World points [H, W, 3] in centimetres of a depth [H, W] along the camera's axis."""
    height, width = depth.shape
    x = (np.arange(width) + 0.5 - camera.cx) / camera.focal
    y = (np.arange(height) + 0.5 - camera.cy) / camera.focal
    local = np.stack([*np.broadcast_arrays(x[None], y[:, None]), np.ones_like(depth)], -1) * depth[..., None]
    view = camera.viewmat.cpu().numpy().astype(np.float64)
    return (local - view[:3, 3]) @ view[:3, :3]


def uncomposited(rgb: np.ndarray, alpha: np.ndarray, background: float) -> np.ndarray:
    """The person's own colours [H, W, 3] of an image over a flat grey of brightness ``background``."""
    own = (rgb - (1 - alpha[..., None]) * background) / np.maximum(alpha[..., None], 1e-3)
    return own.clip(0, 1).astype(np.float32)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of RGB 0..1 [H, W, 3]."""
    return cv2.cvtColor(np.ascontiguousarray(rgb, np.float32), cv2.COLOR_RGB2LAB)
