"""From sound to features at the times of video frames: streaming, in constant memory, the same for any chunk size.

Two encoders. `MoonshineEncoder` is the encoder of a small speech recogniser: it knows phones, so it is the default.
`MelEncoder` is plain log-mel energies: no pretrained part, poorer lips alone, sharper timing beside the other. A
checkpoint stores `SpeechEncoder.config`, and :func:`build_encoder` makes the same encoder again.

The time that each feature row belongs to is the centre of its receptive field. For Moonshine's three convolutions
(kernels 127, 7, 3; strides 64, 3, 2) row ``k`` is centred on sample ``384 k + 447``; a click in the sound moves the
rows around exactly that place (tests/unit/test_features.py).
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from avatar.checks import Record, Where
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE, chunked
from avatar.log import warn

# Options of each encoder that a checkpoint may give, and their ranges: bands; seconds.
_OPTIONS = {
    "mel": {"bands": (1, 256)}, "moonshine": {"window": (0.5, 30)},
    "whisper": {"window": (0.5, 30), "hop": (0.02, 10), "ahead": (0, 10)},
}  # fmt: skip
ENERGY_FLOOR_DB = -80.0
_HOP = 160  # energy and mel: 10 ms
_FFT = 512
_FRAME = 400  # 25 ms Hann window
_LOUDEST = 100.0  # nobody clips by 40 dB: such samples are not scaled
_SPEECH_BAND = (100.0, 6000.0)  # Hz; leaves out hum and most hiss


class AudioEncoder(Protocol):
    """Features of sound at the encoder's own rate.

    Attributes:
        name: What checkpoints call it.
        dim: Number of features per row.
        rate: Rows per second.
        first: Seconds; the time of row 0, so that row k belongs to ``first + k / rate``.
    """

    name: str
    dim: int
    rate: float
    first: float

    @property
    def config(self) -> dict[str, Any]:
        """What :func:`build_encoder` needs to make the same encoder."""
        ...

    def stream(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Blocks [n, dim] float32 of consecutive rows for a stream of 16 kHz mono chunks of any size."""
        ...


