"""What waits to be sent to one listener: audio and words in order and complete, images only the newest."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

MOST_IMAGES = 3  # that wait; the oldest is left out for a newer one
MOST_AUDIO_SECONDS = 3.0  # that wait; a listener who reads more slowly is let go
MOST_WORDS = 256  # messages that wait


@dataclass(frozen=True, eq=False)
class AudioPart:
    """The audio of one frame, or of several where some were not drawn.

    Attributes:
        start: Second of the session to which its first sample belongs.
        samples: float32 [N], 16 kHz mono.
        speaking: Whether the lips speak.
        made: Second of the monotonic clock at which it was taken.
        utterance: Number of the utterance that it belongs to; 0: none.
        shapes: ARKit coefficients [52] at its end; None where nobody asked for them.
        ahead: float32 [M]: samples that follow unless something happens; empty where nobody asked for them.
    """

    start: float
    samples: Float32[np.ndarray, " N"]
    speaking: bool
    made: float
    utterance: int = 0
    shapes: Float32[np.ndarray, " 52"] | None = None
    ahead: Float32[np.ndarray, " M"] = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True, eq=False)
class ImagePart:
    """The image of a frame.

    Attributes:
        pts: Seconds of the session at which it is shown.
        image: uint8 RGB [H, W, 3].
        made: Second of the monotonic clock at which its audio was taken.
    """

    pts: float
    image: UInt8[np.ndarray, "H W 3"]
    made: float


Words = dict[str, Any]  # a message in JSON
Part = AudioPart | ImagePart | Words


class Outbox:
    """A bounded queue from the threads of a listener to the task that sends.

    Args:
        sample_rate: Of the audio.

    Attributes:
        skipped: Images that were left out.
    """

    def __init__(self, sample_rate: int = 16000) -> None:
        self._rate = sample_rate
        self._lock = threading.Lock()
        self._ordered: deque[AudioPart | Words] = deque()
        self._images: deque[ImagePart] = deque()
        self._samples = self._words = self.skipped = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self._closed = self._overrun = False

    @property
    def overrun(self) -> bool:
        """Whether more audio waited than may: the listener reads too slowly."""
        return self._overrun

    @property
    def images(self) -> int:
        """Images that wait."""
        return len(self._images)

    @property
    def seconds(self) -> float:
        """Seconds of audio that wait."""
        return self._samples / self._rate

    def put(self, part: Part) -> None:
        """Add a part, from any thread; never blocks. Nothing is taken any more once it is closed or overrun."""
        with self._lock:
            if self._closed or self._overrun:
                return
            if isinstance(part, ImagePart):
                self._images.append(part)
                if len(self._images) > MOST_IMAGES:
                    self._images.popleft()
                    self.skipped += 1
            else:
                self._ordered.append(part)
                self._samples += len(part.samples) if isinstance(part, AudioPart) else 0
                self._words += isinstance(part, dict)
                self._overrun = self.seconds > MOST_AUDIO_SECONDS or self._words > MOST_WORDS
        self._wake()

    def drop_audio(self) -> int:
        """Drop the audio that waits, after an interruption; return its samples."""
        with self._lock:
            dropped, self._samples = self._samples, 0
            self._ordered = deque(part for part in self._ordered if isinstance(part, dict))
        return dropped

    def close(self) -> None:
        """Let whoever waits go on; what waits may still be got."""
        with self._lock:
            self._closed = True
        self._wake()

    async def get(self) -> list[Part]:
        """Wait for parts: audio and words in order, then an image; empty once it is closed and nothing waits."""
        self._loop = asyncio.get_running_loop()
        while True:
            self._event.clear()
            with self._lock:
                parts: list[Part] = [*self._ordered]
                self._ordered.clear()
                self._samples = self._words = 0
                if self._images:
                    parts.append(self._images.popleft())
                if parts or self._closed or self._overrun:
                    return parts
            await self._event.wait()

    def _wake(self) -> None:
        if (loop := self._loop) is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._event.set)


class NewestImage:
    """The newest image, for a task of its own that encodes: audio must not wait for an encoder.

    Attributes:
        skipped: Images that were left out for newer ones.
    """

    def __init__(self) -> None:
        self._image: ImagePart | None = None
        self._there = asyncio.Event()
        self.skipped = 0

    def put(self, part: ImagePart) -> None:
        """Let an image wait, instead of the one that waits."""
        self.skipped += self._image is not None
        self._image = part
        self._there.set()

    async def get(self) -> ImagePart:
        """Wait for an image."""
        while (image := self._image) is None:
            self._there.clear()
            await self._there.wait()
        self._image = None
        return image
