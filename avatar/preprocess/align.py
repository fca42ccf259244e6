"""Where a part of a reference image went in other images: shift or similarity, to a small fraction of a pixel.

Inverse-compositional Gauss-Newton (Baker and Matthews 2004) on the pixels with the largest gradients, coarse to fine,
with Tukey weights against what covers the part and a gain and an offset against changing light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from avatar.data.background import warp_affine

LEVELS = 3  # of the pyramid, each half the size of the one before
POINTS = 3000  # per level
ITERATIONS = 12
TUKEY = 4.7  # in robust standard deviations
NOISE = 1.0  # grey levels; differences below this are not distinguished


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """Where the reference's part is in an image.

    Attributes:
        matrix: float64 [2, 3], reference pixels to image pixels (centres at +0.5).
        error: Robust standard deviation of the remaining difference, grey levels.
        support: Share of the points that lie in the image and fit, 0 to 1.
    """

    matrix: np.ndarray
    error: float
    support: float


@dataclass(frozen=True)
class _Level:
    scale: float
    points: np.ndarray  # [N, 2] pixels of the level, relative to the centre
    values: np.ndarray  # [N]
    jacobian: np.ndarray  # [N, parameters + 2]


class Aligner:
    """Aligns images to one reference.

    Args:
        reference: uint8 grey [H, W].
        part: bool [H, W], the pixels that move together.
        model: "shift" (2 numbers) or "similarity" (shift, rotation and scale).
    """

    def __init__(
        self, reference: np.ndarray, part: np.ndarray, model: Literal["shift", "similarity"] = "shift"
    ) -> None:
        import cv2

        self.shape = reference.shape
        rows, columns = np.nonzero(part)
        self.centre = np.array([columns.mean() + 0.5, rows.mean() + 0.5]) if len(rows) else np.zeros(2)
        self.levels: list[_Level] = []
        weight = part.astype(np.uint8) * 255
        for level, image in enumerate(_pyramid(reference)):
            scale = 0.5**level
            if level:
                weight = cv2.resize(weight, image.shape[::-1], interpolation=cv2.INTER_AREA)
            gx, gy = (cv2.Scharr(image, cv2.CV_32F, i, 1 - i) / 32 for i in (1, 0))
            strength = np.hypot(gx, gy) * (weight == 255)
            strength[:2] = strength[-2:] = strength[:, :2] = strength[:, -2:] = 0
            y, x = np.unravel_index(np.argsort(strength, axis=None)[::-1][:POINTS], strength.shape)
            keep = strength[y, x] > 0
            y, x = y[keep], x[keep]
            points = np.stack([x + 0.5, y + 0.5], -1) - self.centre * scale
            dx, dy, values = gx[y, x], gy[y, x], image[y, x]
            columns_ = [dx, dy]
            if model == "similarity":
                px, py = points.T
                columns_ += [dx * px + dy * py, dy * px - dx * py]
            jacobian = np.stack([*columns_, values - 128, np.ones_like(values)], -1).astype(np.float64)
            self.levels.append(_Level(scale, points, values.astype(np.float64), jacobian))

    @property
    def definite(self) -> float:
        """Least eigenvalue of the mean gradient tensor, grey levels² per px²: 0 where the part cannot fix its shift."""
        level = self.levels[0]
        if len(level.values) < 20:
            return 0.0
        gradients = level.jacobian[:, :2]
        return float(np.linalg.eigvalsh(gradients.T @ gradients / len(gradients))[0])

    def align(self, image: np.ndarray, start: np.ndarray | None = None) -> Alignment:
        """Find the part in an image.

        Args:
            image: uint8 grey [H, W].
            start: [2, 3] matrix to start from; the identity if None.

        Returns:
            The alignment; with support 0 where the part has no texture.
        """
        matrix = np.array([[1.0, 0, 0], [0, 1, 0]]) if start is None else np.asarray(start, np.float64)
        # Parameters about the centre of the part: shift, then (for a similarity) a - 1 and b of [[a, -b], [b, a]].
        linear, shift = matrix[:, :2], matrix[:, :2] @ self.centre + matrix[:, 2] - self.centre
        error, support = np.inf, 0.0
        for level, scaled in list(zip(self.levels, _pyramid(image), strict=True))[::-1]:
            if len(level.values) < 20:
                continue
            shift_here = shift * level.scale
            for _ in range(ITERATIONS):
                linear, shift_here, step, error, support = _step(level, scaled, self.centre, linear, shift_here)
                if step < 0.01:
                    break
            shift = shift_here / level.scale
        return Alignment(
            matrix=np.column_stack([linear, self.centre + shift - linear @ self.centre]), error=error, support=support
        )


def _step(
    level: _Level, image: np.ndarray, centre: np.ndarray, linear: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, float, float]:
    """One Gauss-Newton step; linear part, shift, length of the step in pixels, error, support."""
    import cv2

    there = level.points @ linear.T + centre * level.scale + shift
    height, width = image.shape
    inside = (there > 1).all(1) & (there[:, 0] < width - 1) & (there[:, 1] < height - 1)
    if inside.sum() < 20:
        return linear, shift, 0.0, np.inf, 0.0
    maps = (there - 0.5).astype(np.float32)
    values = cv2.remap(image, maps[:, :1], maps[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)[:, 0]
    difference = values - level.values
    difference -= np.median(difference[inside])
    spread = max(1.4826 * float(np.median(np.abs(difference[inside]))), NOISE)
    relative = difference / (TUKEY * spread)
    weights = np.where(inside & (np.abs(relative) < 1), (1 - relative**2) ** 2, 0)
    weighted = level.jacobian * weights[:, None]
    normal = weighted.T @ level.jacobian
    # A little damping keeps the step small along edges that say nothing about it.
    normal[np.diag_indices_from(normal)] *= 1.001
    normal[np.diag_indices_from(normal)] += 1e-6 * np.trace(normal) / len(normal)
    step = np.linalg.solve(normal, weighted.T @ difference)
    turn = np.eye(2)
    if len(step) == 6:
        turn += np.array([[step[2], -step[3]], [step[3], step[2]]])
    # The reference moved by `step` looks like the image seen through the present warp: undo it first.
    inverse = np.linalg.inv(turn)
    moved = linear @ inverse
    support = float((weights > 0).mean())
    return moved, shift - moved @ step[:2], float(np.abs(step[:2]).max()), spread, support


def _pyramid(image: np.ndarray) -> list[np.ndarray]:
    """float32 images, each blurred and half the size of the one before."""
    import cv2

    levels = [cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.8)]
    for _ in range(LEVELS - 1):
        levels.append(cv2.resize(cv2.GaussianBlur(levels[-1], (0, 0), 1.0), None, fx=0.5, fy=0.5))
    return levels


def mean_difference(reference: np.ndarray, image: np.ndarray, matrix: np.ndarray, part: np.ndarray) -> float:
    """Compute the mean absolute difference of two images over ``part``, in grey levels, after ``matrix``.

    The median difference does not count, because light changes. The result is infinite where less than half of the part
    remains in the image.
    """
    seen = part & (warp_affine(np.full_like(image, 255), matrix, image.shape[::-1], outside=0) == 255)
    if seen.sum() < 0.5 * part.sum():
        return np.inf
    error = (warp_affine(image, matrix, image.shape[::-1]).astype(np.float32) - reference)[seen]
    return float(np.abs(error - np.median(error)).mean())
