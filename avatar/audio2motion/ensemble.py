"""Several speech networks that speak as one: the mean of what each says.

A network learnt from a person's own minute knows that person; the shared prior knows voices and languages that the
minute lacks. They err in different ways, so the mean follows the lips better than either (docs/prior.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from avatar.audio2motion.base import AudioToMotion
from avatar.audio2motion.shared import PriorSpeech
from avatar.errors import AvatarError
from avatar.io.audio import chunked
from avatar.motion import Motion

_Parted = tuple[Motion, Tensor]  # motion before lips are brought together, and how surely they touch [n]


class Ensemble:
    """The mean of several networks; implements `avatar.audio2motion.base.AudioToMotion`.

    Args:
        members: Of one frame rate.

    Raises:
        AvatarError: There is none, or their frame rates differ.
    """

    def __init__(self, members: Sequence[AudioToMotion]) -> None:
        rates = {member.fps for member in members}
        if len(rates) != 1:
            raise AvatarError("Networks that speak together must have one frame rate,", why=f"not {sorted(rates)}.")
        self.members = tuple(members)
        self.fps = rates.pop()
        self._prior = next((member for member in members if isinstance(member, PriorSpeech)), None)

    def stream(self, chunks: Iterable[np.ndarray]) -> Iterator[Motion]:
        """Blocks of motion for a stream of 16 kHz mono sound; as late as the slowest member.

        Where a `PriorSpeech` is among them, it also says of the mean where the lips have to touch.
        """
        sounds = itertools.tee(chunks, len(self.members))
        streams = [self._parted(member, sound) for member, sound in zip(self.members, sounds, strict=True)]
        held: list[_Parted | None] = [None] * len(streams)
        while True:
            held = [next(stream, None) if block is None else block for block, stream in zip(held, streams, strict=True)]
            blocks = [block for block in held if block is not None]
            if len(blocks) < len(streams):
                return
            count = min(len(motion) for motion, _ in blocks)
            if count:
                yield self._mean([(motion[:count], touch[:count]) for motion, touch in blocks])
            held = [(motion[count:], touch[count:]) if len(motion) > count else None for motion, touch in blocks]

    def _parted(self, member: AudioToMotion, sound: Iterator[np.ndarray]) -> Iterator[_Parted]:
        if self._prior is not None and member is self._prior:
            return self._prior.parted(sound)
        return ((motion, torch.zeros(len(motion))) for motion in member.stream(sound))

    def _mean(self, parts: Sequence[_Parted]) -> Motion:
        motions = [motion for motion, _ in parts]
        face, arkit = (torch.stack([getattr(m, name) for m in motions]).mean(0) for name in ("face", "arkit"))
        motion = motions[0].map(face=face, arkit=arkit)
        if self._prior is None:
            return motion
        return self._prior.close(motion, torch.stack([touch for _, touch in parts]).sum(0))

    def speak(self, samples: np.ndarray) -> Motion:
        """The motion for a whole sound [N]."""
        return Motion.cat(list(self.stream(chunked(samples))))
