"""The front of several replicas: it keeps the door, and passes each listener on to the replica that has most room.

The name of a session says which replica it is at, so that all requests of a listener go there. Audio and video of
WebRTC do not pass through here: they go straight to the process that made the answer.
"""

from __future__ import annotations

import asyncio
import io
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import (
    ClientError,
    ClientSession,
    ClientTimeout,
    WSMsgType,
    WSServerHandshakeError,
    web,
)
from yarl import URL

from avatar.serve.access import KEY_PROTOCOL
from avatar.serve.app import MOST_SDP_BYTES, add_pages, error_response, guard, page_files, read_body
from avatar.serve.farewell import AWAY, NORMAL, SLOW, TOO_SLOW, close, say
from avatar.serve.hub import Full, Settings
from avatar.serve.metrics import Metrics, merged
from avatar.serve.openapi import description
from avatar.serve.replicas import Backend, Replicas, Running
from avatar.serve.voice import MOST_FILE_BYTES
from avatar.serve.websocket import HEARTBEAT_SECONDS

if TYPE_CHECKING:
    from aiohttp import ClientWebSocketResponse

    _Inner = ClientWebSocketResponse[bool]
    _Socket = web.WebSocketResponse | _Inner

CONNECT_SECONDS = 5.0  # to a replica
ANSWER_SECONDS = 120.0  # of a replica: sessions are made one after the other
ASK_SECONDS = 5.0  # for its free places
SEND_SECONDS = 20.0  # in which a listener, or a replica, has to take a message; replicas have less patience
MOST_MESSAGE_BYTES = 16 << 20  # of a WebSocket; replicas allow less
LOST, RESTART = 1006, 1012  # status of a closed WebSocket, beside those of `farewell`
GONE = "The part of the server that you talked with has ended. Load the page again."
SESSIONS = "/api/sessions/"
SOCKET_HEADERS = ("OpenAI-Beta",)  # that replicas heed: which names a client has for events


