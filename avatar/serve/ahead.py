"""What a page was sent of audio whose time has not come yet, so that it can go on where the server is held up.

Lips need a moment of the audio after them, so audio waits here for 0.1 to 0.2 seconds before its frame is taken. It may
wait with the page as well as here. Each frame's audio follows when its time has come; mostly it is what was foreseen.
"""

from __future__ import annotations

import numpy as np

from avatar.serve.outbox import AudioPart

AHEAD_SECONDS = 0.2  # of audio are sent before their time


class Ahead:
    """Follows what was sent ahead of one time line."""

    def __init__(self) -> None:
        self._sent = np.zeros(0, np.float32)  # from the end of the last part on

    def confirm(self, part: AudioPart) -> bool:
        """Note that the time of a part has come; whether all that was sent for later is void."""
        count = len(part.samples)
        foreseen, self._sent = self._sent[:count], self._sent[count:]
        same = np.array_equal(foreseen, part.samples[: len(foreseen)])
        if not same:
            self._sent = self._sent[:0]
        return not same

    def more(self, part: AudioPart) -> np.ndarray:
        """Samples that follow what was sent, float32 [n]; they count as sent."""
        found = part.ahead[len(self._sent) :]
        self._sent = np.concatenate([self._sent, found])
        return found
