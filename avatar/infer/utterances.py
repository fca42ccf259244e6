"""The audio of a session on its way to the mouth: queued from any thread, taken frame by frame by the one that draws.

Audio is cut into parts that play one after the other: an utterance goes through the speech network, a long silence does
not. Only what the next frame needs is pushed through the network, so a burst of audio makes no frame wait.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from avatar.infer.layers import joined
from avatar.io.audio import SAMPLE_RATE, SILENCE_DB, loudness_db
from avatar.motion import Motion

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioStream, AudioToMotion

PIECE = SAMPLE_RATE // 50  # samples pushed through the speech network at once: no more than the next frame needs
QUIET_SECONDS = 1.0  # of silence end an utterance: its lips are closed by then
FLUSH_SECONDS = 0.3  # without new audio end an utterance that nobody ended


@dataclass(frozen=True)
class Taken:
    """What belongs to one frame.

    Attributes:
        lips: [1] frame whose mouth counts; None: the mouth is at rest.
        audio: [n] float32 samples of the frame.
        real: How many of them were pushed; the others are padding.
        utterance: Number of the utterance that is under way, from 1 on; 0: none.
        epoch: Interruptions before it.
    """

    lips: Motion | None
    audio: np.ndarray
    real: int
    utterance: int
    epoch: int


class Utterances:
    """Queue of audio, and the lips that belong to it.

    Args:
        speech: The speech network.
        fps: Frames per second.
        rest: [1] frame with the mouth at rest.
        limit: Samples that may wait.
    """

    def __init__(self, speech: AudioToMotion, fps: float, rest: Motion, limit: int) -> None:
        self._speech, self._fps, self._rest, self.limit = speech, fps, rest, limit
        self._lock = threading.Lock()
        # Guarded by the lock: what other threads may touch.
        self._inbox: deque[np.ndarray | None] = deque()  # None ends an utterance
        self._queued = 0  # samples that were pushed and not shown yet
        self._epoch, self._pushes = 0, 0
        self._playing, self._played = 0, 0  # utterance that is shown, and its samples that were
        # Only of the thread that takes.
        self._parts: deque[_Part] = deque()
        self._count, self._ended = 0, True  # utterances so far, and whether the next audio begins another
        self._seen_epoch, self._seen_pushes, self._last_push = 0, 0, 0.0

    @property
    def waiting(self) -> int:
        """Samples that were pushed and not shown yet."""
        return self._queued

    def push(self, samples: np.ndarray) -> int:
        """Queue samples [N]; return how many there was room for."""
        with self._lock:
            count = max(0, min(len(samples), self.limit - self._queued))
            self._inbox.extend(samples[i : min(i + PIECE, count)] for i in range(0, count, PIECE))
            self._queued += count
            self._pushes += 1
        return count

    def end(self) -> None:
        """End the utterance that was pushed last."""
        with self._lock:
            if not self._inbox or self._inbox[-1] is not None:
                self._inbox.append(None)

    def interrupt(self) -> float:
        """Drop everything that was not shown; return how many seconds of the current utterance were."""
        with self._lock:
            self._inbox.clear()
            self._epoch += 1
            self._queued = 0
            played, self._playing, self._played = self._played, 0, 0
        return played / SAMPLE_RATE

    def take(self, samples: int, now: float) -> Taken:
        """Take what belongs to the next frame, ``samples`` samples long, at second ``now``."""
        with self._lock:
            epoch, pushes = self._epoch, self._pushes
        if epoch != self._seen_epoch:
            self._seen_epoch = epoch
            self._parts.clear()
            self._ended = True
        if pushes != self._seen_pushes:
            self._seen_pushes, self._last_push = pushes, now
        while not self._ready() and self._feed(now):
            pass
        padded = np.zeros(samples, np.float32)
        if not self._parts:
            return Taken(None, padded, 0, 0, epoch)
        lips, audio = self._parts[0].take(samples) if self._ready() else (None, padded[:0])
        padded[: len(audio)] = audio
        return Taken(lips, padded, len(audio), self._parts[0].utterance, epoch)

    def shown(self, taken: Taken) -> bool:
        """Note that a frame was shown; False if it was interrupted meanwhile and its audio must not be heard."""
        with self._lock:
            if taken.epoch != self._epoch:
                return taken.real == 0
            self._queued -= taken.real
            if taken.utterance != self._playing:
                self._playing, self._played = taken.utterance, 0
            self._played += taken.real
        return True

    def _ready(self) -> bool:
        while self._parts and self._parts[0].over:
            self._parts.popleft()
        return bool(self._parts) and self._parts[0].ready

    def _feed(self, now: float) -> bool:
        """Let the next piece of audio be heard; False if there is nothing to do."""
        with self._lock:
            if self._epoch != self._seen_epoch:
                return False
            if self._inbox:
                piece, found = self._inbox.popleft(), True
            else:
                piece, found = None, False
        last = self._parts[-1] if self._parts and not self._parts[-1].finished else None
        if piece is not None:
            self._hear(piece, last)
            return True
        if found or now - self._last_push >= FLUSH_SECONDS:
            self._ended = True
            if last is not None:
                last.finish()
                return True
        return found

    def _hear(self, piece: np.ndarray, last: _Part | None) -> None:
        """Append a piece of audio to the part that it belongs to."""
        silent = loudness_db(piece - piece.mean()) <= SILENCE_DB
        if last is None:
            last = self._open(silent)
        elif not last.heard and not silent:
            before = last.cut()
            last = self._open(False)
            last.push(before)
        elif last.heard and silent and last.quiet > QUIET_SECONDS * SAMPLE_RATE and last.missing <= len(piece):
            whole = last.missing  # to a whole frame: nothing has to be padded in between
            last.push(piece[:whole])
            piece = piece[whole:]
            last.finish()
            last = self._open(True)
        last.quiet = last.quiet + len(piece) if silent else 0
        last.push(piece)

    def _open(self, silent: bool) -> _Part:
        self._count, self._ended = self._count + self._ended, False
        stream = _Resting(self._rest, self._fps) if silent else self._speech.open()
        self._parts.append(_Part(self._count, stream, not silent, self._fps))
        return self._parts[-1]


class _Part:
    """Audio of an utterance with its lips; what is not ``heard`` is silence, which the speech network is spared."""

    def __init__(self, utterance: int, stream: AudioStream, heard: bool, fps: float) -> None:
        self.utterance, self._stream, self.heard, self._fps = utterance, stream, heard, fps
        self.quiet = 0  # samples of silence at its end
        self.finished = False
        self._lips: Motion | None = None  # frames not taken
        self._audio = np.zeros(0, np.float32)  # samples not taken
        self._pushed = 0

    @property
    def ready(self) -> bool:
        """Whether a frame can be taken."""
        return bool(self._lips is not None and len(self._lips)) or (self.finished and len(self._audio) > 0)

    @property
    def over(self) -> bool:
        return self.finished and not self.ready

    @property
    def missing(self) -> int:
        """Samples that its last frame still lacks."""
        frames = np.ceil(self._pushed * self._fps / SAMPLE_RATE - 1e-6)
        return max(0, round(frames * SAMPLE_RATE / self._fps) - self._pushed)

    def push(self, samples: np.ndarray) -> None:
        if not len(samples):
            return
        self._pushed += len(samples)
        self._audio = np.concatenate([self._audio, samples])
        self._keep(self._stream.push(samples))

    def finish(self) -> None:
        self._keep(self._stream.finish())
        self.finished = True

    def cut(self) -> np.ndarray:
        """End it after its last whole frame; return the samples after that."""
        kept = sum(frame_samples(i, self._fps) for i in range(0 if self._lips is None else len(self._lips)))
        rest, self._audio = self._audio[kept:], self._audio[:kept]
        self.finished = True
        return rest

    def take(self, samples: int) -> tuple[Motion | None, np.ndarray]:
        """The next frame of lips, and its samples; the last ones may be fewer."""
        lips = None
        if self._lips is not None and len(self._lips):
            lips, self._lips = self._lips[:1], self._lips[1:]
        audio, self._audio = self._audio[:samples], self._audio[samples:]
        return (lips if self.heard else None), audio

    def _keep(self, lips: Motion) -> None:
        self._lips = lips if self._lips is None else joined(self._lips, lips)


class _Resting:
    """An `AudioStream` that hears nothing: lips at rest, as many frames as the samples fill."""

    def __init__(self, rest: Motion, fps: float) -> None:
        self._rest, self._fps = rest, fps
        self._samples = self._frames = 0

    def push(self, samples: np.ndarray) -> Motion:
        self._samples += len(samples)
        return self._until(int(self._samples * self._fps / SAMPLE_RATE + 1e-6))

    def finish(self) -> Motion:
        return self._until(int(np.ceil(self._samples * self._fps / SAMPLE_RATE - 1e-6)))

    def _until(self, frames: int) -> Motion:
        count, self._frames = max(0, frames - self._frames), max(frames, self._frames)
        return self._rest[torch.zeros(count, dtype=torch.long)]


def frame_samples(index: int, fps: float) -> int:
    """Samples that belong to frame ``index`` of a timeline: so that frames and audio never drift apart."""
    return round((index + 1) * SAMPLE_RATE / fps) - round(index * SAMPLE_RATE / fps)
