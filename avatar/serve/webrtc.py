"""The WebRTC door, signalled as pipecat's SmallWebRTC transport does it: ``POST`` and ``PATCH /api/offer``.

Messages travel in JSON over a data channel that the page opens. Both tracks carry the time stamps of the session. Audio
is held back for as long as images take to be drawn, so that both leave at the same time.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.codecs import h264, vpx
from aiortc.sdp import SessionDescription, candidate_from_sdp

from avatar import log
from avatar.errors import AvatarError
from avatar.serve.ahead import AHEAD_SECONDS
from avatar.serve.hub import CLOSING, Hub, Settings
from avatar.serve.outbox import AudioPart, ImagePart, Part
from avatar.serve.tracks import ImageTrack, SpeechTrack, microphone_samples

if TYPE_CHECKING:
    from aiortc import MediaStreamTrack

    from avatar.serve.guest import Guest
    from avatar.serve.metrics import Metrics

CONNECT_SECONDS = 20.0  # in which a peer connection has to come about
LOST_SECONDS = 10.0  # without a connection end a session
MOST_CANDIDATES = 64  # in a message
MOST_BUFFERED = 1 << 20  # bytes that wait in a data channel, before words are dropped
MOST_BITS_PER_SECOND = 10_000_000


@dataclass(eq=False)
class RtcClient:
    """A listener at a peer connection."""

    connection: RTCPeerConnection
    audio: SpeechTrack
    image: ImageTrack
    guest: Guest
    channels: list[RTCDataChannel] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class Peers:
    """All peer connections of a server.

    Args:
        hub: Lets listeners in.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._peers: dict[str, RtcClient] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        set_bitrate(hub.settings.bits_per_second)

    async def offer(self, content: Any) -> dict[str, str]:
        """Answer an offer ``{sdp, type, pc_id?, restart_pc?, request_data?}`` with ``{sdp, type, pc_id}``.

        Raises:
            AvatarError: It is not understood.
            Full: All places are taken.
        """
        if not isinstance(content, dict) or not isinstance(content.get("sdp"), str) or content.get("type") != "offer":
            raise AvatarError('The body is no offer with "sdp" and "type".')
        named = content["pc_id"] if isinstance(content.get("pc_id"), str) else ""
        replaces = named if content.get("restart_pc") else ""
        client = self._peers.get(named)
        if client is not None and not replaces:
            async with client.lock:
                return await answer_offer(client, content["sdp"])
        request = content.get("request_data")
        name = request.get("avatar", "") if isinstance(request, dict) else ""
        if not isinstance(name, str):
            raise AvatarError('The field "avatar" is no name.')
        self._hub.character(name)
        self._hub.check_room(replaces)
        check_sdp(content["sdp"])  # before a session is made for it, or ended for it
        ready: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._serve(name, replaces, content["sdp"], ready))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await ready

    async def candidates(self, content: Any) -> dict[str, str]:
        """Add ICE candidates ``{pc_id, candidates: [{candidate, sdp_mid, sdp_mline_index}]}``; an empty one is the end.

        Raises:
            AvatarError: They are not understood, or there is no such session.
        """
        found = content.get("candidates") if isinstance(content, dict) else None
        if not isinstance(found, list) or len(found) > MOST_CANDIDATES or not isinstance(content.get("pc_id"), str):
            raise AvatarError(f'The body is no "pc_id" with at most {MOST_CANDIDATES} "candidates".')
        client = self._peers.get(content["pc_id"])
        if client is None:
            raise AvatarError("There is no such session, or it is over.", fix="Send an offer.")
        for one in found:
            await _add_candidate(client, one)
        return {"status": "success"}

    async def close(self) -> None:
        """End all connections."""
        for client in list(self._peers.values()):
            client.guest.end(CLOSING)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    async def _serve(self, name: str, replaces: str, sdp: str, ready: asyncio.Future[dict[str, str]]) -> None:
        """Serve one listener until one of both ends it; the answer to its offer goes to ``ready``."""
        client: RtcClient | None = None
        try:
            async with self._hub.admit(name, start=False, replaces=replaces) as guest:
                client = open_client(self._hub.settings, guest)
                self._peers[guest.name] = client
                answer = await answer_offer(client, sdp)
                guest.listener.start()  # not before: nobody takes what it gives while candidates are gathered
                if not ready.done():
                    ready.set_result(answer)
                await self._run(client, guest)
        except Exception as error:
            if not ready.done():
                ready.set_exception(error)
            elif not isinstance(error, ConnectionError):
                log.warn(f"A WebRTC session ended by itself: {type(error).__name__}: {error}")
        finally:
            if client is not None:
                self._peers.pop(client.guest.name, None)
                await close_client(client)

    async def _run(self, client: RtcClient, guest: Guest) -> None:
        pump = asyncio.create_task(self._pump(client, guest))
        watch = asyncio.create_task(until_lost(client.connection))
        over = asyncio.create_task(guest.over.wait())
        try:
            await asyncio.wait([pump, watch, over], return_when="FIRST_COMPLETED")
        finally:
            for reason in (guest.reason or guest.listener.failed,):
                if reason:
                    _tell(client, {"type": "goodbye", "message": reason})
                    await asyncio.sleep(0.1)
            for task in (pump, watch, over):
                task.cancel()
            await asyncio.gather(pump, watch, over, return_exceptions=True)

    async def _pump(self, client: RtcClient, guest: Guest) -> None:
        """Hand what the listener gives to the tracks and to the data channel."""
        metrics, outbox, skipped = self._hub.metrics, guest.listener.outbox, 0
        while parts := await outbox.get():
            for part in parts:
                hand_on(client, part)
            more = outbox.skipped + client.image.skipped - skipped
            if more:
                skipped += more
                metrics.count("images_skipped_total", more)
            settle(client, metrics)


