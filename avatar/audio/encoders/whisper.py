"""Speech features from the first layers of Whisper's encoder, over a short sliding window.

They generalise from few speakers to many (Radford et al., "Robust speech recognition via large-scale weak supervision",
2022). The middle of the network is more informative about the mouth than its end, which spells
(docs/notes/audio2motion.md). Streamed and whole input give the same rows, with little look-ahead.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from avatar.io.audio import SAMPLE_RATE

RATE = 25.0
_BANDS, _FFT, _HOP = 80, 400, 160  # of the log-mel energies
_ROWS_PER_SECOND = 50.0
_FIRST = 0.01  # seconds; the time of the network's first row
_PER_ROW = 2  # rows of the network to a row here
_HEAD = 64  # channels per attention head
_WINDOWS = 128  # that are kept, 16 MB of rows: pieces of 10 s of some recordings at once


class _Layer(nn.Module):
    """Attention and feed-forward network with normalisation before either."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        parts = self.project(self.norm(x)).view(batch, count, 3, width // _HEAD, _HEAD).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(*parts)
        x = x + self.merge(mixed.transpose(1, 2).reshape(batch, count, width))
        return x + self.narrow(functional.gelu(self.widen(self.norm2(x))))


class WhisperStem(nn.Module):
    """Log-mel energies, two convolutions, and the first few layers.

    Args:
        width: Channels.
        layers: How many.
        positions: Rows of the longest window.
    """

    def __init__(self, width: int, layers: int, positions: int) -> None:
        super().__init__()
        self.width = width
        self.conv1 = nn.Conv1d(_BANDS, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.position = nn.Parameter(torch.zeros(positions, width))
        self.layers = nn.ModuleList(_Layer(width) for _ in range(layers))

    def forward(self, samples: Tensor) -> Tensor:
        """[B, S] audio at 16 kHz to [B, T, width], 50 rows per second."""
        x = functional.gelu(self.conv1(_log_mel(samples)))
        x = functional.gelu(self.conv2(x)).mT
        x = x + self.position[: x.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return x

    @staticmethod
    def load() -> WhisperStem:
        """The asset ``whisper_front``.

        Raises:
            AvatarError: It is not available.
        """
        stored = stored_stem()
        state = {}
        for name, tensor in stored.items():
            if name.endswith(":scale"):
                continue
            scale = stored.get(f"{name}:scale")
            state[name] = tensor.float() if scale is None else tensor * scale.view(-1, *[1] * (tensor.ndim - 1))
        positions, width = state["position"].shape
        layers = len({name.split(".")[1] for name in state if name.startswith("layers.")})
        stem = WhisperStem(width, layers, positions)
        stem.load_state_dict(state)
        return stem.eval()


def stored_stem() -> dict[str, Tensor]:
    """Read the tensors of the asset ``whisper_front``; whole numbers have a scale per row, under ``NAME:scale``.

    Raises:
        AvatarError: It is not available.
    """
    from avatar.assets.store import fetch

    return load_file(str(fetch("whisper_front")))


class WhisperEncoder:
    """Rows k / 25 s, each from the first window whose end is late enough.

    Args:
        window: Seconds that the network sees at a time.
        hop: Seconds between windows; shorter means less waiting and more work.
        ahead: Seconds of audio after a row that its window has at least; with 0.6 rows are of the window's middle.
    """

    OPTIONS: ClassVar[Mapping[str, tuple[float, float]]] = {"window": (0.5, 30), "hop": (0.02, 10), "ahead": (0, 10)}
    name = "whisper"
    rate = RATE
    first = 0.0

    def __init__(self, window: float = 1.6, hop: float = 0.4, ahead: float = 0.6) -> None:
        self.window, self.hop, self.ahead = window, hop, ahead
        aligned = abs(hop * RATE - round(hop * RATE)) < 1e-6  # then some row has just missed the window before
        self.look_ahead = hop + (int(np.ceil(ahead * RATE - 1e-6)) - 1) / RATE if aligned else hop + ahead
        self._stem = _stem()
        self.dim = _PER_ROW * self._stem.width

    @property
    def config(self) -> dict[str, Any]:
        """``name`` and the options."""
        return {"name": self.name, "window": self.window, "hop": self.hop, "ahead": self.ahead}

    def open(self) -> WhisperStream:
        """Begin a recording."""
        return WhisperStream(self)

    def rows(self, samples: np.ndarray, end: float, row: int) -> np.ndarray:
        """Rows [n, dim] from number ``row`` on that a window is the first to be late enough for.

        Args:
            samples: [window * 16000] the window.
            end: Seconds; where the window ends.
            row: The first row that is still missing.
        """
        rows = np.arange(row, int((end - self.ahead) * RATE + 1e-6) + 1)
        if not len(rows):
            return np.zeros((0, self.dim), np.float32)
        network = encoded(self._stem, samples.tobytes())
        times = rows[:, None] / RATE + (np.arange(_PER_ROW) - (_PER_ROW - 1) / 2) / (_PER_ROW * RATE)
        at = ((times - (end - self.window) - _FIRST) * _ROWS_PER_SECOND).clip(0, len(network) - 1.001)
        low = at.astype(int)
        part = (at - low)[..., None].astype(np.float32)
        return (network[low] * (1 - part) + network[low + 1] * part).reshape(len(rows), -1)


class WhisperStream:
    """A window that slides over one recording."""

    def __init__(self, encoder: WhisperEncoder) -> None:
        self._encoder = encoder
        self._size, self._hop = round(encoder.window * SAMPLE_RATE), round(encoder.hop * SAMPLE_RATE)
        self._held = np.zeros(self._size, np.float32)  # the last window, and what came since
        self._total = self._done = self._row = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take samples [N]; return rows [n, dim]."""
        out = [np.zeros((0, self._encoder.dim), np.float32)]
        self._held = np.concatenate([self._held, samples.astype(np.float32, copy=False)])
        self._total += len(samples)
        while self._total - self._done >= self._hop:
            out.append(self._next())
        return np.concatenate(out)

    def finish(self) -> np.ndarray:
        """Return the remaining rows [n, dim]; in all as many as begin within the audio."""
        out = [np.zeros((0, self._encoder.dim), np.float32)]
        count = int(np.ceil(self._total / SAMPLE_RATE * RATE))
        while self._row < count:
            self._held = np.pad(self._held, (0, self._hop))
            missing = count - self._row
            out.append(self._next()[:missing])
        return np.concatenate(out)

    def _next(self) -> np.ndarray:
        """Slide on by one hop, and encode."""
        self._done += self._hop
        self._held = self._held[self._hop :]
        rows = self._encoder.rows(self._held[: self._size], self._done / SAMPLE_RATE, self._row)
        self._row += len(rows)
        return rows


@functools.cache
def _stem() -> WhisperStem:
    return WhisperStem.load()


@functools.lru_cache(_WINDOWS)
def encoded(stem: WhisperStem, samples: bytes) -> np.ndarray:
    """Rows [T, width] of a window. The networks of an ensemble ask for the same windows one after another."""
    with torch.inference_mode():
        return stem(torch.from_numpy(np.frombuffer(samples, np.float32).copy())[None])[0].numpy()


def _log_mel(samples: Tensor) -> Tensor:
    """[B, S] to [B, 80, S / 160]: Whisper's input, decades of power, 8 below the loudest at least."""
    window = torch.hann_window(_FFT, device=samples.device)
    power = torch.stft(samples, _FFT, _HOP, window=window, return_complex=True)[..., :-1].abs().square()
    mel = (power.mT @ torch.from_numpy(_filters())).clamp(min=1e-10).log10()
    return ((mel.maximum(mel.amax((1, 2), keepdim=True) - 8) + 4) / 4).mT


@functools.cache
def _filters() -> np.ndarray:
    """[201, 80] triangles of unit area on Slaney's mel scale: linear up to 1 kHz, logarithmic above."""
    step = np.log(6.4) / 27

    def mel(hertz: float) -> float:
        return hertz * 3 / 200 if hertz < 1000 else 15 + np.log(hertz / 1000) / step

    marks = np.linspace(0, mel(SAMPLE_RATE / 2), _BANDS + 2)
    edges = np.where(marks < 15, marks * 200 / 3, 1000 * np.exp((marks - 15) * step))
    frequency = np.arange(_FFT // 2 + 1)[:, None] * SAMPLE_RATE / _FFT
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    return (np.maximum(0, np.minimum(rise, fall)) * 2 / (edges[2:] - edges[:-2])).astype(np.float32)
