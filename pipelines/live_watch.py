"""Notes what a page shows while `python -m pipelines.live_check` measures it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from pipelines import live_numbers as numbers
from pipelines.live_browser import Page, Server

POLL_SECONDS = 0.5
GONE = (RuntimeError, OSError, asyncio.TimeoutError, aiohttp.ClientError)  # of a page, a session or a server that ended


@dataclass
class Watch:
    """Notes what a page shows and what the server drew, twice a second.

    Attributes:
        began: Milliseconds since 1970 from which on everything that was shown is noted, ...
        until: ... and up to which.
    """

    server: Server
    page: Page
    images: list[list[Any]] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)
    levels: list[list[float]] = field(default_factory=list)
    voice: list[list[float]] = field(default_factory=list)
    sync: list[list[float]] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    unread: int = 0
    first_audio: float = 0.0
    began: float = 0.0
    until: float = 0.0
    closed: bool = False

    async def look(self, client: aiohttp.ClientSession) -> None:
        """Read the page's measurements and the server's rows of frames since the last call."""
        now = 1000 * time.time()
        found = await self.page.run("window.liveProbe.take()")
        report = await self.page.run("window.liveProbe.stats()")
        ahead = report["ahead"] - 0.5  # of the page's clock before the machine's, which counts whole milliseconds
        self.images += [[n, at - ahead, *rest] for n, at, *rest in found["images"]]
        self.levels += [[at - ahead, db] for at, db in found["levels"]]
        self.voice += [[at - ahead, db] for at, db in found["voice"]]
        self.sync += [[at - ahead, stamp, played - ahead, heard] for at, stamp, played, heard in found["sync"]]
        self.unread += found["unread"]
        self.reports.append(report)
        since = self.rows[-1][1] if self.rows else -1
        params = {"since": str(since), "access_token": self.server.token}
        async with client.get(f"{self.server.url}/live-check/frames/{self.page.session}", params=params) as answer:
            if answer.status != 200:
                raise RuntimeError(f"The session is gone: {await answer.text()}")
            content = await answer.json()
        self.rows += content["rows"]
        self.first_audio = content["first_audio"]
        self.memory.append((time.monotonic(), self.server.memory()))
        self.until = now  # images that were shown later may lack their rows

    @property
    def shown(self) -> list[tuple[float, Any]]:
        """Images that were shown, with the server's rows."""
        return numbers.shown_rows(self.images, self.rows)

    def forget(self) -> None:
        """Drop what was noted, but not the memory."""
        self.images, self.levels, self.sync, self.reports, self.rows = [], [], [], [], self.rows[-1:]
        self.began = self.until


@asynccontextmanager
async def watching(server: Server, page: Page) -> AsyncGenerator[Watch]:
    """Watch a page as long as the context lasts, and look once more at its end."""
    watch, over = Watch(server, page), asyncio.Event()
    async with aiohttp.ClientSession() as client:
        await watch.look(client)
        watch.forget()

        async def on() -> None:
            while not over.is_set():
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(over.wait(), POLL_SECONDS)
                await watch.look(client)

        task = asyncio.create_task(on())
        try:
            yield watch
            over.set()
            await task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, *GONE):
                await task
