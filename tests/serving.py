"""A live service without a trained avatar: faces that are drawn at once, and clients of its doors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from avatar.infer.controls import Controls
from avatar.infer.session import Session
from avatar.serve.replica import Cast
from tests.fake_avatar import FakeAvatar, LoudnessSpeech
from tests.talking import talking

TOKEN = "a-token-of-the-tests"


def fake_session(folder: Path, avatar: Any = None) -> Session:
    """A session whose jaw is brightness."""
    if not (folder / "motion.safetensors").exists():
        talking()[0][:100].save(folder / "motion.safetensors")
    return Session(avatar or FakeAvatar(folder), speech=LoudnessSpeech(), flush_seconds=None)  # type: ignore[arg-type]


def in_step(session: Session) -> Session:
    """Let no frame be taken before the one before it was drawn, so that a busy machine leaves out no image."""
    take, draw, drawn = session.take, session.draw, threading.Event()
    drawn.set()

    def take_next(now: float) -> Any:
        drawn.wait(0.5)  # no longer: the one that draws may have been stopped
        drawn.clear()
        return take(now)

    def draw_it(frame: Any) -> np.ndarray:
        try:
            return draw(frame)
        finally:
            drawn.set()

    session.take, session.draw = take_next, draw_it  # type: ignore[method-assign]
    return session


class Beeps:
    """Text to speech that is instant: a tone as long as the text."""

    sample_rate = 24000

    def speak(self, text: str) -> Iterator[np.ndarray]:
        for word in text.split():
            if word == "broken":
                raise RuntimeError("the engine broke")
            count = 2400 * len(word)
            yield (0.3 * np.sin(np.arange(count) * 0.1)).astype(np.float32)


class FakeCast(Cast):
    """Serves an avatar that is drawn at once, and named after its process."""

    def load(self) -> Any:
        from avatar.serve.character import Character
        from avatar.serve.voice import Voice

        fake_session(self.folder)
        avatar: Any = FakeAvatar(self.folder)
        speech: Any = LoudnessSpeech()
        return [Character(str(os.getpid()), avatar, speech, Controls())], Voice(Beeps())


@contextlib.asynccontextmanager
async def served(
    folder: Path, avatar: Any = None, controls: Controls | None = None, speechless: str = "", **settings: Any
) -> AsyncIterator[Any]:
    """A test client of a service with one avatar named "someone", listening on a free port."""
    from aiohttp.test_utils import TestClient, TestServer

    from avatar.serve.app import HUB, make_app
    from avatar.serve.character import Character
    from avatar.serve.hub import Hub, Settings
    from avatar.serve.voice import Voice

    fake_session(folder)
    someone: Any = avatar or FakeAvatar(folder)
    speech: Any = LoudnessSpeech()
    character = Character("someone", someone, speech, controls or Controls(), None, speechless)
    app = make_app(Hub([character], Voice(Beeps()), Settings(**settings)))  # type: ignore[arg-type]
    async with TestClient(TestServer(app)) as client:
        client.hub = app[HUB]  # type: ignore[attr-defined]
        yield client
    await until(lambda: not _left())  # a frame that is being drawn may end a little later


def _left() -> list[str]:
    """Names of threads of sessions that have not ended."""
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("avatar-")]
    return [name for name in names if name != "avatar-segments"]


async def until(condition: Any, seconds: float = 10.0) -> Any:
    """What a condition gives once it is true."""
    end = asyncio.get_running_loop().time() + seconds
    while not (result := condition()):
        if asyncio.get_running_loop().time() > end:
            raise TimeoutError
        await asyncio.sleep(0.01)
    return result
