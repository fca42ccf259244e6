"""Audio in and out: whatever ffmpeg reads becomes 16 kHz mono float32, streamed, so that an hour costs no memory."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avatar.checks import number
from avatar.errors import AvatarError
from avatar.io.media import ADVICE, ffmpeg_reason, open_media
from avatar.writing import atomic_file

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream
    from av.container import InputContainer

SAMPLE_RATE = 16000
SILENCE_DB = -60.0  # dBFS; quieter than this in every tenth of a second is silence, below the hiss of any microphone
_GAP_SECONDS = 0.05  # timestamps further off than this are a real gap or overlap, not rounding
_MAX_GAP_SECONDS = 60.0  # a longer jump is a broken timestamp, not a pause
_MAX_SILENCE_SECONDS = 3600.0  # filled in, all in all
_MAX_OVERLAP_SECONDS = 3600.0  # dropped, all in all; decoding it takes time all the same
_MAX_SECONDS_HELD = 4 * 3600.0  # at once: one gigabyte
SAMPLE_RATES = (1000, 1_536_000)  # hertz
_LEAST_BITS_PER_SECOND = 400  # of the leanest codec; a header that promises more time than that is not believed


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """Header of a file's first audio track.

    Attributes:
        duration: Seconds; None where only decoding would tell (some streams).
        sample_rate: Hertz, of the source.
        channels: Channels of the source.
        start: Seconds; the container time of the track's first sample.
        codec: ffmpeg's name of the codec.
    """

    duration: float | None
    sample_rate: int
    channels: int
    start: float
    codec: str


def probe_audio(path: Path | str) -> AudioInfo:
    """Read the header of a file without decoding it.

    Raises:
        AvatarError: The file is missing, empty, unreadable, or has no audio track.
    """
    import av

    path = Path(path)
    try:
        with open_media(path, "audio") as container:
            if not container.streams.audio:
                raise AvatarError(
                    f"{path} has no audio track.", fix="Give a file with audio: wav, flac, mp3, m4a, mp4."
                )
            stream = container.streams.audio[0]
            if stream.codec_context is None:  # PyAV: FFmpeg has no decoder
                raise ValueError("its audio is coded in a way that FFmpeg does not know")
            start = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
            if stream.duration is not None and stream.time_base:
                duration = float(stream.duration * stream.time_base)
            else:
                duration = container.duration / av.time_base if container.duration else None
            if duration is not None and not 0 <= duration * _LEAST_BITS_PER_SECOND <= 8 * path.stat().st_size + 8e5:
                duration = None
            number(stream.rate, f"{path}: the sample rate", *SAMPLE_RATES)
            return AudioInfo(
                duration=duration,
                sample_rate=stream.rate or 0,
                channels=stream.channels or 0,
                start=start,
                codec=stream.codec_context.name,
            )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise AvatarError(
            f"{path} is not an audio file that can be read:", why=f"{ffmpeg_reason(error)}.", fix=ADVICE["audio"]
        ) from None


def stream_audio(
    path: Path | str, chunk_seconds: float = 1.0, *, start: float | None = None, sample_rate: int = SAMPLE_RATE
) -> Iterator[np.ndarray]:
    """Decode a file piece by piece in constant memory.

    Timestamps are honoured: a gap in the track becomes silence of the same length, an overlap is dropped, so sample
    ``n`` belongs to container time ``start + n / sample_rate`` however long the file is.

    Args:
        path: Anything ffmpeg reads.
        chunk_seconds: Length of each chunk but the last.
        start: Container time of the first sample returned, seconds. None: where the track begins. To lay audio under
            a video, give the time of its first frame.
        sample_rate: Hertz, of the result.

    Yields:
        [chunk_seconds * sample_rate] float32 mono, nominally within -1..1.

    Raises:
        AvatarError: Missing, unreadable, without audio, of zero length, or with samples that are not numbers.
    """
    return open_audio(path, chunk_seconds, start=start, sample_rate=sample_rate)[1]


def open_audio(
    path: Path | str, chunk_seconds: float = 1.0, *, start: float | None = None, sample_rate: int = SAMPLE_RATE
) -> tuple[AudioInfo, Iterator[np.ndarray]]:
    """Read the header of a file, and its samples as :func:`stream_audio` gives them."""
    info = probe_audio(path)  # at once, not at the first chunk
    samples = _decode(Path(path), info.start if start is None else start, sample_rate)
    return info, _rechunk(samples, max(1, round(chunk_seconds * sample_rate)))


def load_audio(
    path: Path | str, *, start: float | None = None, sample_rate: int = SAMPLE_RATE, most_seconds: float | None = None
) -> np.ndarray:
    """Decode a whole file to [N] float32 mono; see :func:`stream_audio`.

    Raises:
        AvatarError: It cannot be decoded, or is longer than ``most_seconds``: then decoding stops there.
    """
    chunks, count = [], 0
    for chunk in stream_audio(path, 10.0, start=start, sample_rate=sample_rate):
        chunks.append(chunk)
        count += len(chunk)
        if most_seconds is not None and count > most_seconds * sample_rate:
            raise AvatarError(f"{path} is longer than {most_seconds / 60:g} minutes.", fix="Give a shorter part of it.")
        if count > _MAX_SECONDS_HELD * SAMPLE_RATE:
            raise AvatarError(f"{path} lasts more than {_MAX_SECONDS_HELD / 3600:.0f} hours.", fix="Cut it into parts.")
    return np.concatenate(chunks)


def write_wav(path: Path | str, chunks: np.ndarray | Iterable[np.ndarray], sample_rate: int = SAMPLE_RATE) -> int:
    """Write 16-bit mono PCM, atomically.

    Args:
        path: Where to.
        chunks: [N] float, -1..1 (louder is clipped), or an iterable of such pieces.
        sample_rate: Hertz.

    Returns:
        The number of samples written.
    """
    count = 0
    with atomic_file(Path(path)) as temporary, wave.open(str(temporary), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        for chunk in [chunks] if isinstance(chunks, np.ndarray) else chunks:
            file.writeframes(np.rint(np.clip(chunk, -1, 1) * 32767).astype("<i2").tobytes())
            count += len(chunk)
    return count


def chunked(samples: np.ndarray, size: int = SAMPLE_RATE) -> Iterator[np.ndarray]:
    """Cut an array into pieces, for functions that take a stream."""
    for i in range(0, len(samples), size):
        yield samples[i : i + size]


def loudness_db(samples: np.ndarray) -> float:
    """Root-mean-square level in dB relative to full scale; -inf for nothing at all."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return 10 * float(np.log10(power)) if power > 0 else -np.inf


