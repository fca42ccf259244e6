"""A live avatar inside a voice agent: audio in at any rate, images with the audio that plays with them out.

    driver = Driver(session, sample_rate=24000)
    driver.start()
    await driver.push(samples, 24000)            # int16; waits while too much is queued
    driver.end_speech()
    driver.mark("spoken")                        # comes out after all audio before it
    while (unit := await driver.get()) is not None:
        show(unit.image), play(unit.audio), note(unit.marks)
    driver.interrupt()                           # drops what was not got

Units come at the pace of the clock. Each waits for its image for two or three frames; then its audio goes out without.
While a speech goes on they come one frame early, so that a moment of delay makes no gap. Nothing blocks the event loop.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int16, UInt8

from avatar import log
from avatar.infer.session import Session, Undrawn
from avatar.integrations.speech import Speech
from avatar.io.audio import SAMPLE_RATE
from avatar.serve.frame_threads import FrameThreads

AHEAD_SECONDS = 20.0  # of audio may wait in the session; then `push` waits
PIECE_SECONDS = 1.0  # of audio pushed at once
POLL_SECONDS = 0.02  # between looks whether there is room
HOLD_FRAMES = 2, 3  # that a unit waits for its image, at least and at most
DELAY_SHARE = 0.1  # of a new delay of images in their mean
THINK_SECONDS = 15.0  # that the avatar thinks at most, where no answer comes
MOST_READY = 8  # units that nobody got, before time stands still
MOST_MARKS = 1024  # that wait
PAUSE_SECONDS = 1.0  # without a frame, as in a machine that slept: what is missing is not made up for


@dataclass(frozen=True, eq=False)
class Unit:
    """An image and the audio that plays with it.

    Attributes:
        image: uint8 RGB [H, W, 3]; None: it was too late, and the one before stays.
        audio: int16 [N], mono; empty where nothing is said.
        marks: What was marked, and comes after this audio.
    """

    image: UInt8[np.ndarray, "H W 3"] | None
    audio: Int16[np.ndarray, " N"]
    marks: tuple[Any, ...] = ()


@dataclass(eq=False)
class _Slot:
    """A unit that waits for its image."""

    frame: Undrawn
    made: float
    audio: np.ndarray
    marks: list[Any]
    image: np.ndarray | None = None
    drawn: bool = False  # or will not be
    out: bool = False


@dataclass
class _Queue:
    """What was pushed and is not in a slot yet. Positions count samples since the last interruption."""

    speeches: deque[Speech] = field(default_factory=deque)
    marks: deque[tuple[int, Any]] = field(default_factory=deque)  # position after which it comes
    position: int = 0  # of the next sample that goes into a slot

    @property
    def end(self) -> int:
        return self.position + sum(speech.samples for speech in self.speeches)

    def take(self, shown: int) -> tuple[np.ndarray, list[Any]]:
        """Audio that belongs to ``shown`` samples of lips, and the marks after it."""
        found: list[np.ndarray] = []
        while self.speeches:
            samples, shown = self.speeches[0].take(shown)
            found.append(samples)
            if not self.speeches[0].over:
                break
            self.speeches.popleft()
        audio = np.concatenate(found) if found else np.zeros(0, np.int16)
        self.position += len(audio)
        marks: list[Any] = []
        while self.marks and self.marks[0][0] <= self.position:
            marks.append(self.marks.popleft()[1])
        return audio, marks

    def rest(self) -> list[Unit]:
        """All audio, cut where marks are."""
        found: list[np.ndarray] = [np.zeros(0, np.int16)]
        for speech in self.speeches:
            speech.closed = True
            found.append(speech.take(1 << 60)[0])
        audio, at = np.concatenate(found), self.position
        units: list[Unit] = []
        for position, mark in self.marks:
            units.append(Unit(None, audio[: max(0, position - at)], (mark,)))
            audio, at = audio[len(units[-1].audio) :], at + len(units[-1].audio)
        return [*units, Unit(None, audio)]


class Driver:
    """Drives a session for one listener of a voice agent.

    All methods are called on one event loop, except where they say something else.

    Args:
        session: The session; nobody else pushes into it or steps it.
        sample_rate: Hertz of the audio that comes out.
        clock: Seconds that do not go backwards.

    Attributes:
        failed: Why it stopped by itself; empty while it runs.
    """

    def __init__(self, session: Session, sample_rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.session, self.sample_rate, self._clock = session, sample_rate, clock
        self.failed = ""
        self._lock = threading.Lock()
        self._queue, self._slots, self._ready = _Queue(), deque[_Slot](), deque[Unit]()
        self._heard = Speech(SAMPLE_RATE)
        self._thought: asyncio.TimerHandle | None = None
        self._dropped = 0  # number of the last utterance of the session that was interrupted
        self._epoch = 0  # interruptions
        self._late: np.ndarray | None = None  # image of a unit that went out without it
        self._speaking, self._hold, self._delay = False, HOLD_FRAMES[0], 0.0
        self._start: float | None = None
        self._due = self._taken = 0  # frames by the clock, and frames that were taken
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed, self._over = asyncio.Event(), False
        self._threads = FrameThreads(session.fps, self.take, self.draw, self._fail, clock)

    def start(self) -> None:
        """Begin: units come from now on, also while nothing is said."""
        self._threads.start()

    def stop(self, wait: bool = False) -> None:
        """End it, from any thread and more than once; with ``wait``, after the frame that is being drawn."""
        self._over = True
        self._threads.stop(wait)
        self._wake()

    # --- in -------------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether it was stopped or failed: nothing is taken any more."""
        return self._over

    async def push(self, samples: np.ndarray, sample_rate: int) -> int:
        """Queue audio; wait while too much of it waits.

        Args:
            samples: int16 [N], or [N, C] with several channels.
            sample_rate: Hertz.

        Returns:
            How many samples were taken: all of them, unless it was interrupted or is over.

        Raises:
            AvatarError: The rate or the samples cannot be used.
        """
        epoch, step = self._epoch, max(1, round(PIECE_SECONDS * sample_rate))
        for i in range(0, len(samples), step):
            while self.session.waiting_seconds > AHEAD_SECONDS and epoch == self._epoch and not self._over:
                await asyncio.sleep(POLL_SECONDS)
            with self._lock:
                if epoch != self._epoch or self._over:
                    return i
                speeches = self._queue.speeches
                if not speeches or speeches[-1].closed:
                    speeches.append(Speech(self.sample_rate))
                if self._thought is not None:
                    self.think(False)
                self.session.push_audio(speeches[-1].add(samples[i : i + step], sample_rate))
        return len(samples)

    def end_speech(self) -> None:
        """The speech is complete: its last frames come at once, and further audio begins another one."""
        with self._lock:
            speeches = self._queue.speeches
            if speeches and not speeches[-1].closed:
                self.session.push_audio(speeches[-1].close())
                self.session.end_utterance()

    def hear(self, samples: np.ndarray, sample_rate: int) -> None:
        """Let the avatar listen to audio of somebody else as it comes: it nods, and looks attentive.

        Args:
            samples: int16 [N], or [N, C] with several channels.
            sample_rate: Hertz.

        Raises:
            AvatarError: The rate or the samples cannot be used.
        """
        heard = self._heard.add(samples, sample_rate)
        self._heard.forget()
        if not self._over:
            self.session.hear(heard)

    def think(self, on: bool) -> None:
        """Let the avatar look as if it thinks, until it speaks, or this is called with False; not for ever."""
        self.session.think(on and not self._over)
        if self._thought is not None:
            self._thought.cancel()
            self._thought = None
        if on and not self._over:
            later = asyncio.get_running_loop().call_later
            self._thought = later(THINK_SECONDS, self.session.think, False)

    def mark(self, what: Any) -> bool:
        """Let ``what`` come out after all audio that was pushed before; False where too many wait, or it is over."""
        with self._lock:
            if len(self._queue.marks) >= MOST_MARKS or self._over:
                return False
            self._queue.marks.append((self._queue.end, what))
        return True

    def interrupt(self) -> list[Any]:
        """Drop all audio that was not got, and close the mouth. Return the marks that were dropped with it."""
        with self._lock:
            self._dropped = self.session.end_utterance()
            self.session.interrupt()
            self._epoch += 1
            marks = [mark for part in (*self._ready, *self._slots) for mark in part.marks]
            marks += [mark for _, mark in self._queue.marks]
            self._queue = _Queue()
            silent = np.zeros(0, np.int16)
            self._ready = deque(Unit(unit.image, silent) for unit in self._ready if unit.image is not None)
            for slot in self._slots:
                slot.audio, slot.marks = silent, []
        return marks

    # --- out ------------------------------------------------------------------------------------------------------

    @property
    def quiet(self) -> bool:
        """Whether no audio and no mark waits."""
        with self._lock:
            waits = bool(self._queue.speeches or self._queue.marks)
            return not waits and not any(len(part.audio) or part.marks for part in (*self._slots, *self._ready))

    @property
    def waiting_seconds(self) -> float:
        """Seconds of audio that were pushed and not got."""
        with self._lock:
            ahead = sum(len(part.audio) for part in (*self._slots, *self._ready))
            return (ahead + self._queue.end - self._queue.position) / self.sample_rate

    async def get(self, timeout: float | None = None) -> Unit | None:
        """Wait for the next unit; None once it is over and no unit is left.

        Raises:
            asyncio.TimeoutError: None came within ``timeout`` seconds.
        """
        self._loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            with self._lock:
                if self._ready:
                    return self._ready.popleft()
            if self._over:
                return None
            await asyncio.wait_for(self._changed.wait(), timeout)

    def rest(self) -> list[Unit]:
        """Take what nobody will get any more, once it stopped: audio in order, with the marks after it."""
        with self._lock:
            units = [Unit(None, part.audio, tuple(part.marks)) for part in (*self._ready, *self._slots)]
            units += self._queue.rest()
            self._ready, self._slots, self._queue = deque(), deque(), _Queue()
        return [unit for unit in units if len(unit.audio) or unit.marks]

    # --- its two threads ------------------------------------------------------------------------------------------

    def take(self, now: float) -> None:
        """Take the frames that are due at second ``now``, and hand out the units whose time has come."""
        self._start = now if self._start is None else self._start
        frames = int((now - self._start) * self.session.fps + 1e-6) + 1 - self._due
        self._due += frames
        for _ in range(frames if frames <= PAUSE_SECONDS * self.session.fps else 1):
            if len(self._ready) >= MOST_READY:
                break  # nobody gets them: audio waits in the session
            self._taken += 1
            for frame in self.session.take((self._taken - 0.5) / self.session.fps):
                self._add(frame, now)
            with self._lock:
                self._hand_out()
            self._wake()
            self._threads.wake()

    def draw(self) -> bool:
        """Draw the newest frame that was not drawn; False where there is none. Older ones are left out."""
        with self._lock:
            newest = self._slots[-1] if self._slots and not self._slots[-1].drawn else None
            for slot in self._slots:
                slot.drawn = True
        if newest is None:
            return False
        image = self.session.draw(newest.frame)
        with self._lock:
            self._delay += DELAY_SHARE * (self._clock() - newest.made - self._delay)
            if newest.out:
                self._late = image
            else:
                newest.image = image
        return True

    def _add(self, frame: Undrawn, now: float) -> None:
        with self._lock:
            valid = frame.utterance > self._dropped or not frame.utterance
            audio, marks = self._queue.take(frame.pushed if valid else 0)
            self._slots.append(_Slot(frame, now, audio, marks))

    def _hand_out(self) -> None:
        """Move the units whose time has come from the slots to those that can be got."""
        if not self._speaking and not any(len(slot.audio) for slot in self._slots):
            least, most = HOLD_FRAMES
            self._hold = min(most, max(least, 1 + math.ceil(self._delay * self.session.fps)))
        while len(self._slots) > self._hold - (self._speaking and any(len(slot.audio) for slot in self._slots)):
            slot = self._slots.popleft()
            slot.out = slot.drawn = True
            image = slot.image if slot.image is not None else self._late
            self._late = None
            self._speaking = len(slot.audio) > 0
            if image is not None or self._speaking or slot.marks:
                self._ready.append(Unit(image, slot.audio, tuple(slot.marks)))

    def _fail(self, error: Exception) -> None:
        log.warn(f"An avatar stopped by itself: {type(error).__name__}: {error}")
        self.failed = f"The avatar cannot be drawn any more: {type(error).__name__}: {error}"
        self.stop()

    def _wake(self) -> None:
        if (loop := self._loop) is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._changed.set)
