"""Listening to tracks and channels at a few places of a file: which carry a voice, which can be mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, cast

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from av import AudioFrame, AudioStream
    from av.container import InputContainer

RATE = 16_000
_WHOLE_SECONDS = 90.0  # up to this length a file is heard from end to end
_PLACES = 15
_PLACE_SECONDS = 4.0
_MOST_CHANNELS = 16
_SILENT_DB = -60.0  # dBFS in every tenth of a second: below the hiss of any microphone
_VOICE_SHARE = 0.01  # of the audible time with a gliding pitch; noise, hum and chords have 0.00, speech 0.07 to 0.6
_AUDIBLE_BELOW = 30.0  # dB below the loudest moments
# Of the audible time with a pitch that goes on: whispers and speech in noise have 0.00 to 0.04, music 0.14 to 0.86.
_HELD_SHARE = 0.08
_CHANGING_DB = 8.0  # between loud and quiet moments; noise and hum have 3
_PITCH = (70.0, 400.0)  # hertz
_PERIODIC = 0.5  # autocorrelation that a pitch has
_EMPHASIS = 0.9
_SMOOTH_STEP = 0.04  # of the pitch, from one frame to the next
_GLIDE_FRAMES = (5, 300)
_GLIDE = 0.03  # of the pitch, within such a run; a note stands still
_FRAME, _HOP = 640, 160  # samples of 40 and 10 ms
_MOMENT = 320  # samples, 20 ms
_LOUD_SHARE = 90  # percentile of what is audible that is the level of a voice: a pause more or less does not change it
_WINDOW = 4000  # samples; channels are compared in quarters of a second
_LOUD_BELOW = 25.0  # dB below the loudest windows
_MIX_LOSES_DB = 5.5  # against the best channel; equal voices that have nothing in common lose 3
_LOSING_SHARE = 0.1  # of the loud windows
_OPPOSED = -0.3  # correlation of channels that cancel each other
_CANCELLING_SHARE = 0.05  # of the loud windows
_COMPARABLE_DB = 20.0  # by which a channel may be quieter and still cancel something
_LEADS_DB, _LEADS_SHARE = 3.0, 0.9  # the best channel is about the loudest one in so many of them


class AudioContent(IntEnum):
    """What a track or a channel carries, from the least to the most useful."""

    SILENCE = 0
    NOISE = 1
    SOUND = 2
    VOICE = 3


@dataclass
class Excerpts:
    """Samples [C, n] of a track at 16 kHz, place after place."""

    places: list[np.ndarray] = field(default_factory=list)

    @property
    def channels(self) -> int:
        return min((len(place) for place in self.places), default=0)

    def channel(self, number: int) -> list[np.ndarray]:
        """One channel [n] of every place."""
        return [place[number] for place in self.places]

    def mixed(self) -> list[np.ndarray]:
        """The mean of the channels [n] of every place."""
        return [place.mean(0) for place in self.places]


def excerpts(container: InputContainer, streams: Sequence[AudioStream], seconds: float | None) -> dict[int, Excerpts]:
    """Decode some places of several tracks, all channels, in one go.

    Args:
        container: The opened file; it is sought through if it is long.
        streams: The tracks.
        seconds: Length of the file; None or 0 where unknown.

    Returns:
        Excerpts by the index of the stream; of a track that cannot be decoded there are none.
    """
    import av
    from av.stream import Discard

    found = {stream.index: Excerpts() for stream in streams}
    for stream in container.streams:
        if stream.index not in found:
            stream.discard = Discard.all  # where the format can, it skips them without reading
    if not seconds or seconds <= _WHOLE_SECONDS:
        _listen(container, streams, found, None, _WHOLE_SECONDS)
        return found
    begin = (container.start_time or 0) / av.time_base
    for k in range(_PLACES):
        at = begin + (k + 0.5) / _PLACES * (seconds - _PLACE_SECONDS)
        try:
            container.seek(int(at * av.time_base), backward=True, any_frame=False)
        except av.FFmpegError:
            break
        _listen(container, streams, found, at, _PLACE_SECONDS)
    return found


def _listen(
    container: InputContainer, streams: Sequence[AudioStream], found: dict[int, Excerpts], at: float | None, most: float
) -> None:
    """Decode one place of every track until each has enough, or the place is over."""
    import av

    blocks: dict[int, list[np.ndarray]] = {stream.index: [] for stream in streams}
    mixers = {stream.index: _Channels() for stream in streams}
    left = {stream.index: most for stream in streams}
    with suppress(av.FFmpegError):  # excerpts end there; decoding the whole track reports the damage
        for packet in container.demux(*streams):
            index = packet.stream.index
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is not None and packet.time_base is not None:
                time = float(stamp * packet.time_base)
                at = time if at is None else at
                if time < at - 0.5:
                    continue
                if time > at + 2 * most:
                    break
            if left[index] <= 0:
                continue
            with suppress(av.FFmpegError, ValueError):
                for frame in cast("list[AudioFrame]", packet.decode()):
                    blocks[index] += mixers[index].push(frame)
                    left[index] -= frame.samples / max(1, frame.sample_rate)
            if max(left.values()) <= 0:
                break
    for index, parts in blocks.items():
        parts += mixers[index].flush()
        if parts and min(map(len, parts)) == max(map(len, parts)):
            samples = np.concatenate(parts, 1)
            found[index].places.append(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0))


class _Channels:
    """Resamples frames to 16 kHz and keeps their channels apart."""

    def __init__(self) -> None:
        from av.audio.resampler import AudioResampler

        # Not planar: with eight planes and more, PyAV reads beyond FFmpeg's list of them.
        self._resampler = AudioResampler(format="flt", rate=RATE)

    def push(self, frame: AudioFrame) -> list[np.ndarray]:
        frame.pts = None
        return [_apart(part) for part in self._resampler.resample(frame)]

    def flush(self) -> list[np.ndarray]:
        from av import FFmpegError

        try:
            return [_apart(part) for part in self._resampler.resample(None)]
        except (FFmpegError, ValueError, OSError):
            return []


def _apart(frame: AudioFrame) -> np.ndarray:
    """Channels [C, n] of a frame whose samples are interleaved."""
    return frame.to_ndarray().reshape(-1, frame.layout.nb_channels).T[:_MOST_CHANNELS]


def audio_content(places: Sequence[np.ndarray]) -> AudioContent:
    """Judge samples [n] of several places: what carries a voice, what changes, what is noise, what is silence.

    A voice has a pitch that glides; notes of music stand still, and noise has none.
    """
    return judged(places)[0]


def judged(places: Sequence[np.ndarray]) -> tuple[AudioContent, float]:
    """What is heard, and the share of audible time with a gliding pitch."""
    parts = [_pitch(frames) for samples in places for frames in _frames(samples)]
    if not parts:
        return AudioContent.SILENCE, 0.0
    level = np.concatenate([level for level, _ in parts])
    glides = np.concatenate([_glides(pitch) for _, pitch in parts])
    if level.max() < _SILENT_DB:
        return AudioContent.SILENCE, 0.0
    audible = level > max(_SILENT_DB, np.percentile(level, 98) - _AUDIBLE_BELOW)
    share = float(glides[audible].mean())
    if share >= _VOICE_SHARE:
        return AudioContent.VOICE, share
    power = np.convolve(10 ** (level / 10), np.ones(10) / 10, "valid") if len(level) > 10 else 10 ** (level / 10)
    span = 10 * float(np.log10(np.percentile(power, 95) / max(np.percentile(power, 10), 1e-12)))
    return (AudioContent.SOUND if span > _CHANGING_DB else AudioContent.NOISE), share


def moments_db(samples: Float[np.ndarray, " N"]) -> Float[np.ndarray, " n"]:
    """Levels [n] in dBFS of moments of 20 ms; what is left at the end is left out."""
    moments = samples[: len(samples) // _MOMENT * _MOMENT].reshape(-1, _MOMENT)
    moments = moments - moments.mean(1, keepdims=True)
    return 10 * np.log10(np.square(moments, dtype=np.float64).mean(1) + 1e-12)


def voice_level(levels: Float[np.ndarray, " n"]) -> float | None:
    """Level in dBFS at which somebody speaks, from :func:`moments_db`: that of the loud moments; None in silence."""
    if not len(levels):
        return None
    audible = levels > max(_SILENT_DB, np.percentile(levels, 98) - _AUDIBLE_BELOW)
    return float(np.percentile(levels[audible], _LOUD_SHARE)) if audible.any() else None


def level_to_match(places: Sequence[np.ndarray], content: AudioContent) -> float | None:
    """Find the level in dBFS at which somebody speaks in samples; None where it may be nobody.

    Without a gliding pitch somebody may whisper, or speak in noise. What changes and holds no pitch is taken for that;
    music has notes.

    Args:
        places: Samples [n] of several places, at 16 kHz.
        content: What :func:`audio_content` judges them to be.
    """
    if content is AudioContent.SOUND:
        parts = [_pitch(frames) for samples in places for frames in _frames(samples)]
        level, period = (np.concatenate(values) for values in zip(*parts, strict=True))
        audible = level > max(_SILENT_DB, np.percentile(level, 98) - _AUDIBLE_BELOW)
        if _held(period)[audible].mean() >= _HELD_SHARE:
            return None
    elif content is not AudioContent.VOICE:
        return None
    return voice_level(np.concatenate([moments_db(place) for place in places]))


def _frames(samples: np.ndarray) -> Iterator[np.ndarray]:
    """Frames [m, 640] of blocks of ten seconds."""
    for start in range(0, len(samples), 10 * RATE):
        part = samples[start : start + 10 * RATE + _FRAME - _HOP]
        if len(part) >= _FRAME + 2 * _HOP:
            yield np.lib.stride_tricks.sliding_window_view(part.astype(np.float32), _FRAME)[::_HOP]


def _pitch(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level in dBFS [m], and the logarithm of the period in samples [m], NaN where there is none.

    The pitch is the first high peak of the autocorrelation, corrected for the window (Boersma 1993).
    """
    frames = frames - frames.mean(1, keepdims=True)
    level = 10 * np.log10(np.square(frames).mean(1) + 1e-12)
    window = np.hanning(_FRAME - 1).astype(np.float32)

    def correlate(rows: np.ndarray) -> np.ndarray:
        spectrum = np.fft.rfft(rows, 2048)
        return np.fft.irfft(spectrum.real**2 + spectrum.imag**2)[..., : _FRAME // 2]

    low, high = int(RATE / _PITCH[1]), int(RATE / _PITCH[0])
    sharp = frames[:, 1:] - _EMPHASIS * frames[:, :-1]  # rumble has slow waves that look like a pitch
    curve = correlate(sharp * window)
    curve = curve / np.maximum(curve[:, :1], 1e-9) / (correlate(window) / (window @ window))
    inner = curve[:, low : high + 1]
    peaks = inner * ((inner >= curve[:, low - 1 : high]) & (inner >= curve[:, low + 1 : high + 2]))
    lag = np.argmax((peaks > 0) & (peaks >= peaks.max(1, keepdims=True) - 0.05), 1) + low
    rows = np.arange(len(frames))
    before, top, after = curve[rows, lag - 1], curve[rows, lag], curve[rows, lag + 1]
    bend = np.minimum(before - 2 * top + after, -1e-6)
    period = np.log(lag + np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
    return level, np.where((top > _PERIODIC) & (level > _SILENT_DB - 5), period, np.nan)


def _runs(period: np.ndarray) -> np.ndarray:
    """First frame and end [n, 2] of the stretches where a pitch [m] goes on smoothly, as long as a syllable or more."""
    smooth = np.abs(np.diff(period, prepend=np.nan)) < _SMOOTH_STEP
    edges = np.flatnonzero(np.diff(np.concatenate([[False], smooth, [False]]))).reshape(-1, 2)
    return edges[edges[:, 1] - edges[:, 0] >= _GLIDE_FRAMES[0]]


def _held(period: np.ndarray) -> np.ndarray:
    """Where a pitch [m] goes on smoothly, whether it glides or stands still."""
    result = np.zeros(len(period), bool)
    for begin, end in _runs(period):
        result[begin:end] = True
    return result


def _glides(period: np.ndarray) -> np.ndarray:
    """Where a pitch [m] goes on smoothly, without standing still, as long as a syllable or a phrase."""
    result = np.zeros(len(period), bool)
    for begin, end in _runs(period):
        if end - begin <= _GLIDE_FRAMES[1]:
            mean = np.convolve(period[begin:end], np.ones(4) / 4, "valid")  # chords make it tremble
            result[begin:end] = np.ptp(mean) > _GLIDE
    return result


def channel_to_take(samples: Excerpts) -> int | None:
    """Choose the only channel to listen to where mixing all of them would lose the voice; None: mix.

    Mixing loses it where channels cancel each other (one is inverted), where the voice is in one channel and the rest
    is noise or silence, and where it is in the centre of many.
    """
    count = samples.channels
    if count < 2:
        return None
    windows = [
        place[:, : place.shape[1] // _WINDOW * _WINDOW].reshape(len(place), -1, _WINDOW)
        for place in samples.places
        if place.shape[1] >= _WINDOW and len(place) == count
    ]
    if not windows:
        return None
    joined = np.concatenate(windows, 1)
    joined = joined - joined.mean(2, keepdims=True)
    power = np.square(joined).mean(2) + 1e-12  # [C, W]
    mixed = np.square(joined.mean(0)).mean(1) + 1e-12
    if 10 * np.log10(power.max()) < _SILENT_DB:
        return None
    kinds = [audio_content(samples.channel(i)) for i in range(count)] if count <= 8 else [AudioContent.SOUND] * count
    best_kind = max(kinds)
    useful = [i for i in range(count) if kinds[i] == best_kind]
    strongest = power[useful].max(0)
    loud = strongest > np.percentile(strongest, 95) * 10 ** (-_LOUD_BELOW / 10)
    best = max(useful, key=lambda i: (round(10 * np.log10(power[i, loud].mean()), 1), -i))
    if _cancels(joined[:, loud], power[:, loud], best, useful) >= _CANCELLING_SHARE:
        return best
    leads = (power[best, loud] >= strongest[loud] * 10 ** (-_LEADS_DB / 10)).mean()
    if leads < _LEADS_SHARE:
        return None
    # What the other channels add to the mix that is no voice counts as lost, too.
    useless = [i for i in range(count) if i not in useful]
    noise = np.square(joined[useless].sum(0) / count).mean(1) if useless else np.zeros(len(mixed))
    loses = (mixed[loud] < power[best, loud] * 10 ** (-_MIX_LOSES_DB / 10)) | (noise[loud] > 0.01 * mixed[loud])
    return best if loses.mean() >= _LOSING_SHARE else None


def _cancels(windows: np.ndarray, power: np.ndarray, best: int, useful: Sequence[int]) -> float:
    """The share of windows [C, W, n] in which another channel of comparable power [C, W] opposes the best one."""
    opposed = np.zeros(power.shape[1], bool)
    for other in useful:
        alike = power[other] > power[best] * 10 ** (-_COMPARABLE_DB / 10)
        correlation = (windows[best] * windows[other]).mean(1) / np.sqrt(power[best] * power[other])
        opposed |= alike & (correlation < _OPPOSED)
    return float(opposed.mean()) if len(opposed) else 0.0
