"""Training options that every method shares, and presets made of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

QUALITIES = ("draft", "standard", "high")  # that every method offers
PHOTO = "photo"  # of methods that make an avatar of a single photo


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Options of one method. Each method subclasses this; the command line shows its fields as ``--model.*``."""

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            AvatarError: One is.
        """

    def require(self) -> None:
        """Refuse backends that cannot run on this machine.

        Raises:
            AvatarError: One cannot; the sentence says how to install it.
        """


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the image losses."""

    ssim: float = 0.2
    """Weight of 1 - SSIM; L1 has the rest up to 1."""
    mouth: float = 6.0
    """Extra L1 weight of pixels in the mouth region."""
    eyes: float = 2.0
    """Extra L1 weight of pixels around the eyes."""
    face: float = 1.0
    """Extra L1 weight of pixels on the rest of the face."""
    alpha: float = 0.05
    """Weight of the rendered alpha's difference from the person mask."""
    lpips: float = 0.05
    """Weight of LPIPS on face crops; needs the LPIPS asset. 0 turns it off."""
    mouth_lpips: float = 3.0
    """Weight of LPIPS of the enlarged mouth, in half of the steps, over that of the face. 0 turns it off."""
    lpips_start: float = 0.5
    """Share of the training after which LPIPS is added."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Learning-rate decay, pose correction and augmentation."""

    final: float = 0.05
    """Learning rates end at this share of their start."""
    poses: float = 4.0
    """Typical step of a head-pose correction, in milliradians and tenths of a millimetre."""
    poses_start: float = 0.2
    """Share of the training after which head poses are corrected."""
    condition_noise: float = 0.15
    """Noise added to the motion condition, in standard deviations of each channel."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length and resolution of the training."""

    steps: Annotated[int, tyro.conf.arg(aliases=["--steps"])] = 10_000
    """Optimisation steps."""
    half_until: float = 0.15
    """Share of the steps trained at half resolution."""
    align_passes: int = 4
    """Passes over the held-out frames that align their head poses after training."""


@dataclass(frozen=True, kw_only=True)
class TrainPreset:
    """What one quality of a method sets: defaults that every option of the command line can override."""

    model: MethodConfig
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: Schedule = field(default_factory=Schedule)
