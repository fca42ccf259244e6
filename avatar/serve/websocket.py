"""The WebSocket door: encoded images and plain audio in binary messages, all else in JSON.

A binary message begins with 24 bytes, little-endian:

- kind (uint8): 1 audio, 2 image
- flags (uint8): 1 key frame, 2 speaking, 4 audio before its time, 8 later audio that was sent before is void; and 6
  bytes of zero
- pts (float64): second of the session at which it begins
- the server's time of that frame (float64): milliseconds since 1970

Audio is 16 kHz mono int16. While the avatar speaks, up to 0.2 s of it come before their time. The part of each frame
follows when its time has come, and replaces what was sent for it. An image is one packet of the codec that ``hello``
names: H.264, or VP8 with ``?codec=vp8``, unless the server was started with one. A page sends its microphone as binary
messages of 16 kHz mono int16 alone.

``?replaces=SESSION`` ends a session of the same listener, and takes its place over: of one that found no way by WebRTC.
"""

from __future__ import annotations

import asyncio
import struct
import time

import numpy as np
from aiohttp import WSMsgType, web

from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE
from avatar.serve.ahead import AHEAD_SECONDS, Ahead
from avatar.serve.encoder import Codec, Encoder
from avatar.serve.farewell import TRY_AGAIN_LATER, close, end_tasks, say
from avatar.serve.guest import GOODBYE_SECONDS, Guest
from avatar.serve.hub import Full, Hub
from avatar.serve.outbox import AudioPart, ImagePart, NewestImage, Words

HEADER = struct.Struct("<BB6xdd")
AUDIO, IMAGE = 1, 2
KEY_FRAME, SPEAKING, BEFORE, VOID = 1, 2, 4, 8
MOST_MESSAGE_BYTES = 128 << 10  # from a page: 4 s of a microphone
SEND_SECONDS = 10.0  # in which a page has to take a message
HEARTBEAT_SECONDS = 15.0


async def serve_websocket(request: web.Request, hub: Hub) -> web.WebSocketResponse:
    """Serve one listener until one of both ends it."""
    name, replaces = request.query.get("avatar", ""), request.query.get("replaces", "")
    hub.check_room(replaces)  # an HTTP answer says more than a closed WebSocket
    hub.character(name)
    socket = web.WebSocketResponse(max_msg_size=MOST_MESSAGE_BYTES, heartbeat=HEARTBEAT_SECONDS, compress=False)
    await socket.prepare(request)
    try:
        async with hub.admit(name, replaces=replaces) as guest:
            await _Connection(socket, guest, hub, "vp8" if request.query.get("codec") == "vp8" else "h264").run()
    except Full as error:
        await _say_goodbye(socket, str(error), TRY_AGAIN_LATER)
    except AvatarError as error:
        await _say_goodbye(socket, str(error), 1011)
    return socket


class _Connection:
    """A listener at a WebSocket: one task sends, one encodes images and sends them, one receives."""

    def __init__(self, socket: web.WebSocketResponse, guest: Guest, hub: Hub, codec: Codec) -> None:
        self._socket, self._guest, self._hub = socket, guest, hub
        settings = hub.settings
        self._encoder = Encoder(settings.codec or codec, guest.character.avatar.fps, settings.bits_per_second)
        self._skipped = 0
        self._image = NewestImage()
        self._ahead = Ahead()
        guest.listener.ahead_seconds = AHEAD_SECONDS

    async def run(self) -> None:
        hello = self._guest.hello()
        codec = self._encoder.string(hello["width"], hello["height"])
        await self._socket.send_json(hello | {"door": "websocket", "codec": codec})
        work = self._send(), self._send_images(), self._receive(), self._guest.over.wait()
        tasks: list[asyncio.Task[object]] = [asyncio.create_task(one) for one in work]
        try:
            await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
        finally:
            reason, code = await end_tasks(tasks, self._guest, self._hub.metrics)
            await _say_goodbye(self._socket, reason, code, self._guest.goodbye_seconds)

    async def _send(self) -> None:
        outbox = self._guest.listener.outbox
        while parts := await outbox.get():
            if outbox.overrun:
                return
            for part in parts:
                if isinstance(part, ImagePart):
                    self._image.put(part)
                else:
                    await asyncio.wait_for(self._send_part(part), SEND_SECONDS)
            skipped = outbox.skipped + self._image.skipped
            if skipped > self._skipped:
                self._hub.metrics.count("images_skipped_total", skipped - self._skipped)
                self._skipped = skipped

    async def _send_part(self, part: AudioPart | Words) -> None:
        if isinstance(part, AudioPart):
            flags = (SPEAKING if part.speaking else 0) | (VOID if self._ahead.confirm(part) else 0)
            await self._send_audio(flags, part.start, part.samples, part.made)
            if len(more := self._ahead.more(part)):
                end = part.start + (len(part.samples) + len(part.ahead) - len(more)) / SAMPLE_RATE
                await self._send_audio(BEFORE, end, more, part.made)
        else:
            await self._socket.send_json(part)

    async def _send_audio(self, flags: int, start: float, samples: np.ndarray, made: float) -> None:
        data = np.rint(samples * 32767).astype("<i2").tobytes()
        await self._socket.send_bytes(HEADER.pack(AUDIO, flags, start, _epoch_ms(made)) + data)

    async def _send_images(self) -> None:
        metrics = self._hub.metrics
        while True:
            part = await self._image.get()
            began = time.perf_counter()
            packet = await asyncio.to_thread(self._encoder.encode, part.image)
            metrics.time("encode", time.perf_counter() - began)
            head = HEADER.pack(IMAGE, KEY_FRAME if packet.key else 0, part.pts, _epoch_ms(part.made))
            await asyncio.wait_for(self._socket.send_bytes(head + packet.data), SEND_SECONDS)
            metrics.time("out", time.monotonic() - part.made)
            metrics.count("images_total")

    async def _receive(self) -> None:
        listener = self._guest.listener
        async for message in self._socket:
            if message.type is WSMsgType.TEXT:
                answer = await self._guest.handle(message.data)
                if answer is not None:
                    listener.outbox.put(answer)
            elif message.type is WSMsgType.BINARY and len(message.data) % 2 == 0:
                self._guest.hear(np.frombuffer(message.data, "<i2").astype(np.float32) / 32768)


def _epoch_ms(made: float) -> float:
    """A second of the monotonic clock as milliseconds since 1970, which a page on the same machine can compare."""
    return 1000 * (time.time() - time.monotonic() + made)


async def _say_goodbye(socket: web.WebSocketResponse, reason: str, code: int, seconds: float = GOODBYE_SECONDS) -> None:
    if reason:
        await say(socket, {"type": "goodbye", "message": reason})
    await close(socket, code, reason, seconds)
