"""The seam for exporters: what they get, and what they are. See docs/new_exporters.md."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.data import PersonDataset
    from avatar.infer.avatar import Avatar
    from avatar.motion import Motion

Need = Literal["avatar", "motion", "optional-motion", "person"]
NO_FILE = ""  # default of an exporter that writes no file


@dataclass(frozen=True, kw_only=True)
class ExportSource:
    """What an exporter may write; everything that it needs is there.

    Attributes:
        folder: RUN folder, or PERSON folder.
        avatar: The avatar.
        motion: What the avatar does, from audio, text or a motion file; None: nothing was asked for.
        audio: The file that the avatar speaks; None: nothing is said.
        audio_start: Second of it that belongs to the first frame; negative where the avatar waits first.
        audio_track: Number of its audio track, from 1; None: the one that all readers choose.
        beyond: Whether the camera may leave the views that the avatar is good for.
        person: The prepared video.
        title: What to call the motion where there are several; None: as its audio.
    """

    folder: Path
    avatar: Avatar | None = None
    motion: Motion | None = None
    audio: Path | None = None
    audio_start: float = 0.0
    audio_track: int | None = None
    beyond: bool = False
    person: PersonDataset | None = None
    title: str | None = None


class Exporter(Protocol):
    """One format. A frozen dataclass whose fields, each with a default, are its options.

    Attributes:
        suffixes: Endings of its files; empty: it writes a folder.
        default: File name in the RUN folder where no --out is given; None: one has to be given; `NO_FILE`: it writes
            none, but sends or shows something.
    """

    suffixes: ClassVar[tuple[str, ...]]
    default: ClassVar[str | None]

    def needs(self) -> Set[Need]:
        """What it writes: "avatar" and "motion" of a RUN folder, "person" of a PERSON folder.

        With "optional-motion" there is a motion where audio, text, a motion file or idling is asked for.
        """
        ...

    def write(self, source: ExportSource, path: Path) -> None:
        """Write a file or a folder.

        Raises:
            AvatarError: It cannot be written, or an option is out of range.
        """
        ...


def write(exporter: Exporter, source: ExportSource, path: Path) -> None:
    """Let an exporter write, and refuse one that wrote nothing.

    Raises:
        AvatarError: Something cannot be written, or nothing was.
    """
    exporter.write(source, path)
    if exporter.default != NO_FILE and not path.exists():
        raise AvatarError(f"The exporter {type(exporter).__name__} has written no {path}.",
                          fix="Report it to those who wrote it.")  # fmt: skip
