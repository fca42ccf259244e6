"""The two threads of a live session: one takes its frames by the clock, the other one draws them.

So audio never waits for rendering, and neither runs on an event loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

STOP_SECONDS = 10.0  # that a thread may need to end


class FrameThreads:
    """Call ``take`` once per frame, by the clock, and ``draw`` whenever there is something to draw.

    Args:
        fps: Frames per second.
        take: Gets the second of the clock at which the next frame is due, or later where it is late.
        draw: Draws one frame; False where there is none to draw.
        failed: Gets what either of them raised; then both are over.
        clock: Seconds that do not go backwards.
    """

    def __init__(
        self,
        fps: float,
        take: Callable[[float], None],
        draw: Callable[[], bool],
        failed: Callable[[Exception], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fps, self._take, self._draw, self._failed, self._clock = fps, take, draw, failed, clock
        self._stopped, self._work = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def alive(self) -> bool:
        """Whether one of them still runs."""
        return any(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        """Begin to take and to draw."""
        for target, name in ((self._take_on, "take"), (self._draw_on, "draw")):
            thread = threading.Thread(target=self._guarded, args=(target,), name=f"avatar-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wake(self) -> None:
        """There is something to draw."""
        self._work.set()

    def stop(self, wait: bool = True) -> None:
        """End both, once; with ``wait``, after the frame that is being drawn."""
        self._stopped.set()
        self._work.set()
        for thread in self._threads if wait else ():
            if thread is not threading.current_thread():
                thread.join(timeout=STOP_SECONDS)

    def _take_on(self) -> None:
        start = now = self._clock()
        while not self._stopped.is_set():
            self._take(now)
            due = start + (int((now - start) * self._fps + 1e-6) + 1) / self._fps  # the next frame
            self._stopped.wait(max(0.0, due - self._clock()))
            now = max(self._clock(), due)

    def _draw_on(self) -> None:
        while not self._stopped.is_set():
            self._work.wait()
            self._work.clear()
            while not self._stopped.is_set() and self._draw():
                pass

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except Exception as error:  # one session's fault is not another's
            self.stop(wait=False)
            self._failed(error)
