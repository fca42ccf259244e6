"""Compare a prepared synthetic subject with its exact ground truth: head rotation, mouth shapes, blinks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro

from avatar.environment import environment
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.motion import Motion
from avatar.motion.arkit import ARKIT
from avatar.paths import write_json

LEAST_SPREAD = 0.04  # of the truth: a shape that hardly moves has no meaningful correlation


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to compare."""

    subject: Annotated[Path, tyro.conf.Positional]
    """Folder of `avatar synth`."""
    person: Annotated[Path, tyro.conf.Positional]
    """Folder of `avatar prepare` on that subject's video."""
    json: Path | None = None
    """Write the numbers here."""


def compare(truth: Motion, tracked: Motion) -> dict[str, object]:
    """Errors of a tracked motion of the same length."""
    a = axis_angle_to_matrix(truth.head_rotation.double())
    b = axis_angle_to_matrix(tracked.head_rotation.double())
    difference = matrix_to_axis_angle(b @ a.mT)
    constant = axis_angle_to_matrix(difference.median(0).values)
    steady = matrix_to_axis_angle(constant.T @ b @ a.mT)
    shapes = {}
    for i, name in enumerate(ARKIT):
        x, y = truth.arkit[:, i].numpy(), tracked.arkit[:, i].numpy()
        if name.startswith(("mouth", "jaw", "eyeBlink")) and x.std() > LEAST_SPREAD:
            shapes[name] = float(np.corrcoef(x, y)[0, 1]) if y.std() > 1e-6 else 0.0
    mouth = [v for n, v in shapes.items() if not n.startswith("eyeBlink")]
    return {
        "head_rotation_error_deg": float(torch.rad2deg(difference.norm(dim=-1)).mean()),
        "head_rotation_error_without_constant_deg": float(torch.rad2deg(steady.norm(dim=-1)).mean()),
        "mouth_shape_correlation": float(np.mean(mouth)),
        "shapes": shapes,
    }


def main(config: Config) -> None:
    """Print the comparison, and write it if asked to."""
    truth = Motion.load(config.subject / "truth.safetensors")
    tracked = Motion.load(config.person / "motion.safetensors")
    count = min(len(truth), len(tracked))
    result = {"frames": count, **compare(truth[:count], tracked[:count])}
    for name, value in result.items():
        print(name, value)
    if config.json is not None:
        write_json(config.json, environment() | result)


if __name__ == "__main__":
    main(tyro.cli(Config))
