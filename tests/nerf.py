"""Small trainings of method ``nerf`` for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from avatar.data import PersonDataset
from avatar.methods.nerf.config import NerfConfig
from avatar.methods.nerf.method import NerfAvatar
from avatar.methods.options import LossConfig, Schedule
from avatar.train.config import TrainConfig
from avatar.train.trainer import Trainer
from tests.person import small_config


def nerf_config(person: Path, out: Path, steps: int = 4, **model: Any) -> TrainConfig:
    """A training of a second: few levels, few samples."""
    options: dict[str, Any] = {
        "hidden": 16, "geometry": 7, "levels": 4, "coarsest": 16, "finest": 64, "log2_table": 10, "step_cm": 0.6,
        "max_samples": 8, "samples": 2000, "gaussians": 300,
    }  # fmt: skip
    config = small_config(person, out)
    return replace(
        config, method="nerf", model=NerfConfig(**options | model), loss=LossConfig(lpips=0.0),
        schedule=Schedule(steps=steps, half_until=0.0, align_passes=1),
    )  # fmt: skip


def nerf_trainer(person: Path, out: Path, model: NerfAvatar | None = None, **options: Any) -> Trainer:
    """A trainer of such a model, by default of a new one."""
    return Trainer(PersonDataset(person), nerf_config(person, out, **options), model)


def untrained(person: Path) -> NerfAvatar:
    """A model of such a training before its first step."""
    return NerfAvatar.from_person(PersonDataset(person), nerf_config(person, Path()).model, 0)
