"""Quality presets of method ``gaussian``, sized for two laptop cores."""

from __future__ import annotations

from avatar.methods.gaussian.config import GaussianConfig
from avatar.methods.options import LossConfig, Schedule, TrainPreset


def draft() -> TrainPreset:
    """Minutes: see whether the video is good."""
    return TrainPreset(
        model=GaussianConfig(initial_gaussians=14_000, max_gaussians=20_000),
        schedule=Schedule(steps=3000, half_until=0.35),
        loss=LossConfig(lpips=0.0),
    )


def standard() -> TrainPreset:
    """Half an hour: an avatar to show."""
    return TrainPreset(model=GaussianConfig())


def high() -> TrainPreset:
    """Two hours: the last bit of sharpness."""
    return TrainPreset(
        model=GaussianConfig(initial_gaussians=20_000, max_gaussians=45_000, hidden=96),
        schedule=Schedule(steps=30_000, half_until=0.1),
    )


PRESETS = {"draft": draft, "standard": standard, "high": high}
