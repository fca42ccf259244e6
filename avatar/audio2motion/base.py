"""The seam between audio and motion: a model opens streams, a stream takes samples and gives frames.

stream = model.open()
for samples in microphone:          # 16 kHz mono float32, pieces of any length
    show(stream.push(samples))      # zero or more frames
show(stream.finish())               # the frames that were still waiting for audio
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

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


VOICE_DB = (-120.0, 20.0)  # dBFS, of a voice, in what is read
_NEAR_DB = 3.0  # of difference: people get louder and softer by as much
_MOST_DB = 40.0  # of difference that is made up for


def gain_for(model: AudioToMotion, voice_db: float | None) -> float:
    """Tell the factor that brings a voice to the level that a model knows from its person.

    Features of a soft recording are not those of a loud one: at 25 dB less, lips follow clearly worse.

    Args:
        model: The model; where its ``voice_db`` is None or missing, the factor is 1.
        voice_db: Level of the voice, dBFS, by `avatar.io.listening.voice_level`; None: not known, the factor is 1.
    """
    known: Any = getattr(model, "voice_db", None)
    if known is None or voice_db is None or abs(known - voice_db) < _NEAR_DB:
        return 1.0
    return 10 ** (float(np.clip(known - voice_db, -_MOST_DB, _MOST_DB)) / 20)


def levelled(samples: np.ndarray, gain: float) -> np.ndarray:
    """Samples [N] times a gain of :func:`gain_for`, within -1 and 1; what is no audio is refused by the stream."""
    return samples if gain == 1 else np.clip(samples * np.float32(gain), -1, 1)


def drive(model: AudioToMotion, chunks: Iterable[np.ndarray], voice_db: float | None = None) -> Iterator[Motion]:
    """Drive a model with audio that is at hand in pieces.

    Args:
        model: The model.
        chunks: Samples [N] of any length each.
        voice_db: Level of the voice in them, see :func:`gain_for`.

    Yields:
        Motion of one frame or more.
    """
    stream, gain = model.open(), gain_for(model, voice_db)
    for chunk in chunks:
        if len(motion := stream.push(levelled(chunk, gain))):
            yield motion
    if len(motion := stream.finish()):
        yield motion


def motion_of(model: AudioToMotion, samples: Float[np.ndarray, " N"]) -> Motion:
    """Drive a model with a whole recording [N]; returns as many frames as begin within it."""
    return Motion.cat([Motion.zeros(0, model.fps), *drive(model, chunked(samples, _PIECE))])


_PIECE = 10 * SAMPLE_RATE  # samples pushed at once: keeps memory small for an hour of audio
