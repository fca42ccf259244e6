"""Pipecat's own client for browsers connects from another origin, and hears and sees the avatar speak.

It runs where Node.js, Chromium, playwright-core, esbuild, @pipecat-ai/client-js and
@pipecat-ai/small-webrtc-transport are found; see `tests.browser`.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from aiohttp import web
from aiohttp.test_utils import TestServer

from pipelines.live_browser import Browser, Page
from tests.browser import MODULES, found_tools
from tests.serving import TOKEN, served, until

NEEDED = ("esbuild", "@pipecat-ai/client-js", "@pipecat-ai/small-webrtc-transport")
CLIENT = """
import { PipecatClient } from "@pipecat-ai/client-js";
import { SmallWebRTCTransport, WavMediaManager } from "@pipecat-ai/small-webrtc-transport";

const state = window.state = { ready: false, disconnected: false, level: 0, brightest: 0, frames: 0, error: "" };
const canvas = new OffscreenCanvas(8, 8), pixels = canvas.getContext("2d", { willReadFrequently: true });

function show(track) {
  const video = document.querySelector("video");
  video.srcObject = new MediaStream([track]);
  video.play();
  const drawn = () => {
    pixels.drawImage(video, 0, 0, 8, 8);
    state.frames += 1;
    state.brightest = Math.max(state.brightest, pixels.getImageData(4, 4, 1, 1).data[1]);
    video.requestVideoFrameCallback(drawn);
  };
  video.requestVideoFrameCallback(drawn);
}

function hear(track) {
  const stream = new MediaStream([track]), sink = new Audio();
  sink.srcObject = stream; // Chromium decodes what comes from elsewhere only where an element plays it
  sink.muted = true;
  sink.play();
  const context = new AudioContext(), analyser = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(analyser);
  const data = new Float32Array(analyser.fftSize);
  setInterval(() => {
    analyser.getFloatTimeDomainData(data);
    state.level = Math.max(state.level, ...data.map(Math.abs));
  }, 50);
}

window.start = async (endpoint, token) => {
  const mediaManager = new WavMediaManager(); // the other one loads its parts from a network
  const client = window.client = new PipecatClient({
    transport: new SmallWebRTCTransport({ mediaManager }), enableMic: true, enableCam: false,
    callbacks: {
      onBotReady: () => { state.ready = true; },
      onDisconnected: () => { state.disconnected = true; },
      onTrackStarted: (track, participant) => {
        if (!participant?.local) (track.kind === "video" ? show : hear)(track);
      },
    },
  });
  const headers = new Headers({ Authorization: `Bearer ${token}` });
  try {
    await client.connect({ webrtcRequestParams: { endpoint, headers } });
  } catch (error) {
    state.error = String(error);
  }
};
"""


def bundle(folder: Path) -> Path:
    """The client as one file."""
    (folder / "client.mjs").write_text(CLIENT)
    command = [MODULES / ".bin/esbuild", "client.mjs", "--bundle", "--format=iife", "--outfile=bundle.js"]
    environment = os.environ | {"NODE_PATH": str(MODULES)}
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=60)
    return folder / "bundle.js"


async def talk(page: Page, endpoint: str, hub: Any) -> None:
    await page.run(f"void window.start({json.dumps(endpoint)}, {json.dumps(TOKEN)})")
    await page.wait("window.state.ready || window.state.error", 30)
    assert not await page.run("window.state.error"), await page.words()
    (guest,) = hub.guests.values()
    await page.wait("window.state.frames > 5", 30)
    assert await page.run("window.state.brightest") < 60 and await page.run("window.state.level") < 0.02
    guest.say("Hello to somebody from elsewhere")
    await page.wait("window.state.brightest > 40 && window.state.level > 0.1", 30)
    await page.run("void window.client.disconnect()")
    await until(lambda: not hub.guests)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_client_connects_from_another_origin_and_the_avatar_speaks(tmp_path: Path):
    tools = found_tools(*NEEDED)
    script = bundle(tmp_path).read_text()

    async def html(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><video muted></video><script src=bundle.js></script>",
                            content_type="text/html")  # fmt: skip

    async def code(_: web.Request) -> web.Response:
        return web.Response(text=script, content_type="text/javascript")

    async def run() -> None:
        elsewhere = web.Application()
        elsewhere.router.add_get("/", html)
        elsewhere.router.add_get("/bundle.js", code)
        async with TestServer(elsewhere) as other:
            origin = str(other.make_url("")).rstrip("/")
            async with served(tmp_path, origins=(origin,), token=TOKEN) as client:
                async with Browser(tools) as browser, browser.started() as started:
                    async with browser.page(started, f"{origin}/") as page:
                        await talk(page, str(client.make_url("/api/offer")), client.hub)

    asyncio.run(run())
