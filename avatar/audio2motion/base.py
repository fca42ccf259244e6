"""What turns speech into motion: today a network per person, later a prior shared by all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np

from avatar.motion import Motion


class AudioToMotion(Protocol):
    """Speech in, motion out.

    Attributes:
        fps: Frames per second of the motion.
    """

    fps: float

    def stream(self, chunks: Iterable[np.ndarray]) -> Iterator[Motion]:
        """Blocks of motion for 16 kHz mono chunks of any size.

        Memory and look-ahead are bounded, and the blocks together are the same for any chunk size. Frame t belongs
        to the sound at ``t / fps``; there are as many frames as begin within the sound.
        """
        ...
