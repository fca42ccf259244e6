"""Quality presets of method ``gaussian``, sized for two laptop cores."""

from __future__ import annotations

from avatar.methods.gaussian.config import DensifyConfig, GaussianConfig, LearningRates
from avatar.methods.options import PHOTO, LossConfig, OptimConfig, Schedule, TrainPreset


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


def photo() -> TrainPreset:
    """Seconds: Gaussians that lie on their surfaces become as sharp as the one photo."""
    return TrainPreset(
        # One image says nothing about how a face deforms: the field stays at rest.
        model=GaussianConfig(
            initial_gaussians=32_000, max_gaussians=40_000, levels=1, features=2, finest=8, log2_table=8, hidden=16,
            deforms=(), lr=LearningRates(means=2e-3, scales=5e-3, colors=8e-3, skinning_weight=0.0),
            densify=DensifyConfig(refine_every=10**7),  # they are dense already
        ),
        schedule=Schedule(steps=200, half_until=0.0, align_passes=0),
        loss=LossConfig(lpips=0.0, alpha=0.3),
        optim=OptimConfig(poses=0.0, condition_noise=0.0, final=0.2),
    )  # fmt: skip


PRESETS = {"draft": draft, "standard": standard, "high": high, PHOTO: photo}
