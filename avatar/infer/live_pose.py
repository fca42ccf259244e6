"""Generated head motion of a live session: a second at a time, from the audio that is known by then.

The generator looks two seconds ahead. Of an answer that waits to be said, that is known. Of a microphone it is not:
there, speech is taken to go on as it was in the last second, and the head follows the voice that much later.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from avatar.io.audio import SAMPLE_RATE
from avatar.motion import Motion

if TYPE_CHECKING:
    from avatar.headmotion.generator import GeneratorStream

AHEAD_SECONDS = 3.0  # of audio that waits are kept for the generator
PAST_SECONDS = 4.0
PIECE = SAMPLE_RATE // 2  # samples that the generator is given at once


class LiveAudio:
    """What a session says about now: what was taken, and what waits. One thread notes it, another reads it.

    Attributes:
        wanted: Whether anybody reads it.
    """

    def __init__(self) -> None:
        self.wanted = False
        self._lock = threading.Lock()
        self._past = self._ahead = np.zeros(0, np.float32)
        self._start = 0  # sample of the session with which the past begins
        self._goes_on = False

    def note(
        self, first: int, taken: Float32[np.ndarray, " N"], ahead: Float32[np.ndarray, " M"], goes_on: bool
    ) -> None:
        """Note the audio of a frame. It may begin with any frame, because a session may run before anybody reads.

        Args:
            first: Sample of the session with which the frame begins.
            taken: Of the frame.
            ahead: What waits after it.
            goes_on: Whether the speaker has not finished.
        """
        with self._lock:
            past = np.concatenate([self._past, taken])
            self._past = past[-round(PAST_SECONDS * SAMPLE_RATE) :]
            self._start = first + len(taken) - len(self._past)
            self._ahead, self._goes_on = ahead, goes_on

    def read(self, start: int, count: int) -> Float32[np.ndarray, " count"]:
        """Samples ``start`` to ``start + count`` of the session, guessed where they are not known."""
        with self._lock:
            known, first, goes_on = np.concatenate([self._past, self._ahead]), self._start, self._goes_on
        found, at = np.zeros(count, np.float32), np.arange(start - first, start - first + count)
        there, after = (at >= 0) & (at < len(known)), at >= len(known)  # what is older than what is kept stays silent
        found[there] = known[at[there]]
        if goes_on and len(known):
            last = known[-SAMPLE_RATE:]
            found[after] = last[(at[after] - len(known)) % len(last)]
        return found


class LivePose:
    """A `PoseSource` that generates head motion from live audio, always ready.

    Args:
        stream: The opened generator.
        audio: What is said.
        fps: Frames per second.
    """

    ready = math.inf

    def __init__(self, stream: GeneratorStream, audio: LiveAudio, fps: float) -> None:
        self._stream, self._audio, self._fps = stream, audio, fps
        audio.wanted = True
        self._origin: int | None = None
        self._held, self._first = stream.push(np.zeros(0, np.float32)), 0
        self._pushed = 0  # samples
        while not len(self._held):  # the first second comes now, where nobody waits for it
            self._push(np.zeros(PIECE, np.float32))

    def push(self, samples: np.ndarray) -> None: ...

    def finish(self) -> None: ...

    def forget(self, before: int) -> None:
        if self._origin is not None:
            drop = min(before - self._origin - self._first, len(self._held))
            if drop > 0:
                self._held, self._first = self._held[drop:], self._first + drop

    def read(self, start: int, count: int) -> Motion:
        """Frames ``start`` to ``start + count``; the first that is read is the first of the performance."""
        if self._origin is None:
            self._origin = start
        self.forget(start)
        at = start - self._origin
        begin = round(self._origin * SAMPLE_RATE / self._fps)
        while at + count > self._first + len(self._held):
            self._push(self._audio.read(begin + self._pushed, PIECE))
            self.forget(start)
        return self._held[at - self._first : at - self._first + count]

    def _push(self, samples: np.ndarray) -> None:
        self._pushed += len(samples)
        made = self._stream.push(samples)
        self._held = Motion.cat([self._held, made]) if len(made) else self._held
