"""The plug-in of LiveKit agents, with their runner, their audio queue and a room that is none."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():  # what these packages do, not this one
    warnings.simplefilter("ignore")
    pytest.importorskip("livekit.agents", reason="the extra `livekit` is not installed")
    from livekit import rtc
    from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarRunner, QueueAudioOutput

    from avatar.integrations.livekit import AvatarGenerator

from tests.fake_avatar import FPS, SIZE
from tests.serving import fake_session, in_step, until
from tests.wait import wait_for

pytestmark = pytest.mark.filterwarnings("ignore")

RATE = 24000
FRAME = round(RATE / FPS)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Any]:
    yield in_step(fake_session(tmp_path))
    wait_for(lambda: not [one for one in threading.enumerate() if one.name in ("avatar-take", "avatar-draw")])


def noise(seconds: float, rate: int = RATE, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(500, 16000, round(seconds * rate)).astype(np.int16)


def frames(samples: np.ndarray, rate: int = RATE, channels: int = 1) -> list[rtc.AudioFrame]:
    """Audio in frames of 10 ms, as agents have it."""
    pieces = np.array_split(samples, max(1, len(samples) * 100 // rate))
    return [rtc.AudioFrame(piece.tobytes(), rate, channels, len(piece)) for piece in pieces]


def audio(parts: list[Any]) -> np.ndarray:
    return np.frombuffer(b"".join(bytes(part.data) for part in parts if isinstance(part, rtc.AudioFrame)), np.int16)


def ends(parts: list[Any]) -> int:
    return sum(isinstance(part, AudioSegmentEnd) for part in parts)


class Reader:
    """Reads a generator as `AvatarRunner` does."""

    def __init__(self, session: Any) -> None:
        self.generator, self.parts = AvatarGenerator(session, RATE), []
        self._task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for part in self.generator:
            self.parts.append(part)

    async def say(self, samples: np.ndarray, rate: int = RATE, channels: int = 1) -> None:
        for frame in frames(samples, rate, channels):
            await self.generator.push_audio(frame)
        await self.generator.push_audio(AudioSegmentEnd())

    async def idle(self, images: int = 5) -> None:
        """Wait for so many more images."""
        count = len([part for part in self.parts if isinstance(part, rtc.VideoFrame)]) + images
        await until(lambda: len([part for part in self.parts if isinstance(part, rtc.VideoFrame)]) >= count)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.generator.aclose()


def read(session: Any, test: Callable[[Reader], Coroutine[Any, Any, None]]) -> list[Any]:
    async def run() -> list[Any]:
        reader = Reader(session)
        try:
            await asyncio.wait_for(test(reader), 40)
        finally:
            await reader.close()
        return reader.parts

    return asyncio.run(run())


def test_200_ms_are_5_images_with_their_audio_and_then_the_end(session: Any):
    said = noise(0.2)

    async def test(reader: Reader) -> None:
        await reader.idle()
        assert not len(audio(reader.parts))
        await reader.say(said)
        await until(lambda: ends(reader.parts))
        await reader.idle()

    parts = read(session, test)
    np.testing.assert_array_equal(audio(parts), said)
    at = [i for i, part in enumerate(parts) if isinstance(part, rtc.AudioFrame)]
    assert at == list(range(at[0], at[0] + 10, 2)) and all(isinstance(parts[i - 1], rtc.VideoFrame) for i in at)
    assert isinstance(parts[at[-1] + 1], AudioSegmentEnd) and ends(parts) == 1
    image = parts[0]
    assert (image.width, image.height, image.type) == (SIZE, SIZE, rtc.VideoBufferType.RGB24)


def test_the_avatar_listens_and_thinks_until_it_answers(session: Any):
    heard: list[np.ndarray] = []
    thought: list[bool] = []
    session.hear, session.think = heard.append, thought.append

    async def test(reader: Reader) -> None:
        for frame in frames(noise(0.2, 48000), 48000):
            reader.generator.hear(frame)
        reader.generator.think(True)
        await reader.say(noise(0.2))
        await until(lambda: ends(reader.parts))

    read(session, test)
    assert sum(map(len, heard)) == pytest.approx(0.2 * 16000, abs=400)
    assert thought == [True, False]


def test_segments_end_once_each_whatever_they_hold(session: Any):
    async def test(reader: Reader) -> None:
        await reader.generator.push_audio(AudioSegmentEnd())  # of nothing
        await reader.say(noise(0.2))
        await reader.say(noise(0.1, 16000), 16000)
        await reader.say(np.zeros((4800, 2), np.int16), 48000, 2)
        await reader.say(np.zeros(0, np.int16))
        await until(lambda: ends(reader.parts) >= 4)
        await reader.idle()

    parts = read(session, test)
    assert ends(parts) == 4 and abs(len(audio(parts)) - 0.4 * RATE) <= 3
    assert {part.sample_rate for part in parts if isinstance(part, rtc.AudioFrame)} == {RATE}


def test_an_interrupted_segment_ends_once_and_the_next_one_is_complete(session: Any):
    reply = noise(0.2, seed=2)

    async def test(reader: Reader) -> None:
        generator = reader.generator
        for frame in frames(noise(2.0)):
            await generator.push_audio(frame)
        await until(lambda: len(audio(reader.parts)))
        generator.clear_buffer()
        generator.clear_buffer()
        count = len(audio(reader.parts))
        await generator.push_audio(AudioSegmentEnd())  # agents end what they interrupted
        generator.clear_buffer()
        await reader.idle()
        assert len(audio(reader.parts)) == count and ends(reader.parts) == 1
        await reader.say(reply)
        await until(lambda: ends(reader.parts) == 2)
        await reader.idle()
        np.testing.assert_array_equal(audio(reader.parts)[count:], reply)

    assert ends(read(session, test)) == 2


def test_an_avatar_that_breaks_leaves_audio_and_ends(session: Any):
    draw, count = session.draw, iter(range(1000))

    def breaks(frame: Any) -> np.ndarray:
        if next(count) == 6:
            raise RuntimeError("no memory")
        return draw(frame)

    session.draw = breaks
    said, more = noise(0.8), noise(0.2, seed=2)

    async def test(reader: Reader) -> None:
        await reader.say(said)
        await until(lambda: ends(reader.parts))
        await reader.say(more)
        await until(lambda: ends(reader.parts) == 2)

    np.testing.assert_array_equal(audio(read(session, test)), np.concatenate([said, more]))


class Room(rtc.EventEmitter):
    """As much of a room as the runner needs."""

    class Participant:
        async def publish_track(self, track: Any, options: Any) -> Any:
            class Publication:
                async def wait_for_subscription(self) -> None:
                    pass

            return Publication()

    local_participant = Participant()

    def isconnected(self) -> bool:
        return True


def test_the_runner_of_the_agents_hears_when_a_segment_was_played_and_when_interrupted(session: Any):
    async def run() -> None:
        generator = AvatarGenerator(session, RATE)
        output = QueueAudioOutput(sample_rate=RATE, wait_playback_start=True)
        heard: list[Any] = []
        output.on("playback_started", lambda event: heard.append("started"))
        output.on("playback_finished", heard.append)
        runner = AvatarRunner(Room(), audio_recv=output, video_gen=generator, options=generator.options)  # type: ignore[arg-type]
        await runner.start()
        try:
            said = noise(0.4)
            for frame in frames(said):
                await output.capture_frame(frame)
            output.flush()
            played = await asyncio.wait_for(output.wait_for_playout(), 20)
            assert not played.interrupted and played.playback_position == pytest.approx(0.4, abs=1e-6)
            for frame in frames(noise(5.0)):
                await output.capture_frame(frame)
            await until(lambda: heard.count("started") == 2, 20)
            output.clear_buffer()
            output.flush()
            played = await asyncio.wait_for(output.wait_for_playout(), 20)
            assert played.interrupted and 0 < played.playback_position < 4
            for frame in frames(said):
                await output.capture_frame(frame)
            output.flush()
            played = await asyncio.wait_for(output.wait_for_playout(), 20)
            assert not played.interrupted and played.playback_position == pytest.approx(0.4, abs=1e-6)
            assert len(heard) == 6 and runner.av_sync.actual_fps > 0
        finally:
            await runner.aclose()
            await generator.aclose()

    asyncio.run(asyncio.wait_for(run(), 60))
