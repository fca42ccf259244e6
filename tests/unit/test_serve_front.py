"""The front of several replicas: who is served where, what happens when one dies, and how many there are."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from aiohttp import WSMsgType, WSServerHandshakeError, web
from aiohttp.test_utils import TestClient, TestServer
from aiortc import RTCPeerConnection, RTCSessionDescription

from avatar.errors import AvatarError
from avatar.infer.controls import Controls
from avatar.serve import app as app_module
from avatar.serve import replicas as module
from avatar.serve.access import KEY_PROTOCOL
from avatar.serve.app import make_app
from avatar.serve.character import Character
from avatar.serve.front import make_front
from avatar.serve.hub import Hub, Settings
from avatar.serve.metrics import merged
from avatar.serve.on_ray import Cluster, RayBackend
from avatar.serve.replicas import ReplicaDied, Replicas, Running
from avatar.serve.voice import Voice
from tests.docs_text import ROOT
from tests.fake_avatar import FakeAvatar, LoudnessSpeech
from tests.serving import TOKEN, Beeps, FakeCast, fake_session, until

INNER = "token-between-front-and-replicas"
Test = Callable[[Any, Any], Coroutine[Any, Any, None]]


class HereBackend:
    """Runs replicas in this process; one can be killed as if it were a process."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder, self._settings = folder, settings
        self.over: dict[str, asyncio.Future[None]] = {}
        self.runners: dict[str, web.AppRunner] = {}
        self.started: list[str] = []

    async def start(self, name: str) -> tuple[Any, str, int]:
        self.started.append(name)
        character = Character("someone", FakeAvatar(self._folder), LoudnessSpeech(), Controls())  # type: ignore[arg-type]
        settings = replace(self._settings, token=INNER, prefix=f"{name}.")
        runner = web.AppRunner(make_app(Hub([character], Voice(Beeps()), settings)), shutdown_timeout=1)  # type: ignore
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.over[name], self.runners[name] = asyncio.get_running_loop().create_future(), runner
        return name, *runner.addresses[0][:2]

    async def wait(self, replica: str) -> None:
        await self.over[replica]

    async def stop(self, replica: str) -> None:
        await self.runners[replica].cleanup()
        if not self.over[replica].done():
            self.over[replica].set_result(None)

    async def kill(self, replica: str) -> None:
        await self.runners[replica].cleanup()

    async def die(self, replica: str) -> None:
        runner = self.runners[replica]
        for site in list(runner.sites):
            await site.stop()
        for connection in list(runner.server.connections):  # type: ignore[union-attr]
            connection.transport.abort()  # type: ignore[union-attr]
        self.over[replica].set_exception(ReplicaDied("it was killed."))


def serve(folder: Path, test: Test, least: int = 2, most: int = 2, **settings: Any) -> None:
    async def run() -> None:
        fake_session(folder)
        how = Settings(**settings)
        backend = HereBackend(folder, how)
        app = await make_front(backend, how, INNER, least, most)
        async with TestClient(TestServer(app)) as client:
            await until(lambda: len(backend.runners) == least)
            await asyncio.wait_for(test(client, backend), 30)

    asyncio.run(run())


@contextlib.asynccontextmanager
async def listening(client: Any, **options: Any) -> Any:
    """A WebSocket whose session has begun, and the name of its session."""
    async with client.ws_connect("/ws", **options) as socket:
        hello = json.loads((await socket.receive(timeout=15)).data)
        assert hello["type"] == "hello"
        socket.avatar = hello["avatar"]
        yield socket, hello["session"]


async def words(socket: Any, kind: str) -> dict[str, Any]:
    """The next message of a kind."""
    while True:
        message = await socket.receive(timeout=15)
        if message.type is WSMsgType.TEXT and (content := json.loads(message.data))["type"] == kind:
            return content
        assert message.type in (WSMsgType.TEXT, WSMsgType.BINARY), message


async def closed(socket: Any) -> tuple[int, str, list[dict[str, Any]]]:
    """How a WebSocket was closed, and what was said before."""
    said: list[dict[str, Any]] = []
    while (message := await socket.receive(timeout=15)).type in (WSMsgType.TEXT, WSMsgType.BINARY):
        said += [json.loads(message.data)] if message.type is WSMsgType.TEXT else []
    return socket.close_code, str(message.extra or ""), said


