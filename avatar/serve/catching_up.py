"""Leave out pauses of a microphone whose audio waits for longer than it has to, so that it is soon on time again."""

from __future__ import annotations

import numpy as np

from avatar.audio.turns import FRAME, SpeechFrames
from avatar.io.audio import SAMPLE_RATE

MORE_SECONDS = 0.1  # of audio may wait beyond what lips need
KEPT_SECONDS = 0.12  # of a pause stay: soft ends and begins of words, and that it is a pause


class CatchingUp:
    """Takes the audio of a microphone, piece by piece.

    Args:
        needed: Seconds of audio that wait where nothing is late.
    """

    def __init__(self, needed: float) -> None:
        self._most = needed + MORE_SECONDS
        self._frames = SpeechFrames()
        self._quiet = 0  # samples since the last speech

    def kept(self, samples: np.ndarray, waiting: float) -> np.ndarray:
        """What is to be said of a piece [N], float32, 16 kHz mono, where ``waiting`` seconds of audio wait."""
        speech = [spoken for _, spoken in self._frames.push(samples)]
        quiet = self._quiet
        self._quiet = quiet + len(samples)
        for n, spoken in enumerate(reversed(speech)):
            if spoken:
                self._quiet = n * FRAME
                break
        silent = not any(speech) and quiet >= KEPT_SECONDS * SAMPLE_RATE
        return samples[:0] if silent and waiting > self._most else samples
