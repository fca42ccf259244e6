"""A personal speech network that moves nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avatar.io.audio import SAMPLE_RATE
from avatar.motion import Motion


class Mute:
    """Speaks once; implements `avatar.audio2motion.base.AudioToMotion`."""

    share, voice_db, look_ahead, opened = 0.5, None, 0.0, False

    def __init__(self, fps: float) -> None:
        self.fps, self.samples = fps, 0

    def save(self, path: Path) -> None:
        """Nothing to store."""

    def open(self) -> Mute:
        self.opened = True
        return self

    def push(self, samples: np.ndarray) -> Motion:
        before, self.samples = self.samples, self.samples + len(samples)
        first, last = (round(count / SAMPLE_RATE * self.fps) for count in (before, self.samples))
        return Motion.zeros(last - first, self.fps)

    def finish(self) -> Motion:
        return Motion.zeros(0, self.fps)
