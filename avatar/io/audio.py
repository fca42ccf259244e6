"""Audio in and out: whatever ffmpeg reads becomes 16 kHz mono float32, streamed, so that an hour costs no memory."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avatar.checks import number
from avatar.errors import AvatarError
from avatar.io.audio_decoder import decode
from avatar.io.audio_timing import TimingReport
from avatar.io.media import ADVICE, Treatment, ffmpeg_reason, open_media
from avatar.io.tracks import AudioChoice, choose_audio
from avatar.writing import atomic_file

SAMPLE_RATE = 16000
SILENCE_DB = -60.0  # dBFS; quieter than this in every tenth of a second is silence, below the hiss of any microphone
_MAX_SECONDS_HELD = 4 * 3600.0  # at once: one gigabyte
SAMPLE_RATES = (1000, 1_536_000)  # hertz
# Containers that say how long they are. Of the others FFmpeg guesses it from the bit rate, or from the last time stamp.
_EXACT = {"mov", "mp4", "matroska", "webm", "wav", "w64", "flac", "ogg", "aiff", "au", "caf", "avi", "asf", "mxf"}
_LEAST_BITS_PER_SECOND = 400  # of the leanest codec; a header that promises more time than that is not believed


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """Header of a file's audio track, the one that is read.

    Attributes:
        duration: Seconds; None where only decoding would tell (some streams).
        sample_rate: Hertz, of the source.
        channels: Channels of the source.
        start: Seconds; the container time of the track's first sample.
        codec: ffmpeg's name of the codec.
        choice: The track and channels that are read, and why.
    """

    duration: float | None
    sample_rate: int
    channels: int
    start: float
    codec: str
    choice: AudioChoice

    @property
    def treatments(self) -> tuple[Treatment, ...]:
        """Which track and channels were taken, where there was a choice."""
        return self.choice.treatments


def probe_audio(path: Path | str, track: int | None = None) -> AudioInfo:
    """Read the header of a file; of several tracks or channels, some seconds are listened to.

    Args:
        path: The file.
        track: Number of the audio track from 1; None: see :func:`avatar.io.tracks.choose_audio`.

    Raises:
        AvatarError: The file is missing, empty, unreadable, or has no audio track.
    """
    import av

    path = Path(path)
    try:
        choice = choose_audio(path, track)
        with open_media(path, "audio") as container:
            stream = container.streams.audio[choice.index]
            start = float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0
            if not _EXACT & set(container.format.name.split(",")):
                duration = None
            elif stream.duration is not None and stream.time_base:
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
                choice=choice,
            )
    except (av.FFmpegError, OSError, ValueError) as error:
        raise AvatarError(
            f"{path} is not an audio file that can be read:", why=f"{ffmpeg_reason(error)}.", fix=ADVICE["audio"]
        ) from None


def stream_audio(
    path: Path | str, chunk_seconds: float = 1.0, *, start: float | None = None, sample_rate: int = SAMPLE_RATE,
    track: int | None = None, timing: TimingReport | None = None,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Decode a file piece by piece in constant memory.

    Time stamps are honoured: a gap in the track becomes silence of the same length, an overlap is dropped, a sample
    clock that runs apart is followed. So sample ``n`` belongs to container time ``start + n / sample_rate`` however
    long the file is.

    Args:
        path: Anything ffmpeg reads.
        chunk_seconds: Length of each chunk but the last.
        start: Container time of the first sample returned, seconds. None: where the track begins. To lay audio under
            a video, give the time of its first frame.
        sample_rate: Hertz, of the result.
        track: Number of the audio track from 1; None: see :func:`avatar.io.tracks.choose_audio`.
        timing: Gets what is done to the time of the audio, as it is read.

    Yields:
        [chunk_seconds * sample_rate] float32 mono, nominally within -1..1.

    Raises:
        AvatarError: Missing, unreadable, without audio, of zero length, or with samples that are not numbers.
    """
    return open_audio(path, chunk_seconds, start=start, sample_rate=sample_rate, track=track, timing=timing)[1]


