"""The realtime door, ``GET /v1/realtime``: OpenAI Realtime events, with Azure Voice Live's for the avatar.

Audio, face coefficients and words of an answer come at the pace at which the avatar speaks. Images come by WebRTC
(``session.avatar.connect``), or in ``response.video.delta`` where the session's avatar has ``"output_protocol":
"websocket"``; otherwise none is drawn. Without an agent the avatar says the items and instructions that it is sent, and
repeats audio turn by turn.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import TYPE_CHECKING, Any

from aiohttp import WSMsgType, web

from avatar.errors import AvatarError
from avatar.infer.video import resize
from avatar.serve.encoder import Encoder
from avatar.serve.farewell import TRY_AGAIN_LATER, close, end_tasks, say
from avatar.serve.guest import GOODBYE_SECONDS, Guest
from avatar.serve.hub import Full, Hub
from avatar.serve.outbox import AudioPart, ImagePart, NewestImage, Part
from avatar.serve.realtime_events import (
    MOST_EVENT_BYTES,
    NEWER_ONLY,
    OLDER,
    PLACED,
    Event,
    Mistake,
    error_event,
    new_id,
)
from avatar.serve.realtime_input import MOST_ITEMS, RealtimeInput
from avatar.serve.realtime_response import RealtimeResponse
from avatar.serve.realtime_session import RealtimeSession
from avatar.serve.webrtc import (
    RtcClient,
    answer_offer,
    check_sdp,
    close_client,
    hand_on,
    open_client,
    settle,
    until_lost,
)
from avatar.serve.websocket import HEARTBEAT_SECONDS, SEND_SECONDS

if TYPE_CHECKING:
    import numpy as np


PATHS = ("/v1/realtime", "/voice-live/realtime")  # OpenAI's clients, and Azure's
PROTOCOLS = ("realtime",)
MOST_EVENTS = 500  # a second; more have to wait
MOST_SDP = 256 << 10  # characters


async def serve_realtime(request: web.Request, hub: Hub) -> web.WebSocketResponse:
    """Serve one client until one of both ends it."""
    name = request.query.get("avatar", "")
    if not name and request.query.get("model", "") in hub.characters:
        name = request.query["model"]
    hub.check_room()
    hub.character(name)
    socket = web.WebSocketResponse(
        max_msg_size=MOST_EVENT_BYTES, heartbeat=HEARTBEAT_SECONDS, compress=False, protocols=PROTOCOLS
    )
    await socket.prepare(request)
    offered = request.headers.get("Sec-WebSocket-Protocol", "") + request.headers.get("OpenAI-Beta", "")
    older = "realtime-v1" in offered or "realtime=v1" in offered or request.path != PATHS[0]
    try:
        async with hub.admit(name) as guest:
            guest.listener.images = False
            await _Connection(socket, guest, hub, older).run()
    except AvatarError as error:
        code = TRY_AGAIN_LATER if isinstance(error, Full) else 1011
        await _close(socket, error_event(error, None, "server_error"), code)
    return socket


class _Connection:
    """A client: one task sends, one receives."""

    def __init__(self, socket: web.WebSocketResponse, guest: Guest, hub: Hub, older: bool) -> None:
        self._socket, self._guest, self._hub = socket, guest, hub
        character = guest.character
        camera, fps = resize(character.avatar.camera, character.size), character.avatar.fps
        self._session = RealtimeSession(
            guest.name, character.name, fps, (camera.width, camera.height), hub.settings.ice_servers, older
        )
        self._input = RealtimeInput(self._session, self._put, self._hear)
        self._responses: dict[str, RealtimeResponse] = {}  # that are under way: one, and others that were just stopped
        self._said: RealtimeResponse | None = None  # to which the audio belongs that comes
        self._peer: RtcClient | None = None
        self._watch: asyncio.Task[None] | None = None
        self._encoder: Encoder | None = None
        self._skipped = 0
        self._image = NewestImage()
        self._before: dict[str, str | None] = {}  # items that the client was told of, and which one each came after

    async def run(self) -> None:
        await self._tell({"type": "session.created", "session": self._session.shown()})
        work = self._send(), self._send_images(), self._receive(), self._guest.over.wait()
        tasks: list[asyncio.Task[object]] = [asyncio.create_task(one) for one in work]
        try:
            await asyncio.wait(tasks, return_when="FIRST_COMPLETED")
        finally:
            try:
                reason, code = await end_tasks(tasks, self._guest, self._hub.metrics)
            finally:
                await self._drop_peer()
            error = error_event(Mistake(reason, "session_expired"), None, "server_error") if reason else None
            await _close(self._socket, error, code, self._guest.goodbye_seconds)

    # --- to the client --------------------------------------------------------------------------------------------

    def _put(self, event: dict[str, Any]) -> None:
        """Send an event after what waits."""
        self._guest.listener.outbox.put({"type": "event", "event": event})

    async def _tell(self, event: dict[str, Any]) -> None:
        if self._session.older and event["type"] in NEWER_ONLY:
            return
        kind = OLDER.get(event["type"], event["type"]) if self._session.older else event["type"]
        text = json.dumps({"event_id": new_id("event")} | self._placed(event) | {"type": kind})
        await asyncio.wait_for(self._socket.send_str(text), SEND_SECONDS)

    def _placed(self, event: dict[str, Any]) -> dict[str, Any]:
        """An event about an item, with the one that it comes after: of both sides, as the client was told of them."""
        kind, last = event["type"], next(reversed(self._before), None)
        if kind == "conversation.item.deleted":
            self._before.pop(event["item_id"], None)
        if kind not in PLACED:
            return event
        name = event["item_id"] if "item_id" in event else event["item"]["id"]
        before = self._before.get(name, last)
        if kind == "conversation.item.added":
            self._before[name] = before
            if len(self._before) > MOST_ITEMS:
                del self._before[next(iter(self._before))]
        return event | {"previous_item_id": before}

    async def _send(self) -> None:
        outbox = self._guest.listener.outbox
        while parts := await outbox.get():
            if outbox.overrun:
                return
            for part in parts:
                await self._pass_on(part)
            skipped = outbox.skipped + self._image.skipped
            if skipped > self._skipped:
                self._hub.metrics.count("images_skipped_total", skipped - self._skipped)
                self._skipped = skipped

    async def _send_images(self) -> None:
        while True:
            await self._tell(await self._video(await self._image.get()))

    async def _pass_on(self, part: Part) -> None:
        if self._peer is not None and not (isinstance(part, dict) and part["type"] == "event"):
            hand_on(self._peer, part)
            settle(self._peer, self._hub.metrics)
        if isinstance(part, AudioPart):
            if self._said is not None and part.utterance:
                aloud = self._peer is None or self._session.audit
                for event in self._said.audio(part, self._session.fps, aloud):
                    await self._tell(event)
        elif isinstance(part, ImagePart):
            if self._session.video and self._peer is None:
                self._image.put(part)
        elif part["type"] == "event":
            await self._tell(part["event"])
        else:
            await self._translate(part)

    async def _video(self, part: ImagePart) -> dict[str, Any]:
        settings, fps = self._hub.settings, self._session.fps
        if self._encoder is None:
            self._encoder = Encoder(settings.codec or "h264", fps, settings.bits_per_second)
        began = time.perf_counter()
        packet = await asyncio.to_thread(self._encoder.encode, part.image)
        self._hub.metrics.time("encode", time.perf_counter() - began)
        self._hub.metrics.time("out", time.monotonic() - part.made)
        self._hub.metrics.count("images_total")
        codec = self._encoder.string(part.image.shape[1], part.image.shape[0])
        data = base64.b64encode(packet.data).decode()
        return {"type": "response.video.delta", "output_index": 0, "codec": codec, "delta": data,
                "key_frame": packet.key, "pts": part.pts}  # fmt: skip

    async def _translate(self, words: dict[str, Any]) -> None:
        """Say in events what the conversation says."""
        response, kind = self._responses.get(str(words.get("segment"))), words["type"]
        if kind == "error":
            await self._tell(error_event(Mistake(words["message"]), None))
        if response is None:
            return
        if kind == "heard":
            events = [] if words.get("typed") else response.transcribed(words["text"])
        elif kind == "answer":
            events = response.text(words["text"])
        elif kind == "segment.started":
            self._said = response
            events = [*response.begin(), {"type": "session.avatar.switch_to_speaking", "turn_id": response.name}]
        elif kind in ("agent.failed", "segment.failed"):
            response.error = words["message"]
            events = [error_event(Mistake(words["message"], "agent_failed"), None, "server_error")]
        elif kind == "answer.done":
            del self._responses[response.name]
            self._said = None if self._said is response else self._said
            status = "cancelled" if words["stopped"] else "failed" if response.error else "completed"
            idle = [{"type": "session.avatar.switch_to_idle", "turn_id": response.name}] if response.begun else []
            events = [*response.end(status), *idle]
        else:
            return
        for event in events:
            await self._tell(event)

    # --- from the client ------------------------------------------------------------------------------------------

    async def _receive(self) -> None:
        second, count = 0, 0
        async for message in self._socket:
            now = time.monotonic()
            if int(now) != second:
                second, count = int(now), 0
            count += 1
            if count > MOST_EVENTS:
                await asyncio.sleep(1.0)
            await asyncio.sleep(0)  # answers are sent before more are made
            event: Event | None = None
            try:
                if message.type is not WSMsgType.TEXT:
                    raise Mistake("Only events in JSON are understood.", "invalid_event")
                event = Event.parse(message.data)
                if event.kind != "input_audio_buffer.append":  # a microphone sends on where nobody speaks
                    self._guest.active = now
                await self._act(event)
            except AvatarError as error:
                self._put(error_event(error, event))

    def _hear(self, samples: np.ndarray) -> None:
        self._guest.listener.session.hear(samples)
        self._guest.attend(samples)

    async def _act(self, event: Event) -> None:
        fields = event.fields
        match event.kind:
            case "session.update":
                await self._update(fields)
            case "response.create":
                self._create(fields)
            case "response.cancel":
                if self._guest.conversation.segment == "":
                    raise Mistake("No response is under way.", "response_cancel_not_active")
                self._interrupt()
            case "output_audio_buffer.clear":
                name = self._interrupt()
                self._put({"type": "output_audio_buffer.cleared", "response_id": name})
            case "conversation.item.truncate":
                await self._truncate(fields)
            case "session.avatar.connect":
                await self._connect(fields)
            case "input_audio_buffer.append":
                for turn in self._input.append(fields.get("audio")):
                    self._heard(turn)
            case _:
                if not self._input.act(event):
                    raise Mistake(f"There is no event of type {event.kind!r}.", "unknown_event", "type")

    async def _update(self, fields: dict[str, Any]) -> None:
        session = fields.get("session")
        if not isinstance(session, dict):
            raise Mistake('The field "session" is missing, or no object.', "missing_required_parameter", "session")
        view = self._session.update(session)
        if view:
            self._guest.look(**view)
        self._input.configure()
        listener = self._guest.listener
        listener.shapes, listener.images = self._session.shapes, self._session.video or self._peer is not None
        self._put({"type": "session.updated", "session": self._session.shown()})

    def _heard(self, kind: str) -> None:
        """The listener began to speak, or finished."""
        conversation = self._guest.conversation
        if kind == "started" and self._session.interrupt and conversation.busy:
            self._interrupt()
        elif kind == "stopped" and self._session.create and not conversation.segment:
            self._create({})
        conversation.listening(kind == "started")

    def _interrupt(self) -> str:
        """Stop what is said; return the response that it was."""
        name = self._guest.conversation.segment
        self._guest.listener.outbox.put(self._guest.interrupt())
        return name

    def _create(self, fields: dict[str, Any]) -> None:
        if self._guest.conversation.segment:
            raise Mistake(
                "A response is under way already.", "conversation_already_has_active_response",
                fix="Wait for response.done, or send response.cancel.",
            )  # fmt: skip
        wanted = self._input.wanted(fields)
        if not wanted.items and not wanted.instructions and not self._hub.settings.agent:
            raise Mistake(
                "There is nothing to say.", "missing_required_parameter", "response",
                fix="Send a conversation item or instructions first.",
            )  # fmt: skip
        response = RealtimeResponse(new_id("resp"), wanted.items, self._session.name, self._session.older)
        self._responses[response.name] = response
        turns = [item.turn for item in wanted.items]
        instructions = wanted.instructions or (self._session.instructions if self._hub.settings.agent else "")
        try:
            self._guest.conversation.ask(turns, response.name, instructions, wanted.verbatim)
        except AvatarError:
            del self._responses[response.name]
            raise
        self._put({"type": "response.created", "response": response.shown("in_progress")})

    async def _truncate(self, fields: dict[str, Any]) -> None:
        event = self._input.truncation(fields)
        name = event["item_id"].removeprefix("item_of_")
        await self._guest.conversation.truncate(name, event["audio_end_ms"])
        self._put(event)

    async def _connect(self, fields: dict[str, Any]) -> None:
        """Answer the offer of a peer connection for audio and images."""
        sdp, wrapped = _sdp_of(fields.get("client_sdp"))
        check_sdp(sdp)
        await self._drop_peer()
        peer = open_client(self._hub.settings, self._guest)
        try:
            answer = await answer_offer(peer, sdp)
        except BaseException as error:  # also where the client leaves meanwhile
            await close_client(peer)
            if isinstance(error, AvatarError):
                raise Mistake("The offer is not understood.", param="client_sdp") from None
            raise
        self._peer, self._guest.listener.images = peer, True
        self._watch = asyncio.create_task(self._watch_peer(peer))
        text = json.dumps({"type": "answer", "sdp": answer["sdp"]})
        server_sdp = base64.b64encode(text.encode()).decode() if wrapped else answer["sdp"]
        self._put({"type": "session.avatar.connecting", "server_sdp": server_sdp})

    async def _watch_peer(self, peer: RtcClient) -> None:
        await until_lost(peer.connection)
        if self._peer is peer:
            self._peer, self._guest.listener.images = None, self._session.video
            await close_client(peer)

    async def _drop_peer(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        peer, self._peer = self._peer, None
        if peer is not None:
            await close_client(peer)


def _sdp_of(text: Any) -> tuple[str, bool]:
    """The SDP of an offer: plain, or in base64 as JSON, as Azure's clients send it; and whether it is the latter."""
    if not isinstance(text, str) or len(text) > MOST_SDP:
        raise Mistake('The field "client_sdp" is missing, or no offer.', "missing_required_parameter", "client_sdp")
    if text.lstrip().startswith("v="):
        return text, False
    try:
        sdp = json.loads(base64.b64decode(text, validate=True))["sdp"]
    except (ValueError, RecursionError, KeyError, TypeError):
        sdp = None
    if not isinstance(sdp, str):
        raise Mistake('The field "client_sdp" is no offer.', param="client_sdp")
    return sdp, True


async def _close(
    socket: web.WebSocketResponse, error: dict[str, Any] | None, code: int, seconds: float = GOODBYE_SECONDS
) -> None:
    if error is not None:
        await say(socket, {"event_id": new_id("event")} | error)
    await close(socket, code, error["error"]["message"] if error is not None else "", seconds)
