"""What is behind a person who is zoomed in on: the background grows with them."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from avatar.geometry.cameras import Camera
from avatar.io.images import resize
from avatar.methods.base import Method


class Backdrop:
    """Enlarges backgrounds about the point that a camera zooms in on.

    Args:
        model: Has a background of its own.
    """

    def __init__(self, model: Method) -> None:
        self._model = model
        self._last: tuple[object, Tensor] | None = None  # a live camera stands still most of the time

    def __call__(self, camera: Camera, background: UInt8[Tensor, "h w 3"] | None) -> UInt8[Tensor, "H W 3"] | None:
        """The background for a camera: the same object, or None, where nothing is zoomed in on.

        One that would have to shrink stays as it is, because it does not go on beyond its edge.

        Args:
            camera: The camera that is shown.
            background: Of any size; None: the model's own.
        """
        if camera.zoom <= 1:
            return background
        if background is not None:
            return _enlarged(background, camera)
        key = (camera.width, camera.height, camera.zoom, camera.shift)
        last = self._last  # other threads may ask for another one meanwhile
        if last is None or last[0] != key:
            own = self._model.background_at(camera).clamp(0, 1)
            last = self._last = key, _enlarged((own * 255 + 0.5).to(torch.uint8), camera)
        return last[1]


def _enlarged(image: Tensor, camera: Camera) -> Tensor:
    """An image of any size at the camera's size, enlarged as the camera says; uint8 [H, W, 3]."""
    import cv2

    size = np.array([camera.width, camera.height])
    pixels, whole = image.cpu().numpy(), (camera.zoom * size).round().astype(int)
    if whole[0] < pixels.shape[1]:  # a larger image shrinks: its pixels are averaged
        pixels = resize(pixels, (int(whole[0]), int(whole[1])))
    scale = camera.zoom * size / pixels.shape[1::-1]
    shift = np.array(camera.shift) + 0.5 * scale - 0.5  # OpenCV counts from the middle of the first pixel
    matrix = np.column_stack([np.diag(scale), shift])
    moved = cv2.warpAffine(pixels, matrix, (camera.width, camera.height), borderMode=cv2.BORDER_REPLICATE)
    return torch.from_numpy(moved).to(image.device)
