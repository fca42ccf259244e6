"""When pieces of audio come, so that the clock of frames can be set to it before an utterance is shown.

A microphone gives a piece every 20 ms, frames are 40 ms long, and lips need audio that comes after them. So the first
frame of an utterance is ready at a moment between two frames of the clock, and would wait for the next one: up to a
frame, for as long as the utterance lasts. `Arrival` predicts that moment from the first pieces. The silent frame before
it lasts a few milliseconds longer or shorter, and nothing waits any more.
"""

from __future__ import annotations

from avatar.io.audio import SAMPLE_RATE

MARGIN_SECONDS = 0.008  # from the last piece that a frame needs to its time: pieces come unevenly, and are encoded
LEAST_SECONDS = 0.002  # a smaller correction is not worth it


class Arrival:
    """Predicts when the first frame of an utterance is ready.

    Args:
        fps: Frames per second.
        needed: Seconds of audio that an utterance has then.
    """

    def __init__(self, fps: float, needed: float) -> None:
        self._fps, self._needed = fps, needed
        self._samples = 0  # of the utterance so far
        self._begin = 0.0  # second of the clock at which its first sample was said, by the latest of its pieces
        self._piece = 0.0

    def note(self, at: float, samples: int) -> None:
        """Note that a piece of so many samples came at second ``at`` of the clock."""
        self._samples += samples
        begin = at - self._samples / SAMPLE_RATE
        self._begin = begin if self._samples == samples else max(self._begin, begin)
        self._piece = samples / SAMPLE_RATE

    def clear(self) -> None:
        """The utterance is over."""
        self._samples = 0

    def longer(self, now: float) -> float:
        """Seconds by which a frame that is taken ``now`` should last longer, or shorter, by half a frame at most."""
        if not self._samples:
            return 0.0
        pieces = -(-round(self._needed * SAMPLE_RATE) // round(self._piece * SAMPLE_RATE))
        ready = self._begin + pieces * self._piece + MARGIN_SECONDS
        if ready < now:
            return 0.0
        frame = 1 / self._fps
        after = (ready - now) % frame  # of a frame's time
        found = after if after <= frame / 2 else after - frame
        return found if abs(found) >= LEAST_SECONDS else 0.0
