"""The seam between audio and motion: a model opens streams, a stream takes samples and gives frames.

stream = model.open()
for samples in microphone:          # 16 kHz mono float32, pieces of any length
    show(stream.push(samples))      # zero or more frames
show(stream.finish())               # the frames that were still waiting for audio
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
from jaxtyping import Float

from avatar.io.audio import SAMPLE_RATE, chunked
from avatar.motion import Motion


class AudioStream(Protocol):
    """One utterance on its way through a model. It holds all state, so a model may have many streams open at once.

    Frame t belongs to the audio at ``t / fps``. As many frames come out as begin within the audio, at least one; none
    where there was no audio. They are the same to 1e-6 however the audio is cut.
    """

    def push(self, samples: np.ndarray) -> Motion:
        """Take samples [N]; return the frames [n >= 0] that they complete.

        Raises:
            AvatarError: The samples are no mono floating-point audio within -1 and 1.
        """
        ...

    def finish(self) -> Motion:
        """End the audio; return the remaining frames [n >= 0]. The stream is then spent."""
        ...


class AudioToMotion(Protocol):
    """A model from speech to mouth motion.

    Attributes:
        fps: Frames per second of the motion.
        look_ahead: Seconds. A frame at second t comes out by the time the audio reaches ``t + look_ahead``.
    """

    @property
    def fps(self) -> float: ...

    @property
    def look_ahead(self) -> float: ...

    def open(self) -> AudioStream:
        """Begin an utterance. Loads nothing."""
        ...


def drive(model: AudioToMotion, chunks: Iterable[np.ndarray]) -> Iterator[Motion]:
    """Drive a model with audio that is at hand in pieces.

    Args:
        model: The model.
        chunks: Samples [N] of any length each.

    Yields:
        Motion of one frame or more.
    """
    stream = model.open()
    for chunk in chunks:
        if len(motion := stream.push(chunk)):
            yield motion
    if len(motion := stream.finish()):
        yield motion


def motion_of(model: AudioToMotion, samples: Float[np.ndarray, " N"]) -> Motion:
    """Drive a model with a whole recording [N]; returns as many frames as begin within it."""
    return Motion.cat([Motion.zeros(0, model.fps), *drive(model, chunked(samples, _PIECE))])


_PIECE = 10 * SAMPLE_RATE  # samples pushed at once: keeps memory small for an hour of audio
