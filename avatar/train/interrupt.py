"""Ctrl-C between two steps: a checkpoint from the middle of one would not go on bit for bit."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


class Interrupt:
    """Within this context the first Ctrl-C is only counted, and the next raises KeyboardInterrupt at once.

    Signals arrive in the main thread alone. So nothing changes in other threads, nor where Ctrl-C does not raise
    KeyboardInterrupt: it is ignored, or means something to the program around.

    Attributes:
        pressed: How often Ctrl-C came.
    """

    def __init__(self) -> None:
        self.pressed = 0
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if before is signal.default_int_handler:
                self._before = before
                signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.pressed += 1
        if self.pressed > 1:
            raise KeyboardInterrupt
