"""Options of `avatar prepare` that its result depends on."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Annotated, Literal, NamedTuple, get_args

import tyro

from avatar.errors import AvatarError

MOST_DELAY = 600.0  # seconds between audio and video
SMALLEST = 64  # pixels
FrameName = Literal["head", "bust", "full"]
AutoSeconds = Annotated[float | Literal["auto"], tyro.conf.arg(metavar="SECONDS|auto")]
_WHOLE = re.compile("[0-9]{1,6}")


class Square(NamedTuple):
    """A square of the upright source frame, in whole pixels: its left and upper edge, and its side."""

    x: int
    y: int
    side: int


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Options that choose what is taken from a recording."""

    audio_track: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Number of the audio track to take, from 1; default: the one that players take, if it is heard."""
    video_track: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Number of the video track to take, from 1; default: the one that players show."""
    face: Annotated[str | None, tyro.conf.arg(metavar="X,Y|N")] = None
    """Face to learn, as X,Y in pixels of the upright frame, or as its number from the left. Default: the face that
    moves and speaks."""
    crop: Annotated[str | None, tyro.conf.arg(metavar="X,Y,SIDE")] = None
    """Square to cut out, as X,Y,SIDE in pixels of the upright frame, X,Y being its upper left corner. The whole face
    must be inside. Default: chosen around the head."""

    frame: FrameName = "head"
    """What rendering shows: a square around the head, the bust with its background, or the full frame as filmed. Of
    the last two, only the part with the person is trained."""

    @property
    def wanted_face(self) -> int | tuple[int, int] | None:
        """The number or the point that ``face`` names.

        Raises:
            AvatarError: It is neither.
        """
        if self.face is None:
            return None
        numbers = _wholes(self.face, "--face", "X,Y in pixels, such as 310,200, or a number from 1", (1, 2))
        if len(numbers) == 1:
            if numbers[0] < 1:
                raise AvatarError(f"--face {self.face} is no number of a face.", fix="Faces count from 1 at the left.")
            return numbers[0]
        return numbers[0], numbers[1]

    @property
    def square(self) -> Square | None:
        """The square that ``crop`` names.

        Raises:
            AvatarError: It is none, or too small.
        """
        if self.crop is None:
            return None
        square = Square(*_wholes(self.crop, "--crop", "X,Y,SIDE in pixels, such as 100,50,400", (3,)))
        if square.side < SMALLEST:
            raise AvatarError(
                f"--crop {self.crop} is too small.", fix=f"Give a side of at least {SMALLEST} pixels; 512 is usual."
            )
        return square


SOURCE_OPTIONS = tuple(field.name for field in fields(SourceOptions))


def _wholes(text: str, option: str, form: str, counts: tuple[int, ...]) -> tuple[int, ...]:
    parts = text.split(",")
    if len(parts) not in counts or not all(_WHOLE.fullmatch(part.strip()) for part in parts):
        raise AvatarError(f"{option} {text} is not understood.", fix=f"Give {form}.")
    return tuple(int(part) for part in parts)


@dataclass(frozen=True, kw_only=True)
class PrepareConfig(SourceOptions):
    """Options that the PERSON folder depends on."""

    size: int = 512
    """Side of the stored square frames in pixels. The crop around the head is never enlarged: the side is the smaller
    of this and the crop's, rounded down to a multiple of 16. With --frame bust or full, the part with the person has
    about as many pixels, or up to twice as many where the face is small."""
    audio: bool = True
    """--no-audio: prepare a video without audio. Its avatar speaks with the shared model."""
    audio_delay_s: AutoSeconds = "auto"
    """Seconds by which audio comes after video (negative: before it), or auto to measure them."""
    held_out_s: AutoSeconds = "auto"
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
    if config.frame not in get_args(FrameName):
        raise AvatarError(f"--frame {config.frame} is not known.", fix=f"Choose {', '.join(get_args(FrameName))}.")
    if config.frame != "head" and config.crop is not None:
        raise AvatarError(
            f"--crop and --frame {config.frame} exclude each other.", why="--crop is the square around the head.",
            fix="Leave one of them out.",
        )  # fmt: skip
    if config.mask_stride < 0:
        raise AvatarError(f"--mask-stride {config.mask_stride} is negative.", fix="Give 1 or more, or 0 to choose.")
    for kind, track in (("audio", config.audio_track), ("video", config.video_track)):
        if track is not None and track < 1:
            raise AvatarError(f"--{kind}-track {track} is no number of a track.", fix="Tracks count from 1.")
    if config.audio_track is not None and not config.audio:
        raise AvatarError("--audio-track and --no-audio exclude each other.", fix="Leave one of them out.")
    _ = config.wanted_face, config.square  # for their errors
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
