"""Align images by scale, in-plane rotation and shift: what a camera of another focal length and pose explains."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix

BLUR = 0.006  # of the image's width, so that the fit sees further than a pixel
MOST_STEPS = 300


@dataclass(frozen=True)
class Similarity:
    """A similarity of an image about its principal point.

    Attributes:
        scale: Factor on lengths.
        roll_deg: In-plane rotation, positive clockwise.
        shift: x and y, as shares of the image's width.
    """

    scale: float = 1.0
    roll_deg: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)

    def applied(self, camera: Camera) -> Camera:
        """The camera whose image is this camera's image moved by the similarity."""
        roll = axis_angle_to_matrix(torch.tensor([0.0, 0.0, np.deg2rad(self.roll_deg)], dtype=torch.float32))
        turn = torch.eye(4)
        turn[:3, :3] = roll
        x, y = (s * camera.width for s in self.shift)
        return replace(camera, viewmat=turn.to(camera.viewmat) @ camera.viewmat, focal=camera.focal * self.scale,
                       cx=camera.cx + x, cy=camera.cy + y)  # fmt: skip


def fit_similarity(drawn: np.ndarray, truth: np.ndarray, margin: int, centre: tuple[float, float]) -> Similarity:
    """Find the similarity that brings images nearest to others: least squared error, over all images at once.

    Silhouettes alone would not do: a halo around the hair makes them shrink, and the face with them.

    Args:
        drawn: float32 [N, H + 2 margin, W + 2 margin, 3], drawn with a margin so that what moves in is known.
        truth: float32 [N, H, W, 3].
        margin: Pixels.
        centre: Principal point in pixels of ``truth``.
    """
    from scipy.optimize import minimize

    height, width = truth.shape[1:3]
    blur = BLUR * width
    a, b = (np.stack([cv2.GaussianBlur(x, (0, 0), blur) for x in stack]) for stack in (drawn, truth))
    middle = np.array(centre) - 0.5

    def cost(values: np.ndarray) -> float:
        scale, roll = np.exp(values[0]), np.deg2rad(values[1])
        turn = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
        shift = middle + values[2:] * width - turn @ (middle + margin)
        matrix = np.column_stack([turn, shift])
        moved = np.stack([cv2.warpAffine(x, matrix, (width, height)) for x in a])
        return float(np.sqrt(np.square(moved - b).mean()))

    start = np.zeros(4)
    simplex = np.concatenate([start[None], np.diag([0.02, 1.0, 0.01, 0.01])])
    options = {"initial_simplex": simplex, "maxfev": MOST_STEPS, "xatol": 1e-4, "fatol": 1e-6}
    found = minimize(cost, start, method="Nelder-Mead", options=options).x
    return Similarity(float(np.exp(found[0])), float(found[1]), (float(found[2]), float(found[3])))
