"""An avatar in a pipecat pipeline: a service between text to speech and the output of the transport.

    avatar = AvatarVideoService(Avatar.load("runs/me"))
    Pipeline([transport.input(), stt, llm, tts, avatar, transport.output()])

The transport has to send video: ``TransportParams(video_out_enabled=True, video_out_width=width,
video_out_height=height)`` with the ``image_size`` of the service, and without ``video_out_is_live``, which shows no
image that belongs to audio.

What goes in, and what comes out of it:

- Audio of text to speech goes to the avatar. It comes back with the image that it plays with, image first.
- Images come all the time, also while nothing is said.
- ``TTSStoppedFrame``, and every other frame that comes after audio, waits until that audio was spoken.
- ``InterruptionFrame`` drops what was not spoken, and the avatar idles. Audio that is not ``interruptible`` goes on.
- ``interruptible`` and ``transport_destination`` of audio come out with it, and the first with its images as well.
- ``EndFrame`` waits until all was spoken, but not for ever. ``CancelFrame`` ends at once.
- An avatar that cannot start or breaks is one ``ErrorFrame`` upstream. Then audio passes through without images.
"""

# The package is not installed everywhere, and where it is not, its types are unknown.
# pyright: reportMissingImports=false, reportUntypedBaseClass=false, reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.errors import AvatarError
from avatar.infer.controls import Controls
from avatar.infer.video import resize
from avatar.integrations.driver import Driver, Unit
from avatar.integrations.opening import loaded, missing, open_session

try:
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        Frame,
        InputAudioRawFrame,
        InterruptionFrame,
        OutputImageRawFrame,
        StartFrame,
        SystemFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
        UserStartedSpeakingFrame,
        UserStoppedSpeakingFrame,
    )
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
    from pipecat.services.ai_service import AIService
    from pipecat.services.settings import ServiceSettings
except ImportError:
    raise missing("pipecat-ai", "pipecat") from None

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioToMotion
    from avatar.infer.avatar import Avatar

STUCK_SECONDS = 10.0  # without an image: the avatar is broken
DRAIN_SECONDS = 3.0  # that the end of a pipeline waits for audio, beyond the length of that audio
POLL_SECONDS = 0.01


