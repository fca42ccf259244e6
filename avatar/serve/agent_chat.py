"""An agent behind an OpenAI-compatible HTTP API: chat completions, streamed, and transcriptions of the microphone."""

from __future__ import annotations

import asyncio
import io
import json
import time
import wave
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, NamedTuple

import aiohttp
import numpy as np

from avatar.io.audio import SAMPLE_RATE
from avatar.serve.agent import KEY_VARIABLE, AgentError, AgentSettings, Piece, Transcript, Turn, Words, reason_of

MOST_TURNS = 40  # that are remembered
MOST_CHARACTERS = 24_000  # of them together
MOST_NEW = 8  # turns that wait to be transcribed
MOST_ANSWER = 8000  # characters of an answer; the rest is not said
MOST_SECONDS = 120.0  # in which an answer has to be complete
NONSENSE = "The agent answered something that is no chat completion."
MOST_LINE = 1 << 18  # bytes of a line of the stream


class ChatAgent:
    """Answers by chat completions.

    Args:
        settings: Where it is.
    """

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._history: list[dict[str, str]] = []
        self._latest: list[dict[str, str]] = []  # what is remembered of the last question and answer
        self._new: list[Turn] = []  # what is not in there yet, because it was interrupted before it was transcribed
        self._session: aiohttp.ClientSession | None = None

    @property
    def hears(self) -> bool:
        """Whether the server transcribes audio."""
        return bool(self._settings.transcriber)

    @property
    def history(self) -> list[dict[str, str]]:
        """What is remembered, oldest first."""
        return self._history

    async def reply(self, turns: Sequence[Turn], instructions: str = "") -> AsyncGenerator[Piece]:
        """Answer; see `Agent.reply`. What came of the answer is remembered, also where it breaks off."""
        if any(turn.before is not None for turn in turns):
            self._forget_latest()
        self._latest = []
        self._new = [*self._new, *turns][-MOST_NEW:]
        said = not turns
        while self._new:
            turn = self._new[0]
            audio = turn.whole
            text = turn.text if audio is None else await self._transcribed(audio)
            if audio is not None:
                yield Transcript(text, turn.before is not None)
            self._new = self._new[1:]
            self._remember(turn.role, text)
            said |= bool(text.strip())
        if not said:
            return
        answer = ""
        try:
            async with aclosing(self._stream(instructions or self._settings.instructions)) as deltas:
                async for delta in deltas:
                    answer += delta
                    yield Words(delta)
                    if len(answer) > MOST_ANSWER:
                        break
        finally:
            self._remember("assistant", answer)

    async def played(self, text: str, milliseconds: int) -> None:
        """Remember only what the listener heard of the last answer."""
        if self._history and self._history[-1]["role"] == "assistant":
            if text:
                self._history[-1]["content"] = text
            else:
                self._history.pop()

    async def close(self) -> None:
        """Close connections."""
        if self._session is not None:
            await self._session.close()

    async def transcribe(self, audio: np.ndarray) -> str:
        """Text of audio [N], float32, 16 kHz mono; empty where nothing was said.

        Raises:
            AgentError: The server cannot do it.
        """
        form = aiohttp.FormData()
        form.add_field("file", _wav(audio), filename="speech.wav", content_type="audio/wav")
        form.add_field("model", self._settings.transcriber)
        form.add_field("response_format", "json")
        async with self._post("audio/transcriptions", "transcribe", data=form) as response:
            content = _parsed(await self._read(response), "transcription")
            text = content.get("text") if isinstance(content, dict) else None
            if not isinstance(text, str):
                raise AgentError("The agent's server answered something that is no transcription.")
            return text.strip()[:MOST_ANSWER]

    async def _transcribed(self, audio: np.ndarray) -> str:
        try:
            return await self.transcribe(audio)
        except AgentError:
            self._new = []
            raise

    async def _stream(self, instructions: str) -> AsyncGenerator[str]:
        messages = [{"role": "system", "content": instructions}, *self._history]
        body = {"model": self._settings.model, "messages": messages, "stream": True}
        async with self._post("chat/completions", "answer", json=body) as response:
            if response.content_type == "application/json":  # a server that does not stream
                content = _parsed(await self._read(response), "chat completion")
                yield _text_of(content, "message")
                return
            finished, began = False, time.monotonic()
            last = began
            async for lines in _lines(response.content):
                answer = ""
                for line in lines:
                    delta = self._delta(line)
                    if delta is None:
                        continue
                    answer += delta.text
                    finished |= delta.finished
                    last = time.monotonic()
                if answer:
                    yield answer
                now = time.monotonic()
                if not finished and (now - last > self._settings.seconds or now - began > MOST_SECONDS):
                    raise AgentError(f"The agent did not answer within {now - began:.0f} seconds.")
            if not finished:
                raise AgentError("The agent broke off in the middle of its answer.")

    def _delta(self, line: bytes) -> _Delta | None:
        """What a line of the stream adds; None for a comment or an empty line."""
        if not line.startswith(b"data:"):
            if line.strip() and not line.startswith((b":", b"event:", b"id:", b"retry:")):
                raise AgentError(NONSENSE)
            return None
        data = line[5:].strip()
        if data == b"[DONE]":
            return _Delta("", True)
        content = _parsed(data, "chat completion")
        if isinstance(content, dict) and content.get("error"):
            raise AgentError("The agent broke off its answer with an error:", why=self._reason(content))
        choices = content.get("choices") if isinstance(content, dict) else None
        if choices == []:  # the usage, at the end
            return _Delta("", False)
        text = _text_of(content, "delta")
        return _Delta(text, bool(choices and choices[0].get("finish_reason")))

    @asynccontextmanager
    async def _post(self, path: str, purpose: str, **body: Any) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Post, and refuse what is no success; redirects are none, because the key would follow them."""
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession()
        url = f"{self._settings.url.rstrip('/')}/{path}"
        seconds = self._settings.seconds
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
        try:
            async with self._session.post(
                url, headers=self._settings.headers, timeout=timeout, allow_redirects=False, **body
            ) as response:
                if response.status != 200:
                    raise self._refused(response.status, purpose, await self._read(response))
                yield response
        except (asyncio.TimeoutError, aiohttp.ServerTimeoutError):
            raise AgentError(f"The agent did not {purpose} within {seconds:g} seconds.") from None
        except aiohttp.ClientPayloadError:
            raise AgentError("The agent broke off in the middle of its answer.") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise AgentError(
                "The agent cannot be reached:", why=f"{type(error).__name__}.",
                fix="Check that its server runs, and that --agent is its address.",
            ) from None  # fmt: skip

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """A body of at most `MOST_LINE` bytes."""
        parts, size = [], 0
        async for part in response.content.iter_chunked(1 << 16):
            parts.append(part)
            size += len(part)
            if size > MOST_LINE:
                break
        return b"".join(parts)

    def _refused(self, status: int, purpose: str, content: bytes) -> AgentError:
        if status in (401, 403):
            return AgentError(
                f"The agent refuses with the status {status}.", fix=f"Set the API key in {KEY_VARIABLE} and start anew."
            )
        if status == 429:
            return AgentError("The agent has too many requests now.", fix="Try again in a moment.")
        try:
            why = self._reason(json.loads(content))
        except (ValueError, RecursionError):
            why = ""
        return AgentError(f"The agent did not {purpose}: status {status}" + (":" if why else "."), why=why)

    def _reason(self, content: Any) -> str:
        """Why a server refused, in its own words, shortened, and without the key if it repeats that."""
        error = content.get("error") if isinstance(content, dict) else None
        message = error.get("message") if isinstance(error, dict) else error
        return reason_of(message, self._settings.key)

    def _forget_latest(self) -> None:
        """Forget the last question and its answer: the question was not at its end."""
        if self._new:
            self._new.pop()
        else:
            self._history = [one for one in self._history if not any(one is other for other in self._latest)]

    def _remember(self, role: str, text: str) -> None:
        if text.strip():
            self._history.append({"role": role, "content": text[:MOST_ANSWER]})
            self._latest.append(self._history[-1])
        while len(self._history) > MOST_TURNS or sum(len(t["content"]) for t in self._history) > MOST_CHARACTERS:
            self._history.pop(0)


class _Delta(NamedTuple):
    """Text that a line adds, and whether the answer is complete with it."""

    text: str
    finished: bool


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[list[bytes]]:
    """Lines of a body, as many at once as have come."""
    rest = b""
    async for part in content.iter_any():
        *lines, rest = (rest + part).split(b"\n")
        yield lines
        if len(rest) > MOST_LINE:
            raise AgentError(NONSENSE)
    if rest.strip():
        yield [rest]


def _parsed(content: bytes, what: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise AgentError(f"The agent answered something that is no {what}.") from None


def _text_of(content: Any, field: str) -> str:
    """Text of the first choice of a chat completion."""
    try:
        text = content["choices"][0].get(field, {}).get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        text = 0
    if text is not None and not isinstance(text, str):
        raise AgentError(NONSENSE)
    return text or ""


def _wav(audio: np.ndarray) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(np.rint(audio.clip(-1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
