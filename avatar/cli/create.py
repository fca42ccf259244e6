"""Video or photo in, avatar out: prepare, train and eval in one command, which keeps what was finished before."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from avatar import log
from avatar.backends import EncodingName, RendererName
from avatar.cli.consent import ConsentOption, answered
from avatar.device import DeviceName
from avatar.methods.registry import DEFAULT
from avatar.preprocess.config import SOURCE_OPTIONS, AutoSeconds, PrepareConfig, SourceOptions


@dataclass(frozen=True, kw_only=True)
class Config(SourceOptions):
    """Make an avatar from a video of one person talking, or a simpler one from a single photo."""

    video: Annotated[Path, tyro.conf.Positional]
    """Any video that ffmpeg reads: one person, facing the camera, talking, 3 to 5 minutes. Or a photo, JPEG or PNG
    (docs/photo.md)."""
    out: Path
    """RUN folder; the prepared person goes beside it, into RUN.person."""
    quality: Annotated[str, tyro.conf.arg(metavar="{draft,standard,high}")] = "standard"
    """Preset of the training: draft takes minutes, standard half an hour, high hours; far more with
    --method nerf."""
    method: str = DEFAULT
    """Renderer to train: gaussian, nerf (a radiance field), or a method of an installed package."""
    size: int = 512
    """Side of the square working images in pixels; the video is never enlarged. With --frame bust or full, the part
    with the person has about as many pixels."""
    audio: bool = True
    """--no-audio: a video without audio. The avatar speaks with the shared model."""
    audio_delay_s: AutoSeconds = "auto"
    """Seconds by which audio comes after video (negative: before it), or auto to measure them."""
    held_out_s: AutoSeconds = "auto"
    """Seconds at the end of the video to hold out from training. With auto it is a tenth, or up to 30 % of a short
    video."""
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
    consent: ConsentOption = None
    """Consent of the person: self if it is you, or their record (docs/provenance.md). Default: asked at a terminal."""
    device: DeviceName = "auto"
    """Where to train and measure: auto takes a GPU where there is one and the CUDA library is built."""


def main(config: Config) -> None:
    """Run what is missing of prepare, train and eval.

    Raises:
        AvatarError: The video or an option is unsuitable, or one of the folders is in use.
    """
    from avatar.create import create, person_folder
    from avatar.eval.options import EvalOptions
    from avatar.methods.options import PHOTO
    from avatar.preprocess.photo import is_photo
    from avatar.train import config as options

    run, photo = Path(config.out), is_photo(config.video)
    consent = answered(config.consent, config.video, person_folder(run))
    train = options.from_preset(
        config.method, PHOTO if photo else config.quality, person=person_folder(run), out=run, seed=config.seed,
        prior=config.prior, device=config.device,
    )  # fmt: skip
    backends = {name: value for name in ("renderer", "encoding") if (value := getattr(config, name)) != "native"}
    train = options.with_values(train, {"model": backends}, f"--method {config.method}")
    measured = EvalOptions(save_video=run / "eval", renderer=config.renderer, device=config.device)
    chosen = {name: getattr(config, name) for name in ("size", "audio", "audio_delay_s", "held_out_s", *SOURCE_OPTIONS)}
    create(config.video, PrepareConfig(**chosen), train, measured if config.eval and not photo else None, consent)
    log.next_command(f"avatar render {log.word(run)} --audio SPEECH.wav --out {log.word(run / 'speech.mp4')}")
