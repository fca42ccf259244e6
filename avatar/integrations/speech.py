"""What a voice agent says, twice: in full quality for whoever listens, and at 16 kHz for the lips.

A session takes 16 kHz and tells how much of it was shown. The same share of the original audio is played then. So a
voice of 24 kHz stays one of 24 kHz, and audio that comes at the rate of the output goes through bit by bit.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import soxr
from jaxtyping import Int16

from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE, SAMPLE_RATES

FULL_SCALE = 32768


class Speech:
    """One speech: audio in from its source, out in the shares that a session showed.

    Args:
        sample_rate: Hertz of what comes out.
        interruptible: Whether an interruption ends it.
        about: What whoever pushed it wants to know of its audio when it comes out.
    """

    def __init__(self, sample_rate: int, interruptible: bool = True, about: Any = None) -> None:
        self.interruptible, self.about = interruptible, about
        self._rate = sample_rate
        self._in_rate = sample_rate
        self._to_output: soxr.ResampleStream | None = None
        self._to_lips = None if sample_rate == SAMPLE_RATE else _stream(sample_rate, SAMPLE_RATE)
        self._pieces: deque[np.ndarray] = deque()  # int16, not taken
        self._taken = 0  # samples that were taken, ...
        self._lips_in = self._lips_out = 0  # ... and those of the lips: given to the session, and shown by it
        self.closed = self.dropped = False

    @property
    def samples(self) -> int:
        """Samples of the output that were not taken."""
        return sum(map(len, self._pieces))

    @property
    def over(self) -> bool:
        """Whether it is closed, and all of it was shown."""
        return self.closed and self._lips_out == self._lips_in

    def add(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        """Add audio.

        Args:
            samples: int16 [N], or [N, C] with several channels, which are mixed.
            sample_rate: Hertz.

        Returns:
            float32 [M] of 16 kHz for the lips.

        Raises:
            AvatarError: The rate or the samples cannot be used.
        """
        if not SAMPLE_RATES[0] <= sample_rate <= SAMPLE_RATES[1]:
            raise AvatarError(
                f"Audio has {sample_rate} samples per second.", fix=f"Give {SAMPLE_RATES[0]} to {SAMPLE_RATES[1]}."
            )
        if samples.dtype != np.int16 or samples.ndim not in (1, 2):
            raise AvatarError(f"Audio is {samples.dtype} {list(samples.shape)}.", fix="Give int16 [N] or [N, C].")
        if samples.ndim == 2:
            samples = samples[:, 0] if samples.shape[1] == 1 else np.rint(samples.mean(1)).astype(np.int16)
        flushed = np.zeros(0, np.int16)
        if sample_rate != self._in_rate:
            flushed = self._flush()
            self._in_rate = sample_rate
            self._to_output = _stream(sample_rate, self._rate) if sample_rate != self._rate else None
        return self._keep(np.concatenate([flushed, self._resampled(samples)]))

    def forget(self) -> None:
        """Drop what was added and not taken: only its lips were wanted."""
        self._pieces.clear()

    def drop(self) -> None:
        """Drop what was not taken; its lips stay in the session until whatever is said before it is over."""
        self.forget()
        self.closed = self.dropped = True

    def again(self) -> np.ndarray:
        """Its lips anew, for a session that has forgotten them; nothing of it was taken yet."""
        samples = np.concatenate([np.zeros(0, np.int16), *self._pieces])
        self.forget()
        self._lips_in = 0
        self._to_lips = None if self._to_lips is None else _stream(self._rate, SAMPLE_RATE)
        return self._keep(samples, last=self.closed)

    def close(self) -> np.ndarray:
        """End it; return the last samples for the lips, float32 [M] of 16 kHz."""
        lips = self._keep(self._flush(), last=True)
        if not self._lips_in:  # the session shall show that there was something, and that it is over
            self._lips_in, lips = 1, np.zeros(1, np.float32)
        self.closed = True
        return lips

    def take(self, shown: int) -> tuple[Int16[np.ndarray, " N"], int]:
        """Take the audio of ``shown`` samples of lips; return it, and those that are of the next speech."""
        count = min(shown, self._lips_in - self._lips_out)
        self._lips_out += count
        until = round(self._lips_out * self._rate / SAMPLE_RATE)
        return self._cut(self.samples if self.over else max(0, until - self._taken)), shown - count

    def _cut(self, count: int) -> np.ndarray:
        found: list[np.ndarray] = []
        while count > 0 and self._pieces:
            piece = self._pieces.popleft()
            found.append(piece[:count])
            if len(piece) > count:
                self._pieces.appendleft(piece[count:])
            count -= len(found[-1])
        samples = np.concatenate(found) if found else np.zeros(0, np.int16)
        self._taken += len(samples)
        return samples

    def _resampled(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        if self._to_output is None:
            return samples
        out = self._to_output.resample_chunk(samples.astype(np.float32), last=last)
        return np.rint(out).clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)

    def _flush(self) -> np.ndarray:
        return self._resampled(np.zeros(0, np.int16), last=True)

    def _keep(self, samples: np.ndarray, last: bool = False) -> np.ndarray:
        if len(samples):
            self._pieces.append(samples)
        lips = samples.astype(np.float32) / FULL_SCALE
        if self._to_lips is not None:
            lips = self._to_lips.resample_chunk(lips, last=last).clip(-1, 1)
        self._lips_in += len(lips)
        return lips


def converted(samples: np.ndarray, sample_rate: int, to: int) -> Int16[np.ndarray, " N"]:
    """Audio as one channel of another rate; see `Speech.add`."""
    speech = Speech(to)
    speech.add(samples, sample_rate)
    speech.close()
    return speech.take(1 << 60)[0]


def _stream(rate: int, to: int) -> soxr.ResampleStream:
    return soxr.ResampleStream(rate, to, 1, dtype="float32")
