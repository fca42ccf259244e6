"""What training takes from a recording of a face: articulation over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avatar.audio2motion.shared import RATE
from avatar.motion import face_channels
from avatar.motion.arkit import ARKIT
from avatar.motion.mouth import ARTICULATION, COEFFICIENTS, FACE, GEOMETRY, MOUTH, articulation


@dataclass(frozen=True, kw_only=True)
class Mouth:
    """A mouth at the rate at which it was recorded.

    Attributes:
        values: [T, len(ARTICULATION)] centimetres and coefficients; NaN columns: not measured.
        seen: [T] bool, whether there was a face; values between are interpolated.
        fps: Frames per second.
        rows: Of its audio at `shared.RATE`.
        curve: The sync judge's distances (`SyncJudge.distances`), None where it cannot judge.
    """

    values: np.ndarray
    seen: np.ndarray
    fps: float
    rows: int
    curve: np.ndarray | None = None

    @property
    def seconds(self) -> float:
        return self.rows / RATE

    @property
    def known(self) -> tuple[str, ...]:
        """The articulators that were measured."""
        return tuple(name for name, column in zip(ARTICULATION, self.values.T, strict=True) if np.isfinite(column[0]))

    @property
    def filmed(self) -> bool:
        """Whether it was measured in images, and not given as coefficients."""
        return self.known == ARTICULATION

    def in_step(self, audio_delay_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Values [rows, A] at the moments of the audio's rows, and [rows] whether a face was seen there.

        Args:
            audio_delay_s: Audio delay in seconds; positive: audio after video.
        """
        frames = np.arange(len(self.values))
        at = (np.arange(self.rows) / RATE - audio_delay_s) * self.fps
        values = np.stack([np.interp(at, frames, c) for c in self.values.T], 1).astype(np.float32)
        inside = (at > -1) & (at < len(frames))
        return values, inside & (np.interp(at, frames, self.seen) > 0.999)


def of_face(geometry: np.ndarray, arkit: np.ndarray) -> np.ndarray:
    """Articulation [T, A] of the symmetric channels [T, len(GEOMETRY)] and ARKit's coefficients [T, 52]."""
    face = np.zeros((len(geometry), len(face_channels.CHANNELS)), np.float32)
    face[:, [face_channels.CHANNEL_INDEX[name] for name in GEOMETRY]] = geometry
    return articulation(np.concatenate([face[:, FACE], arkit[:, MOUTH].astype(np.float32)], 1))


def of_coefficients(arkit: np.ndarray) -> np.ndarray:
    """Articulation [T, A] of ARKit's coefficients [T, 52] alone; NaN columns, here as there: not known."""
    known = {name for name, column in zip(ARKIT, arkit.T, strict=True) if np.isfinite(column).all()}
    values = of_face(np.zeros((len(arkit), len(GEOMETRY))), np.nan_to_num(arkit))
    for column, name in enumerate(ARTICULATION):
        sides = {name} if name in ARKIT else {f"{name}Left", f"{name}Right"}
        if name not in COEFFICIENTS or not sides <= known:
            values[:, column] = np.nan
    return values
