"""Faults of free view that need no truth: holes, torn edges, a torso that ends in the air, colours out of place.

Each measure is a function of one rendered image. What a perfect avatar reads depends on the person, because hair has
a rough outline and gaps of its own: the same measure of the frontal view is the reference. Lengths are shares of the
image's width, or pixels of an image 512 wide.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from scipy.ndimage import binary_fill_holes
from scipy.spatial import cKDTree

from avatar.geometry.cameras import Camera

SOLID = 0.5  # of coverage, from which on a pixel belongs to the silhouette
HALF = (0.1, 0.9)  # of coverage: half-transparent between
CLOSE = 0.01  # of the image's width: slits narrower than twice this do not connect a hole with what is outside
RIM = 0.015  # of the image's width: how far inside the silhouette its interior begins
FINE, SMOOTH = 0.003, 0.015  # of the image's width: sigmas that leave tatters in the contour, and take them out
SPECK = 2e-5  # of the image's area: smaller islands are not counted
LOW = 0.25  # of the image's height: where a torso ends, if it does
REFERENCE_WIDTH = 512

NEIGHBOURS, MATCHES = 24, 4  # colours of the frontal view, nearest in space, and how many must be like a colour
FAR = 1.5  # centimetres: where the frontal view shows nothing so near, ...
FAR_NEIGHBOURS, FAR_MATCHES = 500, 5  # ... more colours are compared: hair goes on where a cheek ended
OUTLIER = 12.0  # distance in CIELAB from which on they are not
LIGHTNESS = 0.6  # weight of lightness in it: the side of a head is darker than its front
PALETTE = 12_000  # points of the frontal view
TESTED = 12_000  # pixels of a turned view
WINDOW = 0.04  # of the image's width, over which the depth of a surface is taken
OPAQUE = 0.9  # coverage of pixels whose colour and depth are read


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
    """A mask [H, W] with its holes filled; the lower edge of the image, which cuts a torso off, closes holes too."""
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
        points = sum(np.roll(points, k, 0) for k in (-2, -1, 0, 1, 2)) / 5 if len(points) > 10 else points
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


@dataclass(frozen=True)
class Palette:
    """Colours of the frontal view and where in space they are.

    Attributes:
        tree: Of points in centimetres.
        colors: [N, 3] CIELAB, lightness weighted.
    """

    tree: cKDTree
    colors: np.ndarray

    @staticmethod
    def of(rgb: np.ndarray, alpha: np.ndarray, depth: np.ndarray, camera: Camera) -> Palette | None:
        """Read it off a frontal view; None where nobody is in it. Arguments as for :func:`color_outliers`."""
        chosen = _some(alpha > OPAQUE, PALETTE)
        if len(chosen) < NEIGHBOURS:
            return None
        points = world_points(surface_depth(depth, alpha), camera).reshape(-1, 3)[chosen]
        return Palette(cKDTree(points), lab(rgb).reshape(-1, 3)[chosen])

    def holds(self, colors: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Which colours [N, 3] are to be expected at points [N, 3], bool [N]."""
        far, near = self.tree.query(points, NEIGHBOURS)
        found = self._alike(colors, near) >= MATCHES
        rest = np.flatnonzero(~found & (far[:, 0] > FAR))
        if len(rest):
            around = self.tree.query(points[rest], min(FAR_NEIGHBOURS, len(self.colors)))[1]
            found[rest] = self._alike(colors[rest], around) >= FAR_MATCHES
        return found

    def _alike(self, colors: np.ndarray, near: np.ndarray) -> np.ndarray:
        return (np.linalg.norm(self.colors[near] - colors[:, None], axis=-1) < OUTLIER).sum(1)


def color_outliers(
    rgb: np.ndarray, alpha: np.ndarray, depth: np.ndarray, camera: Camera, palette: Palette,
    back: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[float, np.ndarray]:  # fmt: skip
    """Share of the silhouette whose colour the frontal view does not have near the same place in space.

    Each opaque pixel is lifted to its depth and compared with the `NEIGHBOURS` points of the frontal view that are
    nearest there; it is an outlier where too few of them are within `OUTLIER` of its colour. So a red spot on a cheek
    counts and so does a dark one. A place that the frontal view does not show is compared with more of what is around.

    Args:
        rgb: [H, W, 3] RGB 0..1, not composited.
        alpha: [H, W] coverage.
        depth: [H, W] centimetres along the camera's axis.
        camera: What sees this.
        palette: Of the frontal view in the same frame.
        back: Rotation [3, 3] and shift [3] that take a head that was turned since back to its place in the palette. A
            colour is then an outlier only if it is one both at its place and where that was.

    Returns:
        The share, and [H, W] bool where they are, of the pixels that were tested.
    """
    found = np.zeros(alpha.shape, bool)
    chosen = _some(alpha > OPAQUE, TESTED)
    if not len(chosen):
        return math.nan, found
    colors = lab(rgb).reshape(-1, 3)[chosen]
    points = world_points(surface_depth(depth, alpha), camera).reshape(-1, 3)[chosen]
    outlier = np.ones(len(points), bool)
    for place in [points] if back is None else [points, points @ back[0].T + back[1]]:
        outlier &= ~palette.holds(colors, place)
    found.reshape(-1)[chosen[outlier]] = True
    return float(outlier.mean()), found


def surface_depth(depth: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Depth [H, W] of the surface around each pixel: a median, which passes over what is seen through gaps in it.

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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of windows without an opaque pixel
        median = np.nanmedian(shifts, axis=0)
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
    """CIELAB of RGB 0..1 [H, W, 3], lightness weighted by `LIGHTNESS`."""
    return cv2.cvtColor(np.ascontiguousarray(rgb, np.float32), cv2.COLOR_RGB2LAB) * [LIGHTNESS, 1, 1]


def _some(mask: np.ndarray, most: int) -> np.ndarray:
    """Flat indices of a mask, at most so many, evenly spread."""
    found = np.flatnonzero(mask)
    return found[:: max(1, -(-len(found) // most))]


def _morph(mask: np.ndarray, operation: int, share: float) -> np.ndarray:
    """Morphology with a disc whose radius is a share of the width; beyond the image all goes on as at its border."""
    radius = max(1, round(share * mask.shape[1]))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    around = cv2.copyMakeBorder(mask.astype(np.uint8), *[2 * radius] * 4, cv2.BORDER_REPLICATE)
    return cv2.morphologyEx(around, operation, disc)[2 * radius : -2 * radius, 2 * radius : -2 * radius] > 0


def _labelled(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Connected parts [H, W] from 1 on, and their areas in pixels."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    return labels, stats[1:, cv2.CC_STAT_AREA]


def _areas(mask: np.ndarray) -> np.ndarray:
    return _labelled(mask)[1]
