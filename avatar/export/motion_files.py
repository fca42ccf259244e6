"""Export what an avatar does as ARKit coefficients for Blender, Unreal and Unity, or as a motion file."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from avatar import log
from avatar.export.base import ExportSource, Need
from avatar.export.sequence import at_rate, check_rate
from avatar.motion import Motion, arkit_files


@dataclass(frozen=True, kw_only=True)
class MotionExporter:
    """What formats of a motion share: their rate, and that they hold one track.

    Attributes:
        fps: Frames per second of the file; None: those of the avatar.
    """

    default: ClassVar[str | None] = None
    suffixes: ClassVar[tuple[str, ...]] = ()

    fps: float | None = None
    """Frames per second of the file; default: the avatar's."""

    def __post_init__(self) -> None:
        check_rate(self.fps)

    def needs(self) -> Set[Need]:
        """A motion."""
        return {"motion"}

    def write(self, source: ExportSource, path: Path) -> None:
        """Write the track at the frame rate asked for."""
        track = at_rate(source, self.fps)
        self._save(track, path)
        log.info(f"{path}: {len(track)} frames at {track.fps:g} per second ({len(track) / track.fps:.1f} s).")

    def _save(self, track: Motion, path: Path) -> None:
        arkit_files.save(track, path)


@dataclass(frozen=True, kw_only=True)
class LiveLink(MotionExporter):
    """ARKit coefficients as Live Link Face writes them (CSV)."""

    suffixes: ClassVar[tuple[str, ...]] = (".csv",)


@dataclass(frozen=True, kw_only=True)
class ArkitJson(MotionExporter):
    """ARKit coefficients as JSON."""

    suffixes: ClassVar[tuple[str, ...]] = (".json",)


@dataclass(frozen=True, kw_only=True)
class MotionFile(MotionExporter):
    """Every channel of the motion, for --motion and --pose."""

    suffixes: ClassVar[tuple[str, ...]] = (".safetensors",)

    def _save(self, track: Motion, path: Path) -> None:
        track.save(path)
