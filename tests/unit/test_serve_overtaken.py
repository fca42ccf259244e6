"""A live service where one thing overtakes another: an interruption, a listener who leaves, a cancelled door."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from aiortc import RTCPeerConnection

from avatar.serve import conversation, realtime
from avatar.serve.segments import Segments
from tests.serving import served, until
from tests.unit.test_serve_doors import Page, serve
from tests.wait import wait_for


def test_a_segment_that_is_interrupted_as_it_begins_is_not_being_said_for_ever(tmp_path: Path):
    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            page = Page(socket)
            await page.read(lambda: page.images)
            (guest,) = client.hub.guests.values()
            guest.say("hello there", "one")
            wait_for(lambda: guest.listener.session.waiting_seconds)  # its thread pushes, and the loop stands still
            time.sleep(0.05)  # and tells so
            guest.interrupt()
            await asyncio.sleep(0.05)
            assert not guest.conversation.busy, "or the session would never be idle"
            await until(lambda: guest.conversation.state == "idle")

    serve(tmp_path, test)


def test_a_segment_is_announced_before_its_audio():
    """The realtime door drops audio of which it does not know the answer that it belongs to."""
    log: list[str] = []

    class Queue:
        waiting_seconds = 0.0

        def push_audio(self, samples: np.ndarray) -> int:
            log.append("audio")
            return len(samples)

        def end_utterance(self) -> int:
            return 1

    segments = Segments(Queue(), lambda words: log.append(words["type"]))  # type: ignore[arg-type]
    segments.say("one", [np.ones(10, np.float32)] * 2)
    wait_for(lambda: len(log) == 3)
    segments.close()
    assert log == ["segment.started", "audio", "audio"]


def test_a_door_that_is_cancelled_while_an_agent_is_closed_leaves_no_threads(tmp_path: Path):
    async def run() -> None:
        async with served(tmp_path) as client:
            closing, go, guests = asyncio.Event(), asyncio.Event(), []

            async def close() -> None:
                closing.set()
                await go.wait()  # for the other side of a connection

            async def door() -> None:
                async with client.hub.admit() as guest:
                    guests.append(guest)
                    guest.conversation.close = close

            task = asyncio.create_task(door())
            await closing.wait()
            task.cancel()  # as where the listener's connection ends
            await asyncio.gather(task, return_exceptions=True)
            go.set()
            try:
                await until(lambda: not guests[0].listener._threads.alive)
            finally:
                guests[0].listener.stop()

    asyncio.run(asyncio.wait_for(run(), 30))


def test_an_agent_that_cannot_be_closed_in_time_is_no_error_of_its_listener(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(conversation, "CLOSE_SECONDS", 0.05)

    async def run() -> None:
        async with served(tmp_path) as client, client.hub.admit() as guest:
            monkeypatch.setattr(guest.conversation._agent, "close", lambda: asyncio.sleep(60), raising=False)
        assert not guest.listener._threads.alive

    asyncio.run(asyncio.wait_for(run(), 30))


def test_a_peer_connection_is_closed_where_the_client_leaves_while_it_is_made(tmp_path: Path, monkeypatch: Any):
    made: list[Any] = []
    asked, open_client = asyncio.Event(), realtime.open_client

    def opened(*about: Any) -> Any:
        made.append(open_client(*about))
        return made[-1]

    async def answered(*_: Any) -> None:
        asked.set()
        await asyncio.sleep(60)  # a STUN server that does not answer

    monkeypatch.setattr(realtime, "open_client", opened)
    monkeypatch.setattr(realtime, "answer_offer", answered)

    async def test(client: Any) -> None:
        peer = RTCPeerConnection()
        peer.addTransceiver("audio", "recvonly")
        await peer.setLocalDescription(await peer.createOffer())
        async with client.ws_connect("/v1/realtime") as socket:
            await socket.send_json({"type": "session.avatar.connect", "client_sdp": peer.localDescription.sdp})
            await until(asked.is_set)
            client.hub.close()  # a session may end at any time
            while not socket.closed:
                await socket.receive(timeout=15)
        await until(lambda: made[0].connection.connectionState == "closed")
        await peer.close()

    serve(tmp_path, test)
