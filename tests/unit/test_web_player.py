"""The player of a web folder in a real browser, where there is one: images, controls, view, and opening from disk.

Needs Node.js, Chromium, and playwright-core, some tests three.js, Spark and PlayCanvas: see `tests.browser`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from avatar.export.base import ExportSource
from avatar.export.write import export_avatar
from avatar.infer.avatar import Avatar
from avatar.io.audio import write_wav
from avatar.motion import Motion
from tests.browser import MODULES, found_tools
from tests.web import small_run

pytest.importorskip("aiohttp")

from pipelines import readers_check, readers_steps, web_steps
from pipelines.live_browser import Browser, Tools

PLAYER = "document.querySelector('avatar-player')"


@pytest.fixture(scope="module")
def tools() -> Tools:
    return found_tools()


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> web_steps.Bench:
    made = tmp_path_factory.mktemp("player")
    avatar = Avatar.load(small_run(made), device="cpu", precision="float32")
    motion = Motion.load(avatar.run / "motion.safetensors")
    audio = made / "tone.wav"
    write_wav(audio, (0.2 * np.sin(np.arange(round(16000 * len(motion) / motion.fps)))).astype(np.float32))
    folder = export_avatar(
        ExportSource(folder=avatar.run, avatar=avatar, motion=motion, audio=audio), "web", made / "web"
    )
    (made / "shots").mkdir()
    return web_steps.Bench(avatar=avatar, motion=motion, audio=audio, clip="tone", folder=folder, shots=made / "shots")


def test_the_page_shows_what_render_shows(tools, bench):
    async def look() -> None:
        async with Browser(tools) as browser, browser.started(*web_steps.GRAPHICS) as chromium:
            with web_steps.served(bench.folder) as url:
                async with web_steps.opened(browser, chromium, url, (512, 512)) as page:
                    for renderer, found in (await web_steps.images(bench, page, 2)).items():
                        assert found["worst"] > 38, (renderer, found)
                    await behave(page)
                    assert not [word for word in await page.words() if "ReadPixels" not in word]
            async with browser.page(chromium, (bench.folder / "index.html").as_uri()) as page:
                await page.wait(f"{PLAYER}?.engine?.frame >= 0")
                assert await page.run(f"{PLAYER}.engine.clock.audio.src.startsWith('file:')")
                assert await page.words() == []

    asyncio.run(asyncio.wait_for(look(), 120))


async def behave(page: web_steps.Page) -> None:
    """Play, turn, change the expression, and ask for what is not there."""
    rows = np.array(await page.run("webCheck.play(1.2)"))
    assert len(rows) > 2 and np.all(np.abs(rows[:, 1] * 25 - rows[:, 2] - 0.5) < 0.6), "images are where the audio is"
    await page.run(f"{PLAYER}.ui.stage.focus()")
    await page.act(["key", "0"])
    for _ in range(30):
        await page.act(["key", "ArrowRight"])
    azimuth = (await page.run(f"{PLAYER}.engine.view.shown"))[0]
    assert azimuth == pytest.approx(await page.run(f"{PLAYER}.engine.manifest.limits.right")), "it stops at the limit"
    await page.act(["key", "0"])
    assert await page.run(f"{PLAYER}.engine.view.shown") == [0, 0]
    before = await page.run(f"Array.from({PLAYER}.engine.gaussians.now.subarray(0, 2000))")
    await page.run(f"{PLAYER}.set('mouth', 1)")
    await page.run(f"{PLAYER}.engine.step()")
    assert await page.run(f"Array.from({PLAYER}.engine.gaussians.now.subarray(0, 2000))") != before
    await page.run(f"{PLAYER}.setAttribute('clip', 'nothing')")
    await page.wait(f"{PLAYER}.ui.said.textContent === 'There is no clip nothing.'")


@pytest.mark.parametrize("reader", ["spark", "playcanvas"])
def test_it_talks_in_scenes_of_other_programs(reader, bench, tmp_path):
    """The adapters show what the page shows, from other sides and in the middle of a clip."""
    found = found_tools("three", "@sparkjsdev/spark", "playcanvas")

    async def look() -> dict[str, Any]:
        (tmp_path / "web").symlink_to(bench.folder)
        (tmp_path / "modules").symlink_to(MODULES)
        there = readers_steps.Bench(source=ExportSource(folder=bench.avatar.run, avatar=bench.avatar), folder=tmp_path)
        async with Browser(found) as browser, readers_check.page_of(browser, there, reader) as page:
            return await readers_steps.talking(there, page, reader, True, 1)

    assert asyncio.run(asyncio.wait_for(look(), 120))["worst"] > 45
