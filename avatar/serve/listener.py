"""One listener: a `Session`, a thread that takes its audio by the clock, and a thread that draws its images.

Audio and images have one timeline, that of the session. Audio leaves as soon as its time has come; the image follows
when it is drawn. Where rendering is too slow, images are left out and audio is not.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from avatar import log
from avatar.geometry.cameras import Camera
from avatar.infer.controls import Controls
from avatar.infer.session import Session, Undrawn
from avatar.motion import Motion
from avatar.serve.arrival import Arrival
from avatar.serve.catching_up import CatchingUp
from avatar.serve.frame_threads import FrameThreads
from avatar.serve.metrics import Metrics
from avatar.serve.outbox import AudioPart, ImagePart, Outbox
from avatar.serve.segments import Interruption, Segments

MICROPHONE = "microphone"  # segment of what a microphone says; no other may have this name
# A frame waits for a piece of audio that is late: longer where the listener has the pieces before it already.
PATIENCE_SECONDS, PATIENCE_AHEAD_SECONDS = 0.02, 0.06
NOTHING = np.zeros(0, np.float32)
MICROPHONE_PAUSE_SECONDS = 0.3  # without audio of the microphone end its segment


class Listener:
    """A live avatar for one listener.

    Args:
        session: The session; nobody else steps it. It must not end utterances by itself (``flush_seconds=None``).
        metrics: Gets times and counts.
        clock: Seconds that do not go backwards.

    Attributes:
        outbox: What waits to be sent.
        failed: Why it stopped by itself; empty while it runs.
        images: Whether images are drawn at all.
        shapes: Whether audio comes with ARKit coefficients.
        ahead_seconds: Seconds of audio that come with a part although they are not due yet, while something is said.
        told: Gets what happens to segments as well, in whatever thread it happens.
    """

    def __init__(self, session: Session, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self.session, self._metrics, self._clock = session, metrics, clock
        self.outbox = Outbox()
        self.failed = ""
        self.told: Callable[[dict[str, Any]], None] = lambda _: None
        self._segments = Segments(session, self._tell)
        self.images, self.shapes, self.ahead_seconds = True, False, 0.0
        self._undrawn: tuple[Undrawn, float, Motion | None] | None = None
        self._lock = threading.Lock()
        self._threads = FrameThreads(session.fps, self.take, self.draw, self._fail, clock, self.prepare)
        self._arrival = Arrival(session.fps, session.needed_seconds)
        self._catching_up = CatchingUp(max(0.0, session.needed_seconds - 1 / session.fps))
        self._echo = False
        self._microphone_at: float | None = None
        self._skipped = 0

    def start(self) -> None:
        """Begin to take and to draw; images come from now on, also while nothing is said."""
        self._threads.start()

    def stop(self, wait: bool = True) -> None:
        """End it, once; with ``wait``, after the frame that is being drawn."""
        self._segments.close()
        self.outbox.close()
        self._threads.stop(wait)

    # --- from the listener ----------------------------------------------------------------------------------------

    def say(self, segment: str, pieces: Iterable[np.ndarray]) -> bool:
        """Queue a segment; see `Segments.say`."""
        return self._segments.say(segment, pieces)

    def interrupt(self, segment: str = "") -> Interruption:
        """Drop everything that was not sent, and close the mouth; see `Segments.interrupt`."""
        found = self._segments.interrupt(segment)
        self._metrics.count("interruptions_total")
        return found

    def says(self, segment: str) -> bool:
        """Whether a segment waits or is being said; see `Segments.under_way`."""
        return self._segments.under_way(segment)

    @property
    def interruptions(self) -> int:
        """How often something was dropped."""
        return self._segments.interruptions

    def set(self, controls: Controls | None = None, camera: Camera | None = None) -> None:
        """Change how it behaves or where from; see `Session.set`."""
        self.session.set(controls, camera)

    def echo(self, on: bool) -> None:
        """Say what the microphone says, or stop doing so."""
        self._echo = on
        if not on:
            self._segments.end(MICROPHONE)
            self._microphone_at = None
            self._arrival.clear()
            self._catching_up.clear()

    def push_microphone(self, samples: np.ndarray) -> None:
        """Take audio of the listener's microphone, 16 kHz mono float32; it is dropped unless it is echoed."""
        if self._echo and len(samples):
            samples = self._catching_up.kept(samples, self.session.waiting_seconds)
            self._microphone_at = self._clock()
            if not len(samples):
                return
            self._arrival.note(self._microphone_at, len(samples))
            self._segments.push(MICROPHONE, samples)
            self._threads.news()

    def _tell(self, words: dict[str, Any]) -> None:
        self.outbox.put(words)
        self.told(words)

    # --- its two threads ------------------------------------------------------------------------------------------

    def prepare(self) -> float:
        """Encode for the next frame what came; seconds that it waits beyond its time for a piece that is late."""
        lacks = self.session.prepare()
        return (PATIENCE_AHEAD_SECONDS if self.ahead_seconds else PATIENCE_SECONDS) if lacks else 0.0

    def take(self, now: float) -> float:
        """Take what is due at second ``now`` of the clock: its audio goes out, its image is to be drawn.

        Returns:
            Seconds by which the newest frame lasts longer than its share of the clock.
        """
        last = self._microphone_at
        if last is not None and now - last > MICROPHONE_PAUSE_SECONDS:
            self._microphone_at = None
            self._arrival.clear()
            self._catching_up.clear()
            self._segments.end(MICROPHONE)
        began = time.perf_counter()
        frames, motion = self.session.take(now, self._arrival.longer(now)), None
        if not frames:
            return 0.0
        self._metrics.time("take", time.perf_counter() - began)
        for frame in frames:
            self._metrics.count("frames_total")
            motion = self.session.pose(frame) if self.shapes else None
            shapes = None if motion is None else motion.arkit[0].numpy()
            ahead = self._ahead(frame) if frame is frames[-1] else NOTHING
            part = AudioPart(frame.start, frame.audio, frame.speaking, now, frame.utterance, shapes, ahead)
            self.outbox.put(part)
            self._segments.over(frame.ended)
        longer = sum(frame.longer for frame in frames)
        if not self.images:
            return longer
        with self._lock:
            if self._undrawn is not None:
                self._skipped += 1
            self._skipped += len(frames) - 1
            self._undrawn = frames[-1], now, motion
        self._threads.wake()
        return longer

    def _ahead(self, frame: Undrawn) -> np.ndarray:
        """Samples that follow a frame, where it is one of an utterance that goes on."""
        if not self.ahead_seconds or frame.pushed < len(frame.audio) or frame.ended:
            return NOTHING
        return self.session.ahead(self.ahead_seconds)

    def draw(self) -> bool:
        """Draw the newest frame that was not drawn; False where there is none."""
        with self._lock:
            undrawn, self._undrawn = self._undrawn, None
            skipped, self._skipped = self._skipped, 0
        if skipped:
            self._metrics.count("images_skipped_total", skipped)
        if undrawn is None:
            return False
        frame, made, motion = undrawn
        began = time.perf_counter()
        image = self.session.draw(frame, motion)
        self._metrics.time("draw", time.perf_counter() - began)
        self.outbox.put(ImagePart(frame.pts, image, made))
        return True

    def _fail(self, error: Exception) -> None:
        log.warn(f"A session ended by itself: {type(error).__name__}: {error}")
        self.failed = "The avatar cannot be drawn any more; the server's log says why. Load the page again."
        self.stop(wait=False)
