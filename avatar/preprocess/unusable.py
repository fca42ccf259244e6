"""Frames that show the face and yet teach nothing: it stands still like a photo, or something covers the mouth."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np

from avatar.data.masks import EYE_LEFT, EYE_RIGHT
from avatar.data.results import Segments
from avatar.geometry.mesh import STEADY
from avatar.motion.face_channels import LIPS_INNER, LIPS_OUTER

MOVING = (*LIPS_INNER, *LIPS_OUTER, *EYE_LEFT, *EYE_RIGHT)  # landmarks of a face that never rest for a second
STILL_SECONDS = 1.0
# Share of the face's height that lips and lids move within `STILL_SECONDS`. A photo, with the noise of a coarse
# codec, came to 0.0013 at most, slowly zoomed or not; 20 people, silent or not, to 0.0021 at least.
STILL_MOTION = 0.0015
# Share of face skin or hair in the mouth and below the nose. Where nothing covers it, 20 people came to 0.94 at least,
# and a drawn beard to 0.92; with a microphone before the chin it was 0.79 at most, before the mouth or behind a hand 0.
COVERED = 0.85
KEPT_SHARE = 0.5  # covered frames are left out where at least this share of the others remains


def still_frames(landmarks: np.ndarray, valid: np.ndarray, segments: Segments, fps: float) -> np.ndarray:
    """Find the frames in which the face stands still like a photo.

    The landmarks are seen from the head, so that a photo that is moved or zoomed stands still as well.

    Args:
        landmarks: [T, 478, 3] pixels, no NaN.
        valid: bool [T], whether the face was found.
        segments: [start, end) of each part without a cut.
        fps: Frames per second.

    Returns:
        bool [T], true in every span of `STILL_SECONDS` or longer.
    """
    still = np.zeros(len(landmarks), bool)
    window = max(3, round(STILL_SECONDS * fps))
    if not valid.any():
        return still
    steady = landmarks[:, STEADY, :2].astype(np.float64)
    reference = np.median(steady[valid], axis=0)
    reference -= reference.mean(0)
    middle = steady.mean(1, keepdims=True)
    linear = np.einsum("kn,tnj->tkj", np.linalg.pinv(reference), steady - middle)  # affine: reference to frame
    moving = (landmarks[:, MOVING, :2] - middle) @ np.linalg.pinv(linear)
    moving /= np.median(np.ptp(landmarks[valid][..., 1], axis=1))
    for start, end in segments:
        if end - start < window:
            continue
        part = moving[start:end] - moving[start:end].mean(0)
        sums, squares = (_window_sums(values, window) for values in (part, part**2))
        variance = (squares / window - (sums / window) ** 2).sum(-1).mean(-1)
        whole = _window_sums(valid[start:end].astype(int), window) == window  # elsewhere landmarks are bridged
        for first in np.flatnonzero((variance < STILL_MOTION**2) & whole):
            still[start + first : start + first + window] = True
    return still


def _window_sums(values: np.ndarray, window: int) -> np.ndarray:
    """Sums of ``window`` successive rows, [T - window + 1, ...]."""
    total = np.concatenate([np.zeros_like(values[:1]), np.cumsum(values, axis=0)])
    return total[window:] - total[:-window]


def covered_frames(keyframes: Sequence[int], seen: Sequence[float], frames: int) -> np.ndarray:
    """Find the frames in which something is before the mouth or the chin.

    Args:
        keyframes: Frames that were looked at, in order; the first and the last of each segment are among them.
        seen: Share of the mouth that was seen in each.
        frames: Number of all frames.

    Returns:
        bool [frames], true where either of the key frames around a frame is covered.
    """
    bad = np.asarray(seen) < COVERED
    if not bad.any():
        return np.zeros(frames, bool)
    before = [max(0, bisect_right(keyframes, index) - 1) for index in range(frames)]
    after = [min(len(bad) - 1, bisect_left(keyframes, index)) for index in range(frames)]
    return bad[before] | bad[after]


def teaching(valid: np.ndarray, covered: np.ndarray) -> np.ndarray:
    """Leave covered frames out of the valid ones, bool [T] both, unless little would be left: then all stay."""
    kept = valid & ~covered
    return kept if kept.sum() >= KEPT_SHARE * valid.sum() else valid


def runs(flags: np.ndarray, bridge: int = 3) -> list[tuple[int, int]]:
    """Find [start, end) of the true runs; runs fewer than ``bridge`` frames apart are one."""
    spans: list[tuple[int, int]] = []
    for index in np.flatnonzero(flags).tolist():
        if spans and index - spans[-1][1] < bridge:
            spans[-1] = (spans[-1][0], index + 1)
        else:
            spans.append((index, index + 1))
    return spans


def within(spans: Segments, frames: int) -> np.ndarray:
    """Make flags, bool [frames], of [start, end) spans."""
    flags = np.zeros(frames, bool)
    for start, end in spans:
        flags[start:end] = True
    return flags
