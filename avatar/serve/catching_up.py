"""Leave out pauses of a microphone whose audio waits for longer than it has to, so that it is soon on time again."""

from __future__ import annotations

from collections import deque

import numpy as np

from avatar.audio.turns import FRAME, SpeechFrames
from avatar.io.audio import SAMPLE_RATE

KEPT_SECONDS = 0.12  # of a pause stay: soft ends and begins of words, and that it is a pause
PIECES, LEAST_PIECES = 25, 10  # newest pieces, and how many there must be: one moment in which more waits is none
SPARE_SECONDS = 0.005  # less than a piece by so much is too little to leave one out


class CatchingUp:
    """Takes the audio of a microphone, piece by piece.

    Args:
        least: Seconds of audio that wait after a frame was taken, where nothing is late.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._frames = SpeechFrames()
        self._quiet = 0  # samples since the last speech
        self._waited: deque[float] = deque(maxlen=PIECES)  # seconds that waited as the newest pieces came

    def kept(self, samples: np.ndarray, waiting: float) -> np.ndarray:
        """What is to be said of a piece [N], float32, 16 kHz mono, where ``waiting`` seconds of audio wait."""
        speech = [spoken for _, spoken in self._frames.push(samples)]
        quiet = self._quiet
        self._quiet = quiet + len(samples)
        for n, spoken in enumerate(reversed(speech)):
            if spoken:
                self._quiet = n * FRAME
                break
        self._waited.append(waiting)
        seconds = len(samples) / SAMPLE_RATE
        late = len(self._waited) >= LEAST_PIECES and min(self._waited) - self._least > seconds - SPARE_SECONDS
        if any(speech) or quiet < KEPT_SECONDS * SAMPLE_RATE or not late:
            return samples
        self._waited = deque((one - seconds for one in self._waited), maxlen=PIECES)
        return samples[:0]

    def clear(self) -> None:
        """The utterance is over."""
        self._waited.clear()
