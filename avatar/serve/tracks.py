"""The tracks of a peer connection: audio and images with the time stamps of the session."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable
from fractions import Fraction

import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError

from avatar.io.audio import SAMPLE_RATE
from avatar.serve.outbox import AudioPart, ImagePart

PACKET = SAMPLE_RATE // 50  # samples of an audio packet: 20 ms
MOST_HOLD_SECONDS = 0.12  # by which audio waits for images: three frames at 25 frames/s
HOLD_SHARE = 0.05  # of a new delay in the hold
MOST_AUDIO_SECONDS = 3.0  # that wait, while nobody reads them
LAGS = 50  # newest frames, of which the one that was least late says when audio leaves
CLOCK = 90000  # ticks of a second of video


class SpeechTrack(MediaStreamTrack):
    """Audio of the avatar, paced by the session's clock. Where a frame is late, what was foreseen of it goes out."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._next = 0  # number of the first sample that was not handed out
        self._samples = np.zeros(0, np.float32)  # from it on
        self._lags: deque[float] = deque(maxlen=LAGS)  # seconds of the clock less those of the session
        self._event = asyncio.Event()
        self._hold = 0.04

    @property
    def hold(self) -> float:
        """Seconds by which audio is held back."""
        return self._hold

    def put(self, part: AudioPart) -> None:
        """Add the audio of a frame, and what follows it. Where the session's time jumped, so do the time stamps."""
        start = round(part.start * SAMPLE_RATE)
        if start > self._next + len(self._samples):
            self._next, self._samples = start, self._samples[:0]
            self._lags.clear()
        out = max(0, self._next - start)  # samples of it that went out before their time
        fresh = np.concatenate([part.samples, part.ahead])[out:]
        self._samples = np.concatenate([self._samples[: max(0, start - self._next)], fresh])
        self._lags.append(part.made - part.start)
        most = round(MOST_AUDIO_SECONDS * SAMPLE_RATE)
        if (many := len(self._samples) - most) > 0:
            self._next, self._samples = self._next + many, self._samples[many:]
        self._event.set()

    def flush(self) -> None:
        """Make what waits silent but for a fade, after an interruption."""
        fade = np.linspace(1, 0, PACKET // 2, dtype=np.float32)[: len(self._samples)]
        silent = np.zeros_like(self._samples)
        silent[: len(fade)] = self._samples[: len(fade)] * fade
        self._samples = silent

    def hold_for(self, delays: Iterable[float]) -> None:
        """Follow the delays of images, seconds from the time of a frame to its image."""
        for delay in delays:
            self._hold += HOLD_SHARE * (min(delay, MOST_HOLD_SECONDS) - self._hold)

    async def recv(self):  # PyAV's type
        """The next 20 ms, when their time has come."""
        import av

        while True:
            if len(self._samples) < PACKET:
                if self.readyState != "live":
                    raise MediaStreamError
                self._event.clear()
                await self._event.wait()
                continue
            leaves = min(self._lags) + self._next / SAMPLE_RATE + self._hold
            if (wait := leaves - time.monotonic()) <= 0:
                break
            await asyncio.sleep(min(wait, 0.5))
        start, samples = self._next, self._samples[:PACKET]
        self._next, self._samples = start + PACKET, self._samples[PACKET:]
        data = np.rint(samples * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(data, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, start, Fraction(1, SAMPLE_RATE)
        return frame

    def stop(self) -> None:
        """End the track."""
        super().stop()
        self._event.set()


class ImageTrack(MediaStreamTrack):
    """Images of the avatar: the newest one that is there.

    Attributes:
        out: Delays in seconds of the images that were read since they were last looked at.
        skipped: Images that nobody read in time.
    """

    kind = "video"

    def __init__(self, fps: float) -> None:
        super().__init__()
        self._fps = fps
        self._part: ImagePart | None = None
        self._event = asyncio.Event()
        self.out: deque[float] = deque(maxlen=100)
        self.skipped = 0

    def put(self, part: ImagePart) -> None:
        """Show this image next."""
        self.skipped += self._part is not None
        self._part = part
        self._event.set()

    async def recv(self):  # PyAV's type
        """The next image; aiortc encodes it."""
        import av

        while self._part is None:
            if self.readyState != "live":
                raise MediaStreamError
            self._event.clear()
            await self._event.wait()
        part, self._part = self._part, None
        height, width = part.image.shape[0] // 2 * 2, part.image.shape[1] // 2 * 2
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(part.image[:height, :width]), format="rgb24")
        frame.pts, frame.time_base = round(part.pts * CLOCK), Fraction(1, CLOCK)
        self.out.append(time.monotonic() - part.made)
        return frame

    def stop(self) -> None:
        """End the track."""
        super().stop()
        self._event.set()


async def microphone_samples(track: MediaStreamTrack) -> AsyncIterator[np.ndarray]:
    """Audio of a remote track as float32, 16 kHz mono, until it ends."""
    import av

    resampler = av.AudioResampler(format="fltp", rate=SAMPLE_RATE)
    while True:
        try:
            frame = await track.recv()
        except MediaStreamError:
            return
        if isinstance(frame, av.AudioFrame):
            for out in resampler.resample(frame):
                yield out.to_ndarray().mean(0).clip(-1, 1).astype(np.float32)
