"""Quality presets of method ``nerf``, sized for two laptop cores and a person prepared at 256 pixels."""

from __future__ import annotations

from avatar.methods.nerf.config import NerfConfig
from avatar.methods.options import LossConfig, Schedule, TrainPreset

_LPIPS_FROM = 0.67  # share of the training: when parts of the face are trained on


def draft() -> TrainPreset:
    """Half an hour: networks 32 wide, cells and steps as fine as a pixel of such a person."""
    return TrainPreset(
        model=NerfConfig(hidden=32, geometry=15, finest=256, step_cm=0.22, max_samples=24),
        schedule=Schedule(steps=20_000, half_until=0.0),
        loss=LossConfig(lpips_start=_LPIPS_FROM),
    )


def standard() -> TrainPreset:
    """Hours, or minutes on a GPU: networks 64 wide."""
    return TrainPreset(
        model=NerfConfig(), schedule=Schedule(steps=40_000, half_until=0.0), loss=LossConfig(lpips_start=_LPIPS_FROM)
    )


def high() -> TrainPreset:
    """Longer: more samples in every step."""
    return TrainPreset(
        model=NerfConfig(samples=65_536, gaussians=12_000),
        schedule=Schedule(steps=100_000, half_until=0.0),
        loss=LossConfig(lpips_start=_LPIPS_FROM),
    )


PRESETS = {"draft": draft, "standard": standard, "high": high}
