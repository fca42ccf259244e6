"""The encoder of Moonshine tiny, a small English speech recogniser. It knows phones, and waits for seconds of audio.

For its three convolutions (kernels 127, 7, 3; strides 64, 3, 2) row ``k`` is centred on sample ``384 k + 447``. A click
in the audio moves the rows around exactly that place (tests/unit/test_features.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE

_STRIDE = 384  # samples per row
_TAIL = 127 + 64 * 8  # samples that the last row needs beyond its first one: kernel 127, then 7 * and 3 * of them
_CENTRE = 447.5  # samples from a row's first one to its middle


class MoonshineEncoder:
    """Last hidden state (288 features, 41.7 rows per second) of the Moonshine tiny encoder.

    The network normalises and attends over its whole input, so a row depends on what else is in the window. Windows at
    a fixed grid of half their length, cross-faded, keep this dependence small and free of jumps. It is then also the
    same for streamed and whole input.

    Args:
        window: Seconds that the network sees at once.
        threads: Of onnxruntime.

    Raises:
        AvatarError: The asset or onnxruntime is not available.
    """

    OPTIONS: ClassVar[Mapping[str, tuple[float, float]]] = {"window": (0.5, 30)}
    name = "moonshine"
    dim = 288
    rate = SAMPLE_RATE / _STRIDE
    first = _CENTRE / SAMPLE_RATE

    def __init__(self, window: float = 8.0, threads: int = 1) -> None:
        self.window = window
        self.hop = max(1, round(window / 2 * self.rate))  # rows
        # The first row of a window waits until there is a sample more than the window and one row.
        self.look_ahead = (2 * self.hop * _STRIDE + _TAIL + _STRIDE + 1 - _CENTRE) / SAMPLE_RATE
        self._session = _session(threads)

    @property
    def config(self) -> dict[str, Any]:
        """``name`` and ``window``."""
        return {"name": self.name, "window": self.window}

    def open(self) -> MoonshineStream:
        """Begin a recording."""
        return MoonshineStream(self)

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Rows [n, 288] of one window; at least one, however short it is."""
        if len(samples) < SAMPLE_RATE // 2:
            rows = max(1, (len(samples) - _TAIL) // _STRIDE + 1)
            samples = np.pad(samples, (0, SAMPLE_RATE // 2 - len(samples)))
        else:
            rows = None
        inputs = {"input_values": samples[None], "attention_mask": np.ones((1, len(samples)), np.int64)}
        return np.asarray(self._session.run(None, inputs)[0])[0, :rows]


class MoonshineStream:
    """Cross-faded windows over one recording."""

    def __init__(self, encoder: MoonshineEncoder) -> None:
        self._encoder = encoder
        hop = encoder.hop
        self._size = 2 * hop * _STRIDE + _TAIL  # samples of a whole window
        self._fade = ((np.arange(hop) + 0.5) / hop)[:, None].astype(np.float32)
        self._held = np.zeros(0, np.float32)
        self._before: np.ndarray | None = None  # second half of the window before, still to be faded out

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take samples [N]; return rows [n, 288], half a window at a time."""
        hop, out = self._encoder.hop, [np.zeros((0, self._encoder.dim), np.float32)]
        self._held = np.concatenate([self._held, samples])
        while len(self._held) > self._size + _STRIDE:  # more to come for certain: this is not the last window
            rows = self._encoder.encode(self._held[: self._size])[: 2 * hop]
            out.append(self._faded(rows[:hop]))
            self._before = rows[hop:]
            self._held = self._held[hop * _STRIDE :]
        return np.concatenate(out)

    def finish(self) -> np.ndarray:
        """Return the remaining rows [n, 288]."""
        hop, rows = self._encoder.hop, self._encoder.encode(self._held)
        return rows if self._before is None else np.concatenate([self._faded(rows[:hop]), rows[hop:]])

    def _faded(self, rows: np.ndarray) -> np.ndarray:
        """The first rows of a window, cross-faded with the last ones of the window before."""
        if self._before is None:
            return rows
        fade = self._fade[: len(rows)]
        return self._before[: len(rows)] * (1 - fade) + rows * fade


def _session(threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise AvatarError(
            "The speech encoder needs onnxruntime, which is not installed.", fix="Run `pip install onnxruntime`."
        ) from None
    from avatar.assets.store import fetch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    path = fetch("moonshine_encoder")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise AvatarError(f"The speech encoder {path} cannot be loaded:", why=f"{error}.") from None
