"""A session behind a server: one task pushes audio, another sends frames by a clock, and a listener barges in."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from avatar.infer.fades import FADE
from avatar.infer.session import Frame, Session
from avatar.io.audio import SAMPLE_RATE
from tests.fake_avatar import FPS, FRAME, FakeAvatar, LoudnessSpeech
from tests.talking import talking

CHUNK = SAMPLE_RATE // 50  # 20 ms, as voice services send them


@dataclass
class Clock:
    """Time that passes when all tasks sleep."""

    now: float = 0.0
    sleeping: list[tuple[float, int, asyncio.Future[None]]] = field(default_factory=list)
    slept: int = 0

    async def sleep(self, seconds: float) -> None:
        self.slept += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self.sleeping, (self.now + seconds, self.slept, future))
        await future

    async def run(self, tasks: list[asyncio.Task[None]]) -> None:
        while alive := sum(not task.done() for task in tasks):
            if len(self.sleeping) == alive:
                self.now, _, future = heapq.heappop(self.sleeping)
                future.set_result(None)
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)


@dataclass
class Server:
    """What a WebRTC server or a plug-in of a voice agent does with a session."""

    session: Session
    clock: Clock = field(default_factory=Clock)
    sent: list[Frame] = field(default_factory=list)
    segments: dict[int, str] = field(default_factory=dict)  # utterances that were not told to be over
    events: list[str] = field(default_factory=list)

    async def speak(self, name: str, audio: np.ndarray, pace: float = 1.0) -> None:
        """Push a segment of speech as a service sends it; ``pace`` 0 is all at once."""
        for i in range(0, len(audio), CHUNK):
            assert self.session.push_audio(audio[i : i + CHUNK]) == len(audio[i : i + CHUNK])
            if pace:
                await self.clock.sleep(pace * CHUNK / SAMPLE_RATE)
        self.segments[self.session.end_utterance()] = name

    async def send(self, until: float) -> None:
        """Send frames with their audio; drawing runs in a thread, so nothing else waits for it."""
        while self.clock.now < until:
            for frame in await asyncio.to_thread(self.session.step, self.clock.now):
                self.sent.append(frame)
                self.events += [f"{self.segments.pop(number)} is over" for number in frame.ended]
            await self.clock.sleep(1 / FPS)

    async def barge_in(self, at: float) -> None:
        """The listener begins to talk."""
        await self.clock.sleep(at)
        number, seconds = self.session.interrupt()
        self.events.append(f"{self.segments[number]} stopped after {1000 * seconds:.0f} ms")
        self.segments.clear()


@pytest.fixture
def server(tmp_path: Path) -> Server:
    talking()[0][:100].save(tmp_path / "motion.safetensors")
    return Server(Session(FakeAvatar(tmp_path), speech=LoudnessSpeech(), flush_seconds=None))  # type: ignore[arg-type]


def noise(seconds: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.01, 0.5, round(seconds * SAMPLE_RATE)).astype(np.float32)


def audio_of(frames: list[Frame]) -> np.ndarray:
    return np.concatenate([frame.audio for frame in frames])


def check_timeline(frames: list[Frame]) -> None:
    """Frames and audio are one timeline without gaps."""
    np.testing.assert_allclose([frame.pts for frame in frames], np.arange(len(frames)) / FPS, atol=1e-9)
    assert len(audio_of(frames)) == len(frames) * FRAME


def test_a_conversation_is_sent_once_and_in_order(server: Server):
    """Slow, fast and in one piece: every sample comes out once, each segment ends once."""
    first, second, third = noise(1.5, 1), noise(0.71, 2), noise(2.0, 3)

    async def talk() -> None:
        await server.speak("first", first)
        await server.speak("second", second, pace=0.5)
        await server.clock.sleep(2.0)
        await server.speak("third", third, pace=0)

    async def serve() -> None:
        await server.clock.run([asyncio.create_task(talk()), asyncio.create_task(server.send(7.0))])

    asyncio.run(serve())
    check_timeline(server.sent)
    audio = audio_of(server.sent)
    np.testing.assert_array_equal(audio[audio != 0], np.concatenate([first, second, third]))
    assert server.events == ["first is over", "second is over", "third is over"] and not server.segments
    assert server.session.waiting_seconds == 0


def test_barge_in_says_what_was_played(server: Server):
    answer, reply = noise(3.0, 1), noise(0.4, 2)

    async def talk() -> None:
        await server.speak("answer", answer, pace=0)
        await server.clock.sleep(2.0)
        await server.speak("reply", reply)

    async def serve() -> None:
        tasks = [talk(), server.send(4.0), server.barge_in(1.0)]
        await server.clock.run([asyncio.create_task(task) for task in tasks])

    asyncio.run(serve())
    check_timeline(server.sent)
    audio = audio_of(server.sent)
    stopped, over = server.events
    played = round(float(stopped.split()[-2]) / 1000 * SAMPLE_RATE)
    assert stopped.startswith("answer stopped after 1") and over == "reply is over"
    np.testing.assert_array_equal(audio[:played], answer[:played])
    later = audio[played + FADE :]
    np.testing.assert_array_equal(later[later != 0], reply)
