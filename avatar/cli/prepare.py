"""Track a video of one person into a PERSON folder: frames, audio, landmarks, head pose, masks, report."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from avatar import log
from avatar.cli.consent import ConsentOption, answered
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.photo import is_photo
from avatar.preprocess.pipeline import STAGES, prepare


@dataclass(frozen=True, kw_only=True)
class Config:
    """Prepare a video of one person."""

    video: tyro.conf.Positional[Path]
    """The video: anything FFmpeg reads, one person talking, 3 to 5 minutes are good. Or a photo; or a dataset folder of
    AD-NeRF, RAD-NeRF, ER-NeRF or TalkingGaussian: its images and audio are read, its split is kept, all else is made
    anew."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The PERSON folder to write. Run again with the same folder to go on after an interruption."""
    person: tyro.conf.OmitArgPrefixes[PrepareConfig] = field(default_factory=PrepareConfig)
    consent: ConsentOption = None
    """Consent of the person: self if it is you, or their record (docs/provenance.md). Default: asked at a terminal."""
    stages: str = "all"
    """Run only these stages, separated by commas (for development)."""
    force: bool = False
    """Run every stage anew, and replace what another video left in the folder."""


def main(config: Config) -> None:
    """Run the stages that are not done yet.

    Raises:
        AvatarError: The video, an option or the output folder is unsuitable, or another process writes to it.
    """
    stages = STAGES if config.stages == "all" else config.stages.split(",")
    consent = answered(config.consent, config.video, config.out)
    prepare(config.video, config.out, config.person, stages=stages, force=config.force, consent=consent)
    photo = " --quality photo" if is_photo(config.video) else ""
    log.next_command(f"avatar train {log.word(config.out)} --out {log.word(Path('runs', config.out.name))}{photo}")