def test_listeners_are_spread_and_each_stays_where_it_is(tmp_path: Path):
    async def test(client: Any, backend: Any) -> None:
        async with listening(client) as (one, first), listening(client) as (two, second):
            assert {first.split(".")[0], second.split(".")[0]} == {"r1", "r2"}
            for socket, session in ((one, first), (two, second)):
                await socket.send_json({"type": "ping", "at": 7})
                assert (await words(socket, "pong"))["at"] == 7
                answer = await client.post(f"/api/sessions/{session}/text", json={"text": "hello", "segment": "s"})
                assert answer.status == 200 and (await words(socket, "segment.started"))["segment"] == "s"
            await one.send_json({"type": "nonsense"})
            assert (await words(one, "error"))["message"]
            status = await (await client.get("/healthz")).json()
            assert status == {"status": "ok", "replicas": 2}
            text = ""
            while 'avatar_sessions{replica="r1"} 1' not in text:  # gauges are set once a second
                text = await (await client.get("/metrics")).text()
            assert text.count("# TYPE avatar_sessions gauge") == 1 and 'replica="r2",stage="take",quantile=' in text
        async with client.ws_connect("/ws") as socket:
            await words(socket, "hello")
            await socket.send_bytes(b"x" * (200 << 10))
            assert (await closed(socket))[0] == 1009  # what a replica says is passed on
        assert (await client.post("/api/sessions/r1.none/text", json={"text": "x"})).status == 404
        assert (await client.post("/api/sessions/r9.none/text", json={"text": "x"})).status == 404
        answer = await client.get("/ws?avatar=nobody", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
        assert answer.status == 422 and "nobody" in (await answer.json())["error"]
        assert (await client.get("/")).status == 200 and (await client.get("/page/main.js")).status == 200

    serve(tmp_path, test)


def test_signalling_of_one_listener_goes_to_one_replica(tmp_path: Path):
    async def test(client: Any, backend: Any) -> None:
        async def offer(**more: Any) -> dict[str, Any]:
            answer = await client.post("/api/offer", json={"sdp": peer.localDescription.sdp, "type": "offer", **more})
            assert answer.status == 200, await answer.text()
            return await answer.json()

        peers = [RTCPeerConnection() for _ in range(2)]
        names = []
        for peer in peers:
            peer.createDataChannel("words")
            peer.addTransceiver("audio", "recvonly")
            peer.addTransceiver("video", "recvonly")
            await peer.setLocalDescription(await peer.createOffer())
            answer = await offer()
            await peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
            names.append(answer["pc_id"])
        assert {name.split(".")[0] for name in names} == {"r1", "r2"}
        for peer, name in zip(peers, names):
            content = {"pc_id": name, "candidates": [{"candidate": "", "sdp_mid": "0", "sdp_mline_index": 0}]}
            assert (await client.patch("/api/offer", json=content)).status == 200
            await until(lambda peer=peer: peer.connectionState == "connected")
        gone = await client.patch("/api/offer", json={"pc_id": "r1.none", "candidates": []})
        assert gone.status == 422 and "no such session" in (await gone.json())["error"]
        for peer in peers:
            await peer.close()

    serve(tmp_path, test)


def test_when_all_are_full_it_says_so_and_nobody_gets_in_without_the_token(tmp_path: Path):
    async def test(client: Any, backend: Any) -> None:
        own = {"headers": {"Authorization": f"Bearer {TOKEN}"}}
        with pytest.raises(WSServerHandshakeError, match="401"):
            await client.ws_connect("/ws")
        with pytest.raises(WSServerHandshakeError, match="401"):
            await client.ws_connect("/ws", headers={"Authorization": f"Bearer {INNER}"})  # that of the replicas
        async with listening(client, **own), listening(client, **own):
            with pytest.raises(WSServerHandshakeError) as refused:
                await client.ws_connect("/ws", **own)
            assert refused.value.status == 503 and refused.value.headers["Retry-After"] == "10"
            offer = await client.post("/api/offer", json={"sdp": "v=0\r\n", "type": "offer"}, **own)
            assert offer.status == 503 and "2 people" in (await offer.json())["error"]
            assert (await client.post("/api/offer", data=io.BytesIO(b"x" * (2 << 20)), **own)).status == 413
        async with listening(client, **own):  # a place that is free again
            pass
        answer = await client.get(f"/api/avatars?access_token={TOKEN}")
        assert (await answer.json())["avatars"] == ["someone"]

    serve(tmp_path, test, sessions=1, token=TOKEN)


def test_a_replica_is_told_which_events_a_client_knows_and_not_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    serve_realtime, offered = app_module.serve_realtime, []

    async def note(request: web.Request, hub: Hub) -> web.WebSocketResponse:
        offered.append(request.headers.get("Sec-WebSocket-Protocol"))
        return await serve_realtime(request, hub)

    async def test(client: Any, backend: Any) -> None:
        key = KEY_PROTOCOL + TOKEN
        for protocols, headers, older in (
            (["realtime", key], {"OpenAI-Beta": "realtime=v1"}, True), (["realtime", key], {}, False),
            (["realtime", key, "openai-beta.realtime-v1"], {}, True),
        ):  # fmt: skip
            async with client.ws_connect("/v1/realtime", protocols=protocols, headers=headers) as socket:
                session = (await words(socket, "session.created"))["session"]
                assert socket.protocol == "realtime" and ("input_audio_format" in session) == older
        assert offered == ["realtime", "realtime", "realtime,openai-beta.realtime-v1"]

    monkeypatch.setattr(app_module, "serve_realtime", note)
    serve(tmp_path, test, token=TOKEN)


def test_a_replica_that_dies_takes_only_its_own_listeners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.05)

    async def test(client: Any, backend: Any) -> None:
        async with listening(client) as (one, first), listening(client) as (two, second):
            dead = first.split(".")[0]
            await backend.die(dead)
            code, _, said = await closed(one)
            assert code == 1012 and said[-1]["type"] == "goodbye" and "Load the page again" in said[-1]["message"]
            await two.send_json({"type": "ping", "at": 1})
            await words(two, "pong")
            assert (await client.post(f"/api/sessions/{first}/text", json={"text": "x"})).status == 404
            async with listening(client) as (_, third):  # a new one is served at once
                assert third.split(".")[0] in ("r1", "r2")
            await until(lambda: backend.started.count(dead) == 2)
            answer = await client.post(f"/api/sessions/{second}/text", json={"text": "hello"})
            assert answer.status == 200

    serve(tmp_path, test)


