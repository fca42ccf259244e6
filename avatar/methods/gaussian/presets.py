"""The quality presets of `avatar train` and `avatar create`, sized for two laptop cores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from avatar.methods.gaussian.densify import DensityConfig
from avatar.methods.gaussian.model import GaussianConfig
from avatar.train.config import LossConfig, OptimConfig, Schedule


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The parts of a training configuration that a quality sets."""

    model: GaussianConfig = field(default_factory=GaussianConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    density: DensityConfig = field(default_factory=DensityConfig)
    schedule: Schedule = field(default_factory=Schedule)


def draft() -> Preset:
    """Minutes: see whether the video is good."""
    return Preset(
        model=GaussianConfig(initial_gaussians=14_000, max_gaussians=20_000),
        schedule=Schedule(steps=3000, half_until=0.35),
        loss=LossConfig(lpips=0.0),
    )


def standard() -> Preset:
    """Half an hour: an avatar to show."""
    return Preset()


def high() -> Preset:
    """Two hours: the last bit of sharpness."""
    return Preset(
        model=GaussianConfig(initial_gaussians=20_000, max_gaussians=45_000, hidden=96),
        schedule=Schedule(steps=30_000, half_until=0.1),
    )


PRESETS: dict[str, Callable[[], Preset]] = {"draft": draft, "standard": standard, "high": high}
