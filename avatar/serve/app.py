"""The HTTP application: the page, the doors, and a small API for text and audio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from importlib.resources import files
from typing import Any

from aiohttp import web

from avatar import log
from avatar.errors import AvatarError
from avatar.serve.access import cross_origin, refusal
from avatar.serve.guest import Guest
from avatar.serve.hub import RETRY_SECONDS, Full, Hub, Settings
from avatar.serve.messages import MOST_MESSAGE_BYTES, Message
from avatar.serve.metrics import Metrics
from avatar.serve.openapi import description
from avatar.serve.realtime import PATHS as REALTIME_PATHS
from avatar.serve.realtime import serve_realtime
from avatar.serve.webrtc import Peers
from avatar.serve.websocket import serve_websocket

HUB: web.AppKey[Hub] = web.AppKey("hub", Hub)
PEERS: web.AppKey[Peers] = web.AppKey("peers", Peers)
MOST_SDP_BYTES = 1 << 20
BODY_SECONDS = 30.0  # in which a request has to be complete
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
SECURITY = {
    "Content-Security-Policy": (
        "default-src 'self'; connect-src 'self' ws: wss:; media-src 'self' blob: mediastream:; img-src 'self' data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
}  # fmt: skip


def make_app(hub: Hub) -> web.Application:
    """Make the application; aiohttp runs it."""
    app = web.Application(middlewares=[guard(hub.settings, hub.metrics)], client_max_size=hub.settings.file_bytes)
    app[HUB], app[PEERS] = hub, Peers(hub)
    add_pages(app, page_files("avatar.serve"))
    app.router.add_get("/healthz", _health)
    app.router.add_get("/metrics", _metrics)
    app.router.add_get("/openapi.json", _openapi)
    app.router.add_get("/api/avatars", _avatars)
    app.router.add_get("/api/ice", _ice)
    app.router.add_get("/ws", _websocket)
    for path in REALTIME_PATHS:
        app.router.add_get(path, _realtime)
    app.router.add_post("/api/offer", _offer)
    app.router.add_patch("/api/offer", _candidates)
    app.router.add_post("/api/sessions/{session}/audio", _audio)
    app.router.add_post("/api/sessions/{session}/{kind:text|ask|interrupt|controls|view}", _message)
    app.cleanup_ctx.append(_running)
    app.on_shutdown.append(_shut_down)
    return app


def page_files(package: str) -> dict[str, bytes]:
    """The page of a package and its modules: contents by name."""
    return {name.name: name.read_bytes() for name in (files(package) / "page").iterdir() if name.is_file()}


def add_pages(app: web.Application, pages: dict[str, bytes]) -> None:
    """Serve a page and its modules, contents by name."""

    async def page(request: web.Request) -> web.Response:
        name = request.match_info.get("name", "index.html")
        if name not in pages:  # a name from a request never becomes a path
            raise web.HTTPNotFound(text="There is no such page.")
        kind = TYPES.get(name.rpartition(".")[2], "application/octet-stream")
        return web.Response(body=pages[name], content_type=kind, charset="utf-8" if "/" in kind else None)

    app.router.add_get("/", page)
    app.router.add_get("/page/{name}", page)


def guard(settings: Settings, metrics: Metrics) -> Any:
    """Make the middleware that checks each request before anything is done for it, and answers mistakes in words."""

    @web.middleware
    async def check(request: web.Request, handler: Any) -> web.StreamResponse:
        allowed = cross_origin(request, settings)
        if request.method == "OPTIONS" and allowed:
            return web.Response(status=204, headers=SECURITY | allowed)  # a browser asks before it sends the token
        if (refused := refusal(request, settings)) is not None:
            metrics.count("refused_total")
            return error_response(refused[1], refused[0], allowed)
        try:
            response = await handler(request)
        except Full as error:
            metrics.count("refused_total")
            response = error_response(str(error), 503)
            response.headers["Retry-After"] = str(RETRY_SECONDS)
        except AvatarError as error:
            response = error_response(str(error), 422)
        except web.HTTPException as error:
            response = error_response(error.text or error.reason, error.status)
        except (asyncio.TimeoutError, ConnectionError):
            response = error_response("The request did not arrive in time.", 408)
        except Exception as error:
            log.warn(f"A request failed: {type(error).__name__}: {error}")
            response = error_response("The server failed at this request; its log says why.", 500)
        if not response.prepared:
            response.headers.update(SECURITY | allowed)
        return response

    return check


def error_response(sentence: str, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer with a sentence in JSON."""
    return web.json_response({"error": sentence}, status=status, headers={**SECURITY, **(headers or {})})