class Front:
    """Passes requests on.

    Args:
        backend: Runs the replicas.
        settings: Of the service; its token is that of listeners.
        token: What replicas ask for.
        least, most: How many replicas there are.
    """

    def __init__(self, backend: Backend, settings: Settings, token: str, least: int, most: int) -> None:
        self.settings, self.metrics = settings, Metrics()
        self.replicas = Replicas(backend, least=least, most=most, sessions=settings.sessions, ask=self._ask)
        self._token = token
        self._client: ClientSession | None = None

    async def open(self) -> None:
        """Start the replicas.

        Raises:
            AvatarError: They cannot serve what they are to serve.
        """
        timeout = ClientTimeout(total=ANSWER_SECONDS, sock_connect=CONNECT_SECONDS)
        self._client = ClientSession(timeout=timeout, headers={"Authorization": f"Bearer {self._token}"})
        try:
            await self.replicas.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the replicas."""
        await self.replicas.close()
        if self._client is not None:
            await self._client.close()

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """Answer a request by a replica: that of its session, or the one with most room.

        Raises:
            Full: No replica has a place.
        """
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._pass_socket(request)
        body = await read_body(request, MOST_FILE_BYTES if request.path.endswith("/audio") else MOST_SDP_BYTES)
        session = _session(request.path, body)
        own = self.replicas.of(session)
        if own is None and request.path.startswith(SESSIONS):
            return error_response("There is no such session, or it is over.", 404)
        for running in self.replicas.by_room() if own is None else [own]:
            try:
                response = await self._pass(running, request, body)
            except (ClientError, ConnectionError):  # it has died; another one may live
                running.free = 0
                continue
            if response.status != 503 or own is not None:
                if own is None and response.status == 200:
                    self.replicas.give(running)
                return response
            running.free = 0
        raise self._full()

    async def health(self, _: web.Request) -> web.Response:
        """Say whether somebody can be served."""
        count = len(self.replicas.running)
        state = "closing" if self.replicas.closing else "ok" if count else "starting"
        return web.json_response({"status": state, "replicas": count}, status=200 if state == "ok" else 503)

    async def avatars(self, _: web.Request) -> web.Response:
        """List the avatars, and how many places are free."""
        running = self.replicas.by_room()
        names = next((one.avatars for one in running if one.avatars), ())
        return web.json_response({"avatars": list(names), "free": sum(one.free for one in running)})

    async def all_metrics(self, _: web.Request) -> web.Response:
        """Give the metrics of the front and of all replicas, each with its name as a label."""
        running = self.replicas.running
        found = await asyncio.gather(*(self._get(one, "/metrics") for one in running), return_exceptions=True)
        texts = {one.name: text.decode() for one, text in zip(running, found) if isinstance(text, bytes)}
        return web.Response(text=merged({"front": self.metrics.text()} | texts), content_type="text/plain")

    def _full(self) -> Full:
        running = self.replicas.running
        if not running:
            return Full("The server is starting.", fix="Try again in a moment.")
        places = len(running) * self.settings.sessions
        return Full(f"The server is full: {places} people talk with it now.", fix="Try again in a moment.")

    async def _pass(self, running: Running, request: web.Request, body: bytes) -> web.Response:
        """Send a request to a replica, and give its answer."""
        content = io.BytesIO(body) if body else None  # large bytes are a warning of aiohttp
        kind = {"Content-Type": request.headers["Content-Type"]} if "Content-Type" in request.headers else {}
        async with self._http.request(request.method, _url(running, request), data=content, headers=kind) as found:
            response = web.Response(status=found.status, body=await found.read(), content_type=found.content_type)
            if "Retry-After" in found.headers:
                response.headers["Retry-After"] = found.headers["Retry-After"]
            return response

    async def _pass_socket(self, request: web.Request) -> web.StreamResponse:
        named = request.headers.get("Sec-WebSocket-Protocol", "")
        offered = [name.strip() for name in named.split(",") if name.strip()]
        protocols = [name for name in offered if not name.startswith(KEY_PROTOCOL)]  # a listener's token stays here
        headers = {name: request.headers[name] for name in SOCKET_HEADERS if name in request.headers}
        held = self.replicas.of(request.query.get("replaces", ""))  # by a session whose place this one takes
        others = [running for running in self.replicas.by_room() if running is not held]
        for running in others if held is None else [held, *others]:
            try:
                inner = await self._http.ws_connect(
                    _url(running, request), protocols=protocols, headers=headers, max_msg_size=MOST_MESSAGE_BYTES,
                    heartbeat=HEARTBEAT_SECONDS,  # a machine that is gone says nothing
                )  # fmt: skip
            except WSServerHandshakeError as error:
                if error.status != 503:
                    return await self._pass(running, request, b"")  # it says why, which a handshake cannot
                running.free = 0
            except (ClientError, ConnectionError, asyncio.TimeoutError):
                running.free = 0
            else:
                if running is not held:
                    self.replicas.give(running)
                async with inner:
                    return await _relay(request, inner)
        raise self._full()

    async def _ask(self, running: Running) -> Any:
        return json.loads(await asyncio.wait_for(self._get(running, "/api/avatars"), ASK_SECONDS))

    async def _get(self, running: Running, path: str) -> bytes:
        async with self._http.get(URL.build(scheme="http", host=running.host, port=running.port, path=path)) as found:
            found.raise_for_status()
            return await found.read()

    @property
    def _http(self) -> ClientSession:
        assert self._client is not None
        return self._client


async def make_front(backend: Backend, settings: Settings, token: str, least: int, most: int) -> web.Application:
    """Start the replicas and make the application that passes on to them; see `Front`.

    Raises:
        AvatarError: They cannot serve what they are to serve.
    """
    front = Front(backend, settings, token, least, most)
    app = web.Application(middlewares=[guard(settings, front.metrics)], client_max_size=MOST_FILE_BYTES)

    async def ice(_: web.Request) -> web.Response:
        return web.json_response({"iceServers": list(settings.ice_servers)})

    async def openapi(_: web.Request) -> web.Response:
        return web.json_response(description())

    async def close(_: web.Application) -> None:
        await front.close()

    add_pages(app, page_files("avatar.serve"))
    app.router.add_get("/healthz", front.health)
    app.router.add_get("/metrics", front.all_metrics)
    app.router.add_get("/openapi.json", openapi)
    app.router.add_get("/api/avatars", front.avatars)
    app.router.add_get("/api/ice", ice)
    app.router.add_route("*", "/{path:.*}", front.pass_on)
    app.on_shutdown.append(close)
    await front.open()
    return app


async def _relay(request: web.Request, inner: _Inner) -> web.WebSocketResponse:
    """Pass messages on in both directions until one side ends it, and tell the other how."""
    outer = web.WebSocketResponse(
        protocols=[inner.protocol] if inner.protocol else [], max_msg_size=MOST_MESSAGE_BYTES, compress=False,
        heartbeat=HEARTBEAT_SECONDS,
    )  # fmt: skip
    await outer.prepare(request)
    down, up = (asyncio.create_task(_copy(*ends)) for ends in ((inner, outer), (outer, inner)))
    try:
        await asyncio.wait([down, up], return_when="FIRST_COMPLETED")
    finally:
        for task in (down, up):
            task.cancel()
        ended = await asyncio.gather(down, up, return_exceptions=True)
    if isinstance(ended[0], tuple):
        code, reason = ended[0]
        if code == LOST:  # the replica died
            code, reason = RESTART, GONE
            if request.path == "/ws":
                await say(outer, {"type": "goodbye", "message": GONE})
        await close(outer, code, reason)
    elif isinstance(ended[0], TimeoutError | asyncio.TimeoutError):
        await close(outer, TOO_SLOW, SLOW)
    else:
        await close(outer, AWAY, "")
    return outer


async def _copy(source: _Socket, sink: _Socket) -> tuple[int, str]:
    """Pass messages on; return the status and the reason with which ``source`` was closed."""
    while True:
        message: Any = await source.receive()
        if message.type is WSMsgType.TEXT:
            await asyncio.wait_for(sink.send_str(message.data), SEND_SECONDS)
        elif message.type is WSMsgType.BINARY:
            await asyncio.wait_for(sink.send_bytes(message.data), SEND_SECONDS)
        elif message.type is WSMsgType.CLOSE:
            return int(message.data or NORMAL), str(message.extra or "")
        else:  # closed without a word
            return LOST, ""


def _url(running: Running, request: web.Request) -> URL:
    """The address at a replica of what is asked for; a listener's token stays here."""
    query = [(name, value) for name, value in request.query.items() if name != "access_token"]
    place = URL.build(
        scheme="http", host=running.host, port=running.port, path=request.rel_url.raw_path, encoded=True
    )  # fmt: skip
    return place.with_query(query) if query else place


def _session(path: str, body: bytes) -> str:
    """The session that a request names; empty where it names none."""
    if path.startswith(SESSIONS):
        return path.removeprefix(SESSIONS).partition("/")[0]
    if path == "/api/offer":
        with suppress(ValueError, RecursionError):
            content = json.loads(body)
            if isinstance(content, dict) and isinstance(content.get("pc_id"), str):
                return content["pc_id"]
    return ""
