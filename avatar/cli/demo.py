"""Make a synthetic person, train its avatar, and let it say something new. No input is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avatar import log

NEW_SENTENCE = (
    "Hello! Nobody ever filmed me saying this. My picture was learnt from a minute of video, "
    "and my lips follow whatever sound you give me."
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Show everything once."""

    out: Path = Path("avatar-demo")
    """Folder for everything: the filmed video, the avatar, and what it says."""
    quality: Literal["draft", "standard", "high"] = "draft"
    """Training effort, as in `avatar create`."""
    seconds: float = 48.0
    """Length of the synthetic video that the avatar is trained on."""
    size: int = 512
    """Side of the image in pixels."""
    seed: int = 0
    """Another seed is another person."""
    say: str = NEW_SENTENCE
    """The new sentence, in English."""


def main(config: Config) -> None:
    """Make what is missing.

    Raises:
        AvatarError: The folder holds something else, or another process writes to it.
    """
    from avatar.demo import demo

    demo(config.out, config.quality, config.seconds, config.size, config.seed, config.say)
    log.next_command(f"avatar create YOUR_VIDEO.mp4 --out runs/me --quality {config.quality}")
