"""Who may use the viewer: requests for its own name, from its own page, with the token in the address that is printed.

Any page that is open in a browser can send requests to servers on the same machine, and under a name that it resolves
anew (DNS rebinding) it can read their answers. So every request, for the page as for its websocket, is checked before
viser sees it, on the only port that is listened on.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import hmac
import http
import inspect
import ipaddress
import logging
import secrets
import socket
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import rich
import websockets.asyncio.server
from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from avatar import log
from avatar.errors import AvatarError
from avatar.io.hosts import HOST, address_of, is_loopback
from avatar.viewer.messages import MESSAGE_BYTES, CheckedConnection, Uploads

MOST_WINDOWS = 8  # at once; images are rendered for each of them
PORTS_TRIED = 1000
CLOSING_SECONDS = 1.0  # a page that does not answer must not hold up the end
TRY_AGAIN_LATER = 1013  # websocket status
_starting = threading.Lock()  # `websockets.asyncio.server.serve` is another one while a viewer starts

# The connection whose messages the running task handles: how a client of viser finds its connection.
current_connection: contextvars.ContextVar[CheckedConnection] = contextvars.ContextVar("current_connection")

Handler = Callable[[Any], Awaitable[None]]


class Door:
    """Listens on a port and lets in what may come in.

    Args:
        host: Address or name to listen on.
        port: First port to try; 0 lets the system choose.

    Attributes:
        port: The port in use.
        token: Random; the first part of every path.

    Raises:
        OSError: The host is not one of this machine, or no port is free.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.socket = _listen(host, port)
        address = self.socket.getsockname()
        self.port: int = address[1]
        self.token = secrets.token_urlsafe(24)
        bound = ipaddress.ip_address(address[0])
        self._everywhere, self._loopback = bound.is_unspecified, bound.is_loopback
        self._names = {host.lower(), str(bound)}
        if self._everywhere:
            self._names.add(socket.gethostname().lower())
        self._uploads = Uploads()
        self._inside: set[CheckedConnection] = set()

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        host = ("[::1]" if ":" in self.host else "127.0.0.1") if self._everywhere else self.host
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        return f"http://{host}:{self.port}/{self.token}/"

    def refusal(self, request: Request) -> str:
        """Why a request may not come in; empty where it may."""
        hosts, origins = request.headers.get_all("Host"), request.headers.get_all("Origin")
        if len(hosts) != 1 or not self._is_here(hosts[0].lower()):
            return "This request is for another server."
        if origins and [origin.lower() for origin in origins] != [f"http://{hosts[0].lower()}"]:
            return "This request comes from another page."
        given = request.path.partition("?")[0].split("/")[1:2]
        if not given or not hmac.compare_digest(given[0].encode(errors="surrogateescape"), self.token.encode()):
            return "The address lacks the token."
        return ""

    def _is_here(self, host: str) -> bool:
        """Whether a Host header names this server. A name that is not its own may be resolved by somebody else."""
        match = HOST.fullmatch(host)
        if match is None or int(match["port"] or 80) != self.port:
            return False
        name = match["v6"] or match["name"]
        if name in self._names:
            return True
        if self._everywhere:
            return name == "localhost" or address_of(name) is not None
        return self._loopback and is_loopback(name)

    @contextmanager
    def kept(self) -> Generator[None]:
        """Let viser start, with everything that it lets listen behind this door.

        viser has no way to check a request, so the function of websockets with which it starts listening is replaced
        by one that listens on the door's socket.

        Raises:
            AvatarError: viser started in another way.
        """
        module = websockets.asyncio.server
        real, kept = module.serve, False

        def serve(handler: Handler, *_: Any, process_request: Any = None, **options: Any) -> Any:
            nonlocal kept
            kept = True
            with suppress(RuntimeError):  # nothing runs yet: then the first page sets it
                asyncio.get_running_loop().set_exception_handler(_one_line)
            options |= {
                "max_size": MESSAGE_BYTES,
                "logger": _quiet(),
                "create_connection": CheckedConnection,
                "open_timeout": 5,
            }
            options["close_timeout"] = CLOSING_SECONDS
            return real(
                self._admitting(handler), sock=self.socket, process_request=self._checking(process_request), **options
            )

        with _starting, unprinted():
            module.serve = serve  # type: ignore[assignment,misc]
            try:
                yield
            finally:
                module.serve = real  # type: ignore[misc]
        if not kept:
            raise AvatarError(
                "This version of viser is not supported:",
                why="it listens in a way that cannot be checked.",
                fix="Install viser 1.1.",
            )

    def _checking(self, next_check: Any) -> Callable[[ServerConnection, Request], Awaitable[Response | None]]:
        """`process_request` of websockets: this check, and then viser's, which serves the page."""

        async def check(connection: ServerConnection, request: Request) -> Response | None:
            if reason := self.refusal(request):
                return _answer(403, f"{reason} Open the whole address that `avatar view` printed.")
            if len(self._inside) >= MOST_WINDOWS:
                return _answer(503, self._full())
            request.path = request.path.removeprefix(f"/{self.token}") or "/"
            answer = next_check(connection, request) if next_check else None
            answer = await answer if inspect.isawaitable(answer) else answer
            if answer is not None:
                answer.headers["Referrer-Policy"] = "no-referrer"  # the address is a secret
                answer.headers["Cache-Control"] = "no-store"
            return answer

        return check

    def _admitting(self, handler: Handler) -> Handler:
        """What handles a websocket: viser's handler, for so many of them, each known to its own tasks."""

        async def handle(connection: CheckedConnection) -> None:
            asyncio.get_running_loop().set_exception_handler(_one_line)
            if len(self._inside) >= MOST_WINDOWS:
                await connection.close(TRY_AGAIN_LATER, self._full())
                return
            connection.uploads = self._uploads
            self._inside.add(connection)
            current_connection.set(connection)
            try:
                await handler(connection)
            finally:
                self._inside.discard(connection)
                connection.forget_upload()

        return handle

    def _full(self) -> str:
        return f"The viewer is open in {MOST_WINDOWS} windows, which is all it can draw for. Close one of them."


@contextmanager
def unprinted() -> Generator[None]:
    """Keep viser from printing: its address lacks the token."""
    console = rich.get_console()
    quiet, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = quiet


def _listen(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    last = min(port + PORTS_TRIED, 65535) if port else 0
    while True:
        try:
            return socket.create_server((str(address[0]), port), family=family)
        except OSError as error:
            if port >= last or error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            port += 1


def _answer(status: int, sentence: str) -> Response:
    body = f"{sentence}\n".encode()
    headers = Headers({"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))})
    headers["Cache-Control"] = "no-store"
    return Response(status, http.HTTPStatus(status).phrase, headers, body)


def _quiet() -> logging.Logger:
    """A logger without a voice: requests that are not HTTP, and clients that leave, are nobody's business."""
    logger = logging.Logger("avatar.viewer")  # of its own: viser adds a filter to it
    logger.disabled = True
    return logger


_said: set[str] = set()


def _one_line(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Say once that a message of a page could not be heeded, instead of printing a traceback for each."""
    error = context.get("exception")
    sentence = f"A message of a page could not be heeded: {error!r}." if error else str(context.get("message"))
    if sentence not in _said and len(_said) < 20:
        _said.add(sentence)
        log.warn(sentence)