def test_listeners_are_told_when_the_server_stops(tmp_path: Path):
    async def test(client: Any, backend: Any) -> None:
        async with listening(client) as (socket, _):
            stop = asyncio.create_task(client.server.close())
            _, _, said = await closed(socket)
            assert "shutting down" in said[-1]["message"]
            await stop

    serve(tmp_path, test)


class Ghosts:
    """A backend of replicas that are nothing but names."""

    def __init__(self, fail: Exception | None = None) -> None:
        self.names: list[str] = []
        self.killed: list[str] = []
        self.over: dict[str, asyncio.Future[None]] = {}
        self.fail = fail

    async def start(self, name: str) -> tuple[Any, str, int]:
        if self.fail is not None:
            raise self.fail
        self.over[name] = asyncio.get_running_loop().create_future()
        self.names.append(name)
        return name, "127.0.0.1", 1

    async def wait(self, replica: str) -> None:
        await self.over[replica]

    async def stop(self, replica: str) -> None:
        self.names.remove(replica)
        self.over[replica].set_result(None)

    async def kill(self, replica: str) -> None:
        if not self.over[replica].done():
            self.names.remove(replica)
            self.killed.append(replica)
            self.over[replica].set_exception(ReplicaDied("it was killed."))


def test_there_are_as_many_replicas_as_listeners_need(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.005)
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.005)
    taken = {"r1": 0, "r2": 0, "r3": 0, "r4": 0}
    now, deaf = [0.0], [""]

    async def ask(running: Running) -> dict[str, Any]:
        if running.name == deaf[0]:
            raise ConnectionError
        return {"avatars": ["someone"], "free": 4 - taken[running.name]}

    async def test() -> None:
        ghosts = Ghosts()
        group = Replicas(ghosts, least=1, most=3, sessions=4, ask=ask, clock=lambda: now[0])
        await group.start()
        await asyncio.sleep(0.05)
        assert ghosts.names == ["r1"]
        taken["r1"] = 3  # one place left: less than half of a replica
        await until(lambda: ghosts.names == ["r1", "r2"])
        await asyncio.sleep(0.05)
        assert len(ghosts.names) == 2  # five places are free
        taken["r2"] = 4
        await until(lambda: len(ghosts.names) == 3)
        taken["r3"] = 4
        await asyncio.sleep(0.05)
        assert len(ghosts.names) == 3  # no more than may be
        taken.update(r2=1, r3=0)
        await asyncio.sleep(0.05)
        assert len(ghosts.names) == 3  # it may be needed again soon
        now[0] += 250
        await asyncio.sleep(0.05)
        now[0] += 100
        await until(lambda: ghosts.names == ["r1", "r2"])
        deaf[0] = "r2"
        await asyncio.sleep(0.05)
        now[0] += 40
        await until(lambda: ghosts.killed)
        deaf[0] = ""
        await until(lambda: ghosts.names == ["r1", "r2"] and len(group.running) == 2)  # r2 anew
        assert ghosts.killed == ["r2"]
        assert group.of("r2.abc") is not None and group.of("r7.abc") is None and group.of("") is None
        await group.close()
        assert not group.running

    asyncio.run(asyncio.wait_for(test(), 20))


