"""A listener who comes back by another way: it gets the place of the session that it names, and nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from aiortc import RTCPeerConnection

from avatar.serve import guest
from avatar.serve import hub as module
from avatar.serve.hub import Full
from tests.serving import served, until
from tests.unit.test_serve_front import serve as serve_front


@asynccontextmanager
async def offered() -> AsyncGenerator[dict[str, str]]:
    """The offer of a browser that never connects, as behind a firewall that lets no UDP through."""
    peer = RTCPeerConnection()
    peer.createDataChannel("words")
    peer.addTransceiver("audio", "recvonly")
    peer.addTransceiver("video", "recvonly")
    await peer.setLocalDescription(await peer.createOffer())
    try:
        yield {"sdp": peer.localDescription.sdp, "type": "offer"}
    finally:
        await peer.close()


def serve(folder: Path, test: Callable[[Any, dict[str, str]], Coroutine[Any, Any, None]], **settings: Any) -> None:
    async def run() -> None:
        async with served(folder, sessions=1, **settings) as client, offered() as offer:
            await asyncio.wait_for(test(client, offer), 30)

    asyncio.run(run())


async def called(client: Any, content: dict[str, Any]) -> str:
    """The name of the session that an offer is answered with."""
    answer = await client.post("/api/offer", json=content)
    assert answer.status == 200, await answer.text()
    return (await answer.json())["pc_id"]


def test_a_websocket_takes_the_place_of_a_connection_that_does_not_come_about(tmp_path: Path):
    async def test(client: Any, offer: dict[str, str]) -> None:
        name = await called(client, offer)
        for path in ("/ws", "/ws?replaces=", f"/ws?replaces={name[:-1]}", "/ws?replaces=someone"):
            assert (await client.get(path)).status == 503
        assert list(client.hub.guests) == [name], "who cannot name a session does not end it"
        async with client.ws_connect(f"/ws?replaces={name}") as socket:
            hello = await socket.receive_json(timeout=15)
            assert hello["type"] == "hello" and list(client.hub.guests) == [hello["session"]] != [name]
            assert (await client.get(f"/ws?replaces={name}")).status == 503, "it is over"

    serve(tmp_path, test)


def test_an_offer_replaces_the_session_that_it_restarts(tmp_path: Path):
    async def test(client: Any, offer: dict[str, str]) -> None:
        name = await called(client, offer)
        wrong = [{"sdp": "v=0"}, {"request_data": {"avatar": "nobody"}}]
        for fields in wrong:
            answer = await client.post("/api/offer", json=offer | {"pc_id": name, "restart_pc": True} | fields)
            assert answer.status == 422 and list(client.hub.guests) == [name], "it lives on where nothing follows it"
        assert (await client.post("/api/offer", json=offer | {"pc_id": "x", "restart_pc": True})).status == 503
        again = await called(client, offer | {"pc_id": name, "restart_pc": True})
        assert again != name and list(client.hub.guests) == [again]

    serve(tmp_path, test)


def test_nobody_else_gets_the_place_and_it_is_given_on_once(tmp_path: Path):
    async def test(client: Any, _: Any) -> None:
        hub = client.hub

        async def come(name: str, go: asyncio.Event) -> str:
            async with hub.admit(replaces=name) as guest:
                await go.wait()
                return guest.name

        go = asyncio.Event()
        async with hub.admit() as old:
            comes = asyncio.create_task(come(old.name, go))
            await until(old.over.is_set)
            for name in ("", old.name):
                with pytest.raises(Full):
                    hub.check_room(name)
        with pytest.raises(Full):
            hub.check_room()
        go.set()
        assert await comes != old.name
        hub.check_room()

    serve(tmp_path, test)


def test_a_session_that_does_not_end_keeps_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LEAVE_SECONDS", 0.01)

    async def test(client: Any, _: Any) -> None:
        async with client.hub.admit() as old:
            async with client.ws_connect(f"/ws?replaces={old.name}") as socket:
                words = await socket.receive_json(timeout=15)
                assert words["type"] == "goodbye" and "has not ended" in words["message"]
            with pytest.raises(Full):
                client.hub.check_room()
        client.hub.check_room()

    serve(tmp_path, test)


def test_a_client_whose_network_is_gone_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its old connection answers no goodbye, which others are given longer for than the newcomer waits."""
    monkeypatch.setattr(guest, "GOODBYE_SECONDS", 60.0)
    monkeypatch.setattr(module, "LEAVE_SECONDS", 9.0)  # aiohttp gives up after 10; a busy machine takes its time

    async def test(client: Any, _: Any) -> None:
        async with client.ws_connect("/ws", autoclose=False) as old:
            name = (await old.receive_json(timeout=15))["session"]  # and nothing more is read
            async with client.ws_connect(f"/ws?replaces={name}") as socket:
                hello = await socket.receive_json(timeout=15)
                assert hello["type"] == "hello" and hello["session"] != name

    serve(tmp_path, test)


def test_behind_a_front_too(tmp_path: Path):
    async def test(client: Any, backend: Any) -> None:
        async with offered() as offer, client.ws_connect("/ws") as other:
            assert (await other.receive_json(timeout=15))["type"] == "hello"
            name = await called(client, offer)
            assert (await client.get("/ws", headers={"Upgrade": "websocket", "Connection": "Upgrade"})).status == 503
            async with client.ws_connect(f"/ws?replaces={name}") as socket:
                session = (await socket.receive_json(timeout=15))["session"]
                assert session.partition(".")[0] == name.partition(".")[0], "the other replica is full"

    serve_front(tmp_path, test, sessions=1)


def test_behind_a_front_with_room_elsewhere(tmp_path: Path):
    """The replica that holds the place is asked first, or it would hold it on."""

    async def test(client: Any, _: Any) -> None:
        async with offered() as offer:
            name = await called(client, offer)
            async with client.ws_connect(f"/ws?replaces={name}") as socket:
                session = (await socket.receive_json(timeout=15))["session"]
                assert session.partition(".")[0] == name.partition(".")[0]

    serve_front(tmp_path, test, sessions=1)


@pytest.mark.parametrize("settings, codec", [({}, "vp8"), ({"codec": "h264"}, "avc1.42E01F")])
def test_a_page_without_h264_gets_vp8_unless_the_server_was_told_otherwise(tmp_path: Path, settings: Any, codec: str):
    async def test(client: Any, _: Any) -> None:
        async with client.ws_connect("/ws?codec=vp8") as socket:
            assert (await socket.receive_json(timeout=15))["codec"] == codec

    serve(tmp_path, test, **settings)
