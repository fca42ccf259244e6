"""Video in, avatar out: prepare, train and eval in one command. Finished parts are kept when it is run again."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import tyro

from avatar import log
from avatar.backends import EncodingName, RendererName
from avatar.device import DeviceName, choose_device
from avatar.errors import AvatarError
from avatar.methods.registry import DEFAULT
from avatar.writing import one_writer


@dataclass(frozen=True, kw_only=True)
class Config:
    """Make an avatar from a video of one person talking."""

    video: Annotated[Path, tyro.conf.Positional]
    """Any video that ffmpeg reads: one person, facing the camera, talking, 3 to 5 minutes."""
    out: Path
    """RUN folder; the prepared person goes beside it, into RUN.person."""
    quality: Annotated[str, tyro.conf.arg(metavar="{draft,standard,high}")] = "standard"
    """Preset of the training: draft takes minutes, standard half an hour, high hours."""
    method: str = DEFAULT
    """Renderer to train: gaussian, or a method of an installed package."""
    size: int = 512
    """Longest side of the working images in pixels; the video is never enlarged."""
    seed: int = 0
    """Seed of every random choice."""
    eval: bool = True
    """Measure the avatar on the held-out part at the end."""
    renderer: RendererName = "native"
    """Backend that draws: gsplat computes the same image, on a CUDA GPU."""
    encoding: EncodingName = "native"
    """Backend of the position encoding: tinycudann needs a CUDA GPU, in training and ever after."""
    prior: Path | None = None
    """Shared audio-to-motion model to adapt to the person, from `avatar prior train`; default: the one that is
    shipped."""
    device: DeviceName = "auto"
    """Where to train and measure: auto takes a GPU where there is one and the CUDA library is built."""


def main(config: Config) -> None:
    """Run what is missing of prepare, train and eval.

    Raises:
        AvatarError: The video or an option is unsuitable, or one of the folders is in use.
    """
    from dataclasses import replace

    from avatar.cli import prepare
    from avatar.train import config as options
    from avatar.train import run as training
    from avatar.train.speech import load_prior

    run = Path(config.out)
    person = person_folder(run)
    train = options.from_preset(
        config.method, config.quality, person=person, out=run, seed=config.seed, prior=config.prior,
        device=config.device,
    )  # fmt: skip
    backends = {name: value for name in ("renderer", "encoding") if (value := getattr(config, name)) != "native"}
    train = options.with_values(train, {"model": backends}, "--method " + config.method)
    train.model.require()  # this and the next: before the hours that may go into preparing
    choose_device(config.device)
    if config.prior is not None:
        load_prior(config.prior)
    training.refuse_other_files(run)
    times = [time.perf_counter()]
    with log.part_of("create"), one_writer(run), one_writer(person):
        prepare.main(prepare.Config(video=config.video, out=person, size=config.size))
        times.append(time.perf_counter())
        if (run / training.FINISHED).is_file():
            log.info(f"{run} is already trained.")
        else:
            training.train(replace(train, resume=(run / training.BEGUN).is_file()))
        times.append(time.perf_counter())
        if config.eval:
            evaluate(config)
        times.append(time.perf_counter())
    prepared, trained, evaluated = (after - before for before, after in pairwise(times))
    log.info(
        f"Prepare {prepared:.0f} s, train {trained:.0f} s, eval {evaluated:.0f} s: "
        f"{(times[-1] - times[0]) / 60:.1f} minutes in all."
    )
    log.next_command(f"avatar render {run} --audio SPEECH.wav --out {run}/speech.mp4")


def evaluate(config: Config) -> None:
    """Measure the avatar into its RUN folder."""
    from avatar.cli import eval as command

    run = Path(config.out)
    command.main(
        command.Config(
            run=run, json=run / "metrics.json", save_video=run / "eval", renderer=config.renderer, device=config.device
        )
    )


def person_folder(run: Path) -> Path:
    """PERSON folder of a run made by `create`: beside it, so that the run stays small enough to share."""
    run = Path(os.path.abspath(run))
    if not run.name:
        raise AvatarError(f"{run} cannot be a run.", fix="Name a folder in it for --out.")
    return run.with_name(run.name + ".person")
