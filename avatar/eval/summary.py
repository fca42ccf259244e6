"""From per-frame series to metrics with intervals; one table says which statistic of which series a metric is."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from avatar.eval import bootstrap
from avatar.eval.bootstrap import (
    Bootstrap,
    Statistic,
    correlation,
    mean,
    ratio,
    root_mean,
    root_ratio,
    share,
    spread_ratio,
)  # fmt: skip

Series = dict[str, np.ndarray]

# Metric: its statistic, and the series it is taken of. "real_..." are the real video's.
METRICS: dict[str, tuple[Statistic, tuple[str, ...]]] = {
    "psnr": (mean, ("psnr",)),
    "psnr_face": (mean, ("psnr_face",)),
    "ssim": (mean, ("ssim",)),
    "ssim_face": (mean, ("ssim_face",)),
    "lpips": (mean, ("lpips",)),
    "identity": (mean, ("identity",)),
    "lmd": (mean, ("lmd",)),
    "lmd_raw": (mean, ("lmd_raw",)),
    "upper_face_error": (mean, ("upper_face_error",)),
    "lower_face_error": (mean, ("lower_face_error",)),
    "gaze_error": (mean, ("gaze_error",)),
    "mouth_correlation": (correlation, ("opening", "real_opening")),
    "mouth_range": (spread_ratio, ("opening", "real_opening")),
    "mouth_gradient": (mean, ("mouth_gradient",)),
    "mouth_sharpness": (ratio, ("mouth_gradient", "real_mouth_gradient")),
    "pose_jitter": (root_mean, ("jitter",)),
    "pose_jitter_ratio": (root_ratio, ("jitter", "real_jitter")),
    "pose_wobble": (root_mean, ("wobble",)),
    "seam_spatial": (ratio, ("seam_gradient", "real_seam_gradient")),
    "seam_temporal": (ratio, ("seam_change", "real_seam_change")),
    "closure": (share, ("closed",)),
    "silence_motion": (spread_ratio, ("silent_velocity", "speech_velocity")),
}


def summarise(series: Series, fps: float, names: Collection[str] | None = None) -> dict[str, Any]:
    """Metrics of a video and ``intervals``, their 95 % intervals.

    Args:
        series: [T] each. A metric whose series are not all there is None and has no interval.
        fps: Frames per second.
        names: Metrics to take; all by default.
    """
    table = METRICS | {"blinks_per_minute": (mean, ("blink_rate",))}
    if "blink" in series:
        series = series | {"blink_rate": 60 * fps * series["blink"]}
    if names is not None:
        table = {name: table[name] for name in names}
    resamples = Bootstrap(len(next(iter(series.values()))), fps)
    result: dict[str, Any] = {}
    intervals: dict[str, list[float]] = {}
    for name, (statistic, needed) in table.items():
        parts = [series[n] for n in needed if n in series]
        result[name] = bootstrap.value(statistic, *parts) if len(parts) == len(needed) else None
        if result[name] is not None and (interval := resamples.interval(statistic, *parts)) is not None:
            intervals[name] = interval
    return result | {"intervals": intervals}


def as_real(series: Series) -> Series:
    """Series of the real video under the names by which a rendered video is compared with them."""
    return {f"real_{name}": values for name, values in series.items()}