def is_silent(chunks: np.ndarray | Iterable[np.ndarray], threshold_db: float = SILENCE_DB) -> bool:
    """Whether no tenth of a second is louder than ``threshold_db`` (dBFS RMS, a constant offset removed).

    Stops reading at the first one that is louder.
    """
    size = SAMPLE_RATE // 10
    for chunk in _rechunk([chunks] if isinstance(chunks, np.ndarray) else chunks, size):
        if loudness_db(chunk - chunk.mean()) > threshold_db:
            return False
    return True


def _decode(path: Path, start: float, sample_rate: int) -> Iterator[np.ndarray]:
    import av

    total = filled = overlap = 0
    try:
        with open_media(path, "audio") as container:
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate)
            expected: float | None = None
            skip = 0
            for frame in _frames(container, stream):
                if frame.samples == 0:
                    continue
                time = frame.time
                if filled > _MAX_SILENCE_SECONDS * sample_rate:
                    raise ValueError("its time stamps leave more than an hour empty")
                if expected is None:
                    offset = (start if time is None else time) - start
                    if offset > 0:
                        if offset > _MAX_SILENCE_SECONDS:
                            raise ValueError("it begins more than an hour late")
                        silence = round(offset * sample_rate)
                        yield from _silence(silence)
                        total += silence
                    else:
                        skip = round(-offset * sample_rate)
                    expected = start + max(offset, 0.0) if time is None else time
                elif time is not None and _GAP_SECONDS < abs(time - expected) < _MAX_GAP_SECONDS:
                    gap = round((time - expected) * sample_rate)
                    if gap > 0:
                        yield from _silence(gap)
                        total += gap
                        filled += gap
                    else:
                        skip -= gap
                        overlap -= gap
                        if overlap > _MAX_OVERLAP_SECONDS * sample_rate:
                            raise ValueError("more than an hour of it has time stamps of what was there before")
                    expected = time
                expected += frame.samples / max(1, frame.sample_rate)
                frame.pts = None  # the resampler would otherwise complain about jumps that are dealt with here
                for piece in resampler.resample(frame):
                    block = _checked(piece.to_ndarray().reshape(-1), path)
                    cut = min(skip, len(block))
                    skip -= cut
                    total += len(block) - cut
                    if cut < len(block):
                        yield block[cut:]
            if expected is not None:
                for piece in resampler.resample(None):
                    block = _checked(piece.to_ndarray().reshape(-1), path)
                    total += len(block)
                    yield block[skip:]
    except (av.FFmpegError, OSError, ValueError) as error:
        raise AvatarError(
            f"{path} cannot be decoded as audio:", why=f"{ffmpeg_reason(error)}.", fix=ADVICE["audio"]
        ) from None
    if total == 0:
        raise AvatarError(f"{path} contains no audio: its audio track has zero length.", fix=ADVICE["audio"])


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Decoded frames; damaged packets are passed over (their place is filled from the timestamps)."""
    import av

    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.InvalidDataError:
            continue


def _checked(block: np.ndarray, path: Path) -> np.ndarray:
    if not np.isfinite(block).all():
        raise AvatarError(
            f"{path} contains samples that are not numbers (NaN or infinite).",
            why="The program that wrote it went wrong.",
            fix="Export it again, for example as 16-bit wav.",
        )
    return block.astype(np.float32, copy=False)


def _silence(count: int) -> Iterator[np.ndarray]:
    while count > 0:
        size = min(count, 10 * SAMPLE_RATE)
        yield np.zeros(size, np.float32)
        count -= size


def _rechunk(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The same samples in pieces of ``size``; only the last may be shorter."""
    held: list[np.ndarray] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block)
        if count < size:
            continue
        joined = np.concatenate(held)
        whole = count - count % size
        for i in range(0, whole, size):
            yield joined[i : i + size]
        held, count = [joined[whole:]], count - whole
    if count:
        yield np.concatenate(held)
