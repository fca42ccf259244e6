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
        take: Gets the second of the clock at which the next frame is due, or later where it is late. Returns the
            seconds by which that frame lasts longer; all later ones come so much later. None: it does not.
        draw: Draws one frame; False where there is none to draw.
        failed: Gets what either of them raised; then both are over.
        clock: Seconds that do not go backwards.
        prepare: Does what can be done for the next frame since :meth:`news`, in the thread that takes. Returns the
            seconds that the frame should wait beyond its time for audio that is about to come.
    """

    def __init__(
        self,
        fps: float,
        take: Callable[[float], float | None],
        draw: Callable[[], bool],
        failed: Callable[[Exception], None],
        clock: Callable[[], float] = time.monotonic,
        prepare: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._fps, self._take, self._draw, self._failed, self._clock = fps, take, draw, failed, clock
        self._prepare = prepare
        self._stopped, self._work, self._news = threading.Event(), threading.Event(), threading.Event()
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

    def news(self) -> None:
        """Audio came; the next frame may be prepared."""
        self._news.set()

    def stop(self, wait: bool = True) -> None:
        """End both, once; with ``wait``, after the frame that is being drawn."""
        self._stopped.set()
        self._work.set()
        self._news.set()
        for thread in self._threads if wait else ():
            if thread is not threading.current_thread():
                thread.join(timeout=STOP_SECONDS)

    def _take_on(self) -> None:
        start = now = self._clock()
        while not self._stopped.is_set():
            longer = self._take(now) or 0.0
            due = start + (int((now - start) * self._fps + 1e-6) + 1) / self._fps + longer  # the next frame
            start += longer
            self._wait(due)
            now = max(self._clock(), due)

    def _wait(self, due: float) -> None:
        """Wait until a frame is due, and prepare it meanwhile."""
        more = self._prepare()
        while not self._stopped.is_set():
            left = due + more - self._clock()
            if left <= 0:
                return
            if self._news.wait(left):
                self._news.clear()
                more = self._prepare()

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
