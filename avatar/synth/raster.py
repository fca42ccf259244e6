"""A small textured-mesh rasteriser: painter's order, affine texture mapping, supersampled.

Triangles are drawn far to near as flat numbers with OpenCV; texture coordinates and light are then evaluated for all
pixels at once. Triangles must be small (they are: a few pixels), which makes both shortcuts exact enough to film.
"""

from __future__ import annotations

import cv2
import numpy as np

_SHIFT = 4  # fractional bits of the polygon corners
_AT_ONCE = 1 << 20  # samples of triangles in memory at a time


def draw_ids(points: np.ndarray, order: np.ndarray, faces: np.ndarray, width: int, height: int) -> np.ndarray:
    """Which triangle is in front, per pixel.

    Args:
        points: [V, 2] pixel positions, pixel centres at +0.5.
        order: [N] indices into ``faces``, far to near.
        faces: [F, 3] vertex numbers.
        width, height: Size of the image.

    Returns:
        int32 [height, width], the triangle number or -1.
    """
    ids = np.full((height, width), -1, np.int32)
    corners = np.round((points - 0.5) * (1 << _SHIFT)).astype(np.int32)[faces[order]]
    fill = cv2.fillConvexPoly
    for number, polygon in zip(order.tolist(), corners, strict=True):
        fill(ids, polygon, number, cv2.LINE_8, _SHIFT)
    return ids


def interpolate(
    ids: np.ndarray, points: np.ndarray, faces: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Values of the visible surface, linear over each triangle.

    Args:
        ids: [H, W] from `draw_ids`.
        points: [V, 2] pixels.
        faces: [F, 3].
        values: [F, 3, C] values at the corners of the triangles.

    Returns:
        Flat indices [P] of the covered pixels, and their values float32 [P, C].
    """
    covered = np.flatnonzero(ids.reshape(-1) >= 0)
    triangle = ids.reshape(-1)[covered]
    used, triangle = np.unique(triangle, return_inverse=True)
    a, b, c = (points[faces[used, k]] for k in range(3))
    va, vb, vc = (values[used, k] for k in range(3))
    e, f = b - a, c - a
    area = e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]
    # Slivers, where pixels beside the triangle would be far outside of its values, take one value.
    longest = np.maximum(np.maximum((e * e).sum(1), (f * f).sum(1)), ((f - e) ** 2).sum(1))
    sliver = (np.abs(area) < 0.12 * longest) | (np.abs(area) < 1.0)
    area = np.where(sliver, np.inf, area)[:, None]
    gx = ((vb - va) * f[:, 1:] - (vc - va) * e[:, 1:]) / area
    gy = ((vc - va) * e[:, :1] - (vb - va) * f[:, :1]) / area
    constant = np.where(sliver[:, None], (va + vb + vc) / 3, va - gx * a[:, :1] - gy * a[:, 1:])
    plane = np.concatenate([gx, gy, constant], 1).astype(np.float32)  # [U, 3 C]
    per_pixel = plane[triangle]
    channels = values.shape[-1]
    x = (covered % ids.shape[1]).astype(np.float32)[:, None] + 0.5
    y = (covered // ids.shape[1]).astype(np.float32)[:, None] + 0.5
    out = per_pixel[:, :channels] * x
    out += per_pixel[:, channels : 2 * channels] * y
    out += per_pixel[:, 2 * channels :]
    return covered, out


def nearest_ids(
    points: np.ndarray, depth: np.ndarray, faces: np.ndarray, chosen: np.ndarray, width: int, height: int
) -> np.ndarray:
    """Which triangle is in front, per pixel, by the depth of each pixel and not of the triangle.

    A triangle covers the pixels whose centres are within it or half a pixel outside, as those of `draw_ids` do.

    Args:
        points: [V, 2] pixel positions, pixel centres at +0.5.
        depth: [F, 3] positive distance along the camera's axis of each triangle's corners.
        faces: [F, 3] vertex numbers.
        chosen: [N] indices into ``faces`` of the triangles to draw.
        width, height: Size of the image.

    Returns:
        int32 [height, width], the triangle number or -1.
    """
    corners = points[faces[chosen]]
    low = np.maximum(np.floor(corners.min(1) - 1), 0).astype(int)
    high = np.minimum(np.ceil(corners.max(1) + 1), (width, height)).astype(int)
    sides = np.maximum(high - low, 0)
    edges, inverse = _planes(corners, 1 / depth[chosen])
    bounds = np.stack([1 / depth[chosen].max(1), 1 / depth[chosen].min(1)])
    nearest = np.full(width * height, -1, np.int64)
    counts = sides.prod(1)
    groups = np.searchsorted(np.cumsum(counts), np.arange(_AT_ONCE, counts.sum(), _AT_ONCE))
    for part in np.split(np.arange(len(chosen)), groups):
        count = counts[part]
        triangle = np.repeat(part, count)
        within = np.arange(len(triangle)) - np.repeat(np.cumsum(count) - count, count)
        y, x = np.divmod(within, sides[triangle, 0])
        x, y = x + low[triangle, 0], y + low[triangle, 1]
        for edge in edges:
            a, b, c = edge[triangle].T
            inside = a * (x + 0.5) + b * (y + 0.5) + c > -0.5
            triangle, x, y = triangle[inside], x[inside], y[inside]
        a, b, c = inverse[triangle].T
        key = np.clip(a * (x + 0.5) + b * (y + 0.5) + c, *bounds[:, triangle])
        # positive floats have the order of their bits: the nearest is the largest, and brings its number along
        bits = key.astype(np.float32).view(np.int32).astype(np.int64)
        np.maximum.at(nearest, y * width + x, bits << 32 | chosen[triangle])
    return np.where(nearest < 0, -1, nearest & 0xFFFFFFFF).astype(np.int32).reshape(height, width)


def _planes(corners: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each edge [3, N, 3] and values [N, 3] as planes (x, y, 1), of triangles [N, 3, 2]."""
    along = np.roll(corners, -1, 1) - corners
    length = np.maximum(np.linalg.norm(along, axis=2, keepdims=True), 1e-9)
    area = along[:, 0, 0] * along[:, 1, 1] - along[:, 0, 1] * along[:, 1, 0]
    normal = np.stack([-along[..., 1], along[..., 0]], 2) / length * np.sign(area)[:, None, None]
    edges = np.concatenate([normal, -(normal * corners).sum(2, keepdims=True)], 2)
    weight = np.roll(edges * length, -1, 1) / np.maximum(np.abs(area), 1e-9)[:, None, None]  # barycentric, of corner k
    return edges.transpose(1, 0, 2), (weight * values[:, :, None]).sum(1)
