"""Listeners without a browser: they take what the WebSocket door sends, and decode nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import numpy as np

from avatar.serve.websocket import AUDIO, BEFORE, HEADER, IMAGE
from pipelines import live_numbers as numbers
from pipelines.live_browser import CHUNK, Server


class Listener:
    """A listener at the WebSocket door.

    Attributes:
        images: Milliseconds since 1970 and second of the session of each image that came.
        sent: Milliseconds at which each piece of audio was sent.
        audio: Seconds of audio that came.
        words: Messages that came, but for those that only keep the time.
        closed: Status with which the server closed the connection; None: it did not.
    """

    def __init__(self, server: Server, socket: aiohttp.ClientWebSocketResponse[Any]) -> None:
        self.server, self.socket = server, socket
        self.images: list[tuple[float, float]] = []
        self.sent: list[float] = []
        self.audio = 0.0
        self.words: list[dict[str, Any]] = []
        self.closed: int | None = None

    @property
    def session(self) -> str:
        """Name of its session; empty before the first message."""
        return next((str(one["session"]) for one in self.words if one["type"] == "hello"), "")

    def said(self) -> str:
        """Last thing that it was told as a reason."""
        told = [str(one["message"]) for one in self.words if one["type"] in ("goodbye", "error")]
        return told[-1] if told else ""

    async def listen(self) -> None:
        """Take everything until the connection is over."""
        async for message in self.socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                self.words.append(message.json())
            elif message.type is aiohttp.WSMsgType.BINARY:
                kind, flags, pts, _ = HEADER.unpack_from(message.data)
                if kind == IMAGE:
                    self.images.append((1000 * time.time(), pts))
                elif kind == AUDIO and not flags & BEFORE:
                    self.audio += (len(message.data) - HEADER.size) / 32000
        self.closed = self.socket.close_code

    async def hello(self, seconds: float = 60.0) -> None:
        """Wait until it was let in."""
        end = time.monotonic() + seconds
        while not self.session and self.closed is None and time.monotonic() < end:
            await asyncio.sleep(0.02)

    async def speak(self, samples: np.ndarray, seconds: float) -> None:
        """Send audio in pieces of 20 ms, each when a microphone would."""
        pieces = np.rint(samples * 32767).astype("<i2")
        pieces = pieces[: len(pieces) // CHUNK * CHUNK].reshape(-1, CHUNK)
        await self.socket.send_json({"type": "echo", "on": True})
        start = time.monotonic()
        for n in range(round(50 * seconds)):
            await asyncio.sleep(max(0.0, start + (n + 1) / 50 - time.monotonic()))
            self.sent.append(1000 * time.time())
            await self.socket.send_bytes(pieces[n % len(pieces)].tobytes())
        await self.socket.send_json({"type": "echo", "on": False})

    def rate(self, begin: float, end: float) -> float:
        """Images per second that came between two milliseconds."""
        return round(sum(begin <= at < end for at, _ in self.images) / max(1e-3, (end - begin) / 1000), 2)

    async def latencies(self, client: aiohttp.ClientSession) -> list[numbers.Span]:
        """From the end of each piece of audio to the image that came for it, or until now where none did."""
        until = 1000 * time.time()
        params = {"access_token": self.server.token, "pieces": "1"}
        async with client.get(f"{self.server.url}/live-check/frames/{self.session}", params=params) as answer:
            content = await answer.json()
        by_second = {round(row[1], 3): row for row in content["rows"]}
        came = [(at, by_second[round(pts, 3)]) for at, pts in self.images if round(pts, 3) in by_second]
        return numbers.latencies(came, self.sent, content["pieces"], until)


@asynccontextmanager
async def listening(client: aiohttp.ClientSession, server: Server, **options: Any) -> AsyncGenerator[Listener]:
    """A listener who was let in, or told why not; it leaves at the end."""
    params = {"access_token": server.token} if server.token else {}
    async with client.ws_connect(f"{server.url}/ws", params=params, max_msg_size=1 << 24, **options) as socket:
        listener = Listener(server, socket)
        task = asyncio.create_task(listener.listen())
        try:
            await listener.hello()
            yield listener
        finally:
            await socket.close()
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
