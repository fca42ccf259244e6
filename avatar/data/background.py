"""The background without the person, and how the camera moves over it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avatar.data.results import REDO
from avatar.io.arrays import load_array
from avatar.io.images import read_rgb, resize

IMAGE = "background.png"  # as the camera sees it at rest
WIDE = "wide.png"  # with a border around it, where the camera moves
WARP = "warp.npy"
COVERAGE = "coverage.png"  # where the background was seen at all
WHOLE = "whole_"  # before these names: the same of the whole frame that rendering shows


@dataclass(frozen=True, kw_only=True)
class Background:
    """What is behind the person.

    Attributes:
        image: uint8 RGB [h, w, 3]; larger than a frame where the camera moves.
        warp: float32 [T, 2, 3], pixels of a frame to pixels of ``image`` (centres at +0.5); None for a still camera.
    """

    image: np.ndarray
    warp: np.ndarray | None

    @staticmethod
    def read(folder: Path, frames: int | None = None, *, whole: bool = False) -> Background:
        """Read the folder of the stage `background`.

        Args:
            folder: The folder.
            frames: Number of frames expected, where it is known.
            whole: That of the whole frame, of which the stored frames are a part.

        Raises:
            AvatarError: A file is missing or damaged, or belongs to another number of frames.
        """
        part = WHOLE if whole else ""
        moving = (folder / WARP).is_file()
        return Background(
            image=read_rgb(folder / (part + (WIDE if moving else IMAGE)), REDO),
            warp=load_array(folder / (part + WARP), f"{'T' if frames is None else frames} 2 3") if moving else None,
        )

    def frame(self, index: int, width: int, height: int) -> np.ndarray:
        """The background as frame ``index`` sees it, uint8 RGB [height, width, 3]."""
        if self.warp is None:
            return resize(self.image, (width, height)) if self.image.shape[:2] != (height, width) else self.image
        return warp_affine(self.image, self.warp[index], (width, height))


def warp_affine(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], outside: int | None = None) -> np.ndarray:
    """Sample an image at ``matrix`` of each pixel.

    Args:
        image: uint8 [H, W] or [H, W, 3].
        matrix: [2, 3], pixels of the result to pixels of ``image`` (centres at +0.5).
        size: Width and height of the result in pixels.
        outside: Value beyond the edge of ``image``; its edge is prolonged if None.
    """
    import cv2

    shifted = np.array(matrix, np.float64)  # cv2 has pixel centres at whole numbers
    shifted[:, 2] += shifted[:, :2] @ np.array([0.5, 0.5]) - 0.5
    border = cv2.BORDER_REPLICATE if outside is None else cv2.BORDER_CONSTANT
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, shifted, size, flags=flags, borderMode=border, borderValue=outside or 0)
