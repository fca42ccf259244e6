"""Train the audio-to-motion prior that all avatars share on your own videos, measure it, or record tracks for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from avatar import log


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


@dataclass(frozen=True, kw_only=True)
class Record:
    """Record somebody who gives tracks of mouth, head and speech under CC0. Face and voice are not kept."""

    out: Path
    """New folder for the tracks, for the CORPUS of `avatar prior train`."""
    text: Path | None = None
    """File with a sentence to read in each line, in any language; default: English sentences."""
    language: str = "en"
    """Language of the sentences, two letters of ISO 639-1."""
    port: int = 8080
    """Port of the page, which this machine alone reaches."""


Config = (
    Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Eval, tyro.conf.subcommand("eval")]
    | Annotated[Record, tyro.conf.subcommand("record")]
)


def main(config: Train | Eval | Record) -> None:
    """Train, measure or record.

    Raises:
        AvatarError: See `avatar.corpus.train.train_prior`, `avatar.corpus.evaluate.evaluate_prior` and
            `avatar.record.start.record_tracks`.
    """
    if isinstance(config, Record):
        from avatar.record.start import record_tracks

        record_tracks(**vars(config))
    elif isinstance(config, Train):
        from avatar.corpus.train import train_prior

        train_prior(**vars(config))
        log.next_command(f"avatar train PERSON --out RUN --prior {log.word(config.out)}")
    else:
        from avatar.corpus.evaluate import evaluate_prior, table
        from avatar.data.outputs import refuse_to_overwrite
        from avatar.paths import write_json
        from avatar.writing import NewFile

        if config.json is not None:
            refuse_to_overwrite(config.json, config.prior, *config.videos)
            NewFile(config.json).drop()  # where it cannot be written, say so before anything is tracked
        result = evaluate_prior(config.prior, config.videos, cache=config.cache, workers=config.workers)
        log.console.print(table(result))
        if config.json is not None:
            write_json(config.json, result)
