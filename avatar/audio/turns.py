"""Turn detection: when somebody begins to speak into a microphone, pauses, and has finished.

A frame of 20 ms counts as speech where its energy between 200 and 4000 Hz is clearly above the background. The
background is the least energy of the last seconds (minimum statistics), so it follows a room that becomes louder, and
speech does not raise it: between sounds there are gaps.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from avatar.io.audio import SAMPLE_RATE

FRAME = SAMPLE_RATE // 50  # samples: 20 ms
HANGOVER_SECONDS = 0.6  # without speech end a turn
LONGEST_HANGOVER_SECONDS = 1.0  # of somebody who makes long pauses
_PAUSES, _PAUSE_SHARE, _PAUSE_FACTOR = 8, 0.8, 1.25  # newest pauses of a speaker, their quantile, and what it is times
PADDING_SECONDS = 0.3  # of audio before the first speech frame belong to the turn: soft beginnings
LONGEST_SECONDS = 60.0  # of a turn; it is ended then
_BAND = (200, 4000)  # Hz: the voice, without hum and rumble
_ABOVE_FLOOR = 9.0  # dB above the background that speech must have
_LEAST_DB = -55.0  # dB relative to full scale: softer is never speech
_FLOOR_SECONDS = 4.0  # over which the background is the minimum ...
_FLOOR_BLOCKS = 8  # ... taken in so many blocks
_WINDOW, _NEEDED = 12, 8  # of so many frames so many must be speech before a turn begins: clicks and coughs are none
PAUSE_SECONDS, PHRASE_SECONDS = 0.2, 0.7  # a pause is so long at least, and the speech before it
_PHRASE_SHARE = 0.5  # of the frames of a phrase are speech at least


class TurnEvent(NamedTuple):
    """A turn began or ended.

    Attributes:
        kind: Which of both.
        second: Of the stream, at which it did.
        audio: float32 [N], 16 kHz mono, of the whole turn; empty where it began.
    """

    kind: Literal["started", "stopped"]
    second: float
    audio: Float[np.ndarray, " N"]


class SpeechFrames:
    """Tell frames of 20 ms that are speech from others; how the stream is cut makes no difference."""

    def __init__(self) -> None:
        self._window = np.hanning(FRAME).astype(np.float32)
        frequencies = np.fft.rfftfreq(FRAME, 1 / SAMPLE_RATE)
        self._band = (frequencies >= _BAND[0]) & (frequencies <= _BAND[1])
        self._rest = np.zeros(0, np.float32)
        self._count = 0  # frames that were judged
        self._block = round(_FLOOR_SECONDS * SAMPLE_RATE / FRAME / _FLOOR_BLOCKS)
        self._floors: deque[float] = deque(maxlen=_FLOOR_BLOCKS)
        self._least = np.inf  # of the block that is under way

    def push(self, samples: Float[np.ndarray, " N"]) -> list[tuple[np.ndarray, bool]]:
        """Take samples [N], 16 kHz mono float32; return each frame that they complete, and whether it is speech."""
        samples = np.concatenate([self._rest, samples.astype(np.float32, copy=False)])
        count = len(samples) // FRAME
        self._rest = samples[count * FRAME :]
        frames = samples[: count * FRAME].reshape(count, FRAME)
        power = np.square(np.abs(np.fft.rfft(frames * self._window))[:, self._band]).sum(1)
        levels = 10 * np.log10(power / (FRAME * float(np.square(self._window).sum()) / 2) + 1e-12)
        return [(frame, self._speech(float(level))) for frame, level in zip(frames, levels)]

    def _speech(self, level: float) -> bool:
        self._count += 1
        return level > max(_LEAST_DB, self._floor(level) + _ABOVE_FLOOR)

    def _floor(self, level: float) -> float:
        """The background, dB relative to full scale."""
        self._least = min(self._least, level)
        floor = min([*self._floors, self._least])
        if self._count % self._block == 0:
            self._floors.append(self._least)
            self._least = np.inf
        return floor


class PauseDetector:
    """Find pauses in what somebody says: 0.2 s without speech after a phrase of 0.7 s or more.

    Attributes:
        speaking: Whether a phrase is under way: somebody speaks, or paused for less than a pause.
    """

    def __init__(self) -> None:
        self._frames = SpeechFrames()
        self._pause = round(PAUSE_SECONDS * SAMPLE_RATE / FRAME)
        self._phrase = round(PHRASE_SECONDS * SAMPLE_RATE / FRAME)
        self._speech = self._length = self._silent = 0  # frames: of speech in the phrase, of all of it, since the last

    @property
    def speaking(self) -> bool:
        return self._speech >= _NEEDED

    def push(self, samples: Float[np.ndarray, " N"]) -> int:
        """Take samples [N], 16 kHz mono float32; return how many pauses were found in them."""
        return sum(self._step(speech) for _, speech in self._frames.push(samples))

    def _step(self, speech: bool) -> bool:
        if speech:
            self._length += 1 + self._silent
            self._speech, self._silent = self._speech + 1, 0
            return False
        self._silent += self._speech > 0
        if self._silent < self._pause:
            return False
        found = self._length >= self._phrase and self._speech >= _PHRASE_SHARE * self._length
        self._speech = self._length = self._silent = 0
        return found


class TurnDetector:
    """Find the turns in a stream; how the stream is cut makes no difference.

    Args:
        hangover: Seconds without speech that end a turn.
        padding: Seconds before a turn that belong to it.
        longest: Seconds to which the hangover grows for a speaker who pauses for long. None: it does not.

    Attributes:
        speaking: Whether a turn is under way.
    """

    def __init__(
        self, hangover: float = HANGOVER_SECONDS, padding: float = PADDING_SECONDS, longest: float | None = None
    ) -> None:
        self.speaking = False
        self._least = self._hangover = max(1, round(hangover * SAMPLE_RATE / FRAME))
        self._longest = max(self._least, round((longest or 0.0) * SAMPLE_RATE / FRAME))
        self._pauses: deque[int] = deque(maxlen=_PAUSES)  # frames, within turns
        self._gap = 0  # frames without speech between the last turn and this one
        self._last = -(1 << 30)  # frame of the last speech
        self._frames = SpeechFrames()
        self._count = 0  # frames that were judged
        self._recent: deque[bool] = deque(maxlen=_WINDOW)
        self._silent = 0  # frames since the last one of speech
        self._before: deque[np.ndarray] = deque(maxlen=round(padding * SAMPLE_RATE / FRAME) + _WINDOW)
        self._turn: list[np.ndarray] = []

    def push(self, samples: Float[np.ndarray, " N"]) -> list[TurnEvent]:
        """Take samples [N], 16 kHz mono float32; return what began or ended in them."""
        events = (self._step(frame, speech) for frame, speech in self._frames.push(samples))
        return [event for event in events if event is not None]

    @property
    def hangover(self) -> float:
        """Seconds without speech that end a turn now."""
        return self._hangover * FRAME / SAMPLE_RATE

    def continued(self) -> None:
        """Learn that the newest turn continues the one before. What was between was no end, but a pause."""
        self._note(self._gap)

    def finish(self) -> TurnEvent | None:
        """End the turn that is under way now; None where there is none."""
        return self._stop() if self.speaking else None

    def clear(self) -> None:
        """Forget the turn that is under way, and what was heard before it; the background stays known."""
        self.speaking, self._silent = False, 0
        self._recent.clear()
        self._before.clear()
        self._turn = []

    def _step(self, frame: np.ndarray, speech: bool) -> TurnEvent | None:
        self._count += 1
        second = self._count * FRAME / SAMPLE_RATE
        if not self.speaking:
            self._recent.append(speech)
            self._before.append(frame)
            if sum(self._recent) < _NEEDED:
                return None
            self.speaking, self._silent = True, 0
            self._turn = list(self._before)
            first = len(self._recent) - list(self._recent).index(True)
            self._gap, self._last = self._count - first - self._last, self._count
            return TurnEvent("started", second - first * FRAME / SAMPLE_RATE, np.zeros(0, np.float32))
        self._turn.append(frame)
        if speech:
            self._note(self._silent)
            self._last = self._count
        self._silent = 0 if speech else self._silent + 1
        if self._silent < self._hangover and len(self._turn) * FRAME < LONGEST_SECONDS * SAMPLE_RATE:
            return None
        return self._stop()

    def _note(self, pause: int) -> None:
        """Learn from a pause of a turn how long this speaker pauses."""
        if pause * FRAME < PAUSE_SECONDS * SAMPLE_RATE:
            return
        self._pauses.append(pause)
        usual = _PAUSE_FACTOR * float(np.quantile(self._pauses, _PAUSE_SHARE))
        self._hangover = min(self._longest, max(self._least, round(usual)))

    def _stop(self) -> TurnEvent:
        audio = np.concatenate(self._turn)
        self.clear()
        return TurnEvent("stopped", self._count * FRAME / SAMPLE_RATE, audio)
