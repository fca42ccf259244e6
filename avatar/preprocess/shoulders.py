"""How far each shoulder is lifted, from the outline of the clothes: the part of the torso that is not rigid."""

from __future__ import annotations

import cv2
import numpy as np

from avatar.preprocess.parse import SIZE, read_mask
from avatar.preprocess.stage import StageContext

LEAST_COLUMNS = 6  # of the mask, on a side, to measure at all
LEAST_FRAMES = 0.6  # share of the frames in which a column must show an outline
OUTLIER_CM = 4.0
_CLOTHES = 2  # channel of the mask pictures
_AVERAGED = 2.0  # mask pixels by which the outline is blurred along, which steadies it


def measure(ctx: StageContext, to_frame: np.ndarray, focal: float, depth: float) -> np.ndarray:
    """Vertical displacement of the shoulders beyond the rigid motion of the torso.

    The mask of each key frame is brought to the torso's rest position. In every column beside the neck, the height of
    the outline is compared with its median over the video; a side's displacement is the median over its columns.

    Args:
        ctx: The person; the stages track and parse have run.
        to_frame: [T, 2, 3] similarities, pixels at rest to pixels of the frame.
        focal: Pixels.
        depth: Of the torso, centimetres.

    Returns:
        [T, 2] centimetres, positive down: the person's right shoulder (left in the picture), then the left one. Zero
        for a side that the picture does not show.
    """
    keyframes = np.asarray(ctx.result("parse")["keyframes"])
    side = float(ctx.result("ingest")["size"])
    outlines = np.stack([_outline(ctx, int(k), to_frame[k], side) for k in keyframes])
    landmarks = np.load(ctx.folder("track") / "landmarks.npy", mmap_mode="r")
    face = np.asarray(landmarks[keyframes, :468, 0]) * (SIZE / side)
    seen = np.isfinite(outlines).mean(0) >= LEAST_FRAMES
    shown = np.zeros((len(keyframes), 2))
    column = np.arange(SIZE) + 0.5
    beside = (column < np.median(face.min(1)) - 2, column > np.median(face.max(1)) + 2)
    scale = side / SIZE * depth / focal
    for which, part in enumerate(beside):
        columns = np.flatnonzero(part & seen)
        if len(columns) < LEAST_COLUMNS:
            continue
        heights = outlines[:, columns]
        offset = (heights - np.nanmedian(heights, 0)) * scale
        known = np.isfinite(offset).sum(1) >= LEAST_COLUMNS // 2
        value = np.zeros(len(keyframes))
        value[known] = np.nanmedian(offset[known], 1)
        value[~known] = np.interp(keyframes[~known], keyframes[known], value[known]) if known.any() else 0
        shown[:, which] = np.clip(value, -OUTLIER_CM, OUTLIER_CM)
    return _every_frame(shown, keyframes, ctx.result("track")["segments"], len(to_frame))


def _outline(ctx: StageContext, index: int, to_frame: np.ndarray, side: float) -> np.ndarray:
    """Height [SIZE] of the upper edge of the clothes in each column, in mask pixels at rest; NaN where none is seen."""
    mask = read_mask(ctx.folder("parse") / "masks" / f"{index:06d}.png")
    clothes = cv2.GaussianBlur(np.ascontiguousarray(mask[..., _CLOTHES]), (0, 0), _AVERAGED, sigmaY=0.6)
    scaled = to_frame.astype(np.float64).copy()
    scaled[:, 2] *= SIZE / side
    # Pixel centres lie at +0.5 in the matrices, at 0 in OpenCV.
    scaled[:, 2] += scaled[:, :2] @ [0.5, 0.5] - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    rest = cv2.warpAffine(clothes, scaled, (SIZE, SIZE), flags=flags, borderValue=-1)  # type: ignore[call-overload]
    inside = rest > 0.5
    row = inside.argmax(0)
    column = np.arange(SIZE)
    above, below = rest[np.maximum(row - 1, 0), column], rest[row, column]
    height = row - (below - 0.5) / np.maximum(below - above, 1e-6)
    valid = inside.any(0) & (row > 0) & (above >= 0)
    return np.where(valid, height, np.nan)


def _every_frame(values: np.ndarray, keyframes: np.ndarray, segments: list[list[int]], frames: int) -> np.ndarray:
    """Key frames' values [K, 2] on all frames [T, 2], linear in between and smoothed, never across a cut."""
    from scipy.ndimage import gaussian_filter1d

    result = np.zeros((frames, 2))
    for start, end in segments:
        inside = (keyframes >= start) & (keyframes < end)
        at = np.arange(start, end)
        for which in range(2):
            line = np.interp(at, keyframes[inside], values[inside, which])
            result[start:end, which] = gaussian_filter1d(line, 2.0, mode="nearest")
    return result
