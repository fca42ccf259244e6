"""How much of each pixel along the outline is the person's: read off the colours, because the background is known.

A mask says where the outline is within a pixel or two. Colours say more: one in the middle between the person's, next
to it, and the background's is the person's by one half.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

WIDTH = 256  # of a frame in which the outline of a mask is taken for uncertain within ...
REACH = 2.5  # ... so many pixels
NOISE = 0.1  # difference of colors, 0..1, of which half is believed


def refined(
    image: Float32[np.ndarray, "H W 3"], background: Float32[np.ndarray, "H W 3"], person: Float32[np.ndarray, "H W"]
) -> Float32[np.ndarray, "H W"]:
    """Coverage by the person, from a mask of it and the image without it, colours and coverage in 0..1.

    Each pixel near the outline lies between the colour of the nearest pixel that is surely the person's and that of
    the background behind it; where these hardly differ the mask decides.
    """
    reach = round(REACH * person.shape[1] / WIDTH)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    mask = (person > 0.5).astype(np.uint8)
    inside = cv2.erode(mask, kernel) * (person > 0.95)
    outside = cv2.erode(1 - mask, kernel) * (person < 0.05)
    near = (inside + outside) == 0
    rows, columns = np.nonzero(inside)
    if not len(rows) or not near.any():
        return person
    labels = cv2.distanceTransformWithLabels(1 - inside, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)[1]
    nearest = np.asarray(labels, np.int64)
    where = np.zeros(nearest.max() + 1, np.int64)
    where[nearest[rows, columns]] = rows * person.shape[1] + columns
    own = image.reshape(-1, 3)[where[nearest[near]]]
    behind = background[near]
    axis = own - behind
    length = (axis**2).sum(-1)
    share = np.clip(((image[near] - behind) * axis).sum(-1) / np.maximum(length, 1e-6), 0, 1)
    trust = length / (length + NOISE**2)
    coverage = inside.astype(np.float32)
    coverage[near] = trust * share + (1 - trust) * person[near]
    return coverage
