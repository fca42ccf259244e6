"""The audio of a session on its way to the mouth: queued from any thread, taken frame by frame by the one that draws.

Audio is cut into parts that play one after the other: an utterance goes through the speech network, a long silence does
not. Only what the next frame needs is pushed through the network, so a burst of audio makes no frame wait. An utterance
that has not begun to be shown waits for its look-ahead in shares, so that no step runs the encoder of live lips twice.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from avatar.audio.turns import SpeechFrames
from avatar.audio2motion.base import gain_for, levelled
from avatar.infer.layers import joined
from avatar.io.audio import SAMPLE_RATE, SILENCE_DB, loudness_db
from avatar.io.listening import moments_db, voice_level
from avatar.motion import Motion

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioStream, AudioToMotion

PIECE = SAMPLE_RATE // 50  # samples pushed through the speech network at once: no more than the next frame needs
QUIET_SECONDS = 1.0  # of silence end an utterance: its lips are closed by then
FLUSH_SECONDS = 0.3  # without new audio end an utterance that nobody ended
LEVEL_SECONDS = 2.0, 10.0  # of speech, at least and at most, that tell how loud the speaker is
SHARE = 0.5  # of the look-ahead is encoded in a step before an utterance is shown: less than two hops of streaming lips


@dataclass(frozen=True)
class Taken:
    """What belongs to one frame.

    Attributes:
        lips: [1] frame whose mouth counts; None: the mouth is at rest.
        audio: [n] float32 samples of the frame.
        real: How many of them were pushed; the others are padding.
        utterance: Number of the utterance that is under way, from 1 on; 0: none.
        epoch: Interruptions before it.
        ended: Utterances whose last sample is in this frame, or was in the one before.
    """

    lips: Motion | None
    audio: np.ndarray
    real: int
    utterance: int
    epoch: int
    ended: tuple[int, ...] = ()


class Played(NamedTuple):
    """What was shown of an utterance that was interrupted.

    Attributes:
        utterance: Its number; 0: none was being shown.
        seconds: How much of its audio came out.
    """

    utterance: int
    seconds: float


class Utterances:
    """Queue of audio, and the lips that belong to it.

    Args:
        speech: The speech network.
        fps: Frames per second.
        rest: [1] frame with the mouth at rest.
        limit: Samples that may wait.
        flush: Seconds without new audio that end an utterance; None: nothing but `end` does.
    """

    def __init__(
        self, speech: AudioToMotion, fps: float, rest: Motion, limit: int, flush: float | None = FLUSH_SECONDS
    ) -> None:
        self._speech, self._fps, self._rest, self.limit, self._flush = speech, fps, rest, limit, flush
        self._share = round(max(SHARE * speech.look_ahead, 1 / fps + PIECE / SAMPLE_RATE) * SAMPLE_RATE)
        self._lock = threading.Lock()
        # Guarded by the lock: what other threads may touch.
        self._inbox: deque[tuple[int, np.ndarray] | None] = deque()  # utterance and samples; None ends an utterance
        self._count, self._over = 0, True  # utterances that were pushed, and whether the next audio begins another
        self._queued = 0  # samples that were pushed and not shown yet
        self._epoch, self._pushes = 0, 0
        self._playing, self._played = 0, 0  # utterance that is shown, and its samples that were
        # Only of the thread that takes.
        self._parts: deque[_Part] = deque()
        self._ended: list[int] = []  # utterances that are over, for the next frame
        self._voice = SpeechFrames()
        self._spoken: deque[np.ndarray] = deque(maxlen=round(LEVEL_SECONDS[1] * SAMPLE_RATE) // PIECE)  # last speech
        self._seen_epoch, self._seen_pushes, self._last_push = 0, 0, 0.0
        self._now: float | None = None  # moment of the last step, ...
        self._left = 0  # ... and samples that may still be encoded in it
        self._whole = False  # the last frame was one of audio, as a whole

    @property
    def waiting(self) -> int:
        """Samples that were pushed and not shown yet."""
        return self._queued

    def push(self, samples: np.ndarray) -> int:
        """Queue samples [N]; return how many there was room for."""
        with self._lock:
            count = max(0, min(len(samples), self.limit - self._queued))
            if not count:
                return 0
            self._count, self._over = self._count + self._over, False
            pieces = (samples[i : min(i + PIECE, count)] for i in range(0, count, PIECE))
            self._inbox.extend((self._count, piece) for piece in pieces)
            self._queued += count
            self._pushes += 1
        return count

    def end(self) -> int:
        """End the utterance that was pushed last; return its number."""
        with self._lock:
            if not self._over:
                self._over = True
                self._inbox.append(None)
            return self._count

    def interrupt(self) -> Played:
        """Drop everything that was not shown; return what was shown of the current utterance."""
        with self._lock:
            self._inbox.clear()
            self._epoch += 1
            self._queued, self._over = 0, True
            played = Played(self._playing, self._played / SAMPLE_RATE)
            self._playing = self._played = 0
        return played

    def take(self, samples: int, now: float, at_once: bool = False) -> Taken:
        """Take what belongs to the next frame, ``samples`` samples long, at second ``now``.

        With ``at_once``, an utterance begins without spreading the work over steps.
        """
        with self._lock:
            epoch, pushes = self._epoch, self._pushes
        if epoch != self._seen_epoch:
            self._seen_epoch = epoch
            self._parts.clear()
            self._ended.clear()
        if pushes != self._seen_pushes:
            self._seen_pushes, self._last_push = pushes, now
        if now != self._now or at_once:
            self._now, self._left = now, self.limit if at_once else self._share
        while not self._ready() and (self._left > 0 or self._shows()) and self._feed(now):
            pass
        while self._left > 0 and self._inbox and self._rests() and self._feed(now):
            pass
        padded = np.zeros(samples, np.float32)
        lips, audio, utterance = None, padded[:0], 0
        if self._ready():
            lips, audio = self._fill(samples, now)
            padded[: len(audio)] = audio
        self._whole = len(audio) == samples
        if self._parts:
            utterance = self._parts[0].utterance
            self._ready()  # notes that the utterance is over with this frame
        ended, self._ended = tuple(self._ended), []
        return Taken(lips, padded, len(audio), utterance, epoch, ended)

    def prepare(self) -> bool:
        """Encode for the next frame what came since the last one; whether it lacks audio, where the last did not."""
        with self._lock:
            interrupted, goes_on = self._epoch != self._seen_epoch, not self._over
        if self._now is None or interrupted:
            return False
        while not self._ready() and (self._left > 0 or self._shows()) and self._feed(self._now):
            pass
        return goes_on and self._whole and not self._ready() and self._shows()

    def ahead(self, most: int) -> tuple[np.ndarray, bool]:
        """Samples that wait, ``most`` at most, and whether their speaker goes on; for the thread that takes."""
        pieces = [part.audio for part in self._parts]
        count = sum(map(len, pieces))
        with self._lock:
            for entry in self._inbox:
                if count >= most:
                    break
                if entry is not None:
                    pieces.append(entry[1])
                    count += len(entry[1])
            goes_on = not self._over
        return np.concatenate([np.zeros(0, np.float32), *pieces])[:most], goes_on

    def shown(self, taken: Taken) -> bool:
        """Note that a frame was shown; False if it was interrupted meanwhile and its audio must not be played."""
        with self._lock:
            if taken.epoch != self._epoch:
                return False
            self._queued -= taken.real
            if taken.utterance != self._playing:
                self._playing, self._played = taken.utterance, 0
            self._played += taken.real
        return True

    def _fill(self, samples: int, now: float) -> tuple[Motion | None, np.ndarray]:
        """The lips and samples of a frame that is ready.

        Parts are cut at frames that count from their own begin, which at rates such as 30 is a sample off those of the
        session. What the last frame of a part lacks is of the next one.
        """
        part = self._parts[0]
        lips, audio = part.take(samples)
        while len(audio) < samples and not part.final:
            source = self._parts[1] if part.finished else part
            if not len(source.audio) and not self._feed(now):
                break
            rest = samples - len(audio)
            audio, source.audio = np.concatenate([audio, source.audio[:rest]]), source.audio[rest:]
        with self._lock:
            ends = bool(self._inbox) and self._inbox[0] is None
        if ends and part is self._parts[-1] and not part.finished and not len(part.audio):
            self._feed(now)  # the utterance is over with this frame
        return lips, audio

    def _ready(self) -> bool:
        while self._parts and self._parts[0].over:
            part = self._parts.popleft()
            if part.final:
                self._ended.append(part.utterance)
            elif len(part.audio):
                self._parts[0].audio = np.concatenate([part.audio, self._parts[0].audio])
        return bool(self._parts) and self._parts[0].ready

    def _shows(self) -> bool:
        """Whether frames of the utterance were taken: the next one must not wait."""
        return bool(self._parts) and self._parts[0].begun

    def _rests(self) -> bool:
        """Whether a silence is shown after which speech is not ready: it may be encoded meanwhile."""
        if not self._parts or self._parts[0].spoken:
            return False
        last = self._parts[-1]
        return not (last.spoken and last.ready)

    def _feed(self, now: float) -> bool:
        """Pass on the next piece of audio; False if there is nothing to do."""
        with self._lock:
            if self._epoch != self._seen_epoch:
                return False
            pause = self._flush is not None and now - self._last_push >= self._flush
            if not self._inbox and (self._over or not pause):
                return False
            entry = self._inbox.popleft() if self._inbox else None
            if entry is None and not self._inbox:
                self._over = True
        last = self._parts[-1] if self._parts and not self._parts[-1].finished else None
        if entry is not None:
            self._left -= len(entry[1])
            self._append(*entry, last)
        elif last is not None:
            last.finish()
            last.final = True
        return True

    def _append(self, utterance: int, piece: np.ndarray, last: _Part | None) -> None:
        """Append a piece of audio to the part that it belongs to."""
        silent = loudness_db(piece - piece.mean()) <= SILENCE_DB
        if last is None:
            last = self._open(utterance, silent)
        elif not last.spoken and not silent:
            before = last.cut()
            last = self._open(utterance, False)
            last.push(before)
        elif last.spoken and silent and last.quiet > QUIET_SECONDS * SAMPLE_RATE and last.missing <= len(piece):
            whole = last.missing  # to a whole frame: nothing has to be padded in between
            last.push(piece[:whole])
            piece = piece[whole:]
            last.finish()
            last = self._open(utterance, True)
        last.quiet = last.quiet + len(piece) if silent else 0
        self._spoken.extend(frame for frame, speech in self._voice.push(piece) if speech)
        last.push(piece)

    def _open(self, utterance: int, silent: bool) -> _Part:
        if silent:
            part = _Part(utterance, _Resting(self._rest, self._fps), False, self._fps)
        else:
            part = _Part(utterance, self._speech.open(), True, self._fps, gain_for(self._speech, self._voice_db()))
        self._parts.append(part)
        return part

    def _voice_db(self) -> float | None:
        """Level of what was said last and of what waits, dBFS; None where that is too little to tell."""
        with self._lock:
            waiting = [entry[1] for entry in self._inbox if entry is not None][: self._spoken.maxlen]
        judged = SpeechFrames().push(np.concatenate([np.zeros(0, np.float32), *waiting]))  # a room is no voice
        frames = [*self._spoken, *(frame for frame, speech in judged if speech)]
        enough = len(frames) * PIECE >= LEVEL_SECONDS[0] * SAMPLE_RATE
        return voice_level(moments_db(np.concatenate(frames))) if enough else None


def needed_samples(speech: AudioToMotion) -> int:
    """Samples, in whole pieces, that an utterance has when its first frame comes out."""
    stream, samples = speech.open(), 0
    sound = np.random.default_rng(0).uniform(-0.1, 0.1, PIECE).astype(np.float32)
    while samples < SAMPLE_RATE:
        samples += PIECE
        if len(stream.push(sound)):
            break
    return samples


class _Part:
    """Audio of an utterance with its lips; what is not ``spoken`` is silence, which the speech network is spared."""

    def __init__(self, utterance: int, stream: AudioStream, spoken: bool, fps: float, gain: float = 1.0) -> None:
        self.utterance, self._stream, self.spoken, self._fps, self._gain = utterance, stream, spoken, fps, gain
        self.quiet = 0  # samples of silence at its end
        self.finished = False
        self.final = False  # its end is that of the utterance
        self.begun = False  # a frame was taken
        self._lips: Motion | None = None  # frames not taken
        self.audio = np.zeros(0, np.float32)  # samples not taken
        self._pushed = 0

    @property
    def ready(self) -> bool:
        """Whether a frame can be taken."""
        if self.finished and not self.final:  # less than half a frame is left to the next part
            return len(self.audio) * self._fps >= SAMPLE_RATE / 2
        return bool(self._lips is not None and len(self._lips)) or (self.final and len(self.audio) > 0)

    @property
    def over(self) -> bool:
        return self.finished and not self.ready

    @property
    def missing(self) -> int:
        """Samples that its last frame still lacks."""
        frames = np.ceil(self._pushed * self._fps / SAMPLE_RATE - 1e-6)
        return max(0, int(frames * SAMPLE_RATE / self._fps + 1e-6) - self._pushed)  # no sample of the frame after

    def push(self, samples: np.ndarray) -> None:
        if not len(samples):
            return
        self._pushed += len(samples)
        self.audio = np.concatenate([self.audio, samples])
        self._keep(self._stream.push(levelled(samples, self._gain)))

    def finish(self) -> None:
        self._keep(self._stream.finish())
        self.finished = True

    def cut(self) -> np.ndarray:
        """End it after its last whole frame; return the samples after that."""
        kept = sum(frame_samples(i, self._fps) for i in range(0 if self._lips is None else len(self._lips)))
        rest, self.audio = self.audio[kept:], self.audio[:kept]
        self.finished = True
        return rest

    def take(self, samples: int) -> tuple[Motion | None, np.ndarray]:
        """The next frame of lips, and its samples; the last ones may be fewer."""
        lips, self.begun = None, True
        if self._lips is not None and len(self._lips):
            lips, self._lips = self._lips[:1], self._lips[1:]
        audio, self.audio = self.audio[:samples], self.audio[samples:]
        return (lips if self.spoken else None), audio

    def _keep(self, lips: Motion) -> None:
        self._lips = lips if self._lips is None else joined(self._lips, lips)


class Speechless:
    """Stands for the speech network of an avatar that has none: its lips stay at rest.

    Args:
        rest: [1] frame with the mouth at rest.
        fps: Frames per second.
    """

    def __init__(self, rest: Motion, fps: float) -> None:
        self._rest, self.fps, self.look_ahead = rest, fps, 1 / fps

    def open(self) -> AudioStream:
        """Begin an utterance."""
        return _Resting(self._rest, self.fps)


class _Resting:
    """An `AudioStream` without a network: lips at rest, as many frames as the samples fill."""

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