class AvatarVideoService(AIService):
    """Turn the audio of text to speech into an avatar that says it.

    Args:
        avatar: The avatar, or its RUN folder, which is loaded when the pipeline is set up.
        controls: How it behaves.
        size: Longer side of the image in pixels; None: as trained.
        speech: Speech network; by default that of the avatar, which all that share the `Avatar` object share.
        stuck_seconds: Without an image for so long, the avatar counts as broken.
        **kwargs: Of pipecat's `AIService`.
    """

    def __init__(
        self,
        avatar: Avatar | Path | str,
        *,
        controls: Controls | None = None,
        size: int | None = None,
        speech: AudioToMotion | None = None,
        stuck_seconds: float = STUCK_SECONDS,
        **kwargs: Any,
    ) -> None:
        super().__init__(settings=ServiceSettings(model=None), **kwargs)
        self._opening = avatar, controls, size, speech
        self._stuck_seconds = stuck_seconds
        self._driver: Driver | None = None  # while it can be used
        self._opened: Driver | None = None  # whose threads have to end
        self._rate = 0  # hertz of what comes out
        self._why = ""  # it could not be opened
        self._sending: asyncio.Task[None] | None = None
        self._said, self._heard = _WholeSamples(), _WholeSamples()
        self._interruptions = 0

    @property
    def image_size(self) -> tuple[int, int]:
        """Width and height of the images, for the transport; an avatar that is a RUN folder is loaded now.

        Raises:
            AvatarError: It cannot be loaded.
        """
        avatar, controls, size, speech = self._opening
        self._opening = (avatar := loaded(avatar)), controls, size, speech
        camera = resize(avatar.camera, size)
        return camera.width, camera.height

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Load the avatar and its speech network, off the event loop."""
        await super().setup(setup)
        self._rate = setup.audio_out_sample_rate
        try:
            session = await asyncio.to_thread(open_session, *self._opening)
            self._driver = self._opened = Driver(session, self._rate, lasts=lambda frame: not frame.interruptible)
        except Exception as error:
            self._why = str(error) if isinstance(error, AvatarError) else f"{type(error).__name__}: {error}"

    async def stop(self, frame: EndFrame) -> None:
        """Say what waits, for no longer than it takes, and end."""
        await super().stop(frame)
        if (driver := self._driver) is None:
            return
        driver.end_speech()
        until = time.monotonic() + driver.waiting_seconds + DRAIN_SECONDS
        while not (driver.quiet or driver.over) and time.monotonic() < until:
            await asyncio.sleep(POLL_SECONDS)
        driver.stop()
        if self._sending is not None:
            await asyncio.wait([self._sending], timeout=DRAIN_SECONDS)
        self._driver = None
        for kept in (frame for unit in driver.rest() for frame in unit.marks):
            await self.push_frame(kept)

    async def cancel(self, frame: CancelFrame) -> None:
        """End at once."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        """End, whatever came before, and wait for the frame that is being drawn."""
        await super().cleanup()
        await self._close()
        if self._opened is not None:
            await asyncio.to_thread(self._opened.stop, True)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Take audio, keep what has to wait for it, and pass on all else."""
        await super().process_frame(frame, direction)
        if self._driver is not None and self._sending is not None:
            self._attend(self._driver, frame)
        if isinstance(frame, InterruptionFrame):
            await self._interrupt()
        if direction is FrameDirection.DOWNSTREAM and not isinstance(frame, SystemFrame | EndFrame):
            await (self._say(frame) if isinstance(frame, TTSAudioRawFrame) else self._keep(frame))
        else:
            await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            await self._begin()

    def _attend(self, driver: Driver, frame: Frame) -> None:
        """Listen to the user, and think when he has finished."""
        if isinstance(frame, InputAudioRawFrame):
            driver.hear(self._heard.take(frame, frame.transport_source), frame.sample_rate)
        elif isinstance(frame, UserStartedSpeakingFrame | UserStoppedSpeakingFrame):
            driver.think(isinstance(frame, UserStoppedSpeakingFrame))

    # --- what comes in --------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        if self._driver is None:
            await self._tell(f"The avatar cannot start. {self._why}")
        elif self._sending is None:
            self._driver.start()
            self._sending = self.create_task(self._send_all(self._driver))

    async def _say(self, frame: TTSAudioRawFrame) -> None:
        samples = self._said.take(frame, frame.context_id)
        if (driver := self._driver) is not None:
            taken = await driver.push(
                samples, frame.sample_rate, interruptible=frame.interruptible, about=frame.transport_destination
            )
            if taken == len(samples) or not driver.over:  # or it was interrupted
                return
            samples = samples[taken:]
        frame.audio, frame.num_frames = samples.tobytes(), len(samples)
        await self._pass(frame)

    async def _keep(self, frame: Frame) -> None:
        """Let a frame wait for the audio before it; one that has a time of its own does not."""
        stopped = isinstance(frame, TTSStoppedFrame)
        if stopped:
            self._said.forget()
        if (driver := self._driver) is not None:
            if stopped:
                driver.end_speech()
            if (stopped or not frame.pts) and not driver.quiet and driver.mark(frame):
                return
        await self._pass(frame)

    async def _pass(self, frame: Frame) -> None:
        """Pass a frame on; where the avatar just broke, after what it left."""
        if self._sending is not None and (self._driver is None or self._driver.over):
            await asyncio.wait([self._sending])
        await self.push_frame(frame)

    async def _interrupt(self) -> None:
        if self._said.interruptible:
            self._said.forget()
        if self._driver is None:
            return
        self._interruptions += 1
        for frame in self._driver.interrupt():
            if not frame.interruptible:
                await self.push_frame(frame)

    # --- what goes out --------------------------------------------------------------------------------------------

    async def _send_all(self, driver: Driver) -> None:
        try:
            while (unit := await driver.get(self._stuck_seconds)) is not None:
                await self._send(unit)
            why = driver.failed
        except asyncio.TimeoutError:
            why = f"The avatar gave no image for {self._stuck_seconds:g} s."
            self._opened = None  # nothing would be gained by waiting for it
        if why:
            self._driver = None
            driver.stop()
            await self._tell(why)
            for unit in driver.rest():
                await self._send(unit)

    async def _send(self, unit: Unit) -> None:
        before = self._interruptions
        if unit.image is not None:
            height, width = unit.image.shape[:2]
            image = OutputImageRawFrame(image=unit.image.tobytes(), size=(width, height), format="RGB")
            image.sync_with_audio = True
            image.interruptible = unit.interruptible  # a destination of audio may take no video
            await self.push_frame(image)
        if len(unit.audio) and (before == self._interruptions or not unit.interruptible):
            audio = TTSAudioRawFrame(unit.audio.tobytes(), self._rate, 1)
            audio.interruptible, audio.transport_destination = unit.interruptible, unit.about
            await self.push_frame(audio)
        for frame in unit.marks:
            if before == self._interruptions or not frame.interruptible:
                await self.push_frame(frame)

    async def _tell(self, why: str) -> None:
        await self.push_error(f"{why} Audio goes on without images.", force_treat_as_permanent=True)

    async def _close(self) -> None:
        if self._driver is not None:
            self._driver.stop()
            self._driver = None
        if self._sending is not None:
            sending, self._sending = self._sending, None
            await self.cancel_task(sending)


class _WholeSamples:
    """Samples of chunks that may end within one: its bytes begin the next chunk.

    Services on the network send chunks of any length. Where a byte is lost, all that follows is noise.
    """

    def __init__(self) -> None:
        self._left, self._source = b"", None
        self.interruptible = True  # the last chunk

    def take(self, frame: Any, source: Any) -> np.ndarray:
        """The samples of a chunk, int16 [N, C]; what is left of a chunk of another source, rate or layout is lost."""
        source = source, frame.sample_rate, frame.num_channels
        data = (self._left if source == self._source else b"") + frame.audio
        end = len(data) - len(data) % (2 * frame.num_channels)
        self._left, self._source, self.interruptible = data[end:], source, frame.interruptible
        return np.frombuffer(data[:end], np.int16).reshape(-1, frame.num_channels)

    def forget(self) -> None:
        """The next chunk begins with a sample."""
        self._left = b""
