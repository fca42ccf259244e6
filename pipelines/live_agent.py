"""A stand-in for a voice agent's server: it hears what it is told to hear, and answers word by word."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress

from aiohttp import web

WAV_HEADER = 44  # bytes
WORD_SECONDS = 0.02  # between two words of an answer: 50 tokens a second


class StandIn:
    """An OpenAI-compatible server of one conversation.

    Args:
        turns: What each turn of the listener is heard as, and what the answer is; the last one is repeated. A turn
            that goes on with the one before, as its audio shows, is the same turn.
    """

    def __init__(self, turns: Sequence[tuple[str, str]]) -> None:
        self._turns = list(turns)
        self.heard = self.answered = 0
        self._turn_now, self._audio = -1, b""  # turn that was heard last, and its audio

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[str]:
        """Run it; gives its address for ``--agent``."""
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/audio/transcriptions", self._transcribe)
        runner = web.AppRunner(app)
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listening).start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        finally:
            await runner.cleanup()

    def _turn(self, number: int) -> tuple[str, str]:
        return self._turns[min(number, len(self._turns) - 1)]

    async def _transcribe(self, request: web.Request) -> web.Response:
        audio = (await request.post())["file"].file.read()[WAV_HEADER:]  # type: ignore[union-attr]
        self.heard += 1
        goes_on = bool(self._audio) and len(audio) > len(self._audio) and audio.startswith(self._audio)
        self._turn_now, self._audio = self._turn_now + (not goes_on), audio
        return web.json_response({"text": self._turn(self._turn_now)[0]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        said = sum(message["role"] == "user" for message in (await request.json())["messages"])
        self.answered += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionError):  # an answer that is interrupted is not read to its end
            for word in self._turn(said - 1)[1].split():
                delta = {"choices": [{"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}]}
                await response.write(b"data: " + json.dumps(delta).encode() + b"\n\n")
                await asyncio.sleep(WORD_SECONDS)
            await response.write(b"data: [DONE]\n\n")
        return response