def open_audio(
    path: Path | str, chunk_seconds: float = 1.0, *, start: float | None = None, sample_rate: int = SAMPLE_RATE,
    track: int | None = None, timing: TimingReport | None = None,
) -> tuple[AudioInfo, Iterator[np.ndarray]]:  # fmt: skip
    """Read the header of a file, and its samples as :func:`stream_audio` gives them."""
    info = probe_audio(path, track)  # at once, not at the first chunk
    samples = _decode(Path(path), info.choice, info.start if start is None else start, sample_rate, timing)
    return info, _rechunk(samples, max(1, round(chunk_seconds * sample_rate)))


def load_audio(
    path: Path | str, *, start: float | None = None, sample_rate: int = SAMPLE_RATE, most_seconds: float | None = None,
    track: int | None = None, timing: TimingReport | None = None,
) -> np.ndarray:  # fmt: skip
    """Decode a whole file to [N] float32 mono; see :func:`stream_audio`.

    Raises:
        AvatarError: It cannot be decoded, or is longer than ``most_seconds``: then decoding stops there.
    """
    chunks, count = [], 0
    for chunk in stream_audio(path, 10.0, start=start, sample_rate=sample_rate, track=track, timing=timing):
        chunks.append(chunk)
        count += len(chunk)
        if most_seconds is not None and count > most_seconds * sample_rate:
            raise AvatarError(f"{path} is longer than {most_seconds / 60:g} minutes.", fix="Give a shorter part of it.")
        if count > _MAX_SECONDS_HELD * SAMPLE_RATE:
            raise AvatarError(f"{path} lasts more than {_MAX_SECONDS_HELD / 3600:.0f} hours.", fix="Cut it into parts.")
    return np.concatenate(chunks)


def read_audio(
    path: Path | str, start: float, duration: float, track: int | None = None,
    treatments: list[Treatment] | None = None, timing: TimingReport | None = None,
) -> Iterator[np.ndarray]:  # fmt: skip
    """Read the audio of a video, exactly as long as it: int16 mono chunks at 16 kHz, gaps as silence.

    Args:
        path: The file.
        start: Time of the first frame on the file's clock, seconds.
        duration: Seconds.
        track: Number of the audio track from 1; None: see :func:`avatar.io.tracks.choose_audio`.
        treatments: Gets which track and channel were taken, and what was done to the time of the audio.
        timing: Gets what was done to the time in numbers, with the silence before and after the track.

    Yields:
        int16 [n]; nothing if there is no audio track.

    Raises:
        AvatarError: The audio cannot be decoded.
    """
    with open_media(path, "audio") as container:
        if not container.streams.audio:
            return
    total = round(duration * SAMPLE_RATE)
    written = 0
    timing = TimingReport() if timing is None else timing
    info, chunks = open_audio(path, start=start, track=track, timing=timing)
    for chunk in chunks:
        chunk = chunk[: total - written]
        written += len(chunk)
        yield np.clip(np.rint(chunk * np.float32(32768)), -32768, 32767).astype(np.int16)
        if written >= total:
            break
    timing.before = max(0.0, (start if timing.begins is None else timing.begins) - start)
    timing.after = (total - written) / SAMPLE_RATE
    if written < total:
        yield np.zeros(total - written, np.int16)
    if treatments is not None:
        treatments += [*info.treatments, *timing.treatments()]


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


def _decode(
    path: Path, choice: AudioChoice, start: float, sample_rate: int, timing: TimingReport | None
) -> Iterator[np.ndarray]:
    total = 0
    for block in decode(path, choice, start=start, rate=sample_rate, report=timing):
        total += block.shape[1]
        if block.shape[1]:
            yield block[0]
    if total == 0:
        raise AvatarError(f"{path} contains no audio: its audio track has zero length.", fix=ADVICE["audio"])


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
