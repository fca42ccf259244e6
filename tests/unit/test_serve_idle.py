"""When a session ends because nobody is there: not what a page sends by itself counts, but what its listener does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from avatar.io.audio import SAMPLE_RATE
from tests.serving import served, until
from tests.unit.test_serve_agent import voice
from tests.unit.test_serve_doors import Page, serve


async def send_sound(page: Page, samples: np.ndarray) -> None:
    for piece in np.array_split(np.rint(samples * 32767).astype("<i2"), max(1, len(samples) // 1600)):
        await page.socket.send_bytes(piece.tobytes())


async def ponged(page: Page, at: int) -> None:
    """Wait until all that was sent so far was taken."""
    await page.socket.send_json({"type": "ping", "at": at})
    await page.read(lambda: any(words["type"] == "pong" and words["at"] == at for words in page.words))


@pytest.mark.parametrize("mode", ["echo", "attend"])
def test_what_a_page_sends_by_itself_is_no_activity_and_a_voice_or_a_message_is(tmp_path: Path, mode: str):
    async def test(client: Any) -> None:
        async with client.ws_connect("/ws") as socket:
            page = Page(socket)
            await page.read(lambda: page.images)
            (guest,) = client.hub.guests.values()
            await socket.send_json({"type": mode, "on": True})
            await ponged(page, 1)
            before = guest.active
            await socket.send_json({"type": "shown", "audio_delay": 0.02})
            noise = np.random.default_rng(0).normal(0, 0.001, 2 * SAMPLE_RATE)
            await send_sound(page, noise)
            await ponged(page, 2)
            assert guest.active == before
            await send_sound(page, noise[:SAMPLE_RATE] + voice(1.0))
            await ponged(page, 3)
            assert guest.active > before
            before = guest.active
            await socket.send_json({"type": "view", "azimuth": 1, "elevation": 0, "zoom": 1})
            await ponged(page, 4)
            assert guest.active > before

    serve(tmp_path, test)


def test_a_page_that_nobody_looks_at_is_told_goodbye_and_one_that_is_spoken_to_is_not(tmp_path: Path):
    async def run() -> None:
        async with served(tmp_path, idle_seconds=1e9) as client, client.ws_connect("/ws") as socket:
            page = Page(socket)
            await page.read(lambda: page.images)
            (guest,) = client.hub.guests.values()
            await socket.send_json({"type": "say", "text": "word " * 200, "segment": "long"})
            await page.read(lambda: page.said("segment.started"))
            before = guest.active
            await until(lambda: guest.active > before)
            await socket.send_json({"type": "interrupt"})
            await page.read(lambda: page.said("interrupted"))
            client.hub.settings = replace(client.hub.settings, idle_seconds=0.5)
            ping = asyncio.create_task(_keep_pinging(socket))
            words = await page.read(lambda: page.said("goodbye"))
            assert "Nothing came from you" in words["message"]
            ping.cancel()

    asyncio.run(asyncio.wait_for(run(), 60))


async def _keep_pinging(socket: Any) -> None:
    with suppress(ConnectionError):
        while not socket.closed:
            await socket.send_json({"type": "ping", "at": 0})
            await asyncio.sleep(0.1)
