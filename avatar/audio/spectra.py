"""Short-time spectra of a stream of audio: power, mel filters, and energy in the speech band."""

from __future__ import annotations

import functools

import numpy as np
from jaxtyping import Float

from avatar.io.audio import SAMPLE_RATE

HOP = 160  # samples from one row to the next: 10 ms
RATE = SAMPLE_RATE / HOP
ENERGY_FLOOR_DB = -80.0
_FFT = 512
_FRAME = 400  # 25 ms Hann window
_BLOCK = 4  # rows made at once: it fixes how sums are rounded, and so makes every chunking give the same bits
LOOK_AHEAD = ((_BLOCK - 1) * HOP + _FRAME // 2) / SAMPLE_RATE  # seconds of audio after a row's time that it waits for
_SPEECH_BAND = (100.0, 6000.0)  # Hz; leaves out hum and most hiss


class PowerSpectra:
    """Power spectra of 25 ms Hann windows centred on every multiple of 10 ms.

    Scaled so that the sum over bins is the mean square of the windowed samples (Parseval).
    """

    def __init__(self) -> None:
        self._held = np.zeros(_FRAME // 2, np.float32)
        self._total = self._done = 0

    def push(self, samples: Float[np.ndarray, " N"]) -> Float[np.ndarray, "n 257"]:
        """Take samples [N]; return rows [n, 257], in whole blocks of four."""
        self._held = np.concatenate([self._held, samples])
        self._total += len(samples)
        blocks = (len(self._held) - _FRAME + HOP) // (_BLOCK * HOP)
        return self._take(max(0, blocks) * _BLOCK)

    def finish(self) -> np.ndarray:
        """Return the remaining rows [n, 257]: up to the one centred on the end or just before it."""
        rest = self._total // HOP + 1 - self._done if self._total else 0
        self._held = np.pad(self._held, (0, max(0, (rest - 1) * HOP + _FRAME - len(self._held))))
        return self._take(max(0, rest))

    def _take(self, count: int) -> np.ndarray:
        window, scale = _window()
        frames = self._held[np.arange(count)[:, None] * HOP + np.arange(_FRAME)] * window
        self._held, self._done = self._held[count * HOP :], self._done + count
        if count == 0:
            return np.zeros((0, _FFT // 2 + 1), np.float32)
        return (np.abs(np.fft.rfft(frames, _FFT)) ** 2 * scale).astype(np.float32)


class SpeechEnergy:
    """Level in the speech band in dB relative to full scale, at least `ENERGY_FLOOR_DB`, every 10 ms."""

    def __init__(self) -> None:
        self._spectra = PowerSpectra()
        frequency = _frequencies()
        self._band = (frequency >= _SPEECH_BAND[0]) & (frequency <= _SPEECH_BAND[1])

    def push(self, samples: Float[np.ndarray, " N"]) -> Float[np.ndarray, "n 1"]:
        """Take samples [N]; return levels [n, 1]."""
        return self._levels(self._spectra.push(samples))

    def finish(self) -> np.ndarray:
        """Return the remaining levels [n, 1]."""
        return self._levels(self._spectra.finish())

    def _levels(self, power: np.ndarray) -> np.ndarray:
        decibels = 10 * np.log10(power[:, self._band].sum(1) + 1e-12)
        return np.maximum(decibels, ENERGY_FLOOR_DB).astype(np.float32)[:, None]


def filtered(power: Float[np.ndarray, "n 257"], filters: Float[np.ndarray, "257 B"]) -> Float[np.ndarray, "n B"]:
    """Apply filters [257, B] to spectra [n, 257]; returns [n, B]."""
    if len(power) % _BLOCK:  # the last rows of a stream
        return power @ filters
    return (power.reshape(-1, _BLOCK, power.shape[1]) @ filters).reshape(len(power), filters.shape[1])


@functools.cache
def mel_filters(bands: int, low: float = 60.0, high: float = 7600.0) -> Float[np.ndarray, "257 {bands}"]:
    """Triangular mel filters [257, bands], each of unit area in bins.

    Mel scale after O'Shaughnessy, ``2595 log10(1 + f / 700)``.
    """

    def mel(f: float) -> float:
        return 2595 * np.log10(1 + f / 700)

    edges = 700 * (10 ** (np.linspace(mel(low), mel(high), bands + 2) / 2595) - 1)
    frequency = _frequencies()[:, None]
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rise, fall))
    # The lowest filters are narrower than one bin: give each at least its nearest bin.
    nearest = np.abs(frequency - edges[1:-1]).argmin(0)
    filters[nearest, np.arange(bands)] = np.maximum(filters[nearest, np.arange(bands)], 1e-3)
    return (filters / filters.sum(0)).astype(np.float32)


@functools.cache
def _window() -> tuple[np.ndarray, np.ndarray]:
    """Hann window [400], and the scale of each bin [257]."""
    window = np.hanning(_FRAME + 1)[:-1].astype(np.float32)
    scale = np.full(_FFT // 2 + 1, 2.0)
    scale[[0, -1]] = 1
    scale /= _FFT * np.square(window).sum()
    return window, scale


def _frequencies() -> np.ndarray:
    """Hertz of each bin [257]."""
    return np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT
