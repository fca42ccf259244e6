"""How a WebSocket ends: its tasks first, then a sentence for the client, then the close with a status."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from avatar.serve.guest import GOODBYE_SECONDS, Guest

if TYPE_CHECKING:
    from avatar.serve.metrics import Metrics

NORMAL, AWAY, TRY_AGAIN_LATER, TOO_SLOW = 1000, 1001, 1013, 4008  # status of a closed WebSocket
MOST_REASON = 120  # bytes of a reason; the protocol allows 123
SLOW = "The connection is too slow for audio and video."


async def end_tasks(tasks: Sequence[asyncio.Task[object]], guest: Guest, metrics: Metrics) -> tuple[str, int]:
    """Cancel what serves a listener, and find why it ended.

    Args:
        tasks: What sends, receives and waits.
        guest: The listener.
        metrics: Counts those who read too slowly.

    Returns:
        A sentence for the client, or nothing, and the status to close with.

    Raises:
        Exception: A task failed otherwise than by its connection.
    """
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, (ConnectionError, asyncio.TimeoutError)):
            raise result
    if guest.listener.outbox.overrun or any(isinstance(result, asyncio.TimeoutError) for result in results):
        metrics.count("slow_listeners_total")
        return SLOW, TOO_SLOW
    reason = guest.reason or guest.listener.failed
    return reason, AWAY if reason else NORMAL


async def say(socket: web.WebSocketResponse, words: dict[str, Any]) -> None:
    """Send a last message, if the client still takes one."""
    with suppress(ConnectionError, asyncio.TimeoutError, RuntimeError):
        if not socket.closed:
            await asyncio.wait_for(socket.send_json(words), 2.0)


async def close(socket: web.WebSocketResponse, code: int, reason: str, seconds: float = GOODBYE_SECONDS) -> None:
    """Close with a status and a reason, and do not wait longer for the client than some seconds."""
    message = reason.encode()[:MOST_REASON].decode(errors="ignore").encode()  # no half character: it must be UTF-8
    with suppress(ConnectionError, asyncio.TimeoutError, RuntimeError):
        await asyncio.wait_for(socket.close(code=code, message=message), seconds)
