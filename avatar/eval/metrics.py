"""The numbers: picture quality against the real video, and what the face in the rendered video does.

Landmarks come from tracking the rendered and the real video anew, with the same tracker and the same settings, so a
constant bias of the tracker cancels. Distances are in pixels of a picture 512 wide, whatever the true size is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from scipy.ndimage import percentile_filter

from avatar.losses.lpips import LPIPS
from avatar.motion.face_channels import EYE_LOWER, EYE_UPPER, LIPS_INNER, LIPS_OUTER, mouth_opening

REFERENCE_WIDTH = 512
LIPS = LIPS_OUTER + LIPS_INNER
RIGID = (168, 6, 197, 195, 33, 133, 362, 263, 10, 151, 9)  # nose bridge, eye corners, forehead
EYE_CORNERS = {"right": (33, 133), "left": (362, 263)}
MAX_LAG = 10
MAX_PSNR = 100.0  # identical pictures; infinity is not a number in JSON


# --- pictures ---------------------------------------------------------------------------------------------------------


def psnr(a: np.ndarray, b: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of pictures [H, W, 3] in 0..1, over all pixels or weighted by [H, W]."""
    error = np.square(a - b).mean(-1)
    mse = float(error.mean()) if weight is None else weighted_mean(error, weight)
    return min(MAX_PSNR, -10 * math.log10(max(mse, 1e-12))) if math.isfinite(mse) else mse


def weighted_mean(values: np.ndarray, weight: np.ndarray) -> float:
    """Mean of [H, W] weighted by [H, W]; NaN where the weights are all zero (a frame without a face)."""
    total = float(weight.sum())
    return float((values * weight).sum()) / total if total > 0 else math.nan


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of every full 11x11 window, averaged over the colours.

    Wang, Bovik, Sheikh, Simoncelli: "Image Quality Assessment", 2004, equation 13, with their Gaussian window
    (sigma 1.5) and constants. Windows that leave the picture are left out, so the map is 5 pixels smaller per side.

    Args:
        a, b: [H, W, 3] float32 in 0..1.

    Returns:
        [H - 10, W - 10].
    """
    window = cv2.getGaussianKernel(11, 1.5, cv2.CV_32F)

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(x, -1, window, window)[5:-5, 5:-5]

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return value.mean(-1)


def face_weight(masks: dict[str, np.ndarray]) -> np.ndarray:
    """Soft mask [H, W] of the face region: skin, lips, mouth interior and eyes."""
    parts = [masks[name] for name in ("face", "lips", "mouth", "eyes") if name in masks]
    return np.clip(np.sum(parts, axis=0), 0, 1)


@dataclass
class PictureQuality:
    """Collects picture metrics frame by frame and averages them over the frames."""

    lpips: LPIPS | None
    rows: list[dict[str, float]] = field(default_factory=list)

    def add(self, rendered: np.ndarray, real: np.ndarray, masks: dict[str, np.ndarray]) -> None:
        """Compare two frames, uint8 [H, W, 3]; ``masks`` are the real frame's."""
        a, b = rendered.astype(np.float32) / 255, real.astype(np.float32) / 255
        weight = face_weight(masks)
        similarity = ssim_map(a, b)
        row = {
            "psnr": psnr(a, b),
            "psnr_face": psnr(a, b, weight),
            "ssim": float(similarity.mean()),
            "ssim_face": weighted_mean(similarity, weight[5:-5, 5:-5]),
        }
        if self.lpips is not None:
            with torch.no_grad():
                row["lpips"] = float(self.lpips(*(torch.from_numpy(x).to(self.lpips.shift.device) for x in (a, b))))
        self.rows.append(row)

    def summary(self) -> dict[str, float | None]:
        """Means over the frames that have the number; None where none has."""
        means: dict[str, float | None] = {}
        for name in ("psnr", "psnr_face", "ssim", "ssim_face", "lpips"):
            values = [row[name] for row in self.rows if math.isfinite(row.get(name, math.nan))]
            means[name] = float(np.mean(values)) if values else None
        return means


# --- landmarks --------------------------------------------------------------------------------------------------------


def landmark_distance(rendered: np.ndarray, real: np.ndarray, width: int, align: bool) -> float | None:
    """LMD: mean distance of the lip landmarks, in pixels at a width of 512.

    Chen, Maddox, Duan, Xu: "Hierarchical Cross-Modal Talking Face Generation", 2019. Papers on person-specific avatars
    subtract each frame's mean lip position first, which takes head position out; ``align`` does that.

    Args:
        rendered, real: [T, 478, 2 or 3] pixels; NaN where no face was found.
        width: Picture width in pixels.
        align: Whether to subtract the mean position of the lips per frame.
    """
    a, b = rendered[:, LIPS, :2], real[:, LIPS, :2]
    if align:
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    distance = np.linalg.norm(a - b, axis=-1).mean(-1) * REFERENCE_WIDTH / width
    seen = np.isfinite(distance)
    return float(distance[seen].mean()) if seen.any() else None


def relative_opening(landmarks: np.ndarray) -> np.ndarray:
    """Mouth opening over the distance of the outer eye corners, [T]; independent of the size of the face."""
    return mouth_opening(landmarks) / np.linalg.norm(landmarks[:, 33, :2] - landmarks[:, 263, :2], axis=-1)


