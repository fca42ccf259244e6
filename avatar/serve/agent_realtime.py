"""An agent behind a realtime endpoint: the listener's audio is piped in, and the audio that comes back is spoken.

It speaks OpenAI Realtime events, under their present names and the older ones. Turns are detected here, so the other
side is told not to.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np
import soxr

from avatar.io.audio import SAMPLE_RATE
from avatar.serve.agent import (
    KEY_VARIABLE,
    AgentError,
    AgentSettings,
    AudioPiece,
    Piece,
    Transcript,
    Turn,
    Words,
    reason_of,
)

if TYPE_CHECKING:
    Socket = aiohttp.ClientWebSocketResponse[bool]

RATE = 24000  # of PCM16 in realtime events
CHUNK = RATE  # samples of an event that appends audio
MOST_MESSAGE_BYTES = 8 << 20
MOST_WAITING = 1000  # messages; then the other side has to wait
MOST_ANSWER_SECONDS = 300.0  # of an answer; the rest is not said
NONSENSE = "The agent answered something that is no realtime event."
_AUDIO = ("response.output_audio.delta", "response.audio.delta")
_TEXT = ("response.output_audio_transcript.delta", "response.audio_transcript.delta")
_ONLY_TEXT = ("response.output_text.delta", "response.text.delta")  # an answer without audio: said here
_COMMITTED = "input_audio_buffer.committed"
_HEARD = "conversation.item.input_audio_transcription.completed"
_NOT_HEARD = "conversation.item.input_audio_transcription.failed"
LATE_SECONDS = 3.0  # after an answer in which the transcript of the turn may still come
_BUSY = "conversation_already_has_active_response"  # refuses an answer, whether it names the request or not
_HARMLESS = ("response_cancel_not_active", "invalid_value")  # after an interruption: nothing was left to stop


class RealtimeAgent:
    """Answers through one WebSocket, which is opened with the first turn and again where it was lost.

    Args:
        settings: Where it is.
    """

    hears = True

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._socket: Socket | None = None
        self._item = ""  # of the last answer
        self._open = False  # whether an answer is under way at the other side
        self._late = False  # whether a transcript is waited for after it
        self._uncommitted = 0  # pieces of audio whose names are not known yet; those of older turns come first
        self._names = False  # whether the other side names them at all
        self._past: set[str] = set()  # answers that are over or were stopped
        self._unseen: list[str] = []  # requests for answers that were stopped before their name was known
        self._messages: asyncio.Queue[Any] = asyncio.Queue(MOST_WAITING)
        self._reader: asyncio.Task[None] | None = None

    async def reply(self, turns: Sequence[Turn], instructions: str = "") -> AsyncGenerator[Piece]:
        """Answer; see `Agent.reply`. What is remembered is at the other side."""
        socket = await self._connected()
        options = {"instructions": instructions} if instructions else {}
        events = [event for turn in turns for event in _turn_events(turn)]
        self._open, self._item, current = True, "", ""
        pieces = sum(turn.audio is not None for turn in turns)
        transcripts = _Transcripts(pieces if self._settings.transcriber else 0)
        self._uncommitted += pieces
        request, refused = f"event_{secrets.token_hex(8)}", False
        await self._send(socket, *events, {"type": "response.create", "event_id": request, "response": options})
        stream = soxr.ResampleStream(RATE, SAMPLE_RATE, 1, dtype="float32")
        samples = 0
        try:
            while True:
                event = await self._receive(socket)
                kind, response = event["type"], _response_of(event)
                if self._is_past(event):
                    continue
                current, refused = response or current, _refuses(event, request)
                if event.get("item_id") and kind.startswith("response."):
                    self._item = str(event["item_id"])
                if kind in _AUDIO:
                    piece = stream.resample_chunk(_decoded(event.get("delta")))
                    samples += len(piece)
                    yield AudioPiece(piece)
                    if samples > MOST_ANSWER_SECONDS * SAMPLE_RATE:
                        return
                elif kind in _TEXT or kind in _ONLY_TEXT:
                    yield Words(_string(event.get("delta")), aloud=kind in _ONLY_TEXT)
                elif kind == _COMMITTED:
                    self._committed(event, transcripts)
                elif kind in (_HEARD, _NOT_HEARD):
                    if (text := transcripts.take(event, self._names)) is not None:
                        yield Transcript(text)
                elif refused or (kind == "error" and _code(event) not in _HARMLESS):
                    message = reason_of((event.get("error") or {}).get("message"), self._settings.key)
                    raise AgentError("The agent refuses:", why=message or "it does not say why.")
                elif kind == "response.done":
                    self._open, self._late = False, transcripts.owed > 0
                    _check_done(event)
                    break
            yield AudioPiece(stream.resample_chunk(np.zeros(0, np.float32), last=True))
            async for text in self._late_ones(transcripts):
                yield Transcript(text)
        finally:
            self._late = False
            self._past |= {current} - {""}
            if self._open:
                self._open = False
                if not current and not refused:  # nothing comes of a request that was refused
                    self._unseen.append(request)
                await self._cancel(socket)

    def _committed(self, event: dict[str, Any], transcripts: _Transcripts) -> None:
        """Note the name of a piece of audio: those of turns before this one come first."""
        self._uncommitted, self._names = self._uncommitted - 1, True
        if self._uncommitted < transcripts.pieces:
            transcripts.names.add(str(event.get("item_id")))

    async def _late_ones(self, transcripts: _Transcripts) -> AsyncGenerator[str]:
        """Transcripts that come after the answer: the other side makes them beside it."""
        clock = asyncio.get_running_loop().time
        end = clock() + LATE_SECONDS
        while transcripts.owed and (left := end - clock()) > 0:
            try:
                message = await asyncio.wait_for(self._messages.get(), left)
            except asyncio.TimeoutError:
                return
            event = _event_of(message)
            if event is None:
                return
            if event["type"] == _COMMITTED:
                self._committed(event, transcripts)
            elif event["type"] in (_HEARD, _NOT_HEARD) and (text := transcripts.take(event, self._names)) is not None:
                yield text

    def _is_past(self, event: dict[str, Any]) -> bool:
        """Whether an event belongs to an answer that is over or was stopped. Requests are heeded in their order."""
        response = _response_of(event)
        if self._unseen and event["type"] == "response.created":
            del self._unseen[0]
            self._past.add(response)
        elif self._unseen and _refuses(event, self._unseen[0]):
            del self._unseen[0]
            return True
        return response in self._past

    async def played(self, text: str, milliseconds: int) -> None:
        """Tell the other side how much of its answer was heard."""
        if self._item and self._socket is not None and not self._socket.closed:
            await self._send(self._socket, {
                "type": "conversation.item.truncate", "item_id": self._item, "content_index": 0,
                "audio_end_ms": milliseconds,
            })  # fmt: skip
            self._item = ""

    async def close(self) -> None:
        """Close the connection."""
        if self._reader is not None:
            self._reader.cancel()
        if self._socket is not None:
            await self._socket.close()
        if self._session is not None:
            await self._session.close()

    async def _connected(self) -> Socket:
        if self._socket is not None and not self._socket.closed:
            return self._socket
        settings = self._settings
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            socket = await asyncio.wait_for(
                self._session.ws_connect(
                    settings.url, params={"model": settings.model} if settings.model else None,
                    headers=settings.headers, max_msg_size=MOST_MESSAGE_BYTES, heartbeat=20.0,
                ),
                settings.seconds,
            )  # fmt: skip
        except aiohttp.WSServerHandshakeError as error:
            fix = f"Set the API key in {KEY_VARIABLE} and start anew." if error.status in (401, 403) else ""
            raise AgentError(f"The agent refuses with the status {error.status}.", fix=fix) from None
        except asyncio.TimeoutError:
            raise AgentError(f"The agent did not answer within {settings.seconds:g} seconds.") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise AgentError(
                "The agent cannot be reached:", why=f"{type(error).__name__}.",
                fix="Check that its server runs, and that --agent is its address.",
            ) from None  # fmt: skip
        self._socket = socket
        self._past, self._unseen, self._uncommitted = set(), [], 0
        self._messages = asyncio.Queue(MOST_WAITING)
        self._reader = asyncio.create_task(self._read(socket, self._messages))
        form = {"type": "audio/pcm", "rate": RATE}
        heard: dict[str, Any] = {"format": form, "turn_detection": None}
        if settings.transcriber:
            heard["transcription"] = {"model": settings.transcriber}
        await self._send(socket, {
            "type": "session.update",
            "session": {
                "type": "realtime", "instructions": settings.instructions, "output_modalities": ["audio"],
                "audio": {"input": heard, "output": {"format": form}},
            },
        })  # fmt: skip
        return socket

    async def _send(self, socket: Socket, *events: dict[str, Any]) -> None:
        try:
            for event in events:
                await asyncio.wait_for(socket.send_json(event), self._settings.seconds)
        except (aiohttp.ClientError, OSError, RuntimeError, asyncio.TimeoutError):
            await socket.close()
            raise AgentError("The agent's connection was lost.", fix="Say it again.") from None

    async def _receive(self, socket: Socket) -> dict[str, Any]:
        seconds = self._settings.seconds
        try:
            message = await asyncio.wait_for(self._messages.get(), seconds)
        except asyncio.TimeoutError:
            await socket.close()
            raise AgentError(f"The agent did not answer within {seconds:g} seconds.") from None
        if message is None:
            await socket.close()
            raise AgentError("The agent broke off in the middle of its answer.")
        event = _event_of(message)
        if event is None:
            await socket.close()
            raise AgentError(NONSENSE)
        return event

    async def _read(self, socket: Socket, messages: asyncio.Queue[Any]) -> None:
        """Read on while nothing is asked, too: else pings stay unanswered. What comes then is dropped."""
        async for message in socket:
            if self._open or self._late or self._unseen:
                await messages.put(message)
        with suppress(asyncio.QueueFull):
            messages.put_nowait(None)

    async def _cancel(self, socket: Socket) -> None:
        if not socket.closed:
            await self._send(socket, {"type": "response.cancel"})


class _Transcripts:
    """What is still to come of what a turn said.

    Attributes:
        pieces: Of audio in the turn.
        owed: Transcripts that have not come.
        names: Of the pieces, as far as they are known.
    """

    def __init__(self, pieces: int) -> None:
        self.pieces = self.owed = pieces
        self.names: set[str] = set()

    def take(self, event: dict[str, Any], named: bool) -> str | None:
        """The text of a transcript of this turn; None: it is of a turn before, or there is none.

        Args:
            event: Of a transcript, or that there will be none.
            named: Whether pieces of audio have names; else it is taken for one of this turn.
        """
        name = event.get("item_id")
        if named and name is not None and str(name) not in self.names:
            return None
        self.owed -= 1
        return _string(event.get("transcript")).strip() if event["type"] == _HEARD else None


def _event_of(message: Any) -> dict[str, Any] | None:
    """The event in a message; None where there is none, or the connection is closed."""
    if message is None or message.type is not aiohttp.WSMsgType.TEXT:
        return None
    try:
        event = json.loads(message.data)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None


def _turn_events(turn: Turn) -> list[dict[str, Any]]:
    if turn.audio is None:
        kind = "input_text" if turn.role != "assistant" else "output_text"
        content = [{"type": kind, "text": turn.text}]
        return [
            {"type": "conversation.item.create", "item": {"type": "message", "role": turn.role, "content": content}}
        ]
    samples = soxr.resample(turn.audio, SAMPLE_RATE, RATE)
    data = np.rint(samples.clip(-1, 1) * 32767).astype("<i2")
    chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    appended = [{"type": "input_audio_buffer.append", "audio": base64.b64encode(c.tobytes()).decode()} for c in chunks]
    return [{"type": "input_audio_buffer.clear"}, *appended, {"type": "input_audio_buffer.commit"}]


def _response_of(event: dict[str, Any]) -> str:
    response = event.get("response")
    found = response.get("id") if isinstance(response, dict) else event.get("response_id")
    return found if isinstance(found, str) else ""


def _check_done(event: dict[str, Any]) -> None:
    response = event.get("response")
    if isinstance(response, dict) and response.get("status") in ("failed", "incomplete"):
        raise AgentError(f"The agent's answer is {response['status']}.")


def _decoded(delta: Any) -> np.ndarray:
    try:
        data = base64.b64decode(_string(delta), validate=True)
    except (binascii.Error, ValueError):
        raise AgentError(NONSENSE) from None
    return np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.float32) / 32768


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise AgentError(NONSENSE)
    return value


def _refuses(event: dict[str, Any], request: str) -> bool:
    """Whether an event says that nothing will come of a request for an answer."""
    error = event.get("error") if event["type"] == "error" else None
    if not isinstance(error, dict):
        return False
    named = error.get("event_id")
    return named == request or (named is None and error.get("code") == _BUSY)


def _code(event: dict[str, Any]) -> str:
    error = event.get("error")
    return str(error.get("code")) if isinstance(error, dict) else ""
