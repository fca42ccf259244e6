"""Glasses: what is worn before the face stands off its mesh, and moves against it when the head turns.

The segmenter counts what is worn on a head as hair. Hair hangs into a face from above; only glasses cross the bridge of
the nose. Their front rests there and is bent around the face.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch

from avatar.fields.gaussians import Seeds
from avatar.methods.gaussian.reference import Reference, make_seeds, nearest_true, no_seeds

_WORN = 0.5  # share of a pixel from which on something is worn there
_BRIDGE = 0.6  # of the way between the inner corners of the eyes, and of its columns, that a bridge crosses
_MOST = 0.5  # share of the face around the eyes; what covers more is no frame
_BEFORE = 0.3  # centimetres by which the bridge is before the nose
_BEND = 0.02  # centimetres of depth per squared centimetre to the side
_ARMS = 0.85  # of half the face's width: from there on to its border arms go back to the ears
_AROUND = 0.006  # of the image's width: pixels so near to the frame mix it with skin
_RIDGE = (9, 8, 168, 6, 197, 195, 5)  # landmarks down the nose
_CORNERS, _SIDES = (133, 362), (234, 454)


def find_glasses(reference: Reference) -> np.ndarray:
    """Pixels [H, W] of the face that show glasses; none, where there are no glasses."""
    points = np.asarray(reference.data.landmarks[reference.frame])[:, :2]
    rows, columns = np.indices(reference.on_face.shape)
    zone = reference.on_face & (rows > points[_RIDGE[0], 1]) & (rows < points[2, 1])
    worn = zone & (reference.masks["hair"] > _WORN)
    left, right = sorted(points[list(_CORNERS), 0])
    middle, half = (left + right) / 2, _BRIDGE * (right - left) / 2
    bridge = worn & (np.abs(columns - middle) < half) & (rows < points[_RIDGE[-1], 1])
    crossed = bridge.any(0).sum() >= _BRIDGE * 2 * half
    return worn if crossed and worn.sum() < _MOST * zone.sum() else np.zeros_like(worn)


def without_glasses(reference: Reference, glasses: np.ndarray, pixels: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Colours [N, 3] at pixels [N, 2], those of the nearest skin where glasses [H, W] hide it."""
    if not glasses.any():
        return colors
    reach = max(round(_AROUND * glasses.shape[1]), 1)
    hidden = cv2.dilate(glasses.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
    column, row = np.clip(pixels.astype(int), 0, np.array(glasses.shape[::-1]) - 1).T
    chosen, colors = hidden[row, column], colors.copy()
    y, x = nearest_true(~hidden)[:, row[chosen], column[chosen]]
    colors[chosen] = reference.image[y, x]
    return colors


def glasses_seeds(reference: Reference, glasses: np.ndarray, count: int, rng: np.random.Generator) -> Seeds:
    """About ``count`` Gaussians, or fewer where the frame is thin, on the front of glasses [H, W]."""
    shown = np.argwhere(glasses)
    count = min(count, len(shown) // 2)
    if count == 0:
        return no_seeds()
    pixels = shown[rng.choice(len(shown), count, replace=False)][:, ::-1] + rng.uniform(0, 1, (count, 2))
    depth = _depth(reference, glasses)
    column, row = pixels.astype(int).T
    rays = reference.rays(pixels)
    points = rays * depth[row, column, None]
    sigma = 0.6 * np.sqrt(len(shown) / count) * points[:, 2] / reference.data.camera.focal
    towards = -rays / np.linalg.norm(rays, axis=1, keepdims=True)
    return make_seeds(
        means=torch.from_numpy(points).float(), sigma=sigma, colors=reference.sample(pixels), opacity=0.9,
        skinning_weight=np.full(count, 0.99), region="hair", normals=towards,
    )  # fmt: skip


def _depth(reference: Reference, glasses: np.ndarray) -> np.ndarray:
    """Depth [H, W] along the camera's axis of the front of glasses; NaN elsewhere."""
    data, skinning = reference.data, reference.skinning
    points = np.asarray(data.landmarks[reference.frame])[:, :2]
    rows, columns = np.nonzero(glasses)
    near = np.abs(columns - points[168, 0]) < 0.3 * np.abs(np.diff(points[list(_CORNERS), 0]))
    ridge = list(_RIDGE)
    height = rows[near & (rows < points[_RIDGE[-1], 1])].mean()
    nose = float(np.interp(height, points[ridge, 1], data.shape[ridge, 2])) - _BEFORE
    rays = reference.rays(np.stack([columns + 0.5, rows + 0.5], -1))
    start = skinning.to_head(torch.zeros(3)).numpy().astype(float)
    along = skinning.to_head(torch.from_numpy(rays).float()).numpy().astype(float) - start
    half, ear = (np.abs(data.shape[list(_SIDES), axis]).mean() for axis in (0, 2))
    found = -start[2] / along[:, 2]
    for _ in range(8):
        at = start + along * found[:, None]
        front = nose + _BEND * at[:, 0] ** 2
        arm = np.clip((np.abs(at[:, 0]) / half - _ARMS) / (1 - _ARMS), 0, 1)
        found = found + 0.6 * (front + arm * (ear - front) - at[:, 2]) / along[:, 2]
    depth = np.full(glasses.shape, np.nan)
    depth[rows, columns] = found
    return depth
