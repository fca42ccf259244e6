"""Export what an avatar says as the 15 visemes of Oculus lip sync (OVR)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from avatar.export.motion_files import MotionExporter
from avatar.motion import Motion
from avatar.motion.visemes import OVR, ovr_visemes
from avatar.paths import write_json

FORMAT = "avatar-visemes-1"


@dataclass(frozen=True, kw_only=True)
class Visemes(MotionExporter):
    """The 15 visemes of Oculus lip sync (OVR) as JSON, for characters in Unity and on the web."""

    suffixes: ClassVar[tuple[str, ...]] = (".json",)

    def _save(self, track: Motion, path: Path) -> None:
        """Write names, rate, and the weights of each frame, of sum 1."""
        weights = ovr_visemes(track.arkit.numpy())
        frames = [
            {"time": round(i / track.fps, 6), "visemes": [round(float(value), 4) for value in row]}
            for i, row in enumerate(weights)
        ]
        write_json(path, {"format": FORMAT, "fps": track.fps, "names": OVR, "frames": frames})
