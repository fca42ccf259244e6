"""Pictures of free view for the report: the turned views, and one frame with its depth, normals and faults."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from avatar.eval import images, view_geometry
from avatar.eval.view_colors import OPAQUE, surface_depth
from avatar.eval.views import Look, View, ViewMeasurement

TILE = 220  # pixels: width of an image
DEPTH_RANGE = 14.0  # centimetres before and behind the pivot that the colours of a depth cover
DIFFERENCE_RANGE = 3.0  # centimetres, where a difference is fully red or blue
HOLE, OUT_OF_PLACE = (255, 0, 255), (0, 255, 0)
NOTHING = 40  # grey of pixels without a depth

LEGEND = (
    "Marked: holes in magenta, colours out of place in green. Depth: red is near, blue is far. Normals: colours are "
    f"directions. Difference to the face mesh: red is behind it, blue before it, full at {DIFFERENCE_RANGE:g} cm."
)


def view_sheet(measured: ViewMeasurement) -> np.ndarray:
    """The frames below each other, their views side by side, uint8 RGB."""
    return np.concatenate([_row(looks, frame, measured.fps) for frame, looks in measured.looks.items()], axis=0)


def geometry_sheet(measured: ViewMeasurement) -> np.ndarray | None:
    """One frame from all views: faults, depth, normals, the face mesh's, and the difference; None without a depth."""
    looks = list(measured.looks.values())[len(measured.looks) // 2]
    columns = [_column(measured, view, look) for view, look in looks.items() if look.depth is not None]
    if not columns:
        return None
    height = max(len(column) for column in columns)
    return np.concatenate([np.pad(c, ((0, height - len(c)), (0, 0), (0, 0))) for c in columns], axis=1)


def truth_sheet(measured: ViewMeasurement) -> np.ndarray | None:
    """The exact truth above the avatar, all views side by side; None where there is no truth."""
    columns = [
        np.concatenate([labelled(image, f"{name}  {view}") for name, image in pair.items()], axis=0)
        for view, pair in measured.truth.items()
    ]
    return np.concatenate(columns, axis=1) if columns else None


def _row(looks: dict[View, Look], frame: int, fps: float) -> np.ndarray:
    tiles = [labelled(look.image, view.title if i else f"{frame / fps:.2f} s  {view.title}")
             for i, (view, look) in enumerate(looks.items())]  # fmt: skip
    return np.concatenate(tiles, axis=1)


def _column(measured: ViewMeasurement, view: View, look: Look) -> np.ndarray:
    assert look.depth is not None
    camera = measured.camera.orbit(measured.pivot, view.azimuth, view.elevation)
    middle = float((camera.viewmat @ torch.cat([measured.pivot, torch.ones(1)]))[2])
    solid = look.alpha > OPAQUE
    parts = {view.title: _marked(look), "depth": depth_image(np.where(solid, look.depth, np.nan), middle)}
    surface = np.where(solid, surface_depth(look.depth, look.alpha), np.nan)
    parts["normals"] = normal_image(view_geometry.normals(surface, camera))
    if look.mesh_depth is not None and look.difference is not None:
        parts["face mesh, normals"] = normal_image(view_geometry.normals(look.mesh_depth, camera))
        parts["depth - face mesh"] = difference_image(look.difference)
    return np.concatenate([labelled(image, title) for title, image in parts.items()], axis=0)


def _marked(look: Look) -> np.ndarray:
    image = look.image.copy()
    if look.faults is not None:
        size = max(1, image.shape[1] // 170)
        for layer, color in zip(np.moveaxis(look.faults, -1, 0), (HOLE, OUT_OF_PLACE), strict=True):
            image[cv2.dilate(layer.astype(np.uint8), np.ones((size, size), np.uint8)) > 0] = color
    return image


def depth_image(depth: np.ndarray, middle: float) -> np.ndarray:
    """Colours of a depth [H, W], uint8 RGB: red is near, blue far; NaN is grey."""
    level = (0.5 - (depth - middle) / (2 * DEPTH_RANGE)).clip(0, 1)
    image = cv2.applyColorMap((np.nan_to_num(level) * 255).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1].copy()
    image[~np.isfinite(depth)] = NOTHING
    return image


def normal_image(normals: np.ndarray) -> np.ndarray:
    """Colours of normals [H, W, 3] in camera axes, uint8 RGB; NaN is grey."""
    image = (normals * [0.5, -0.5, -0.5] + 0.5).clip(0, 1) * 255
    return np.where(np.isfinite(image), image, NOTHING).astype(np.uint8)


def difference_image(difference: np.ndarray) -> np.ndarray:
    """Colours of a difference [H, W] in centimetres, uint8 RGB: red is positive, blue negative, NaN grey."""
    part = (difference / DIFFERENCE_RANGE).clip(-1, 1)[..., None]
    image = np.where(part > 0, 255 - part * [20, 225, 225], 255 + part * [225, 180, 20])
    return np.where(np.isfinite(image), image, NOTHING).astype(np.uint8)


def labelled(image: np.ndarray, label: str) -> np.ndarray:
    """An image at the width of a tile, with its label above."""
    tall = max(1, round(TILE * image.shape[0] / image.shape[1]))
    return images.with_label(images.resize(image, TILE, tall), label)
