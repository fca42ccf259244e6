"""Voice activity: a gate on energy that opens at once and closes softly, and loudness relative to the voice.

Silence closes the gate after a stop's closure would be over. In a pause with audible room or breath some people shut
their lips, others breathe in through the open mouth. How long the gate takes to close is a property of the person.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

AHEAD_SECONDS = 1.0  # look-ahead for the level of the voice, so that the first word is judged by itself
_VOICE_FORGETS = 1.0  # dB per second by which the assumed level of the voice sinks ...
_VOICE_ABOVE_FLOOR = 25.0  # ... but not closer to the background than this: after a long pause noise is still noise
_FLOOR_RISES = 1.0  # dB per second by which the assumed background rises
_SILENCE_DB = -60.0  # dBFS; never speech
_SILENCE_BELOW_VOICE = 50.0  # dB; silence, too
_BELOW_VOICE = 38.0  # dB below the voice: not speech, whatever it is
_ABOVE_FLOOR = 5.0  # dB above the background that speech must have ...
_CLEAR_RANGE = 20.0  # ... in recordings where voice and background are this far apart
_STEADY_RANGE = 5.0  # dB; sound that varies less is nobody's voice: speech in noise as loud as it varies by 10
EARLY_SECONDS = 0.08  # the lips part before the sound ...
_RISE_SECONDS = 0.08  # ... and take so long
HOLD_SECONDS = 0.10  # closures of stops are no pauses
_RELEASE_SECONDS = 0.15


class VoiceActivity(NamedTuple):
    """Judged frames.

    Attributes:
        energy: [n] dB relative to full scale, as it came in.
        loudness: [n] dB relative to the voice, -60 to 0.
        gate: [n] 0 (closed) to 1 (open).
    """

    energy: np.ndarray
    loudness: np.ndarray
    gate: np.ndarray


class VoiceActivityDetector:
    """Judge a stream of frames with some look-ahead; how the stream is cut makes no difference.

    Args:
        fps: Frames per second.
        pause: Seconds of pause after which the gate closes; silence may close it sooner.
        ahead: Seconds of look-ahead for the level of the voice; without it the first word is judged by its beginning.
        silence: Seconds of silence after which the gate closes.
        early: Seconds before the sound at which the gate begins to open.
    """

    def __init__(
        self,
        fps: float,
        pause: float = HOLD_SECONDS,
        ahead: float = AHEAD_SECONDS,
        silence: float = HOLD_SECONDS,
        early: float = EARLY_SECONDS,
    ) -> None:
        self._fps = fps
        self._silence_hold = round(silence * fps)
        self._pause_hold = round(max(pause, silence) * fps)
        self._ahead = round(ahead * fps)
        self._early = max(1, round(early * fps))
        self._rise = max(1, round(_RISE_SECONDS * fps))
        self._energy = np.zeros(0)  # of rows not yet given back
        self._levels = np.zeros((0, 2))  # voice and background, as of each of these rows
        self._voice, self._floor = -np.inf, np.inf
        self._open, self._hold = 0.0, 0

    @property
    def look_ahead(self) -> int:
        """Frames after a frame that are needed to judge it."""
        return self._ahead + self._early

    def push(self, energy: Float[np.ndarray, " n"]) -> VoiceActivity:
        """Take energy [n] in dB relative to full scale; return the frames [m] that can be judged."""
        self._energy = np.concatenate([self._energy, energy])
        if len(energy):
            self._levels = np.concatenate([self._levels, [self._follow(float(value)) for value in energy]])
        return self._take(len(self._energy) - self.look_ahead)

    def finish(self) -> VoiceActivity:
        """Return the rest."""
        return self._take(len(self._energy))

    def judge(self, energy: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Loudness relative to the voice [n] and the gate [n] of a whole recording."""
        blocks = self.push(energy), self.finish()
        return np.concatenate([b.loudness for b in blocks]), np.concatenate([b.gate for b in blocks])

    def _follow(self, value: float) -> tuple[float, float]:
        if value > _SILENCE_DB:  # digital silence says nothing about the background of speech
            self._floor = min(value, self._floor + _FLOOR_RISES / self._fps)
        sunk = max(self._voice - _VOICE_FORGETS / self._fps, self._floor + _VOICE_ABOVE_FLOOR)
        self._voice = max(value, min(self._voice, sunk))
        return self._voice, self._floor

    def _take(self, count: int) -> VoiceActivity:
        if count <= 0:
            return VoiceActivity(self._energy[:0], np.zeros(0, np.float32), np.zeros(0, np.float32))
        seen = min(count + self._early, len(self._energy))
        later = np.minimum(np.arange(seen) + self._ahead, len(self._levels) - 1)
        voice, floor = self._levels[later].T
        threshold = np.maximum(_SILENCE_DB, voice - _BELOW_VOICE)
        span = voice - floor  # -inf as long as there was no audio
        threshold = np.where(span > _CLEAR_RANGE, np.maximum(threshold, floor + _ABOVE_FLOOR), threshold)
        speech = (self._energy[:seen] > threshold) & (span > _STEADY_RANGE)
        gate = np.empty(count, np.float32)
        silence = self._energy[:seen] <= np.maximum(_SILENCE_DB, voice - _SILENCE_BELOW_VOICE)
        for i in range(count):
            gate[i] = self._step(bool(speech[i : i + self._early + 1].any()), bool(silence[i]))
        relative = np.clip(self._energy[:count] - voice[:count], -60, 0).astype(np.float32)
        judged = VoiceActivity(self._energy[:count], relative, gate)
        self._energy, self._levels = self._energy[count:], self._levels[count:]
        return judged

    def _step(self, speech: bool, silence: bool) -> float:
        if speech:
            self._open, self._hold = min(1.0, self._open + 1 / self._rise), self._pause_hold
            return self._open
        if silence:
            self._hold = min(self._hold, self._silence_hold)
        if self._hold > 0:
            self._hold -= 1
        else:
            self._open = max(0.0, self._open - 1 / (_RELEASE_SECONDS * self._fps))
        return self._open
