"""Export an avatar as one file that every command opens like a RUN folder."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from avatar import log
from avatar.data.bundle import SUFFIX, write_bundle
from avatar.data.consent import require
from avatar.data.run import RunInfo, require_run
from avatar.export.base import ExportSource, Need


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The avatar in one file, to send to another machine."""

    suffixes: ClassVar[tuple[str, ...]] = (SUFFIX,)
    default: ClassVar[str | None] = None

    compact: bool = False
    """Round numbers to 8 and 16 bits: less than half the size, nearly the same image."""

    def needs(self) -> Set[Need]:
        """Files of the RUN folder alone."""
        return set()

    def write(self, source: ExportSource, path: Path) -> None:
        """Write the bundle.

        Raises:
            AvatarError: It is no trained RUN folder, nobody agreed to it, or it cannot be written.
        """
        require_run(source.folder)
        RunInfo.read(source.folder)
        require(source.folder, "likeness", "to leave this machine as a bundle")
        write_bundle(source.folder, path, compact=self.compact)
        log.info(f"{path}: {path.stat().st_size / 1e6:.1f} MB.")
        log.next_command(f"avatar render {log.word(path)} --audio SPEECH.wav --out speech.mp4")
