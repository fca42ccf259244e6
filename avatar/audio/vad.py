"""Is anybody speaking? A gate on loudness that opens at once and closes softly, and loudness relative to the voice.

Silence closes the gate after a stop's closure would be over. A pause in which a room or a breath can be heard is
another matter: some people shut their lips in it, others breathe in through the open mouth. How long it takes to close
the gate is therefore a property of the person.
"""

from __future__ import annotations

import numpy as np

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
_EARLY_SECONDS = 0.08  # the lips part before the sound
HOLD_SECONDS = 0.10  # closures of stops are no pauses
_RELEASE_SECONDS = 0.15

Rows = tuple[np.ndarray, np.ndarray, np.ndarray]


class VoiceActivityDetector:
    """Judges a stream of frames with some look-ahead; how the stream is cut makes no difference.

    Args:
        fps: Frames per second.
        pause: Seconds of pause after which the gate closes; silence may close it sooner.
        ahead: Seconds of look-ahead for the level of the voice; without it the first word is judged by its beginning.
        silence: Seconds of silence after which the gate closes.
    """

    def __init__(
        self, fps: float, pause: float = HOLD_SECONDS, ahead: float = AHEAD_SECONDS, silence: float = HOLD_SECONDS
    ) -> None:
        self._fps = fps
        self._silence_hold = round(silence * fps)
        self._pause_hold = round(max(pause, silence) * fps)
        self._ahead = round(ahead * fps)
        self._early = max(1, round(_EARLY_SECONDS * fps))
        self._features: np.ndarray | None = None  # rows not yet given back
        self._energy = np.zeros(0)  # of the same rows
        self._levels = np.zeros((0, 2))  # voice and background, as of each of these rows
        self._voice, self._floor = -np.inf, np.inf
        self._open, self._hold = 0.0, 0

    def push(self, features: np.ndarray, energy: np.ndarray) -> list[Rows]:
        """Add rows; get back those that can be judged.

        Args:
            features: [n, F] carried along.
            energy: [n] dB relative to full scale.

        Returns:
            Blocks (features [m, F], loudness relative to the voice [m] in dB, gate [m] 0 to 1).
        """
        self._features = features if self._features is None else np.concatenate([self._features, features])
        self._energy = np.concatenate([self._energy, energy])
        self._levels = np.concatenate([self._levels, [self._follow(float(value)) for value in energy]])
        return self._give(len(self._energy) - self._ahead - self._early)

    def finish(self) -> list[Rows]:
        """The rest."""
        return self._give(len(self._energy))

    def judge(self, energy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A whole recording at once: loudness relative to the voice [n], and the gate [n]."""
        rows = [*self.push(energy[:, None], energy), *self.finish()]
        return np.concatenate([row[1] for row in rows]), np.concatenate([row[2] for row in rows])

    def _follow(self, value: float) -> tuple[float, float]:
        if value > _SILENCE_DB:  # digital silence says nothing about the background of speech
            self._floor = min(value, self._floor + _FLOOR_RISES / self._fps)
        sunk = max(self._voice - _VOICE_FORGETS / self._fps, self._floor + _VOICE_ABOVE_FLOOR)
        self._voice = max(value, min(self._voice, sunk))
        return self._voice, self._floor

    def _give(self, count: int) -> list[Rows]:
        if count <= 0 or self._features is None:
            return []
        seen = min(count + self._early, len(self._energy))
        later = np.minimum(np.arange(seen) + self._ahead, len(self._levels) - 1)
        voice, floor = self._levels[later].T
        threshold = np.maximum(_SILENCE_DB, voice - _BELOW_VOICE)
        span = voice - floor  # -inf as long as there was no sound
        threshold = np.where(span > _CLEAR_RANGE, np.maximum(threshold, floor + _ABOVE_FLOOR), threshold)
        speech = (self._energy[:seen] > threshold) & (span > _STEADY_RANGE)
        opens = np.empty(count, np.float32)
        silence = self._energy[:seen] <= np.maximum(_SILENCE_DB, voice - _SILENCE_BELOW_VOICE)
        for i in range(count):
            opens[i] = self._step(bool(speech[i : i + self._early + 1].any()), bool(silence[i]))
        relative = np.clip(self._energy[:count] - voice[:count], -60, 0).astype(np.float32)
        block = self._features[:count], relative, opens
        self._features, self._energy, self._levels = self._features[count:], self._energy[count:], self._levels[count:]
        return [block]

    def _step(self, speech: bool, silence: bool) -> float:
        if speech:
            self._open, self._hold = min(1.0, self._open + 1 / self._early), self._pause_hold
            return self._open
        if silence:
            self._hold = min(self._hold, self._silence_hold)
        if self._hold > 0:
            self._hold -= 1
        else:
            self._open = max(0.0, self._open - 1 / (_RELEASE_SECONDS * self._fps))
        return self._open
