"""Options of `avatar prepare` that its result depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avatar.errors import AvatarError

MOST_DELAY = 600.0  # seconds between audio and video
SMALLEST = 64  # pixels


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """Options that the PERSON folder depends on."""

    size: int = 512
    """Side of the stored square frames in pixels. The crop around the head is never enlarged: the side is the smaller
    of this and the crop's, rounded down to a multiple of 16."""
    audio: bool = True
    """--no-audio: prepare a video without audio. Its avatar can be shown and moved, but it cannot talk."""
    audio_delay_s: float | Literal["auto"] = "auto"
    """Seconds by which audio comes after video (negative: before it), or auto to measure them."""
    held_out_s: float | Literal["auto"] = "auto"
    """Seconds at the end of the video to hold out from training. With auto it is a tenth, or up to 30 % to have 15 s
    of speech to judge lips by. 0: every frame but the last is trained on. A dataset keeps its own split."""
    mask_stride: int = 0
    """Make a mask for every n-th frame; 0 chooses n from the length of the video."""


def check(config: PrepareConfig) -> None:
    """Refuse options that cannot work, before anything is written.

    Raises:
        AvatarError: A value is out of range.
    """
    if config.size < SMALLEST:
        raise AvatarError(f"--size {config.size} is too small.", fix=f"Give at least {SMALLEST}; 512 is usual.")
    if config.mask_stride < 0:
        raise AvatarError(f"--mask-stride {config.mask_stride} is negative.", fix="Give 1 or more, or 0 to choose.")
    delay = config.audio_delay_s
    if delay != "auto" and not abs(delay) <= MOST_DELAY:  # false for NaN
        raise AvatarError(
            f"--audio-delay-s {delay} is out of range.",
            fix=f"Give seconds, from -{MOST_DELAY:g} to {MOST_DELAY:g}, or auto to measure them.",
        )
    if config.held_out_s != "auto" and not 0 <= config.held_out_s < float("inf"):  # false for NaN
        raise AvatarError(
            f"--held-out-s {config.held_out_s} is no length.", fix="Give seconds, 0 or more, or auto to choose them."
        )
