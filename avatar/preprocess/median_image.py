"""An image of what many frames see, the median of each pixel, and smooth colours where none of them sees anything."""

from __future__ import annotations

import numpy as np

SEEN = 3  # times that a pixel of the background must have been seen, at least


def median_seen(colours: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute, per pixel, the median colour of the frames that see it.

    Args:
        colours: uint8 [K, h, w, 3].
        visible: bool [K, h, w].

    Returns:
        uint8 [h, w, 3] with unseen pixels filled from around them, and bool [h, w] of the seen ones.
    """
    count = visible.sum(0)
    seen = count >= min(SEEN, len(colours))
    image = np.zeros(colours.shape[1:], np.float32)
    for row in range(colours.shape[1]):  # row by row keeps the memory small
        values = np.where(visible[:, row, :, None], colours[:, row], np.int16(256))
        values.sort(axis=0)  # unseen ones go to the end
        n = np.maximum(count[row], 1)
        low, high = ((n - 1) // 2)[None, :, None], (n // 2)[None, :, None]
        pair = [np.take_along_axis(values, np.broadcast_to(i, (1, *values.shape[1:])), 0)[0] for i in (low, high)]
        image[row] = (pair[0] + pair[1]) / 2
    image = fill_unseen(image, seen)
    return np.round(image).clip(0, 255).astype(np.uint8), seen


def fill_unseen(image: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Fill the unseen pixels smoothly by push-pull: averages of the seen ones on ever coarser grids.

    Args:
        image: float32 [h, w, 3].
        seen: bool [h, w].

    Returns:
        float32 [h, w, 3], unchanged where seen; grey if nothing was.
    """
    import cv2

    if not seen.any():
        return np.full_like(image, 128)
    weight = seen.astype(np.float32)
    height, width = seen.shape
    if seen.all() or min(height, width) < 2:
        return np.where(seen[..., None], image, (image * weight[..., None]).sum((0, 1)) / weight.sum())
    half = ((width + 1) // 2, (height + 1) // 2)
    small_weight = cv2.resize(weight, half, interpolation=cv2.INTER_AREA)
    small = cv2.resize(image * weight[..., None], half, interpolation=cv2.INTER_AREA)
    small = small / np.maximum(small_weight, 1e-6)[..., None]
    filled = fill_unseen(small, small_weight > 1e-6)
    return np.where(seen[..., None], image, cv2.resize(filled, (width, height), interpolation=cv2.INTER_LINEAR))
