"""Several speech networks that speak as one: the mean of what each says.

A network learnt from a person's own minute knows that person; the shared prior knows voices and languages that the
minute lacks. They err in different ways, so the mean follows the lips better than either (docs/prior.md).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from avatar.errors import AvatarError
from avatar.io.audio import chunked
from avatar.motion import Motion
from avatar.prior.protocol import AudioToMotion


class Together:
    """The mean of several networks; implements `avatar.prior.protocol.AudioToMotion`.

    Args:
        members: Of one frame rate.

    Raises:
        AvatarError: There is none, or their frame rates differ.
    """

    def __init__(self, members: Sequence[AudioToMotion]) -> None:
        rates = {member.fps for member in members}
        if len(rates) != 1:
            raise AvatarError("Networks that speak together must have one frame rate,", f"not {sorted(rates)}.")
        self.members = tuple(members)
        self.fps = rates.pop()

    def stream(self, chunks: Iterable[np.ndarray]) -> Iterator[Motion]:
        """Blocks of motion for a stream of 16 kHz mono sound; as late as the slowest member."""
        heard = itertools.tee(chunks, len(self.members))
        streams = [member.stream(sound) for member, sound in zip(self.members, heard, strict=True)]
        held: list[list[Motion]] = [[] for _ in streams]
        while True:
            for blocks, stream in zip(held, streams, strict=True):
                if not blocks and (block := next(stream, None)) is not None:
                    blocks.append(block)
            if not all(held):
                return
            count = min(len(blocks[0]) for blocks in held)
            parts = [blocks[0][:count] for blocks in held]
            for blocks in held:
                rest = blocks.pop()[count:]
                if len(rest):
                    blocks.append(rest)
            if count:
                face, arkit = (torch.stack([getattr(p, n) for p in parts]).mean(0) for n in ("face", "arkit"))
                yield parts[0].map(face=face, arkit=arkit)

    def speak(self, samples: np.ndarray) -> Motion:
        """The motion for a whole sound [N]."""
        return Motion.cat(list(self.stream(chunked(samples))))
