"""Compare two images of one person from one camera, each with its silhouette and depth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from avatar.eval.image_metrics import network_features, psnr, ssim_map, weighted_mean
from avatar.losses.lpips import LPIPS

SOLID = 0.5  # coverage from which on a pixel belongs to a silhouette
OPAQUE = 0.95  # coverage from which on a pixel has a depth
STEP_CM = 1.0  # depths that differ by more within 3x3 pixels are an edge, where depth is not compared
REGIONS = ("face", "hair", "neck", "clothes")


@dataclass(frozen=True)
class Drawn:
    """A person over flat grey.

    Attributes:
        rgb: float32 [H, W, 3], 0 to 1.
        alpha: float32 [H, W] coverage, 0 to 1.
        depth: float32 [H, W] centimetres along the camera's axis, or None.
    """

    rgb: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray | None = None


def compare(drawn: Drawn, truth: Drawn, regions: np.ndarray, lpips: LPIPS | None) -> dict[str, float]:
    """Measure a rendering against the truth.

    ``psnr`` and ``ssim`` are taken over the union of both silhouettes, ``lpips`` over the whole frame.
    ``psnr_hair`` and the like are taken where the truth shows that region. Pixels that the truth covers by exactly one
    half, which a few samples per pixel often give, are on neither side of the silhouette and are left out of it.

    Args:
        drawn: The rendering.
        truth: The truth.
        regions: uint8 [H, W], what the truth shows: 0 is nobody, k is ``REGIONS[k - 1]``.
        lpips: Metric network, or None.

    Returns:
        Numbers of this pair; NaN where a region is not seen. ``iou``: of the silhouettes. ``halo``: drawn where nobody
        is; ``missing``: not drawn where somebody is; both are shares of the true silhouette. ``depth_median`` and
        ``depth_90``: of the absolute difference of depths, centimetres.
    """
    decided = truth.alpha != SOLID
    a, b = (drawn.alpha > SOLID) & decided, (truth.alpha > SOLID) & decided
    union = (drawn.alpha > SOLID) | (truth.alpha > SOLID)
    similarity = ssim_map(drawn.rgb, truth.rgb)
    within = (slice(5, -5), slice(5, -5))
    area = max(int(b.sum()), 1)
    row = {
        "psnr": psnr(drawn.rgb, truth.rgb, union),
        "ssim": weighted_mean(similarity, union[within]),
        "lpips": math.nan if lpips is None else _perceptual(drawn.rgb, truth.rgb, lpips),
        "iou": float((a & b).sum() / max(int((a | b).sum()), 1)),
        "halo": float((a & ~b).sum() / area),
        "missing": float((b & ~a).sum() / area),
    }
    for number, name in enumerate(REGIONS, 1):
        region = regions == number
        row[f"psnr_{name}"] = psnr(drawn.rgb, truth.rgb, region) if region.any() else math.nan
        row[f"ssim_{name}"] = weighted_mean(similarity, region[within])
    return row | _depth_errors(drawn, truth)


def _perceptual(a: np.ndarray, b: np.ndarray, lpips: LPIPS) -> float:
    with torch.inference_mode():
        return float(lpips.distance(*(network_features(lpips, x) for x in (a, b))))


def _depth_errors(drawn: Drawn, truth: Drawn) -> dict[str, float]:
    if drawn.depth is None or truth.depth is None:
        return {"depth_median": math.nan, "depth_90": math.nan}
    both = (drawn.alpha > OPAQUE) & (truth.alpha > OPAQUE) & smooth(truth.depth, truth.alpha)
    error = np.abs(drawn.depth - truth.depth)[both]
    if not error.size:
        return {"depth_median": math.nan, "depth_90": math.nan}
    median, most = np.percentile(error, [50, 90])
    return {"depth_median": float(median), "depth_90": float(most)}


def smooth(depth: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """[H, W] bool: pixels whose neighbours are all covered, at depths that differ by less than ``STEP_CM``."""
    import cv2

    window = np.ones((3, 3), np.uint8)
    covered = cv2.erode((alpha > OPAQUE).astype(np.uint8), window) > 0
    return covered & (cv2.dilate(depth, window) - cv2.erode(depth, window) < STEP_CM)
