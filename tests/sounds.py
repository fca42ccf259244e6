"""Small audio files with several tracks, odd time stamps and channels that cancel; a voice that needs no package."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from avatar.synth import speech

RATE = 24_000
TEXT = "Mama may bake a big pie. Papa moves the blue boat. We saw you open a map by the bay."


class Sound(NamedTuple):
    """A track: samples [n], the names of its dispositions, its title."""

    samples: np.ndarray
    dispositions: Sequence[str] = ()
    title: str = ""


@functools.cache
def voice() -> np.ndarray:
    """Seven seconds of speech at 24 kHz."""
    return 0.5 * speech.speak(TEXT, "buzz").samples.astype(np.float32)


def noise(level: float = 0.1) -> np.ndarray:
    """Noise as long as the voice."""
    return level * np.random.default_rng(0).standard_normal(len(voice())).astype(np.float32)


def hum() -> np.ndarray:
    """Mains hum as long as the voice."""
    time = np.arange(len(voice())) / RATE
    number = np.arange(1, 6)[:, None]
    return (0.1 * np.sin(2 * np.pi * 50 * number * time) / number).sum(0).astype(np.float32)


def music() -> np.ndarray:
    """Chords as long as the voice, a new one every half second."""
    time = np.arange(len(voice())) / RATE
    roots = np.random.default_rng(1).integers(-5, 7, 40)[(2 * time).astype(int)]
    decay = np.exp(-3 * (time % 0.5))
    notes = (np.sin(2 * np.pi * 220 * 2 ** ((roots + up) / 12) * time) for up in (0, 4, 7))
    return (0.1 * sum(notes) * decay).astype(np.float32)


def write_tracks(path: Path, tracks: Sequence[Sound], stamp: Callable[[float], float] = lambda t: t) -> Path:
    """Write a Matroska file of PCM tracks at 24 kHz in packets of 20 ms.

    Args:
        path: Where to.
        tracks: What is in it.
        stamp: The time stamp of a packet by its true time, seconds.
    """
    from av.stream import Disposition

    size = RATE // 50
    with av.open(str(path), "w", format="matroska") as file:
        streams = []
        for track in tracks:
            stream = file.add_stream("pcm_s16le", rate=RATE, layout="mono")
            stream.disposition = Disposition(sum(Disposition[name] for name in track.dispositions))
            stream.metadata["title"] = track.title
            streams.append(stream)
        for start in range(0, len(tracks[0].samples) - size + 1, size):
            for stream, track in zip(streams, tracks, strict=True):
                block = np.clip(track.samples[None, start : start + size] * 32767, -32768, 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(block, "s16", "mono")
                frame.sample_rate, frame.pts, frame.time_base = RATE, start, Fraction(1, RATE)
                for packet in stream.encode(frame):
                    packet.pts = packet.dts = round(stamp(start / RATE) * 1000)
                    packet.time_base, packet.duration = Fraction(1, 1000), 0
                    file.mux(packet)
    return path


def likeness(heard: np.ndarray, wanted: np.ndarray) -> float:
    """Correlation of samples at 16 kHz [n] with samples at 24 kHz [m], from their beginnings."""
    time = np.arange(min(len(heard), len(wanted) * 2 // 3)) / 16_000
    return float(np.corrcoef(heard[: len(time)], np.interp(time, np.arange(len(wanted)) / RATE, wanted))[0, 1])
