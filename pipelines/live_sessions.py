"""The step of `python -m pipelines.live_check` that adds sessions until the 95th percentile of latency doubles."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import aiohttp

from pipelines import live_numbers as numbers
from pipelines.live_browser import serving
from pipelines.live_clients import Listener, listening
from pipelines.live_steps import Bench

SIZES = (512, 256)


async def sessions(bench: Bench) -> dict[str, Any]:
    """Sessions at once, all of them talking, until p95 is twice that of one, at 512 and 256 pixels.

    Listeners are clients of the WebSocket door that decode nothing: real ones have machines of their own.
    """
    found: dict[str, Any] = {}
    for size in SIZES:
        options = ("--sessions", str(bench.most_sessions), "--size", str(size))
        log = bench.folder / f"sessions-{size}.log"
        async with serving(bench.run, log, *options) as server, aiohttp.ClientSession() as client:
            tried: list[dict[str, Any]] = []
            for count in range(1, bench.most_sessions + 1):
                async with AsyncExitStack() as stack:
                    listeners = [await stack.enter_async_context(listening(client, server)) for _ in range(count)]
                    tried.append(await _talk(bench, client, listeners))
                if tried[-1]["latency_ms"] is None or _p95(tried[-1]) > 2 * _p95(tried[0]):
                    break
            good = [one["sessions"] for one in tried if one["latency_ms"] and _p95(one) <= 2 * _p95(tried[0])]
            found[str(size)] = {"sessions_before_p95_doubles": max(good, default=0), "tried": tried}
    return found


def _p95(one: dict[str, Any]) -> float:
    return one["latency_ms"]["p95"]


async def _talk(bench: Bench, client: aiohttp.ClientSession, listeners: list[Listener]) -> dict[str, Any]:
    """Let all of them talk at once."""
    seconds = max(8.0, bench.seconds / 4)
    await asyncio.sleep(2)
    server = listeners[0].server
    used = server.processor_seconds()
    await asyncio.gather(*(one.speak(bench.speech, seconds) for one in listeners))
    cores = (server.processor_seconds() - used) / seconds
    await asyncio.sleep(1.5)
    spans = [span for one in listeners for span in await one.latencies(client)]
    rates = [one.rate(one.sent[0], one.sent[-1]) for one in listeners]
    latency = numbers.latency_summary(spans)
    return {"sessions": len(listeners), "latency_ms": latency, "least_frames_per_second": min(rates),
            "cores": round(cores, 2)}  # fmt: skip
