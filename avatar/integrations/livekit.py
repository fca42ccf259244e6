"""An avatar for LiveKit agents: a video generator that their `AvatarRunner` runs.

    generator = await AvatarGenerator.open("runs/me")
    audio = QueueAudioOutput(sample_rate=generator.options.audio_sample_rate)
    runner = AvatarRunner(room, audio_recv=audio, video_gen=generator, options=generator.options)
    await runner.start()
    agent_session.output.audio = audio

In a process of its own, ``DataStreamAudioReceiver(room)`` takes the place of `QueueAudioOutput`.

Images come all the time, audio only while something is said: its position is that of the speech. Each segment of audio
ends with one `AudioSegmentEnd`, also where it was interrupted. An avatar that breaks leaves the audio, without images.
"""

# The package is not installed everywhere, and where it is not, its types are unknown.
# pyright: reportMissingImports=false, reportUntypedBaseClass=false, reportUnknownParameterType=false
# pyright: reportAttributeAccessIssue=false, reportInvalidTypeForm=false

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.infer.controls import Controls
from avatar.infer.session import Session
from avatar.integrations.driver import Driver, Unit
from avatar.integrations.opening import missing, open_session
from avatar.integrations.speech import converted

try:
    from livekit import rtc
    from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator
except ImportError:
    raise missing("livekit-agents", "livekit") from None

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioToMotion
    from avatar.infer.avatar import Avatar

AUDIO_RATE = 24000  # hertz: what most text-to-speech services give
COUNT_SECONDS = 0.3  # that an interruption waits for audio on its way: the runner counts it when it is queued
POLL_SECONDS = 0.005
MOST_THROUGH = 256  # frames of audio that wait where the avatar broke

Part = rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd


class AvatarGenerator(VideoGenerator):
    """Turn segments of audio into an avatar that says them.

    Args:
        session: The session, which nobody else uses; :meth:`open` makes one.
        audio_sample_rate: Hertz of the audio that comes out; that which goes in may have any.
    """

    def __init__(self, session: Session, audio_sample_rate: int = AUDIO_RATE) -> None:
        self._driver = Driver(session, audio_sample_rate)
        self._session = session
        self._segment = False  # audio came, and its end did not
        self._ending = 0  # interrupted segments whose end did not come out yet
        self._parts: deque[Part] = deque()  # of the unit that is handed out
        self._counting = False  # its audio was handed out, and nobody asked for more yet
        self._through: asyncio.Queue[rtc.AudioFrame | AudioSegmentEnd] = asyncio.Queue(MOST_THROUGH)

    @staticmethod
    async def open(
        avatar: Avatar | Path | str,
        *,
        controls: Controls | None = None,
        size: int | None = None,
        speech: AudioToMotion | None = None,
        audio_sample_rate: int = AUDIO_RATE,
    ) -> AvatarGenerator:
        """Load an avatar off the event loop, and make a generator of it.

        Args:
            avatar: The avatar, or its RUN folder.
            controls: How it behaves.
            size: Longer side of the image in pixels; None: as trained.
            speech: Speech network; by default that of the avatar, which all that share the `Avatar` object share.
            audio_sample_rate: Hertz of the audio that comes out.

        Raises:
            AvatarError: It cannot be loaded, cannot speak, or a control needs to know the audio beforehand.
        """
        session = await asyncio.to_thread(open_session, avatar, controls, size, speech)
        return AvatarGenerator(session, audio_sample_rate)

    @property
    def options(self) -> AvatarOptions:
        """What `AvatarRunner` has to know."""
        camera = self._session.camera
        return AvatarOptions(
            video_width=_even(camera.width), video_height=_even(camera.height), video_fps=self._session.fps,
            audio_sample_rate=self._driver.sample_rate, audio_channels=1,
        )  # fmt: skip

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Take audio of a segment, or its end; waits while too much of it waits.

        Raises:
            AvatarError: The audio cannot be used.
        """
        driver = self._driver
        if isinstance(frame, AudioSegmentEnd):
            ended, self._segment = self._segment, False
            driver.end_speech()
            if ended and not driver.mark(frame):
                await self._through.put(frame)
            return
        self._segment, self._ending = True, 0  # an end that came now would be taken for that of this segment
        samples = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
        taken = await driver.push(samples, frame.sample_rate)
        if taken < len(samples) and driver.over:  # or it was interrupted
            await self._through.put(self._audio(converted(samples[taken:], frame.sample_rate, driver.sample_rate)))

    def hear(self, frame: rtc.AudioFrame) -> None:
        """Let the avatar listen to audio of a participant as it comes: it nods, and looks attentive.

        Raises:
            AvatarError: The audio cannot be used.
        """
        samples = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
        self._driver.hear(samples, frame.sample_rate)

    def think(self, on: bool) -> None:
        """Let the avatar look as if it thinks, until it speaks: where the state of the agent becomes ``thinking``."""
        self._driver.think(on)

    def clear_buffer(self) -> Coroutine[Any, Any, None] | None:
        """Drop what was not played, and close the mouth. A second call changes nothing.

        Returns:
            Nothing, or what waits until audio that was just handed out is counted as played.
        """
        parts = [*self._driver.interrupt(), *self._parts]
        while not self._through.empty():
            parts.append(self._through.get_nowait())
        self._ending += sum(isinstance(part, AudioSegmentEnd) for part in parts) + self._segment
        self._parts = deque(part for part in self._parts if isinstance(part, rtc.VideoFrame))
        self._segment = False
        return self._counted() if self._counting else None

    def __aiter__(self) -> AsyncIterator[Part]:
        """Images, audio and ends of segments, at the pace of the clock."""
        return self._frames()

    async def aclose(self) -> None:
        """End it, after the frame that is being drawn."""
        await asyncio.to_thread(self._driver.stop, True)

    async def _frames(self) -> AsyncIterator[Part]:
        driver = self._driver
        if not driver.over:
            driver.start()
        try:
            while (unit := await driver.get()) is not None:
                self._add(unit)
                while (part := self._next()) is not None:
                    self._counting = isinstance(part, rtc.AudioFrame)
                    yield part
                    self._counting = False
            for unit in driver.rest() if driver.failed else ():
                self._add(unit)
            while driver.failed:
                while (part := self._next()) is not None:
                    yield part
                self._parts.append(await self._through.get())
        finally:
            driver.stop()

    async def _counted(self) -> None:
        until = time.monotonic() + COUNT_SECONDS
        while self._counting and time.monotonic() < until:
            await asyncio.sleep(POLL_SECONDS)

    def _next(self) -> Part | None:
        """What comes next of a unit: ends of what was interrupted come first."""
        if self._ending:
            self._ending -= 1
            return AudioSegmentEnd()
        return self._parts.popleft() if self._parts else None

    def _add(self, unit: Unit) -> None:
        if unit.image is not None:
            height, width = map(_even, unit.image.shape[:2])
            data = np.ascontiguousarray(unit.image[:height, :width]).tobytes()
            self._parts.append(rtc.VideoFrame(width, height, rtc.VideoBufferType.RGB24, data))
        if len(unit.audio):
            self._parts.append(self._audio(unit.audio))
        self._parts.extend(unit.marks)

    def _audio(self, samples: np.ndarray) -> rtc.AudioFrame:
        return rtc.AudioFrame(samples.tobytes(), self._driver.sample_rate, 1, len(samples))


def _even(pixels: int) -> int:
    return pixels // 2 * 2  # colours of a video have half the resolution