def test_a_front_that_stalls_ends_no_replica_that_answers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "POLL_SECONDS", 0.005)
    asked: list[str] = []

    async def ask(running: Running) -> dict[str, Any]:
        asked.append(running.name)
        return {"avatars": ["someone"], "free": 4}

    async def test() -> None:
        ghosts = Ghosts()
        late = itertools.count(0.0, 40.0).__next__  # 40 s go by between any two looks at the clock
        group = Replicas(ghosts, least=2, most=2, sessions=4, ask=ask, clock=late)
        await group.start()
        await until(lambda: len(asked) > 20)
        assert not ghosts.killed and ghosts.names == ["r1", "r2"]
        await group.close()

    asyncio.run(asyncio.wait_for(test(), 20))


def test_what_can_never_serve_is_an_error_and_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.005)

    async def test(error: Exception) -> None:
        group = Replicas(Ghosts(error), least=2, most=2, sessions=4, ask=lambda _: None)
        try:
            await group.start()
        finally:
            await group.close()

    with pytest.raises(AvatarError, match="no run folder"):
        asyncio.run(asyncio.wait_for(test(AvatarError("There is no run folder x.")), 20))
    with pytest.raises(AvatarError, match=r"No replica starts .* no module avatar .* installed"):
        asyncio.run(asyncio.wait_for(test(ReplicaDied("no module avatar")), 20))
    with pytest.raises(AvatarError, match="--replicas 3 and --max-replicas 2"):
        Cluster(least=3, most=2).check()


def test_metrics_of_several_are_one_text():
    one = '# HELP a_x About.\n# TYPE a_x gauge\na_x 1\n# HELP a_s S.\n# TYPE a_s gauge\n# take: T.\na_s{q="1"} 2\n'
    text = merged({"r1": one, "r2": one.replace(" 1\n", " 5\n")})
    assert text == (
        '# HELP a_x About.\n# TYPE a_x gauge\na_x{replica="r1"} 1\na_x{replica="r2"} 5\n'
        '# HELP a_s S.\n# TYPE a_s gauge\n# take: T.\na_s{replica="r1",q="1"} 2\na_s{replica="r2",q="1"} 2\n'
    )


def test_on_ray_a_killed_replica_takes_only_its_own_listeners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("ray.exceptions", reason="Ray is not installed (pip install 'avatar-toolkit[ray]')")
    from avatar.cluster import THREADS, connected

    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the replicas
    cast = FakeCast(folder=tmp_path, runs=(), controls=Controls())

    async def test(ray: Any) -> None:
        settings = Settings(sessions=2)
        backend = RayBackend(ray, Cluster(), cast, replace(settings, token=INNER))
        app = await make_front(backend, settings, INNER, 2, 2)
        async with TestClient(TestServer(app)) as client:

            async def replicas(count: int) -> None:
                end = time.monotonic() + 120
                while (await (await client.get("/healthz")).json())["replicas"] != count:
                    assert time.monotonic() < end
                    await asyncio.sleep(0.1)

            await replicas(2)
            async with listening(client) as (one, first), listening(client) as (two, second):
                assert {first.split(".")[0], second.split(".")[0]} == {"r1", "r2"}
                os.kill(int(one.avatar), signal.SIGKILL)
                assert (await closed(one))[0] == 1012
                await two.send_json({"type": "ping", "at": 1})
                await words(two, "pong")
                async with listening(client):
                    pass
                await replicas(2)

    with connected("local", 2, dict.fromkeys(THREADS, "1")) as ray:
        asyncio.run(asyncio.wait_for(test(ray), 240))
