"""Threads around the renderer, so that speech, frames and encoding overlap in constant memory.

Those that compute use as many CPU threads as the thread that starts them, which `avatar.device.cpu_threads` sets.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, TypeVar, final

from avatar.device import threads_as_here

T = TypeVar("T")
R = TypeVar("R")
_END = object()


def prefetch(items: Iterable[T], depth: int = 2) -> Iterator[T]:
    """Iterate over ``items``, made in a thread of their own at most ``depth`` ahead. Errors come out here."""
    waiting: queue.Queue[Any] = queue.Queue(depth)
    stopped = threading.Event()
    failure: list[BaseException] = []
    use_threads = threads_as_here()

    def put(item: object) -> None:
        while not stopped.is_set():
            try:
                return waiting.put(item, timeout=0.1)
            except queue.Full:
                continue

    def produce() -> None:
        try:
            use_threads()
            for item in items:
                put(item)
                if stopped.is_set():
                    return
        except BaseException as error:
            failure.append(error)
        finally:
            put(_END)

    thread = threading.Thread(target=produce, name="prefetch", daemon=True)
    thread.start()
    try:
        while (item := waiting.get()) is not _END:
            yield item
        if failure:
            raise failure[0]
    finally:
        stopped.set()
        thread.join()


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """``work(item)`` of each item, in the order of the items, done in ``threads`` threads. Errors come out here.

    At most two items per thread are under way or wait to be fetched.
    """
    if threads <= 1:
        yield from map(work, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, "frames", initializer=threads_as_here()) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@final
class Worker(Generic[T]):
    """Calls ``work(item)`` in a thread, in order. :meth:`put` blocks while ``depth`` items wait.

    An error in the thread is raised by the next :meth:`put`, or when the block ends.
    """

    def __init__(self, work: Callable[[T], object], depth: int = 8) -> None:
        self._work = work
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def put(self, item: T) -> None:
        if self._failure is not None:
            raise self._failure
        self._queue.put(item)

    def _run(self) -> None:
        while (item := self._queue.get()) is not _END:
            if self._failure is None:  # after a failure the queue is only emptied
                try:
                    self._work(item)
                except BaseException as error:
                    self._failure = error

    def __enter__(self) -> Worker[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._failure = self._failure or error  # what still waits is not worth finishing
        self._queue.put(_END)
        self._thread.join()
        if kind is None and self._failure is not None:
            raise self._failure