class MelEncoder:
    """80 log-mel energies (dB / 20) at 100 rows per second, relative to the recent speech level.

    Mel scale after O'Shaughnessy, ``2595 log10(1 + f / 700)``, triangular filters from 60 to 7600 Hz.
    """

    name = "mel"
    rate = SAMPLE_RATE / _HOP
    first = 0.0

    def __init__(self, bands: float = 80) -> None:
        self.dim = int(bands)

    @property
    def config(self) -> dict[str, Any]:
        return {"name": self.name, "bands": self.dim}

    def stream(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        filters = _mel_filters(self.dim)
        level = -40.0  # dB, of speech; follows loud bands at once and forgets 1 dB per second
        for power in _power_spectra(chunks):
            decibels = 10 * np.log10(power @ filters + 1e-8)
            loud = decibels.max(1)
            for i, peak in enumerate(loud):
                level = max(float(peak), level - 1.0 / self.rate)
                loud[i] = level
            yield (np.maximum(decibels - loud[:, None], -80) / 20 + 2).astype(np.float32)


class MoonshineEncoder:
    """Last hidden state (288 features, 41.7 rows per second) of the Moonshine tiny English encoder.

    The network normalises and attends over its whole input, so a row depends on what else is in the window. Windows
    of ``window`` seconds at a fixed grid of half that, cross-faded, keep this dependence small, free of jumps, and the
    same for any chunk size and for streamed and whole input.

    Raises:
        AvatarError: The asset or onnxruntime is not available.
    """

    name = "moonshine"
    dim = 288
    _STRIDE = 384
    _TAIL = 127 + 64 * 8  # samples that the last row needs beyond its first one: kernel 127, then 7 * and 3 * of them
    rate = SAMPLE_RATE / _STRIDE
    first = 447.5 / SAMPLE_RATE

    def __init__(self, window: float = 8.0, threads: int = 1) -> None:
        self.window = window
        self._hop = max(1, round(window / 2 * self.rate))  # rows
        self._session = _moonshine_session(threads)

    @property
    def config(self) -> dict[str, Any]:
        return {"name": self.name, "window": self.window}

    def stream(self, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        hop, stride = self._hop, self._STRIDE
        size = 2 * hop * stride + self._TAIL  # samples of a whole window
        fade = ((np.arange(hop) + 0.5) / hop)[:, None].astype(np.float32)
        held = np.zeros(0, np.float32)
        before: np.ndarray | None = None  # second half of the window before, still to be faded out
        for chunk in chunks:
            held = np.concatenate([held, chunk])
            while len(held) > size + stride:  # more to come for certain: this is not the last window
                rows = self._encode(held[:size])[: 2 * hop]
                yield rows[:hop] if before is None else before * (1 - fade) + rows[:hop] * fade
                before = rows[hop:]
                held = held[hop * stride :]
        rows = self._encode(held)
        if before is None:
            yield rows
        else:
            yield before[: len(rows)] * (1 - fade[: len(rows)]) + rows[:hop] * fade[: len(rows)]
            if len(rows) > hop:
                yield rows[hop:]

    def _encode(self, samples: np.ndarray) -> np.ndarray:
        """Rows [n, 288] of one window; at least one, however short."""
        if len(samples) < SAMPLE_RATE // 2:
            rows = max(1, (len(samples) - self._TAIL) // self._STRIDE + 1)
            samples = np.pad(samples, (0, SAMPLE_RATE // 2 - len(samples)))
        else:
            rows = None
        inputs = {"input_values": samples[None], "attention_mask": np.ones((1, len(samples)), np.int64)}
        return np.asarray(self._session.run(None, inputs)[0])[0, :rows]


class SpeechEncoder:
    """Several encoders side by side: their features are concatenated, frame by frame.

    The default is Moonshine, which knows phones, with mel energies, which know when things happen.
    """

    def __init__(self, parts: Sequence[AudioEncoder]) -> None:
        self.parts = tuple(parts)
        self.dim = sum(part.dim for part in parts)

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    @property
    def config(self) -> dict[str, Any]:
        """What :func:`build_encoder` needs to make the same encoder."""
        return {"parts": [part.config for part in self.parts]}


def build_encoder(config: Any, where: Where = "The configuration") -> SpeechEncoder:
    """The encoder that ``config`` (of a checkpoint) describes.

    Args:
        config: As `SpeechEncoder.config`.
        where: What an error names: the file that it comes from.

    Raises:
        AvatarError: A name is unknown, an option is wrong, or a pretrained part is not available.
    """
    from avatar.audio.encoders.whisper import WhisperEncoder  # needs nothing else, but torch

    known: dict[str, Any] = {kind.name: kind for kind in (MoonshineEncoder, MelEncoder, WhisperEncoder)}
    record, place = Record(config, f"{where}: encoder"), f"{where}: encoder"
    parts = []
    for part in record.list("parts", [record.data]):
        about = Record(part, place)
        if (name := about.text("name")) not in known:
            raise AvatarError(f"{place}: there is no audio encoder {name!r}.", why=f"Known are {', '.join(known)}.")
        ranges = {option: ends for option, ends in _OPTIONS[name].items() if option in about.data}
        parts.append(known[name](**{option: about.number(option, *ends) for option, ends in ranges.items()}))
    if not 0 < len(parts) <= len(known):
        raise AvatarError(f"{place} has {len(parts)} parts, not 1 to {len(known)}.")
    return SpeechEncoder(parts)


def speech_encoder(name: str = "auto") -> SpeechEncoder:
    """``moonshine`` (with mel), ``mel`` alone, or ``auto``: mel alone, with a warning, without Moonshine.

    Raises:
        AvatarError: Moonshine was asked for and is not available.
    """
    if name == "mel":
        return SpeechEncoder([MelEncoder()])
    try:
        return SpeechEncoder([MoonshineEncoder(), MelEncoder()])
    except AvatarError as error:
        if name != "auto":
            raise
        warn(f"{error} Going on with plain mel energies as speech features: the lips will follow the sound less well.")
        return SpeechEncoder([MelEncoder()])


@dataclass(frozen=True)
class FrameFeatures:
    """A run of consecutive video frames.

    Attributes:
        features: [n, dim] float32.
        energy: [n] float32, speech loudness in dB relative to full scale, at least `ENERGY_FLOOR_DB`.
    """

    features: np.ndarray
    energy: np.ndarray

    def __len__(self) -> int:
        return len(self.energy)


def stream_features(
    encoder: SpeechEncoder | AudioEncoder,
    chunks: Iterable[np.ndarray],
    fps: float,
    *,
    num_frames: int | None = None,
    offset: float = 0.0,
) -> Iterator[FrameFeatures]:
    """Features and loudness at the times of video frames, linearly interpolated, in constant memory.

    Args:
        encoder: Makes the features.
        chunks: 16 kHz mono float32 of any chunk size.
        fps: Video frames per second.
        num_frames: How many frames to return; the last row is repeated where the sound ends early. None: as many as
            begin within the sound.
        offset: Frames. Frame t gets the sound at time ``(t + offset) / fps``: positive where the sound is late.

    Yields:
        Blocks of at least one frame.
    """
    parts = encoder.parts if isinstance(encoder, SpeechEncoder) else (encoder,)
    tee = _Tee(chunks, 1 + len(parts))
    start = offset / fps
    columns = [_at_frames(_energy(tee.reader(0)), SAMPLE_RATE / _HOP, 0.0, fps, start)]
    for i, part in enumerate(parts):
        columns.append(_at_frames(part.stream(tee.reader(i + 1)), part.rate, part.first, fps, start))
    done = 0
    last: np.ndarray | None = None
    for rows in _side_by_side(columns):
        limit = num_frames
        if limit is None and tee.ended:
            limit = tee.frames(fps, offset)
        last = rows if limit is None else rows[: limit - done]
        if len(last):
            done += len(last)
            yield FrameFeatures(np.ascontiguousarray(last[:, 1:]), np.ascontiguousarray(last[:, 0]))
        if limit is not None and done >= limit:
            return
    missing = (num_frames if num_frames is not None else tee.frames(fps, offset)) - done
    if missing > 0 and last is not None and len(last):  # the last rows of an encoder end before the sound does
        yield FrameFeatures(np.repeat(last[-1:, 1:], missing, 0), np.repeat(last[-1:, 0], missing))


def features_at(
    encoder: SpeechEncoder | AudioEncoder,
    samples: np.ndarray,
    fps: float,
    num_frames: int | None = None,
    offset: float = 0.0,
) -> FrameFeatures:
    """:func:`stream_features` of a whole array [N] at once."""
    blocks = list(stream_features(encoder, chunked(samples), fps, num_frames=num_frames, offset=offset))
    return FrameFeatures(np.concatenate([b.features for b in blocks]), np.concatenate([b.energy for b in blocks]))


class _Tee:
    """One stream of chunks for several readers; holds only what one has read and another has not."""

    def __init__(self, chunks: Iterable[np.ndarray], readers: int) -> None:
        self._source = iter(chunks)
        self._queues: list[deque[np.ndarray]] = [deque() for _ in range(readers)]
        self.count = 0
        self.ended = False

    def frames(self, fps: float, offset: float) -> int:
        """Video frames that begin within the sound; at least one."""
        return max(1, int(np.ceil(self.count / SAMPLE_RATE * fps - offset - 1e-6)))

    def reader(self, index: int) -> Iterator[np.ndarray]:
        queue = self._queues[index]
        while True:
            if not queue:
                chunk = None if self.ended else next(self._source, None)
                if chunk is None:
                    self.ended = True
                    return
                _check(chunk)
                self.count += len(chunk)
                for other in self._queues:
                    other.append(chunk)
            yield queue.popleft()


def _check(chunk: np.ndarray) -> None:
    """Raise where a program hands over what is no 16 kHz mono sound."""
    if chunk.ndim != 1 or not np.issubdtype(chunk.dtype, np.floating):
        raise AvatarError(
            "Sound has to come as floating-point samples [N] of one channel,",
            why=f"not as {chunk.dtype} {list(chunk.shape)}.",
            fix="Mix the channels, and divide whole numbers by their full scale.",
        )
    if not np.isfinite(chunk).all():
        raise AvatarError("The sound contains samples that are not numbers (NaN or infinite).")
    if len(chunk) and np.abs(chunk).max() > _LOUDEST:
        raise AvatarError("The samples of a sound have to be within -1 and 1,", why=f"not {np.abs(chunk).max():g}.")


def _side_by_side(columns: Sequence[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """Blocks of rows, concatenated, as soon as all columns have them; a column that ends early repeats its last row
    until all have ended."""
    held: list[np.ndarray | None] = [None] * len(columns)  # rows not yet given
    last: list[np.ndarray | None] = [None] * len(columns)  # the last one that was given
    ended = [False] * len(columns)
    while True:
        for i, column in enumerate(columns):
            block = held[i]
            if (block is None or not len(block)) and not ended[i]:
                more = next(column, None)
                if more is None:
                    ended[i] = True
                else:
                    held[i] = more
        blocks = [block for block in held if block is not None]
        if len(blocks) < len(columns):
            if any(end and block is None for block, end in zip(held, ended, strict=True)):
                return  # there is nothing to repeat
            continue
        sizes = [len(block) for block in blocks]
        if all(ended) and not max(sizes):
            return
        size = max(sizes) if all(ended) else min(n for n, end in zip(sizes, ended, strict=True) if not end)
        if not size:
            continue
        for i, block in enumerate(blocks):
            blocks[i], held[i] = _filled(block[:size], last[i], size), block[size:]
            last[i] = blocks[i][-1:]
        yield np.concatenate(blocks, 1)


def _filled(rows: np.ndarray, before: np.ndarray | None, size: int) -> np.ndarray:
    """Rows [n, F], their last one (or the one ``before`` them) repeated until there are ``size``."""
    if len(rows) == 0 and before is not None:
        rows = before
    return np.pad(rows, ((0, size - len(rows)), (0, 0)), "edge")


def _at_frames(
    blocks: Iterable[np.ndarray], rate: float, first: float, fps: float, start: float
) -> Iterator[np.ndarray]:
    """Rows at times ``start + t / fps`` from rows at ``first + k / rate``; the first row holds before its time.

    Where there are several rows to a frame they are first averaged with a triangle as wide as two frames, so that
    nothing between two frames is lost. Ends with the last row (the frame at or just after it included).
    """
    if rate == fps and first == start:  # the rows are the frames': nothing to wait for
        yield from blocks
        return
    half = max(1.0, rate / fps)  # rows on each side of the triangle
    reach = int(np.ceil(half))
    held: np.ndarray | None = None
    base = 0  # row number of held[0]
    frame = 0

    def emit(held: np.ndarray, final: bool) -> np.ndarray:
        """The frames that the rows at hand are enough for."""
        nonlocal frame
        top = base + len(held) - (1 if final else half)  # rows further away than that have no weight
        last = int(np.floor((top / rate + first - start) * fps + 1e-9)) + int(final)
        if last < frame:
            return held[:0]
        at = ((start + np.arange(frame, last + 1) / fps) - first) * rate  # in rows
        nearest = np.floor(at).astype(int)[:, None] + np.arange(-reach + 1, reach + 1)
        weight = np.maximum(0, 1 - np.abs(nearest - at[:, None]) / half)
        weight /= weight.sum(1, keepdims=True)
        rows = np.clip(nearest - base, 0, len(held) - 1)
        out = np.einsum("nk,nkf->nf", weight.astype(np.float32), held[rows])
        frame = last + 1
        return out

    for block in blocks:
        if len(block) == 0:
            continue
        held = block if held is None else np.concatenate([held, block])
        out = emit(held, False)
        if len(out):
            yield out
        needed = int(np.floor(((start + frame / fps) - first) * rate)) - reach
        drop = min(max(0, needed - base), len(held) - 1)
        held, base = held[drop:], base + drop
    if held is not None:
        out = emit(held, True)
        if len(out):
            yield out


def _energy(chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Blocks [n, 1] of loudness in the speech band, dB relative to full scale, every 10 ms."""
    frequency = np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT
    band = (frequency >= _SPEECH_BAND[0]) & (frequency <= _SPEECH_BAND[1])
    for power in _power_spectra(chunks):
        decibels = 10 * np.log10(power[:, band].sum(1) + 1e-12)
        yield np.maximum(decibels, ENERGY_FLOOR_DB).astype(np.float32)[:, None]


def _power_spectra(chunks: Iterable[np.ndarray], block: int = 4) -> Iterator[np.ndarray]:
    """Power spectra [n, 257] of 25 ms Hann windows centred on every multiple of 10 ms.

    Scaled so that the sum over bins is the mean square of the windowed samples (Parseval).
    """
    window = np.hanning(_FRAME + 1)[:-1].astype(np.float32)
    scale = np.full(_FFT // 2 + 1, 2.0)
    scale[[0, -1]] = 1
    scale /= _FFT * np.square(window).sum()
    offsets = np.arange(_FRAME)
    held = np.zeros(_FRAME // 2, np.float32)
    total = emitted = 0

    def spectra(count: int) -> np.ndarray:
        frames = held[np.arange(count)[:, None] * _HOP + offsets] * window
        return (np.abs(np.fft.rfft(frames, _FFT)) ** 2 * scale).astype(np.float32)

    for chunk in chunks:
        held = np.concatenate([held, chunk])
        total += len(chunk)
        while len(held) >= (block - 1) * _HOP + _FRAME:
            yield spectra(block)
            emitted += block
            held = held[block * _HOP :]
    rest = total // _HOP + 1 - emitted if total else 0
    if rest > 0:
        held = np.pad(held, (0, max(0, (rest - 1) * _HOP + _FRAME - len(held))))
        yield spectra(rest)


@functools.cache
def _mel_filters(bands: int, low: float = 60.0, high: float = 7600.0) -> np.ndarray:
    """Triangles [257, bands], each of unit area in bins."""

    def mel(f):
        return 2595 * np.log10(1 + f / 700)

    edges = 700 * (10 ** (np.linspace(mel(low), mel(high), bands + 2) / 2595) - 1)
    frequency = np.arange(_FFT // 2 + 1)[:, None] * SAMPLE_RATE / _FFT
    rise = (frequency - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - frequency) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rise, fall))
    # The lowest filters are narrower than one bin: give each at least its nearest bin.
    nearest = np.abs(frequency - edges[1:-1]).argmin(0)
    filters[nearest, np.arange(bands)] = np.maximum(filters[nearest, np.arange(bands)], 1e-3)
    return (filters / filters.sum(0)).astype(np.float32)


def _moonshine_session(threads: int) -> Any:
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
