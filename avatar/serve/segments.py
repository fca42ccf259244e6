"""What an avatar is to say, one segment after the other; by its name, each counts once."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from avatar import log
from avatar.errors import AvatarError
from avatar.infer.session import Session
from avatar.io.audio import SAMPLE_RATE

MOST_WAITING = 16  # segments
MOST_REMEMBERED = 256  # names of segments
AHEAD_SECONDS = 2.0  # of audio in the session; the rest of a segment stays with its source
PAUSE_SECONDS = 0.02  # between looks whether there is room


class Interruption(NamedTuple):
    """What was played of the segment that was interrupted.

    Attributes:
        segment: Its name; empty: nothing was being said.
        played_ms: Milliseconds of its audio that were sent.
    """

    segment: str
    played_ms: int


@dataclass(frozen=True, eq=False)
class _Segment:
    name: str
    pieces: Iterable[np.ndarray]


class Segments:
    """Push segments into a session, from a thread of their own.

    Args:
        session: Takes the audio.
        tell: Gets a message for the listener: ``{"type": "segment.started" | "segment.done" | "segment.failed", ...}``.
    """

    def __init__(self, session: Session, tell: Callable[[dict[str, Any]], None]) -> None:
        self._session, self._tell = session, tell
        self._ready = threading.Condition()
        self._waiting: deque[_Segment] = deque()
        self._known: OrderedDict[str, Interruption | None] = OrderedDict()
        self._numbers: dict[int, str] = {}  # utterance to the name of its segment
        self._lengths: dict[str, int] = {}  # samples of segments that were pushed as a whole
        self._failed: dict[str, str] = {}  # segments whose source failed, and why, while what was pushed is still said
        self._last = 0  # number of the last utterance that was ended or interrupted
        self._open = ""  # name of what is pushed now
        self._pushed = 0  # samples of it
        self._epoch, self._closed = 0, False
        self._thread = threading.Thread(target=self._run, name="avatar-segments", daemon=True)
        self._thread.start()

    def say(self, name: str, pieces: Iterable[np.ndarray]) -> bool:
        """Queue a segment: pieces of float32, 16 kHz mono, read one after the other as they are needed.

        Returns:
            False where a segment of this name was queued before: then nothing happens.

        Raises:
            AvatarError: Too many wait.
        """
        with self._ready:
            if name in self._known:
                return False
            if len(self._waiting) >= MOST_WAITING:
                raise AvatarError(f"{MOST_WAITING} segments wait to be spoken.", fix="Send this one later.")
            self._remember(name, None)
            self._waiting.append(_Segment(name, pieces))
            self._ready.notify_all()
        return True

    def push(self, name: str, samples: np.ndarray) -> int:
        """Push audio as it comes, such as that of a microphone, as part of segment ``name``; return what fitted.

        Nothing fits while something else is said or waits to be said.
        """
        with self._ready:
            if self._open != name:
                if self._open or self._waiting:
                    return 0  # something else is being said
                self._open, self._pushed = name, 0
            elif self._waiting:  # a microphone never ends by itself: it goes on after what is asked for
                self._end()
                return 0
            return self._push(samples)

    def end(self, name: str) -> None:
        """End the segment that :meth:`push` pushes."""
        with self._ready:
            if self._open == name:
                self._end()

    def interrupt(self, name: str = "") -> Interruption:
        """Drop everything that was not played; say what was played.

        Args:
            name: The segment that is meant. Where it is over or was interrupted, nothing happens to what is said now.
        """
        with self._ready:
            if name:
                before = self._known.get(name, Interruption(name, 0))
                current = {*self._numbers.values(), self._open, *(s.name for s in self._waiting)}
                if before is not None or name not in current:
                    return before or Interruption(name, 0)
            self._epoch += 1
            self._waiting.clear()
            played = self._session.interrupt()
            number = self._last + 1
            names = self._numbers | ({number: self._open} if self._open and self._pushed else {})
            self._last += bool(self._open and self._pushed > 0)
            spoken = names.get(played.utterance, "") if played.utterance else ""
            found = Interruption(spoken, round(1000 * played.seconds))
            for dropped in {*names.values(), self._open, *self._known} - {""}:
                if self._known.get(dropped, found) is None:
                    self._known[dropped] = found if dropped == spoken else Interruption(dropped, 0)
            self._numbers.clear()
            self._lengths.clear()
            self._failed.clear()
            self._open, self._pushed = "", 0
            self._ready.notify_all()
        return found

    def under_way(self, name: str) -> bool:
        """Whether a segment waits or is being said: it was neither interrupted nor said to its end."""
        with self._ready:
            return name in self._known and self._known[name] is None

    @property
    def interruptions(self) -> int:
        """How often something was dropped."""
        return self._epoch

    def over(self, numbers: Iterable[int]) -> None:
        """Note utterances whose audio is over."""
        for number in numbers:
            with self._ready:
                name = self._numbers.pop(number, "")
                samples = self._lengths.pop(name, 0)
                why = self._failed.pop(name, None)
                if name in self._known:
                    self._known[name] = Interruption(name, round(1000 * samples / SAMPLE_RATE))
            if why is not None:
                self._tell({"type": "segment.failed", "segment": name, "message": why})
            elif name:
                self._tell({"type": "segment.done", "segment": name})

    def close(self) -> None:
        """Stop the thread; it ends after the piece that its source is making."""
        with self._ready:
            self._closed = True
            self._epoch += 1
            self._waiting.clear()
            self._ready.notify_all()

    def _remember(self, name: str, result: Interruption | None) -> None:
        self._known[name] = result
        while len(self._known) > MOST_REMEMBERED:
            self._known.popitem(last=False)

    def _push(self, samples: np.ndarray) -> int:
        count = self._session.push_audio(samples)
        self._pushed += count
        return count

    def _end(self) -> None:
        number = self._session.end_utterance()
        if self._pushed:
            self._last = number
            self._numbers[number] = self._open
            self._lengths[self._open] = self._pushed
        self._open, self._pushed = "", 0
        self._ready.notify_all()

    def _run(self) -> None:
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._closed or (bool(self._waiting) and not self._open))
                if self._closed:
                    return
                segment, epoch = self._waiting.popleft(), self._epoch
                self._open, self._pushed = segment.name, 0
            try:
                self._say(segment, epoch)
            except AvatarError as error:
                self._fail(segment, epoch, str(error))
            except Exception as error:
                log.warn(f"A segment could not be spoken: {type(error).__name__}: {error}")
                self._fail(segment, epoch, "This could not be spoken; the server's log says why.")

    def _say(self, segment: _Segment, epoch: int) -> None:
        for piece in segment.pieces:
            if not self._say_piece(segment, epoch, piece):
                return
        with self._ready:
            if epoch == self._epoch and self._open == segment.name:
                empty = not self._pushed
                self._end()
                if empty:
                    self._known[segment.name] = Interruption(segment.name, 0)
            else:
                return
        if empty:
            self._tell({"type": "segment.done", "segment": segment.name})

    def _say_piece(self, segment: _Segment, epoch: int, piece: np.ndarray) -> bool:
        """Push a piece as room comes; False where the segment was interrupted."""
        while len(piece):
            with self._ready:
                if epoch != self._epoch:
                    return False
                room = max(0, round((AHEAD_SECONDS - self._session.waiting_seconds) * SAMPLE_RATE))
                if room and not self._pushed:  # before the audio, which listeners could not place otherwise
                    self._tell({"type": "segment.started", "segment": segment.name})
                count = self._push(piece[:room]) if room else 0
            piece = piece[count:]
            if len(piece):
                time.sleep(PAUSE_SECONDS)
        return True

    def _fail(self, segment: _Segment, epoch: int, why: str) -> None:
        with self._ready:
            if epoch != self._epoch:
                return
            if self._open == segment.name:
                spoken = self._pushed > 0
                self._end()
                if spoken:  # it is over once that was said
                    self._failed[segment.name] = why
                    return
        self._tell({"type": "segment.failed", "segment": segment.name, "message": why})


def one(samples: np.ndarray) -> Iterator[np.ndarray]:
    """A segment of one piece."""
    yield samples
