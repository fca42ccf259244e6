"""The server of docs/session.md runs as it stands, through what a listener may do to it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from avatar.infer.session import Session
from tests.docs_text import ROOT
from tests.serving import fake_session

PAGE = ROOT / "docs" / "session.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
(SERVER,) = (block for block in BLOCKS if "async def barge_in" in block)


class Segment:
    """Audio of a text-to-speech service; with ``held``, it comes to its end when that is set."""

    def __init__(self, name: str, seconds: float, held: asyncio.Event | None = None) -> None:
        self.name, self._seconds, self._held = name, seconds, held

    async def __aiter__(self) -> AsyncIterator[np.ndarray]:
        if self._seconds:
            yield np.full(round(self._seconds * 16000), 0.3, np.float32)
        if self._held is not None:
            await self._held.wait()


def serve(folder: Path, talk: Callable[[Any], Awaitable[None]]) -> list[tuple[Any, ...]]:
    """What the client is told during a talk with the server, which gets its names."""
    told: list[tuple[Any, ...]] = []

    async def finished(segment: Segment) -> None:
        told.append(("finished", segment.name))

    async def interrupted(segments: dict[int, Segment], utterance: int, seconds: float) -> None:
        await asyncio.sleep(0)
        told.append(("interrupted", {number: segment.name for number, segment in segments.items()}, utterance))

    async def sent(*_: object) -> None:
        await asyncio.sleep(0)

    async def run() -> None:
        names: dict[str, Any] = {
            "asyncio": asyncio, "time": time, "avatar": None, "connected": True, "track": SimpleNamespace(send=sent),
            "Session": lambda avatar, flush_seconds: fake_session(folder), "tell_finished": finished,
            "tell_interrupted": interrupted, "told": told,
        }  # fmt: skip
        exec(compile(SERVER, str(PAGE), "exec"), names)  # this repository's own page
        sending = asyncio.create_task(names["send"]())
        await talk(SimpleNamespace(**names))
        names["connected"] = False
        await sending

    asyncio.run(asyncio.wait_for(run(), 30))
    return told


async def until(reached: Callable[[], object]) -> None:
    while not reached():
        await asyncio.sleep(0.005)


def test_an_empty_segment_is_finished_and_the_one_before_it_is_too(tmp_path: Path):
    async def talk(server: Any) -> None:
        for segment in (Segment("first", 0.3), Segment("empty", 0), Segment("last", 0.1)):
            await server.speak(segment)
        await until(lambda: len(server.told) == 3)

    told = serve(tmp_path, talk)
    assert sorted(told) == [("finished", "empty"), ("finished", "first"), ("finished", "last")]
    assert told.index(("finished", "first")) < told.index(("finished", "last"))


def test_what_is_interrupted_while_its_audio_still_comes_is_known(tmp_path: Path):
    async def talk(server: Any) -> None:
        speaking = asyncio.create_task(server.speak(Segment("long", 2.0, asyncio.Event())))
        await until(lambda: server.session.waiting_seconds and server.session.waiting_seconds < 1.8)
        await server.barge_in(speaking)
        await server.speak(Segment("next", 0.1))
        await until(lambda: len(server.told) == 2)

    assert serve(tmp_path, talk) == [("interrupted", {1: "long"}, 1), ("finished", "next")]


def test_an_interruption_at_the_end_of_an_utterance_ends_nothing_else(tmp_path: Path):
    async def talk(server: Any) -> None:
        session: Session = server.session
        step, loop = session.step, asyncio.get_running_loop()
        speaking = asyncio.create_task(server.speak(Segment("first", 0.1)))

        def interrupted_at_the_end(now: float) -> Any:
            frames = step(now)
            if any(frame.ended for frame in frames):
                session.step = step  # type: ignore[method-assign]
                asyncio.run_coroutine_threadsafe(server.barge_in(speaking), loop).result(10)
            return frames

        session.step = interrupted_at_the_end  # type: ignore[method-assign]
        await until(lambda: server.told)
        await server.speak(Segment("next", 0.1))
        await until(lambda: len(server.told) == 2)

    assert serve(tmp_path, talk)[1:] == [("finished", "next")]


def test_a_segment_that_begins_while_the_client_is_told_is_kept(tmp_path: Path):
    async def talk(server: Any) -> None:
        speaking = asyncio.create_task(server.speak(Segment("long", 2.0, asyncio.Event())))
        await until(lambda: server.session.waiting_seconds)
        await asyncio.gather(server.barge_in(speaking), server.speak(Segment("next", 0.1)))
        await until(lambda: len(server.told) == 2)

    assert serve(tmp_path, talk)[1] == ("finished", "next")
