"""Motion for the held-out frames of a person's own video, as papers reconstruct them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from avatar.audio2motion.load import with_lips
from avatar.io.audio import SAMPLE_RATE, stream_audio
from avatar.motion import Motion

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioToMotion
    from avatar.data import PersonDataset

CONTEXT_SECONDS = 1.0  # of audio before a held-out span: the speech network never starts in the middle of a word


def drive_held_out(data: PersonDataset, speech: AudioToMotion, first: int, last: int) -> Iterator[Motion]:
    """Drive the lips of frames ``first`` to ``last`` (exclusive) by the audio alone; all else is as tracked."""
    lead = min(first, round(CONTEXT_SECONDS * data.fps))
    samples = round((last - first + lead) / data.fps * SAMPLE_RATE)
    chunks = _exactly(stream_audio(data.audio_path, start=audio_time(data, first - lead)), samples)
    stream, frame = speech.open(), first - lead
    for chunk in itertools.chain(chunks, [None]):
        lips = stream.finish() if chunk is None else stream.push(chunk)
        start, frame = frame, frame + len(lips)
        lips = lips[max(0, first - start) : max(0, last - start)]
        if len(lips):
            start = max(first, start)
            yield with_lips(data.motion[start : start + len(lips)], lips)


def audio_time(data: PersonDataset, frame: int) -> float:
    """Second of the person's audio file that belongs to a frame, the measured delay corrected."""
    return (frame + data.info.get("av_offset_frames", 0)) / data.fps


def _exactly(chunks: Iterator[np.ndarray], samples: int) -> Iterator[np.ndarray]:
    """The first ``samples`` samples; silence where the audio is shorter."""
    for chunk in chunks:
        if samples <= 0:
            return
        yield chunk[:samples]
        samples -= len(chunk)
    while samples > 0:
        yield np.zeros(min(samples, SAMPLE_RATE), np.float32)
        samples -= SAMPLE_RATE
