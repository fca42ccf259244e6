"""A front whose replica is not there any more, and does not say so."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from avatar.serve import front
from avatar.serve.front import make_front
from avatar.serve.hub import Settings
from tests.unit.test_serve_front import INNER, HereBackend, closed, listening


class SilentBackend(HereBackend):
    """Runs replicas that let a listener in and then say nothing, as on a machine without power."""

    async def start(self, name: str) -> tuple[Any, str, int]:
        async def listen(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse(autoping=False)
            await socket.prepare(request)
            await socket.send_json({"type": "hello", "session": f"{name}.x", "avatar": "x"})
            await asyncio.wait([self.over[name]])
            return socket

        app = web.Application()
        app.router.add_get("/ws", listen)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.over[name], self.runners[name] = asyncio.get_running_loop().create_future(), runner
        return name, *runner.addresses[0][:2]

    async def stop(self, replica: str) -> None:
        self.over[replica].set_result(None)
        await super().stop(replica)


def test_the_listeners_of_a_replica_that_falls_silent_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(front, "HEARTBEAT_SECONDS", 0.6)

    async def run() -> None:
        app = await make_front(SilentBackend(tmp_path, Settings()), Settings(), INNER, 1, 1)
        async with TestClient(TestServer(app)) as client, listening(client) as (socket, _):
            code, _, said = await closed(socket)
            assert code == 1012 and [words["type"] for words in said] == ["goodbye"]

    asyncio.run(asyncio.wait_for(run(), 10))
