"""Loudness of audio while each frame of a video is shown, and where somebody speaks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from avatar.io.audio import SAMPLE_RATE, SILENCE_DB, stream_audio

SILENCE_BELOW = 20.0  # dB below the loud parts of speech; below `SILENCE_DB` it is silent whatever the rest is
SILENCE_SECONDS = 0.3  # shorter pauses are closures and breaths
LONG_PAUSE = 2.0  # seconds; between sentences people pause for up to 1.6


def frame_levels(chunks: Iterable[np.ndarray], frames: int, fps: float) -> np.ndarray:
    """Measure the level [T] in dBFS of the audio while each frame is shown; -100 where there is none.

    Args:
        chunks: 16 kHz mono from the time of the first frame on, in pieces of any length.
        frames: T.
        fps: Frames per second.
    """
    edges = np.round(np.arange(frames + 1) * SAMPLE_RATE / fps).astype(int)
    power, done = np.zeros(frames), 0
    for chunk in chunks:
        if done >= edges[-1]:
            break
        at = np.searchsorted(edges, np.arange(done, done + len(chunk)), "right") - 1
        within = at < frames
        power += np.bincount(at[within], np.square(chunk[within], dtype=np.float64), minlength=frames)
        done += len(chunk)
    heard = np.diff(np.minimum(edges, done))
    return 10 * np.log10(power / np.maximum(heard, 1) + 1e-10)


def frames_with_audio(span: Sequence[float], frames: int, fps: float, delay_s: float = 0.0) -> np.ndarray:
    """Make flags, bool [frames], of the frames whose audio lies whole within ``span``, from when to when, seconds.

    Args:
        span: What a recording has audio for.
        frames: T.
        fps: Frames per second.
        delay_s: Seconds by which the audio comes after the video.
    """
    start, end = span
    at = np.arange(frames) / fps + delay_s
    return (at >= start - 1e-6) & (at + 1 / fps <= end + 1e-6)


def silent_frames(levels: np.ndarray, fps: float, least_seconds: float = SILENCE_SECONDS) -> np.ndarray:
    """Find the frames [T] in a pause: 20 dB below the loud parts (95th percentile), for ``least_seconds`` or longer."""
    quiet = levels < max(np.percentile(levels, 95) - SILENCE_BELOW, SILENCE_DB)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    out = np.zeros(len(levels), bool)
    for start, end in edges.reshape(-1, 2):
        out[start:end] = end - start >= least_seconds * fps
    return out


def speaking_frames(path: Path, frames: int, fps: float) -> np.ndarray:
    """Find the frames [T] of a video in which somebody speaks, pauses of up to two seconds included.

    Args:
        path: The audio, from the time of the first frame on.
        frames: T.
        fps: Frames per second.

    Raises:
        AvatarError: The audio cannot be read.
    """
    return ~silent_frames(frame_levels(stream_audio(path), frames, fps), fps, LONG_PAUSE)
