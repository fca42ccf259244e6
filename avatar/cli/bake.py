"""Train Gaussians on images of a radiance field, so that they show the same and play faster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from avatar import log
from avatar.device import DeviceName
from avatar.errors import AvatarError
from avatar.methods.registry import BAKED

GROUPS = {"input": ("person",), "hardware": ("device",)}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Bake a run into one of another method that plays faster."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder whose images to learn from, of `avatar train --method nerf`."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """RUN folder to write."""
    to: Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(BAKED)}}}")] = next(iter(BAKED))
    """What to bake to."""
    quality: Annotated[str | None, tyro.conf.arg(metavar="{draft,standard,high}")] = None
    """Preset of the training; default: that of the run."""
    resume: bool = False
    """Continue from the last checkpoint in --out."""
    overwrite: bool = False
    """Replace what --out holds."""
    seed: int = 0
    """Seed of every random choice."""
    person: Path | None = None
    """PERSON folder of the run; default: where the run remembers it."""
    device: DeviceName = "auto"
    """Where to train: auto takes a GPU where there is one and the CUDA library is built."""


def main(config: Config) -> None:
    """Train the student.

    Raises:
        AvatarError: RUN is no run of another method, its person is not found, or --out is unsuitable.
    """
    from avatar.data.bundle import refuse_bundle
    from avatar.data.run import RunInfo, find_person, require_run
    from avatar.train.config import TrainConfig, from_preset
    from avatar.train.run import train

    if config.to not in BAKED:
        raise AvatarError(f"--to {config.to} is not known.", fix=f"Choose one of {', '.join(BAKED)}.")
    refuse_bundle(config.run, "Baking")
    require_run(config.run)
    quality = config.quality or RunInfo.read(config.run).quality or TrainConfig.quality
    train(
        from_preset(
            BAKED[config.to], quality, person=find_person(config.run, config.person), out=config.out,
            teacher=config.run, resume=config.resume, overwrite=config.overwrite, seed=config.seed,
            device=config.device,
        )
    )  # fmt: skip
    log.next_command(
        f"avatar render {log.word(config.out)} --audio SPEECH.wav --out {log.word(config.out / 'speech.mp4')}"
    )
