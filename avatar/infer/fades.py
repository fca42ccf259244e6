"""Fade audio in and out over 10 ms where it stops or resumes within an utterance, so that nothing clicks."""

from __future__ import annotations

import numpy as np

from avatar.io.audio import SAMPLE_RATE

FADE = SAMPLE_RATE // 100  # samples


class Fades:
    """The audio of consecutive frames, with fades where it is cut.

    What comes after a cut is not known: the audio may have been dropped, or may not have come yet. So the samples
    before the cut are played backwards into the gap, which has no jump, and fade out there.
    """

    def __init__(self) -> None:
        self._before = np.zeros(FADE, np.float32)  # last samples that came out
        self._utterance = 0  # whose audio goes on with the next frame; 0: there is none
        self._cut = 0  # utterance that was cut
        self._out = np.linspace(1, 0, FADE, endpoint=False, dtype=np.float32)

    def apply(self, audio: np.ndarray, utterance: int, ended: tuple[int, ...] = ()) -> np.ndarray:
        """Return the audio of the next frame with the fades that it needs.

        Args:
            audio: [n] float32.
            utterance: To which it belongs; 0: it is silence, because nothing is said or nothing has come.
            ended: Utterances that ended with it.
        """
        if not utterance and self._utterance and self._utterance not in ended:
            audio, count = audio.copy(), min(FADE, len(audio))
            audio[:count] = (self._before[::-1] * self._out)[:count]
            self._cut = self._utterance
        elif utterance and utterance == self._cut:
            audio, count = audio.copy(), min(FADE, len(audio))
            audio[:count] *= 1 - self._out[:count]
            self._cut = 0
        self._utterance = 0 if utterance in ended else utterance
        self._before = np.concatenate([self._before, audio])[-FADE:]
        return audio
