"""The step of `python -m pipelines.live_check` that breaks things while somebody else listens."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp

from pipelines.live_browser import Server, serving
from pipelines.live_clients import Listener, listening
from pipelines.live_steps import Bench

TOKEN = "a-token-of-the-measurement"
AT_ONCE = 100  # connects
SLOW_SECONDS = 50.0  # for a reader who does not read to be let go
REQUEST_SECONDS = 60.0
Fault = Callable[[aiohttp.ClientSession, Server], Awaitable[Any]]


async def faults(bench: Bench) -> dict[str, Any]:
    """Each fault beside a listener who is well: does the server stay, are its frames unharmed, what is said."""
    found: dict[str, Any] = {}
    log = bench.folder / "faults.log"
    async with serving(bench.run, log, *bench.options, "--sessions", "4", token=TOKEN) as server:
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=timeout) as client:
            async with listening(client, server) as well:
                talk = asyncio.create_task(_talk_on(well, bench))
                try:
                    await asyncio.sleep(6)
                    now = 1000 * time.time()
                    found["nothing"] = {"other_frames_per_second": well.rate(now - 5000, now)}
                    for name, fault in FAULTS.items():
                        found[name] = await _meanwhile(fault, client, server, well)
                finally:
                    talk.cancel()
                    with suppress(asyncio.CancelledError, ConnectionError):
                        await talk
                found["other_listener_let_go"] = well.closed is not None
        found["server_stays"] = server.process.poll() is None
        found["log"] = server.log.read_text().splitlines()[-20:]
    return found


async def _talk_on(listener: Listener, bench: Bench) -> None:
    while True:
        await listener.speak(bench.speech, 20)
        listener.sent.clear()


async def _meanwhile(fault: Fault, client: aiohttp.ClientSession, server: Server, well: Listener) -> dict[str, Any]:
    begin, audio = time.time(), well.audio
    try:
        said = await asyncio.wait_for(fault(client, server), REQUEST_SECONDS)
    except (aiohttp.ClientError, ConnectionError, asyncio.TimeoutError) as error:
        said = f"{type(error).__name__}: {error}"
    await asyncio.sleep(max(0.0, begin + 4 - time.time()))
    end = time.time()
    async with client.get(f"{server.url}/healthz") as answer:
        health = answer.status
    return {
        "said": said, "healthz": health, "other_frames_per_second": well.rate(1000 * begin, 1000 * end),
        "other_seconds_of_audio_per_second": round((well.audio - audio) / (end - begin), 3),
    }  # fmt: skip


async def _post(client: aiohttp.ClientSession, url: str, **options: Any) -> list[Any]:
    """Status, and the sentence of the answer."""
    async with client.post(url, **options) as answer:
        text = await answer.text()
    with suppress(ValueError):
        text = json.loads(text).get("error", text)
    return [answer.status, text[:200]]


async def vanishes(client: aiohttp.ClientSession, server: Server) -> Any:
    """A client whose connection is cut without a word, three times."""
    for _ in range(3):
        async with listening(client, server) as one:
            await asyncio.sleep(0.5)
            response = one.socket._response  # pyright: ignore[reportPrivateUsage]
            assert response.connection is not None and response.connection.transport is not None
            response.connection.transport.abort()
            await asyncio.sleep(0.5)
    async with client.get(f"{server.url}/api/avatars") as answer:
        return await answer.json()


async def garbage_frames(client: aiohttp.ClientSession, server: Server) -> Any:
    """Bytes, texts and numbers that mean nothing."""
    chance = random.Random(1)
    async with listening(client, server) as one:
        for text in ("", "{", "[]", "null", '{"type": 5}', '{"type": "say"}', '{"type": "view", "azimuth": 1e999}'):
            await one.socket.send_str(text)
        for length in (1, 3, 640, 4096, 100_000):
            await one.socket.send_bytes(chance.randbytes(length))
        await asyncio.sleep(1.5)
        answered = [str(word.get("message")) for word in one.words if word["type"] == "error"]
        alive = one.closed is None
        with suppress(ConnectionError):
            await one.socket.send_bytes(bytes(1 << 20))
        await asyncio.sleep(1.5)
        return {"errors": answered, "still_connected": alive, "closed_after_a_mebibyte_with": one.closed}


async def garbage_sdp(client: aiohttp.ClientSession, server: Server) -> Any:
    """Offers that are none."""
    offers: list[Any] = [
        {"sdp": "nonsense", "type": "offer"}, {"sdp": "v=0\r\nm=audio x y z\r\n", "type": "offer"}, {"sdp": 5}, [], "",
        {"sdp": "v=0\r\n" + "a=x\r\n" * 20000, "type": "offer"},
    ]  # fmt: skip
    answers = [await _post(client, f"{server.url}/api/offer", json=offer) for offer in offers]
    return [*answers, await _post(client, f"{server.url}/api/offer", data=random.Random(2).randbytes(5000))]


async def oversized_upload(client: aiohttp.ClientSession, server: Server) -> Any:
    """A file of 64 MiB, with its length said beforehand and without."""

    async def parts():
        for _ in range(64):
            yield bytes(1 << 20)

    async with listening(client, server) as one:
        url = f"{server.url}/api/sessions/{one.session}/audio"
        answers: list[Any] = []
        for data in (bytes(64 << 20), parts()):
            try:
                answers.append(await _post(client, url, data=data))
            except (aiohttp.ClientError, ConnectionError) as error:
                answers.append(f"{type(error).__name__}: {error}")
        return [*answers, await _post(client, url, data=b"no audio at all" * 1000)]


async def slow_reader(client: aiohttp.ClientSession, server: Server) -> Any:
    """A client that is let in and reads nothing."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # what it does not read waits at the server
    connection.connect(("127.0.0.1", server.port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
    key = "AAAAAAAAAAAAAAAAAAAAAA=="
    writer.write(
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAuthorization: Bearer {TOKEN}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    began = time.monotonic()
    while time.monotonic() - began < SLOW_SECONDS:
        await asyncio.sleep(1)
        async with client.get(f"{server.url}/metrics") as answer:
            lines = (await answer.text()).splitlines()
        if any(line.startswith("avatar_slow_listeners_total ") and line.split()[1] != "0" for line in lines):
            writer.close()
            return {"let_go_after_s": round(time.monotonic() - began, 1)}
    writer.close()
    return {"let_go_after_s": None}


async def at_once(client: aiohttp.ClientSession, server: Server) -> Any:
    """A hundred connects at once, by both doors; there is room for three."""

    async def connect(n: int) -> str:
        if n % 2:
            answer = await _post(client, f"{server.url}/api/offer", json={"sdp": "v=0\r\n", "type": "offer"})
            return f"offer: {answer[0]} {answer[1]}"
        try:
            async with listening(client, server) as one:
                await asyncio.sleep(3)
                return f"WebSocket: {'served' if one.images else one.said() or 'let in'}"
        except aiohttp.WSServerHandshakeError as error:
            return f"WebSocket: {error.status}"

    answers = await asyncio.gather(*(connect(n) for n in range(AT_ONCE)), return_exceptions=True)
    counted: dict[str, int] = {}
    for one in answers:
        counted[str(one)] = counted.get(str(one), 0) + 1
    return counted


async def token(client: aiohttp.ClientSession, server: Server) -> Any:
    """No token, a wrong one, and a request for another host."""
    answers: list[Any] = []
    async with aiohttp.ClientSession() as other:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer " + "x" * 4000}):
            answers.append(await _post(other, f"{server.url}/api/offer", json={}, headers=headers))
        for query in ({}, {"access_token": "wrong"}):
            try:
                async with other.ws_connect(f"{server.url}/ws", params=query):
                    answers.append("let in")
            except aiohttp.WSServerHandshakeError as error:
                answers.append([error.status, "WebSocket"])
    elsewhere = {"Origin": "https://elsewhere.example"}
    return [*answers, await _post(client, f"{server.url}/api/offer", json={}, headers=elsewhere)]


FAULTS: dict[str, Fault] = {
    "client_vanishes": vanishes, "garbage_frames": garbage_frames, "garbage_sdp": garbage_sdp,
    "oversized_upload": oversized_upload, "token_missing_or_wrong": token, "connects_at_once": at_once,
    "slow_reader": slow_reader,
}  # fmt: skip