@dataclass(frozen=True, kw_only=True)
class LagResult:
    """How one signal follows another: Pearson correlation in step, and at the lag where it is largest.

    ``lag`` is in frames; positive means that the rendered signal is late.
    """

    correlation: float | None
    best_correlation: float | None
    lag: int | None


def lag_correlation(
    rendered: np.ndarray, real: np.ndarray, segments: list[tuple[int, int]], max_lag: int = MAX_LAG
) -> LagResult:
    """Correlate two signals [T] over lags of -max_lag..max_lag frames, never across the borders of ``segments``.

    Frames with NaN are left out, and lags that leave less than half of the frames. A signal without any movement has no
    correlation (None).
    """
    values: dict[int, float] = {}
    enough = max(3, int((np.isfinite(rendered) & np.isfinite(real)).sum()) // 2)
    for lag in range(-max_lag, max_lag + 1):
        pairs = []
        for start, end in segments:
            a, b = rendered[start:end], real[start:end]
            n = end - start - abs(lag)
            if n > 1:
                pairs.append(np.stack([a[max(lag, 0) :][:n], b[max(-lag, 0) :][:n]]))
        if not pairs:
            continue
        both = np.concatenate(pairs, 1)
        both = both[:, np.isfinite(both).all(0)]
        if both.shape[1] >= enough and both.std(1).min() > 1e-9:
            values[lag] = float(np.corrcoef(both)[0, 1])
    if 0 not in values:
        return LagResult(correlation=None, best_correlation=None, lag=None)
    best = max(values, key=lambda k: (values[k], -abs(k)))
    return LagResult(correlation=values[0], best_correlation=values[best], lag=best)


def pose_jitter(landmarks: np.ndarray, width: int, segments: list[tuple[int, int]]) -> float | None:
    """Root mean square of the second difference over time of landmarks on bone, in pixels at a width of 512."""
    parts = [np.diff(landmarks[s:e, RIGID, :2], 2, axis=0) for s, e in segments if e - s > 2]
    values = np.concatenate(parts) if parts else np.empty((0, len(RIGID), 2))
    values = values[np.isfinite(values).all((1, 2))]
    if not len(values):
        return None
    return float(np.sqrt((values**2).sum(-1).mean()) * REFERENCE_WIDTH / width)


def eye_openness(landmarks: np.ndarray) -> np.ndarray:
    """Gap between the eyelids over the width of the eye, mean of both eyes, [T]."""
    ratios = []
    for side, (a, b) in EYE_CORNERS.items():
        gap = np.linalg.norm(landmarks[:, EYE_UPPER[side], :2] - landmarks[:, EYE_LOWER[side], :2], axis=-1).mean(-1)
        ratios.append(gap / np.linalg.norm(landmarks[:, a, :2] - landmarks[:, b, :2], axis=-1))
    return np.mean(ratios, axis=0)


def count_blinks(openness: np.ndarray, fps: float, segments: list[tuple[int, int]]) -> int:
    """Blinks: the lids close to under 60 % of their usual opening and are open again (80 %) within 0.8 seconds.

    Args:
        openness: [T], NaN where no face was found.
        fps: Frames per second.
        segments: Spans without cuts.
    """
    blinks = 0
    for start, end in segments:
        span = openness[start:end]
        known = np.isfinite(span)
        if known.sum() < 3:
            continue
        span = np.interp(np.arange(len(span)), np.flatnonzero(known), span[known])
        usual = percentile_filter(span, 80, size=max(3, round(4 * fps)), mode="nearest")
        ratio = span / np.maximum(usual, 1e-6)
        closed_at: int | None = None
        for t, value in enumerate(ratio):
            if value < 0.6 and closed_at is None:
                closed_at = t
            elif value > 0.8 and closed_at is not None:
                blinks += t - closed_at <= 0.8 * fps
                closed_at = None
    return blinks


def face_metrics(
    rendered: np.ndarray, real: np.ndarray, width: int, fps: float, segments: list[tuple[int, int]]
) -> dict[str, float | int | None]:
    """All metrics of re-tracked landmarks [T, 478, 2 or 3] (pixels, NaN where no face was found)."""
    openings = relative_opening(rendered), relative_opening(real)
    lag = lag_correlation(*openings, segments)
    spread = [float(np.nanstd(o)) if np.isfinite(o).any() else 0.0 for o in openings]
    return {
        "lmd": landmark_distance(rendered, real, width, align=True),
        "lmd_raw": landmark_distance(rendered, real, width, align=False),
        "mouth_correlation": lag.correlation,
        "mouth_best_correlation": lag.best_correlation,
        "mouth_lag_frames": lag.lag,
        "mouth_range": spread[0] / spread[1] if spread[1] > 0 else None,
        "pose_jitter": pose_jitter(rendered, width, segments),
        "pose_wobble": pose_jitter(rendered - real, width, segments),  # the person's own movement taken out
        "blinks": count_blinks(eye_openness(rendered), fps, segments),
        "frames_without_face": int(np.isnan(rendered[:, 0, 0]).sum()),
    }
