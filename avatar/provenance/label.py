"""The visible label "AI" in a corner of an image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

TEXT = "AI"
_SHARE = 0.055  # of the image's shorter side: height of the label
_LEAST = 14  # pixels: what can still be read
_MARGIN = 0.4  # of the label's height, to the image's edges
_OPACITY = 0.6  # of the dark field behind the letters


def labelled(image: np.ndarray) -> np.ndarray:
    """A copy of an image with the label in its lower right corner.

    Args:
        image: uint8 [H, W, C], RGB, or RGBA whose label is opaque where it is drawn.
    """
    height, width = image.shape[:2]
    field = _field(max(_LEAST, round(_SHARE * min(height, width))))
    rows, columns = field.shape[:2]
    margin = round(_MARGIN * rows)
    top, left = max(0, height - margin - rows), max(0, width - margin - columns)
    shown = image.copy()
    part = shown[top : top + rows, left : left + columns]
    field = field[: part.shape[0], : part.shape[1]]
    white, opacity = field[..., :1], field[..., 1:]
    part[..., :3] = np.round(part[..., :3] * (1 - opacity) + 255 * white).astype(np.uint8)
    if image.shape[2] == 4:
        part[..., 3] = np.maximum(part[..., 3], np.round(255 * opacity[..., 0]).astype(np.uint8))
    return shown


@lru_cache(maxsize=8)
def _field(rows: int) -> np.ndarray:
    """Brightness and opacity of the label, float32 [rows, columns, 2]."""
    import cv2

    finer = 4  # drawn this much larger, then averaged: letters of 8 pixels stay smooth
    tall, font, thick = rows * finer, cv2.FONT_HERSHEY_SIMPLEX, max(1, round(rows * finer / 10))
    scale = cv2.getFontScaleFromHeight(font, round(0.56 * tall), thick)
    (wide, high), _ = cv2.getTextSize(TEXT, font, scale, thick)
    columns = rows + round(wide / finer * 0.75)
    letters = np.zeros((tall, columns * finer), np.uint8)
    corner = ((columns * finer - wide) // 2, (tall + high) // 2)
    cv2.putText(letters, TEXT, corner, font, scale, 255, thick, cv2.LINE_AA)
    bright = cv2.resize(letters, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return np.stack([bright, np.maximum(bright, _OPACITY)], axis=-1)
