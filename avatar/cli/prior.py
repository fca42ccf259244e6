"""Train the audio-to-motion prior that all avatars share on your own videos, or measure it on others."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from avatar import log
from avatar.errors import AvatarError


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train the prior on a folder of people who talk."""

    corpus: Annotated[Path, tyro.conf.Positional]
    """Folder of videos, in any folders below it. Each folder in it is one speaker; a video that lies in none is a
    speaker by itself. ARKit coefficients with their audio may be among them."""
    out: Path
    """The prior to write (.safetensors), for `avatar train --prior`. Run again to go on after an interruption."""
    base: Path | None = None
    """Prior to go on from (.safetensors); default: the one that comes with the package."""
    from_scratch: bool = False
    """Learn from the corpus alone, and go on from no prior."""
    cache: Path | None = None
    """Folder for what is prepared; default: beside --out, with the ending .cache."""
    workers: int | None = None
    """Processes that prepare recordings; default: one per core. Started by torchrun, on one machine or on several that
    share both folders, every process takes a part."""
    ray: str | None = None
    """Prepare on a Ray cluster instead: its address, or local for --workers processors of this machine."""


@dataclass(frozen=True, kw_only=True)
class Eval:
    """Measure how well a prior follows the lips of people whom it has not heard."""

    prior: Annotated[Path, tyro.conf.Positional]
    """The prior (.safetensors)."""
    videos: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Videos of 2 s and more, of people whom it was not trained on."""
    json: Path | None = None
    """File for the numbers."""
    cache: Path | None = None
    """Folder for what is prepared, for the next time; by default nothing is kept."""
    workers: int | None = None
    """Processes that prepare videos; default: one per core."""


Config = Annotated[Train, tyro.conf.subcommand("train")] | Annotated[Eval, tyro.conf.subcommand("eval")]


def main(config: Train | Eval) -> None:
    """Train or measure.

    Raises:
        AvatarError: See `avatar.corpus.train.train_prior` and `avatar.corpus.evaluate.evaluate_prior`.
    """
    if config.workers is not None and config.workers < 1:
        raise AvatarError(f"--workers {config.workers} is too few.", fix="Give 1 or more.")
    if isinstance(config, Train):
        from avatar.corpus.train import train_prior

        train_prior(**vars(config))
        log.next_command(f"avatar train PERSON --out RUN --prior {config.out}")
    else:
        from avatar.corpus.evaluate import evaluate_prior
        from avatar.paths import write_json

        result = evaluate_prior(config.prior, config.videos, cache=config.cache, workers=config.workers)
        show(result)
        if config.json is not None:
            write_json(config.json, result)


def show(result: dict[str, Any]) -> None:
    """Print the numbers as a table."""
    from rich.table import Table

    from avatar.corpus.measure import MEASURED

    title = "Correlation with the track (lag in frames)"
    table = Table("video", "audio delay", "sync", *MEASURED, box=None, title=title)
    for name, row in [*result["videos"].items(), ("mean", result["mean"])]:
        cells = (f"{row[key]:.2f} ({row[f'{key}_lag']:.1f})" for key in MEASURED)
        table.add_row(Path(name).stem, f"{row['audio_delay_s']:.3f} s", f"{row['confidence']:.2f}", *cells)
    log.console.print(table)
