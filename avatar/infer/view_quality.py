"""Faults of a silhouette in free view that need no truth: holes, torn and soft edges, a torso that ends in the air.

Each measure is a function of one rendered image. What a perfect avatar reads depends on the person, because hair has
a rough outline and gaps of its own: the same measure of the frontal view is the reference. Lengths are shares of the
image's width, or pixels of an image 512 wide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import binary_fill_holes

SOLID = 0.5  # of coverage, from which on a pixel belongs to the silhouette
HALF = (0.1, 0.9)  # of coverage: half-transparent between
CLOSE = 0.01  # of the image's width: slits narrower than twice this do not connect a hole with what is outside
RIM = 0.015  # of the image's width: how far inside the silhouette its interior begins
FINE, SMOOTH = 0.003, 0.015  # of the image's width: sigmas that leave tatters in the contour, and take them out
SPECK = 2e-5  # of the image's area: smaller islands are not counted
LOW = 0.25  # of the image's height: where a torso ends, if it does
REFERENCE_WIDTH = 512


@dataclass(frozen=True)
class Silhouette:
    """Where somebody is in an image.

    Attributes:
        alpha: [H, W] coverage, 0..1.
        solid: [H, W] bool, coverage of half and more.
        filled: [H, W] bool, ``solid`` with narrow slits closed and holes filled.
        interior: [H, W] bool, ``filled`` without its rim.
    """

    alpha: np.ndarray
    solid: np.ndarray
    filled: np.ndarray
    interior: np.ndarray

    @property
    def area(self) -> int:
        """Pixels of ``filled``."""
        return int(self.filled.sum())

    @staticmethod
    def of(alpha: np.ndarray) -> Silhouette:
        """Find it in a coverage [H, W]."""
        solid = alpha > SOLID
        filled = fill(_morph(solid, cv2.MORPH_CLOSE, CLOSE))
        return Silhouette(alpha, solid, filled, _morph(filled, cv2.MORPH_ERODE, RIM))


def fill(mask: np.ndarray) -> np.ndarray:
    """Fill the holes of a mask [H, W].

    The lower edge of the image, where a torso is cut off, closes holes too.
    """
    closed = np.pad(mask, ((0, 1), (0, 0)), constant_values=False)
    columns = np.flatnonzero(mask[-1])
    if len(columns):
        closed[-1, columns[0] : columns[-1] + 1] = True
    return np.asarray(binary_fill_holes(closed))[:-1]


def holes(silhouette: Silhouette) -> dict[str, float]:
    """Background that shines through a person.

    Returns:
        ``holes``: share of the silhouette in which less than half is covered, away from its rim; ``largest_hole``: the
        same of the largest one; ``thinness``: what coverage lacks in the interior, mean.
    """
    inside = silhouette.interior
    if not inside.any():
        return dict.fromkeys(("holes", "largest_hole", "thinness"), math.nan)
    gaps = inside & ~silhouette.solid
    areas = _areas(gaps)
    return {
        "holes": float(gaps.sum()) / silhouette.area,
        "largest_hole": float(areas.max(initial=0)) / silhouette.area,
        "thinness": float(1 - silhouette.alpha[inside].mean()),
    }


def edges(silhouette: Silhouette) -> dict[str, float]:
    """How torn and how soft the outline is, and what floats beside it.

    Returns:
        ``edge_roughness``: length of the contour over its length after smoothing, minus 1; ``edge_width_px``: area of
        half-transparent pixels outside the interior over the contour's length, in pixels of 512; ``islands``: share of
        the silhouette that is not connected with its largest part.
    """
    labels, areas = _labelled(silhouette.solid)
    if not len(areas):
        return dict.fromkeys(("edge_roughness", "edge_width_px", "islands"), math.nan)
    main = fill(labels == 1 + int(areas.argmax())).astype(np.float32)
    width = main.shape[1]
    length, smoothed = (
        contour_length(cv2.GaussianBlur(main, (0, 0), share * width, borderType=cv2.BORDER_REPLICATE) > SOLID)
        for share in (FINE, SMOOTH)
    )
    low, high = HALF
    soft = (silhouette.alpha > low) & (silhouette.alpha < high) & ~silhouette.interior
    beside = areas[areas >= max(2, SPECK * main.size)].sum() - areas.max()
    return {
        "edge_roughness": length / smoothed - 1 if smoothed > 0 else math.nan,
        "edge_width_px": float(soft.sum()) / max(smoothed, 1.0) * REFERENCE_WIDTH / width,
        "islands": max(0.0, float(beside)) / silhouette.area,
    }


def contour_length(mask: np.ndarray) -> float:
    """Length of the outer contours of a mask [H, W] in pixels, without what runs along the image's border."""
    height, width = mask.shape
    total = 0.0
    for contour in cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]:
        points = contour[:, 0].astype(np.float32)
        # A window over neighbours takes the staircase of the pixels out, which is 8 % of a slanted line.
        if len(points) > 10:
            points = np.mean([np.roll(points, k, 0) for k in (-2, -1, 0, 1, 2)], axis=0)
        x, y = points.T
        border = (x < 1) | (y < 1) | (x > width - 2) | (y > height - 2)
        steps = np.linalg.norm(points - np.roll(points, 1, 0), axis=1)
        total += float(steps[~(border & np.roll(border, 1))].sum())
    return total


def cut_off(silhouette: Silhouette) -> float:
    """Background below the person as a share of the silhouette: a torso that ends above the image's lower edge.

    Columns count in which the person ends in the lowest quarter of the image: hair and jaws overhang higher up.
    """
    labels, areas = _labelled(silhouette.solid)
    if not len(areas):
        return math.nan
    main = labels == 1 + int(areas.argmax())
    gap = main[::-1].argmax(0)  # rows below the person in each column
    low = main.any(0) & (gap < LOW * main.shape[0])
    return float(gap[low].sum()) / silhouette.area


def _morph(mask: np.ndarray, operation: int, share: float) -> np.ndarray:
    """Morphology with a disc whose radius is a share of the width; beyond the image all goes on as at its border."""
    radius = max(1, round(share * mask.shape[1]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    border = 2 * radius
    around = np.pad(mask.astype(np.uint8), border, mode="edge")
    return cv2.morphologyEx(around, operation, disc)[border:-border, border:-border] > 0


def _labelled(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected parts [H, W] from 1 on, and their areas in pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return labels, stats[1:, cv2.CC_STAT_AREA]


def _areas(mask: np.ndarray) -> np.ndarray:
    return _labelled(mask)[1]
