"""A speech encoder in one file, as a plug-in would bring it: level and slope of the waveform, 50 rows per second."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from avatar.audio.encoders.registry import register_encoder
from avatar.io.audio import SAMPLE_RATE


@register_encoder("dummy")
class DummyEncoder:
    """Mean magnitude and mean difference of 20 ms, times ``gain``."""

    OPTIONS: ClassVar[Mapping[str, tuple[float, float]]] = {"gain": (0.1, 100)}
    name, dim, rate = "dummy", 2, 50.0
    first = look_ahead = 0.01  # seconds: the middle of a row, and from there to its end

    def __init__(self, gain: float = 10.0) -> None:
        self.gain = gain

    @property
    def config(self) -> dict[str, Any]:
        return {"name": self.name, "gain": self.gain}

    def open(self) -> DummyStream:
        return DummyStream(self.gain)


class DummyStream:
    """Rows of one recording."""

    SIZE = SAMPLE_RATE // 50

    def __init__(self, gain: float) -> None:
        self._gain, self._held = gain, np.zeros(0, np.float32)

    def push(self, samples: np.ndarray) -> np.ndarray:
        self._held = np.concatenate([self._held, samples])
        whole = len(self._held) // self.SIZE * self.SIZE
        rows, self._held = self._held[:whole].reshape(-1, self.SIZE), self._held[whole:]
        level, slope = np.abs(rows).mean(1), np.abs(np.diff(rows, axis=1)).mean(1)
        return (self._gain * np.stack([level, slope], 1)).astype(np.float32)

    def finish(self) -> np.ndarray:
        rest = -len(self._held) % self.SIZE
        return self.push(np.zeros(rest, np.float32))
