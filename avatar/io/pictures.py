"""Writing pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avatar.errors import AvatarError

JPEG_QUALITY = 95


def write_jpeg(path: Path, picture: np.ndarray, quality: int = JPEG_QUALITY) -> None:
    """Write uint8 RGB [H, W, 3] at a quality of 0 to 100 with colour at full resolution."""
    import cv2

    chroma = cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    _write(path, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality, *chroma])


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write uint8 RGB or RGBA [H, W, 3 or 4]."""
    import cv2

    _write(path, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_RGBA2BGRA), [])


def _write(path: Path, picture: np.ndarray, options: list[int]) -> None:
    import cv2

    done, data = cv2.imencode(path.suffix, picture, options)
    if not done:
        raise AvatarError(f"{path} cannot be encoded.")
    path.write_bytes(data.tobytes())  # unlike cv2.imwrite this tells when the disk is full
