"""Log-mel energies: no pretrained part; poorer lips alone, sharper timing beside another encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from avatar.audio import spectra


class MelEncoder:
    """Log-mel energies (dB / 20) at 100 rows per second, relative to the recent speech level.

    Args:
        bands: Triangular filters from 60 to 7600 Hz.
    """

    OPTIONS: ClassVar[Mapping[str, tuple[float, float]]] = {"bands": (1, 256)}
    name = "mel"
    rate = spectra.RATE
    first = 0.0
    look_ahead = spectra.LOOK_AHEAD

    def __init__(self, bands: float = 80) -> None:
        self.dim = int(bands)

    @property
    def config(self) -> dict[str, Any]:
        """``name`` and ``bands``."""
        return {"name": self.name, "bands": self.dim}

    def open(self) -> MelStream:
        """Begin a recording."""
        return MelStream(self.dim)


class MelStream:
    """Log-mel energies of one recording."""

    def __init__(self, bands: int) -> None:
        self._filters = spectra.mel_filters(bands)
        self._spectra = spectra.PowerSpectra()
        self._level = -40.0  # dB, of speech; follows loud bands at once and forgets 1 dB per second

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take samples [N]; return rows [n, bands]."""
        return self._rows(self._spectra.push(samples))

    def finish(self) -> np.ndarray:
        """Return the remaining rows [n, bands]."""
        return self._rows(self._spectra.finish())

    def _rows(self, power: np.ndarray) -> np.ndarray:
        decibels = 10 * np.log10(spectra.filtered(power, self._filters) + 1e-8)
        loud = decibels.max(1)
        for i, peak in enumerate(loud):
            self._level = max(float(peak), self._level - 1.0 / MelEncoder.rate)
            loud[i] = self._level
        return (np.maximum(decibels - loud[:, None], -80) / 20 + 2).astype(np.float32)
