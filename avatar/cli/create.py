"""Video in, avatar out: prepare, train and eval in one command. Finished parts are kept when it is run again."""

from __future__ import annotations

import importlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from avatar import log
from avatar.backends import EncodingName, RendererName, require
from avatar.device import DeviceName, choose_device
from avatar.errors import AvatarError
from avatar.writing import one_writer


@dataclass(frozen=True, kw_only=True)
class Config:
    """Make an avatar from a video of one person talking."""

    video: Annotated[Path, tyro.conf.Positional]
    """Any video that ffmpeg reads: one person, facing the camera, talking, 3 to 5 minutes."""
    out: Path
    """RUN folder; the prepared person goes beside it, into RUN.person."""
    quality: Literal["draft", "standard", "high"] = "standard"
    """One dial: time against fidelity."""
    size: int = 512
    """Largest side of the working picture; the video is never enlarged."""
    seed: int = 0
    """Every random choice follows from it."""
    eval: bool = True
    """Measure the avatar on the held-out part at the end."""
    renderer: RendererName = "native"
    """What draws the Gaussians: gsplat draws the same picture, on a CUDA GPU."""
    encoding: EncodingName = "native"
    """What encodes positions: tinycudann needs a CUDA GPU, in training and ever after."""
    prior: Path | None = None
    """Audio-to-motion prior to adapt to the person, from `avatar prior train`; default: the one that is shipped."""
    device: DeviceName = "auto"
    """Where to train and measure: auto takes a GPU where there is one and the CUDA library is built."""


def main(config: Config) -> None:
    """Run what is missing of prepare, train and eval."""
    from avatar.preprocess.config import PrepareConfig
    from avatar.preprocess.pipeline import prepare

    train = importlib.import_module("avatar.cli.train")
    for backend in (config.renderer, config.encoding):
        require(backend)
    choose_device(config.device)  # before the hours that may go into preparing
    if config.prior is not None:
        train.load_prior(config.prior)
    began = time.perf_counter()
    run = Path(config.out)
    person = person_folder(run)
    train.refuse_other_files(run)  # before the hours that may go into preparing
    with log.part_of("create"), one_writer(run), one_writer(person):
        prepare(config.video, person, PrepareConfig(size=config.size))
        prepared = time.perf_counter()
        if (run / train.FINISHED).is_file():
            log.info(f"{run} is already trained.")
        else:
            begun = (run / train.BEGUN).is_file()
            train.main(
                train.Config(
                    person=person, out=run, quality=config.quality, seed=config.seed, resume=begun,
                    renderer=config.renderer, encoding=config.encoding, prior=config.prior, device=config.device,
                )
            )  # fmt: skip
        trained = time.perf_counter()
        if config.eval:
            evaluate = importlib.import_module("avatar.cli.eval")
            evaluate.main(
                evaluate.Config(
                    run=run,
                    json=run / "metrics.json",
                    save_video=run / "eval",
                    renderer=config.renderer,
                    device=config.device,
                )
            )
    done = time.perf_counter()
    log.info(
        f"Prepare {prepared - began:.0f} s, train {trained - prepared:.0f} s, eval {done - trained:.0f} s: "
        f"{(done - began) / 60:.1f} minutes in all."
    )
    log.next_command(f"avatar render {run} --audio SPEECH.wav --out {run}/speech.mp4")


def person_folder(run: Path) -> Path:
    """PERSON folder of a run made by `create`: beside it, so that the run stays small enough to share."""
    run = Path(os.path.abspath(run))
    if not run.name:
        raise AvatarError(f"{run} cannot be a run.", fix="Name a folder in it for --out.")
    return run.with_name(run.name + ".person")
