"""Make an avatar faster to play, by a linear basis of its motion."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from avatar import log
from avatar.device import DeviceName
from avatar.errors import AvatarError
from avatar.writing import one_writer


@dataclass(frozen=True, kw_only=True)
class Config:
    """Bake an avatar for fast playback: `avatar render RUN --baked`."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar create` or `avatar train`."""
    modes: int = 16
    """Dimensions of the basis; more are closer to the trained field, fewer are faster."""
    device: DeviceName = "auto"
    """Where to compute: auto takes a GPU where there is one and the CUDA library is built."""


def main(config: Config) -> None:
    """Write RUN/baked.safetensors and measure how close it is to the trained field.

    Raises:
        AvatarError: ``--modes`` is out of range, RUN is not an avatar, or another process writes to it.
    """
    from avatar.infer.avatar import Avatar

    if not config.run.is_dir():
        raise AvatarError(
            f"There is no run folder {config.run}.", fix=f"Make one: avatar create VIDEO --out {config.run}"
        )
    with one_writer(config.run):  # what is baked must not be trained meanwhile
        avatar = Avatar.load(config.run, device=config.device, precision="float32")
        began = time.perf_counter()
        path, psnr = avatar.bake(config.modes)
    log.info(
        f"{path}: {config.modes} modes, {path.stat().st_size / 2**20:.1f} MB, in {time.perf_counter() - began:.0f} s. "
        f"PSNR to the trained field's pictures: {sum(psnr) / len(psnr):.1f} dB, {min(psnr):.1f} at worst."
    )
    log.next_command(f"avatar render {config.run} --baked --audio SPEECH.wav")
