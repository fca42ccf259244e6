"""Export what an avatar says as the 15 visemes of Oculus lip sync (OVR)."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from avatar import log
from avatar.export.base import ExportSource, Need
from avatar.export.sequence import at_rate, check_rate
from avatar.motion.visemes import OVR, ovr_visemes
from avatar.paths import write_json

FORMAT = "avatar-visemes-1"


@dataclass(frozen=True, kw_only=True)
class Visemes:
    """The 15 visemes of Oculus lip sync (OVR) as JSON, for characters in Unity and on the web."""

    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    default: ClassVar[str | None] = None

    fps: float | None = None
    """Frames per second of the file; default: the avatar's."""

    def __post_init__(self) -> None:
        check_rate(self.fps)

    def needs(self) -> Set[Need]:
        """A motion."""
        return {"motion"}

    def write(self, source: ExportSource, path: Path) -> None:
        """Write names, rate, and the weights of each frame, of sum 1."""
        track = at_rate(source, self.fps)
        weights = ovr_visemes(track.arkit.numpy())
        frames = [
            {"time": round(i / track.fps, 6), "visemes": [round(float(value), 4) for value in row]}
            for i, row in enumerate(weights)
        ]
        write_json(path, {"format": FORMAT, "fps": track.fps, "names": OVR, "frames": frames})
        log.info(f"{path}: {len(track)} frames at {track.fps:g} per second ({len(track) / track.fps:.1f} s).")
