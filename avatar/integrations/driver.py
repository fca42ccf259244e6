"""A live avatar inside a voice agent: audio in at any rate, images with the audio that plays with them out.

    driver = Driver(session, sample_rate=24000)
    driver.start()
    await driver.push(samples, 24000)            # int16; waits while too much is queued
    driver.end_speech()
    driver.mark("spoken")                        # comes out after all audio before it
    while (unit := await driver.get()) is not None:
        show(unit.image), play(unit.audio), note(unit.marks)
    driver.interrupt()                           # drops what was not got, but not what was pushed as uninterruptible

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
from dataclasses import dataclass, field, replace
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
SILENT = np.zeros(0, np.int16)


@dataclass(frozen=True, eq=False)
class Unit:
    """An image and the audio that plays with it.

    Attributes:
        image: uint8 RGB [H, W, 3]; None: it was too late, and the one before stays.
        audio: int16 [N], mono, of one speech; empty where nothing is said.
        marks: What was marked, and comes after this audio.
        interruptible, about: What was said of the audio when it was pushed.
    """

    image: UInt8[np.ndarray, "H W 3"] | None
    audio: Int16[np.ndarray, " N"]
    marks: tuple[Any, ...] = ()
    interruptible: bool = True
    about: Any = None


@dataclass(eq=False)
class _Slot:
    """A unit that waits for its image."""

    frame: Undrawn
    made: float
    unit: Unit
    image: np.ndarray | None = None
    drawn: bool = False  # or will not be
    out: bool = False

    @property
    def speaks(self) -> bool:
        return len(self.unit.audio) > 0


@dataclass
class _Queue:
    """What was pushed and is not in a slot yet. Positions count samples, without those that were dropped."""

    speeches: deque[Speech] = field(default_factory=deque)
    marks: deque[tuple[int, Any]] = field(default_factory=deque)  # position after which it comes
    position: int = 0  # of the next sample that goes into a slot

    @property
    def end(self) -> int:
        return self.position + sum(speech.samples for speech in self.speeches)

    def take(self, shown: int) -> Unit:
        """Audio that belongs to ``shown`` samples of lips, and the marks after it, without an image."""
        found, of = [SILENT], None  # a frame has audio of one speech alone: each is an utterance of the session
        while self.speeches:
            speech = self.speeches[0]
            samples, shown = speech.take(shown)
            found.append(samples)
            of = speech if len(samples) else of
            if not speech.over:
                break
            self.speeches.popleft()
        return self._unit(np.concatenate(found), of)

    def drop(self, lasts: Callable[[Any], bool], said: bool) -> list[Any]:
        """Drop speeches that may be interrupted; return the marks that nothing holds back any more.

        Args:
            lasts: Whether a mark stays behind a speech that goes on.
            said: Whether such a speech was taken from the queue and was not got.
        """
        moved, gone = deque[tuple[int, Any]](), list[Any]()
        end = new = self.position  # of the audio as it was, and without what is dropped
        for speech in (Speech(SAMPLE_RATE), *self.speeches):  # marks may stand before all speeches
            start, end = end, end + speech.samples
            goes_on = not speech.interruptible and speech.samples > 0
            said = said or goes_on
            while self.marks and self.marks[0][0] <= end:
                position, mark = self.marks.popleft()
                if said and lasts(mark):
                    moved.append((new + (position - start if goes_on else 0), mark))
                else:
                    gone.append(mark)
            new += speech.samples if goes_on else 0
            if speech.interruptible:
                speech.drop()
        self.marks = moved
        return gone

    def rest(self) -> list[Unit]:
        """All audio, cut where marks are."""
        units: list[Unit] = []
        for speech in self.speeches:
            speech.closed = True
            audio = speech.take(1 << 60)[0]
            while self.marks and self.marks[0][0] < self.position + len(audio):
                count = max(0, self.marks[0][0] - self.position)
                units.append(self._unit(audio[:count], speech))
                audio = audio[count:]
            units.append(self._unit(audio, speech))
        return [*units, Unit(None, SILENT, tuple(mark for _, mark in self.marks))]

    def _unit(self, audio: np.ndarray, speech: Speech | None = None) -> Unit:
        """The next audio, with the marks after it."""
        self.position += len(audio)
        marks: list[Any] = []
        while self.marks and self.marks[0][0] <= self.position:
            marks.append(self.marks.popleft()[1])
        of = () if speech is None else (speech.interruptible, speech.about)
        return Unit(None, audio, tuple(marks), *of)


class Driver:
    """Drives a session for one listener of a voice agent.

    All methods are called on one event loop, except where they say something else.

    Args:
        session: The session; nobody else pushes into it or steps it.
        sample_rate: Hertz of the audio that comes out.
        clock: Seconds that do not go backwards.
        lasts: Whether an interruption leaves a mark behind a speech that it leaves.

    Attributes:
        failed: Why it stopped by itself; empty while it runs.
    """

    def __init__(
        self, session: Session, sample_rate: int, clock: Callable[[], float] = time.monotonic,
        lasts: Callable[[Any], bool] = lambda mark: False,
    ) -> None:  # fmt: skip
        self.session, self.sample_rate, self._clock, self._lasts = session, sample_rate, clock, lasts
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

    async def push(
        self, samples: np.ndarray, sample_rate: int, *, interruptible: bool = True, about: Any = None
    ) -> int:
        """Queue audio; wait while too much of it waits.

        Args:
            samples: int16 [N], or [N, C] with several channels.
            sample_rate: Hertz.
            interruptible: Whether :meth:`interrupt` drops it.
            about: What comes out with it, in the units. Where either of both changes, another speech begins.

        Returns:
            How many samples were taken: all of them, unless it was interrupted or is over.

        Raises:
            AvatarError: The rate or the samples cannot be used.
        """
        epoch, step = self._epoch, max(1, round(PIECE_SECONDS * sample_rate))

        def refused() -> bool:
            return self._over or (interruptible and epoch != self._epoch)

        for i in range(0, len(samples), step):
            while self.session.waiting_seconds > AHEAD_SECONDS and not refused():
                await asyncio.sleep(POLL_SECONDS)
            with self._lock:
                if refused():
                    return i
                speech = self._speech(interruptible, about)
                if self._thought is not None:
                    self.think(False)
                self.session.push_audio(speech.add(samples[i : i + step], sample_rate))
        return len(samples)

    def end_speech(self) -> None:
        """The speech is complete: its last frames come at once, and further audio begins another one."""
        with self._lock:
            self._end_speech()

    def _end_speech(self) -> None:
        speeches = self._queue.speeches
        if speeches and not speeches[-1].closed:
            self.session.push_audio(speeches[-1].close())
            self.session.end_utterance()

    def _speech(self, interruptible: bool, about: Any) -> Speech:
        """The speech that further audio belongs to."""
        speeches = self._queue.speeches
        if speeches and (speeches[-1].interruptible, speeches[-1].about) != (interruptible, about):
            self._end_speech()
        if not speeches or speeches[-1].closed:
            speeches.append(Speech(self.sample_rate, interruptible, about))
        return speeches[-1]

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
        """Drop the audio that was not got and may be interrupted, and close the mouth, unless it goes on speaking.

        Returns:
            The marks that were dropped with it, and those that wait for nothing any more.
        """
        said, gone = False, list[Any]()

        def left(unit: Unit) -> Unit:
            nonlocal said
            audio, marks = SILENT if unit.interruptible else unit.audio, list[Any]()
            said = said or len(audio) > 0
            for mark in unit.marks:
                (marks if said and self._lasts(mark) else gone).append(mark)
            return replace(unit, audio=audio, marks=tuple(marks))

        with self._lock:
            self._epoch += 1
            ready = map(left, self._ready)
            self._ready = deque(unit for unit in ready if unit.image is not None or len(unit.audio) or unit.marks)
            for slot in self._slots:
                slot.unit = left(slot.unit)
            gone += self._queue.drop(self._lasts, said)
            self._skip_dropped()
        return gone

    def _skip_dropped(self) -> None:
        """Let the session forget speeches that were dropped. Where one goes on before them, that waits for its end."""
        speeches = self._queue.speeches
        if speeches and not speeches[0].dropped:
            if speeches[-1].dropped:
                self.session.end_utterance()  # further audio belongs to another one
            return
        self._dropped = self.session.end_utterance()
        self.session.interrupt()
        self._queue.speeches = deque(speech for speech in speeches if not speech.dropped)
        for speech in self._queue.speeches:
            self.session.push_audio(speech.again())
            if speech.closed:
                self.session.end_utterance()

    # --- out ------------------------------------------------------------------------------------------------------

    @property
    def quiet(self) -> bool:
        """Whether no audio and no mark waits."""
        with self._lock:
            waits = bool(self._queue.speeches or self._queue.marks)
            return not waits and not any(len(unit.audio) or unit.marks for unit in self._taken_units())

    @property
    def waiting_seconds(self) -> float:
        """Seconds of audio that were pushed and not got."""
        with self._lock:
            ahead = sum(len(unit.audio) for unit in self._taken_units())
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
            units = [replace(unit, image=None) for unit in self._taken_units()] + self._queue.rest()
            self._ready, self._slots, self._queue = deque(), deque(), _Queue()
        return [unit for unit in units if len(unit.audio) or unit.marks]

    def _taken_units(self) -> list[Unit]:
        """What was taken from the queue and was not got, in order."""
        return [*self._ready, *(slot.unit for slot in self._slots)]

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
            self._slots.append(_Slot(frame, now, self._queue.take(frame.pushed if valid else 0)))
            if self._queue.speeches and self._queue.speeches[0].dropped:
                self._skip_dropped()

    def _hand_out(self) -> None:
        """Move the units whose time has come from the slots to those that can be got."""
        if not self._speaking and not any(slot.speaks for slot in self._slots):
            least, most = HOLD_FRAMES
            self._hold = min(most, max(least, 1 + math.ceil(self._delay * self.session.fps)))
        while len(self._slots) > self._hold - (self._speaking and any(slot.speaks for slot in self._slots)):
            slot = self._slots.popleft()
            slot.out = slot.drawn = True
            image = slot.image if slot.image is not None else self._late
            self._late = None
            self._speaking = slot.speaks
            if image is not None or slot.speaks or slot.unit.marks:
                self._ready.append(replace(slot.unit, image=image))

    def _fail(self, error: Exception) -> None:
        log.warn(f"An avatar stopped by itself: {type(error).__name__}: {error}")
        self.failed = f"The avatar cannot be drawn any more: {type(error).__name__}: {error}"
        self.stop()

    def _wake(self) -> None:
        if (loop := self._loop) is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._changed.set)
