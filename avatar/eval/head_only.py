"""Protocol ``head-only``: the rendered head over the real torso and background.

Papers of the AD-NeRF family measure so.

What a frame of it is made of, from back to front:

1. The real frame where the real head is not: torso, neck and background are the video's own pixels, which no avatar has
   to render, so that every number of a whole frame is better than where everything is rendered.
2. Where the real head is (hair, face, ears; the mask is widened, so that none of its pixels is left over): the neck's
   pixels below it continued upwards for some way, those of clothes for a few pixels, the background above that.
   AD-NeRF (Guo et al. 2021) and its successors continue the neck and the torso under the head in the same way.
3. The rendered head: the Gaussians of face, mouth and hair (`Avatar.render_head`), each with what it adds to the pixel
   where all Gaussians, neck and torso too, hide one another: sum of T a c over them, and sum of T a as coverage.

Rendered neck and torso are not shown. Nothing of the real head is used.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

HEAD_SHARE = 0.04  # of the mask from which on a pixel may hold some of the real head ...
EDGE = 0.02  # ... if it is this near to the head, as a share of the image's width
WIDEN = 0.008  # of the image's width, by which the head is widened besides
NECK_REACH = 0.1  # of the image's height, over which the neck is continued upwards
CLOTHES_REACH = 0.016  # the same for clothes


def without_head(real: np.ndarray, masks: Mapping[str, np.ndarray], background: np.ndarray) -> np.ndarray:
    """The real frame with its head filled in from what is below and behind it.

    Args:
        real: uint8 RGB [H, W, 3].
        masks: Soft masks of it.
        background: uint8 RGB [H, W, 3], what is behind the person in this frame.
    """
    height, width = real.shape[:2]
    share = np.sum([masks[name] for name in ("hair", "face", "lips", "mouth", "eyes")], axis=0)
    head = _widened((share > HEAD_SHARE) & _widened(share > 0.5, EDGE), WIDEN)
    reach = np.where(masks["neck"] > 0.5, NECK_REACH, np.where(masks["clothes"] > 0.5, CLOTHES_REACH, 0)) * height
    # Row of the first pixel below that is not head, for each pixel: a running minimum from the bottom up.
    rows = np.arange(height)[:, None]
    below = np.minimum.accumulate(np.where(head, height, rows)[::-1], axis=0)[::-1]
    source = np.minimum(below, height - 1)
    columns = np.broadcast_to(np.arange(width), source.shape)
    continued = head & (below < height) & (below - rows <= reach[source, columns])
    filled = np.where(head[..., None], background, real)
    filled[continued] = real[source[continued], columns[continued]]
    return filled


def composite(head: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """A rendered head over an image.

    Args:
        head: float32 [H, W, 4]: colour times coverage, and coverage.
        behind: uint8 RGB [H, W, 3].

    Returns:
        uint8 RGB [H, W, 3].
    """
    mixed = head[..., :3] + (1 - head[..., 3:]) * (behind.astype(np.float32) / 255)
    return (mixed.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _widened(mask: np.ndarray, share: float) -> np.ndarray:
    """A mask [H, W] grown by a share of its width."""
    side = 2 * max(1, round(share * mask.shape[1])) + 1
    return cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
