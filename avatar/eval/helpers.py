"""Threads that compare images while the next frame is rendered and tracked.

What compares images (convolutions, filters, numpy) scales badly over threads, and does not hold Python's lock: several
comparisons at once use the processor better than one that is split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from avatar.device import use_threads


class Helpers:
    """As many threads as torch uses; torch uses one in each meanwhile. With one thread all is done at once.

    ```
    with Helpers() as helpers:
        for frame in frames:
            helpers.start([partial(compare, frame, other) for other in others])
    ```
    """

    def __init__(self) -> None:
        self._count = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None
        self._running: list[Future[None]] = []

    def __enter__(self) -> Helpers:
        if self._count > 1:
            use_threads(1)
            self._pool = ThreadPoolExecutor(self._count, "compare", initializer=use_threads, initargs=(1,))
        return self

    def start(self, tasks: Sequence[Callable[[], None]]) -> None:
        """Start tasks when all earlier ones are done; so what one of them adds to comes in order.

        Raises:
            Exception: What an earlier task raised.
        """
        self.wait()
        if self._pool is None:
            for task in tasks:
                task()
        else:
            self._running = [self._pool.submit(task) for task in tasks]

    def wait(self) -> None:
        """Wait for all tasks.

        Raises:
            Exception: What one of them raised.
        """
        running, self._running = self._running, []
        for future in running:
            future.result()

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown(cancel_futures=True)
                use_threads(self._count)
