"""The local page of `avatar prior record`, and what it may ask for; each request is checked as `avatar serve` does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from aiohttp import web
from aiohttp.web_runner import GracefulExit

from avatar.checks import Record
from avatar.errors import AvatarError
from avatar.io.images import announced_size
from avatar.record.session import RecordingSession
from avatar.serve.app import add_pages, guard, page_files, read_body
from avatar.serve.hub import Settings
from avatar.serve.metrics import Metrics

SESSION: web.AppKey[RecordingSession] = web.AppKey("session", RecordingSession)
END: web.AppKey[Callable[[], object]] = web.AppKey("end")
SHARED = ("place.js",)  # of the page of `avatar serve`
MOST_FRAME_BYTES = 4 << 20
MOST_FRAME_SIDE = 4096  # pixels
MOST_TAKE_BYTES = 256 << 20
TAKE_SECONDS = 900.0  # in which a recording has to arrive: through a forwarded port it may take minutes
MOST_JSON_BYTES = 1 << 16
END_SECONDS = 0.5  # after the last answer, so that it arrives
SUFFIXES = {"video/webm": ".webm", "video/mp4": ".mp4", "video/x-matroska": ".mkv"}


def stop_server() -> None:
    """Let aiohttp's `run_app` end; called in its loop.

    Raises:
        aiohttp.web_runner.GracefulExit: Always.
    """
    raise GracefulExit


def make_app(session: RecordingSession, settings: Settings, end: Callable[[], object] = stop_server) -> web.Application:
    """Make the application; aiohttp runs it.

    Args:
        session: What the page shows and does.
        settings: Who gets in.
        end: Called once tracks are written or consent is withheld.
    """
    app = web.Application(middlewares=[guard(settings, Metrics())], client_max_size=MOST_TAKE_BYTES)
    app[SESSION], app[END] = session, end
    served = page_files("avatar.serve")
    add_pages(app, page_files("avatar.record") | {name: served[name] for name in SHARED})
    app.router.add_get("/api/state", _state)
    app.router.add_post("/api/consent", _consent)
    app.router.add_post("/api/decline", _decline)
    app.router.add_post("/api/frame", _frame)
    app.router.add_post("/api/takes/{name}", _take)
    app.router.add_post("/api/finish", _finish)
    app.cleanup_ctx.append(_running)
    return app


async def _state(request: web.Request) -> web.Response:
    return web.json_response(await asyncio.to_thread(request.app[SESSION].state))  # tracks may just be written


async def _consent(request: web.Request) -> web.Response:
    content = await read_body(request, MOST_JSON_BYTES)
    try:
        given = Record(json.loads(content), "The consent")
    except (ValueError, RecursionError):
        raise AvatarError("The body is no JSON.") from None
    await asyncio.to_thread(request.app[SESSION].agree, given.text("name"), given.flag("agreed"))
    return await _state(request)


async def _decline(request: web.Request) -> web.Response:
    await _last(request.app, request.app[SESSION].decline)  # it waits for tracks that are just being written
    return web.json_response({"type": "ok"})


async def _frame(request: web.Request) -> web.Response:
    image = _decoded(await read_body(request, MOST_FRAME_BYTES))
    findings = await asyncio.wrap_future(request.app[SESSION].look(image))
    return web.json_response({"findings": [asdict(finding) for finding in findings]})


def _decoded(data: bytes) -> np.ndarray:
    """A JPEG of the page as uint8 RGB [H, W, 3]."""
    import cv2

    size = announced_size(data)
    if size is None or not all(1 <= side <= MOST_FRAME_SIDE for side in size):
        raise AvatarError("The image is no JPEG of a possible size.")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise AvatarError("The image cannot be decoded.")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


async def _take(request: web.Request) -> web.Response:
    suffix = SUFFIXES.get(request.content_type)
    if suffix is None:
        raise AvatarError("The recording is of a kind that is not known.", fix=f"Send {', '.join(SUFFIXES)}.")
    session = request.app[SESSION]
    content = await read_body(request, MOST_TAKE_BYTES, TAKE_SECONDS)
    await asyncio.to_thread(session.record, request.match_info["name"], content, suffix)
    return web.json_response(await asyncio.to_thread(session.state), status=202)


async def _finish(request: web.Request) -> web.Response:
    return web.json_response(await _last(request.app, request.app[SESSION].finish))


async def _last(app: web.Application, act: Callable[[], Any]) -> Any:
    """Do the last thing in a thread, and end after it, also where the page that asked is gone meanwhile."""

    def done(task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is None:
            _end_soon(app)

    task = asyncio.create_task(asyncio.to_thread(act))
    task.add_done_callback(done)
    return await asyncio.shield(task)


def _end_soon(app: web.Application) -> None:
    """End once the answer is out."""
    asyncio.get_running_loop().call_later(END_SECONDS, lambda: app[END]())


async def _running(app: web.Application) -> AsyncGenerator[None]:
    yield
    await asyncio.to_thread(app[SESSION].close)
