"""A stand-in for an OpenAI-compatible server, and its faults: chat completions, transcriptions, a realtime endpoint."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import wave
from collections.abc import AsyncIterator
from typing import Any, Literal

import numpy as np
from aiohttp import WSMsgType, web
from aiohttp.test_utils import TestServer

KEY = "sk-of-the-tests"
Mode = Literal["normal", "hang", "die", "nonsense", "refuse", "empty", "late", "comments", "busy"]


class AgentServer:
    """Answers a few letters to everything, or what ``answer`` says; notes what it was asked.

    Attributes:
        mode: ``hang`` never goes on, ``die`` breaks off in the middle, ``late`` goes on only when ``go`` is set,
            ``busy`` refuses to answer when it is.
        names: Whether a refusal names the request.
    """

    def __init__(self) -> None:
        self.mode: Mode = "normal"
        self.names = True
        self.answer = ["a b c", " d ee. f", " g h", " i jj."]
        self.transcript = "what time is it"
        self.late_transcript = 0.0  # seconds after the answer at which it comes; negative: not before the next one
        self.committed = 0  # pieces of audio
        self.asked: list[dict[str, Any]] = []  # bodies of chat completions
        self.seconds: list[float] = []  # of what was transcribed
        self.keys: list[str] = []
        self.events: list[dict[str, Any]] = []  # of the realtime endpoint
        self.go = asyncio.Event()
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[AgentServer]:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/audio/transcriptions", self._transcribe)
        app.router.add_get("/v1/realtime", self._realtime)
        async with TestServer(app) as server:
            self.url = str(server.make_url("/v1"))
            yield self

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.keys.append(request.headers.get("Authorization", ""))
        self.asked.append(await request.json())
        if self.mode == "refuse":
            return web.json_response({"error": {"message": f"Wrong key: {KEY}"}}, status=400)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if self.mode == "nonsense":
            await response.write(b"data: {]\n\n")
            return response
        while self.mode == "comments":
            await response.write(b": wait\n\n")
            await asyncio.sleep(0.05)
        for i, delta in enumerate(self.answer if self.mode != "empty" else []):
            if i == 2:
                if self.mode == "hang":
                    await asyncio.sleep(60)
                elif self.mode == "die":
                    assert request.transport is not None
                    request.transport.abort()
                    return response
                elif self.mode == "late":
                    await self.go.wait()
            content = {"choices": [{"index": 0, "delta": {"content": delta}, "finish_reason": None}]}
            await response.write(b"data: " + json.dumps(content).encode() + b"\n\n")
        await response.write(b'data: {"choices": [], "usage": {}}\n\ndata: [DONE]\n\n')
        return response

    async def _transcribe(self, request: web.Request) -> web.Response:
        form = await request.post()
        with wave.open(io.BytesIO(form["file"].file.read())) as sound:  # type: ignore[union-attr]
            self.seconds.append(sound.getnframes() / sound.getframerate())
        return web.json_response({"text": self.transcript})

    async def _realtime(self, request: web.Request) -> web.WebSocketResponse:
        self.keys.append(request.headers.get("Authorization", ""))
        socket = web.WebSocketResponse(protocols=("realtime",))
        await socket.prepare(request)
        await socket.send_json({"type": "session.created", "session": {}})
        count = 0
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            event = json.loads(message.data)
            self.events.append(event)
            if event["type"] == "input_audio_buffer.commit":
                self.committed += 1
                await socket.send_json({"type": "input_audio_buffer.committed", "item_id": f"heard_{self.committed}"})
            if event["type"] != "response.create":
                continue
            if self.mode == "nonsense":
                await socket.send_str("nonsense")
                continue
            if self.mode == "busy":
                await self.go.wait()
                named = event.get("event_id") if self.names else None
                error = {"code": "conversation_already_has_active_response", "message": "Busy.", "event_id": named}
                await socket.send_json({"type": "error", "error": error})
                continue
            count += 1
            await self._respond(socket, f"resp_{count}")
            if self.mode == "die":
                break
        return socket

    async def _respond(self, socket: web.WebSocketResponse, name: str) -> None:
        item = {"response_id": name, "item_id": f"item_{name}", "output_index": 0, "content_index": 0}
        heard = {"type": "conversation.item.input_audio_transcription.completed"}
        await socket.send_json({"type": "response.created", "response": {"id": name}})
        if self.late_transcript < 0 and self.committed > 1:
            before = {"item_id": f"heard_{self.committed - 1}", "transcript": "of the turn before"}
            await socket.send_json(heard | before)
        if not self.late_transcript:
            await socket.send_json(heard | {"item_id": f"heard_{self.committed}", "transcript": self.transcript})
        tone = (8000 * np.sin(np.arange(12000) * 0.1)).astype("<i2")  # half a second
        for i, text in enumerate(self.answer):
            if i == 2 and self.mode in ("hang", "die"):
                return
            audio = base64.b64encode(tone.tobytes()).decode()
            await socket.send_json({"type": "response.output_audio.delta", "delta": audio} | item)
            await socket.send_json({"type": "response.output_audio_transcript.delta", "delta": text} | item)
        await socket.send_json({"type": "response.done", "response": {"id": name, "status": "completed"}})
        if self.late_transcript > 0:
            await asyncio.sleep(self.late_transcript)
            await socket.send_json(heard | {"item_id": f"heard_{self.committed}", "transcript": self.transcript})
