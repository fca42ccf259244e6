"""The seam of speech encoders: audio in, feature rows out, pushed piece by piece.

An encoder is one file: a class with ``OPTIONS``, entered under a name by
`avatar.audio.encoders.registry.register_encoder`. The features of a row belong to the centre of its receptive field.
Whatever the chunk size, the rows are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from jaxtyping import Float

from avatar.io.audio import chunked


class EncoderStream(Protocol):
    """One recording on its way through an encoder."""

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take 16 kHz mono samples [N] float32; return the rows [n >= 0, dim] float32 that they complete."""
        ...

    def finish(self) -> np.ndarray:
        """End the audio; return the remaining rows [n, dim]. The stream is then spent."""
        ...


class AudioEncoder(Protocol):
    """Features of audio at the encoder's own rate.

    Attributes:
        OPTIONS: What a checkpoint may say about it, by name, and the range of each; arguments of the class.
        name: What checkpoints call it.
        dim: Features per row.
        rate: Rows per second.
        first: Seconds; the time of row 0, so that row k belongs to ``first + k / rate``.
        look_ahead: Seconds of audio after a row's time that are needed before it comes out, at most.
    """

    OPTIONS: ClassVar[Mapping[str, tuple[float, float]]]
    name: str
    dim: int
    rate: float
    first: float
    look_ahead: float

    @property
    def config(self) -> dict[str, Any]:
        """``name`` and the options, for a checkpoint."""
        ...

    def open(self) -> EncoderStream:
        """Begin a recording."""
        ...


class SpeechEncoder:
    """Several encoders side by side, whose features are concatenated frame by frame; none gives the energy alone.

    The default is Whisper, which knows phones, with mel energies, which know when things happen.
    """

    def __init__(self, parts: Sequence[AudioEncoder]) -> None:
        self.parts = tuple(parts)
        self.dim = sum(part.dim for part in parts)

    @property
    def name(self) -> str:
        return "+".join(part.name for part in self.parts)

    @property
    def config(self) -> dict[str, Any]:
        """What `avatar.audio.encoders.registry.build_encoder` needs to make the same encoder."""
        return {"parts": [part.config for part in self.parts]}


def encode(encoder: AudioEncoder, samples: Float[np.ndarray, " N"]) -> Float[np.ndarray, "T F"]:
    """Rows [n, dim] of a whole recording [N], at the encoder's own rate."""
    stream = encoder.open()
    return np.concatenate([*(stream.push(piece) for piece in chunked(samples)), stream.finish()])