def set_bitrate(bits_per_second: int) -> None:
    """Set the bit rates of aiortc's encoders, which are constants of its modules."""
    for module in (vpx, h264):
        module.DEFAULT_BITRATE = bits_per_second  # pyright: ignore[reportAttributeAccessIssue]
        module.MAX_BITRATE = max(MOST_BITS_PER_SECOND, bits_per_second)  # pyright: ignore[reportAttributeAccessIssue]


def open_client(settings: Settings, guest: Guest) -> RtcClient:
    """A connection with its tracks; codecs are chosen before the offer is read, because aiortc heeds them only then."""
    servers = [RTCIceServer(**server) for server in settings.ice_servers]
    connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
    guest.listener.ahead_seconds = AHEAD_SECONDS
    client = RtcClient(connection, SpeechTrack(), ImageTrack(guest.character.avatar.fps), guest)
    connection.addTransceiver(client.audio, "sendrecv")
    image = connection.addTransceiver(client.image, "sendonly")
    wanted = f"video/{settings.codec or 'vp8'}".lower()
    codecs = RTCRtpSender.getCapabilities("video").codecs
    first = [codec for codec in codecs if codec.mimeType.lower() == wanted]
    image.setCodecPreferences(first + [codec for codec in codecs if codec not in first])

    def on_channel(channel: RTCDataChannel) -> None:
        if len(client.channels) < 4:
            client.channels.append(channel)
            channel.on("message", lambda text: _keep(client, _handle(client, guest, channel, text)))
            _tell(client, guest.hello(door="webrtc"))

    def on_track(track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            _keep(client, _listen(track, guest))

    connection.on("datachannel", on_channel)
    connection.on("track", on_track)
    return client


def settle(client: RtcClient, metrics: Metrics) -> None:
    """Note the images that left, and hold audio back for as long as they took."""
    metrics.count("images_total", len(client.image.out))
    for seconds in client.image.out:
        metrics.time("out", seconds)
    client.audio.hold_for(client.image.out)
    client.image.out.clear()


async def close_client(client: RtcClient) -> None:
    """End a connection."""
    for task in [*client.tasks]:
        task.cancel()
    client.audio.stop()
    client.image.stop()
    with suppress(Exception):
        await asyncio.wait_for(client.connection.close(), 5)


def check_sdp(sdp: str) -> None:
    """Refuse an offer that is none.

    Raises:
        AvatarError: It is not understood, or has no media.
    """
    try:
        media = SessionDescription.parse(sdp).media
    except Exception:  # aiortc raises whatever a line of garbage leads to
        media = []
    if not media:
        raise AvatarError("The offer is not understood.", fix="Send the SDP of a browser's offer.")


async def answer_offer(client: RtcClient, sdp: str) -> dict[str, str]:
    """Answer an offer with ``{sdp, type, pc_id}``.

    Raises:
        AvatarError: It is not understood.
    """
    connection = client.connection
    try:
        await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
    except Exception as error:  # aiortc raises whatever a line of garbage leads to
        log.warn(f"An offer could not be answered: {type(error).__name__}: {error}")
        raise AvatarError("The offer is not understood.", fix="Send the SDP of a browser's offer.") from None
    local = connection.localDescription
    return {"sdp": local.sdp, "type": local.type, "pc_id": client.guest.name}


async def _add_candidate(client: RtcClient, content: Any) -> None:
    text = content.get("candidate") if isinstance(content, dict) else None
    if not isinstance(text, str):
        raise AvatarError("A candidate is not understood.")
    if not text.strip():
        return
    try:
        candidate = candidate_from_sdp(text.removeprefix("candidate:"))
        candidate.sdpMid = str(content.get("sdp_mid") or "0")
        candidate.sdpMLineIndex = int(content.get("sdp_mline_index") or 0)
        await client.connection.addIceCandidate(candidate)
    except Exception:
        raise AvatarError("A candidate is not understood.") from None


async def until_lost(connection: RTCPeerConnection) -> None:
    """Return when the connection does not come about, or is lost."""
    loop = asyncio.get_running_loop()
    since, connected = loop.time(), False
    while connection.connectionState not in ("failed", "closed"):
        if connection.connectionState == "connected":
            since, connected = loop.time(), True
        elif loop.time() - since > (LOST_SECONDS if connected else CONNECT_SECONDS):
            return
        await asyncio.sleep(0.25)


def hand_on(client: RtcClient, part: Part) -> None:
    """Give a part to the track or the data channel that it belongs to."""
    if isinstance(part, AudioPart):
        client.audio.put(part)
    elif isinstance(part, ImagePart):
        client.image.put(part)
    else:
        if part["type"] == "interrupted":
            client.audio.flush()
        _tell(client, part)


def _tell(client: RtcClient, words: dict[str, Any]) -> None:
    for channel in client.channels:
        if channel.readyState == "open" and channel.bufferedAmount < MOST_BUFFERED:
            channel.send(json.dumps(words))


async def _handle(client: RtcClient, guest: Guest, channel: RTCDataChannel, text: str | bytes) -> None:
    if isinstance(text, str) and text.startswith("ping"):  # of pipecat's client, to keep the channel alive
        return
    if isinstance(text, str) and any(kind in text[:200] for kind in ('"rtvi-ai"', '"signalling"')):
        _answer_rtvi(channel, text)
        return
    answer = await guest.handle(text)
    if answer is not None:
        guest.listener.outbox.put(answer)


def _answer_rtvi(channel: RTCDataChannel, text: str) -> None:
    """Tell pipecat's client that the other side is ready; it waits for that. All else it may say has no answer."""
    with suppress(ValueError, AttributeError):
        message = json.loads(text)
        if message.get("type") == "client-ready":
            about = {"version": "1.0.0", "about": {"library": "avatar"}}
            answer = {"label": "rtvi-ai", "type": "bot-ready", "id": str(message.get("id", "")), "data": about}
            channel.send(json.dumps(answer))


async def _listen(track: MediaStreamTrack, guest: Guest) -> None:
    """Pass the microphone on; it is read even where nobody needs it, because aiortc keeps what is not read."""
    async for samples in microphone_samples(track):
        guest.hear(samples)


def _keep(client: RtcClient, work: Any) -> None:
    """Run something as long as the client is there."""
    if len(client.tasks) < 64:
        task = asyncio.ensure_future(work)
        client.tasks.add(task)
        task.add_done_callback(client.tasks.discard)
    else:
        work.close()