async def _websocket(request: web.Request) -> web.WebSocketResponse:
    return await serve_websocket(request, request.app[HUB])


async def _realtime(request: web.Request) -> web.WebSocketResponse:
    return await serve_realtime(request, request.app[HUB])


async def _health(request: web.Request) -> web.Response:
    closing = request.app[HUB].closing
    return web.json_response({"status": "closing" if closing else "ok"}, status=503 if closing else 200)


async def _metrics(request: web.Request) -> web.Response:
    return web.Response(text=request.app[HUB].metrics.text(), content_type="text/plain")


async def _openapi(request: web.Request) -> web.Response:
    return web.json_response(description())


async def _avatars(request: web.Request) -> web.Response:
    hub = request.app[HUB]
    return web.json_response({"avatars": list(hub.characters), "free": hub.settings.sessions - len(hub.guests)})


async def _ice(request: web.Request) -> web.Response:
    return web.json_response({"iceServers": list(request.app[HUB].settings.ice_servers)})


async def _offer(request: web.Request) -> web.Response:
    return web.json_response(await request.app[PEERS].offer(await _json(request, MOST_SDP_BYTES)))


async def _candidates(request: web.Request) -> web.Response:
    return web.json_response(await request.app[PEERS].candidates(await _json(request, MOST_SDP_BYTES)))


async def _audio(request: web.Request) -> web.Response:
    guest = _guest(request)
    segment = Message.of({"type": "interrupt", "segment": request.query.get("segment", "")}).fields["segment"]
    return web.json_response(await guest.play(await read_body(request, request.app[HUB].settings.file_bytes), segment))


async def _message(request: web.Request) -> web.Response:
    guest, kind = _guest(request), request.match_info["kind"]
    content = await _json(request, MOST_MESSAGE_BYTES)
    if not isinstance(content, dict):
        raise AvatarError("The body is no JSON object.")
    answer = await guest.handle(json.dumps(content | {"type": "say" if kind == "text" else kind}))
    wrong = answer is not None and answer["type"] == "error"
    return web.json_response(answer or {"type": "ok"}, status=422 if wrong else 200)


def _guest(request: web.Request) -> Guest:
    guest = request.app[HUB].guests.get(request.match_info["session"])
    if guest is None:
        raise web.HTTPNotFound(text="There is no such session, or it is over.")
    return guest


async def _json(request: web.Request, most: int) -> Any:
    try:
        return json.loads(await read_body(request, most))
    except (ValueError, RecursionError):
        raise AvatarError("The body is no JSON.") from None


async def read_body(request: web.Request, most: int, seconds: float = BODY_SECONDS) -> bytes:
    """Read a body of at most ``most`` bytes, which has to arrive in so many seconds.

    Raises:
        aiohttp.web.HTTPRequestEntityTooLarge: It has more.
    """
    sentence = f"The body has more than {most >> 10} KiB."
    if (request.content_length or 0) > most:
        raise web.HTTPRequestEntityTooLarge(most, request.content_length or 0, text=sentence)
    return await asyncio.wait_for(_read(request, most, sentence), seconds)


async def _read(request: web.Request, most: int, sentence: str) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.content.iter_chunked(1 << 16):
        size += len(part)
        if size > most:
            raise web.HTTPRequestEntityTooLarge(most, size, text=sentence)
        parts.append(part)
    return b"".join(parts)


async def _running(app: web.Application) -> AsyncGenerator[None]:
    watch = asyncio.create_task(app[HUB].watch())
    yield
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch


async def _shut_down(app: web.Application) -> None:
    app[HUB].close()
    await app[PEERS].close()
