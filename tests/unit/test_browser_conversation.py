"""A conversation in a real browser: a recorded microphone asks an agent, interrupts the answer, and asks again.

It runs where Node.js, Chromium and playwright-core are found; see `tests.browser`.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from avatar.io.audio import SAMPLE_RATE, write_wav
from avatar.serve.agent import AgentSettings
from pipelines.live_browser import Browser, Page
from tests.agent_server import AgentServer
from tests.browser import found_tools
from tests.serving import served, until

HEARD = "[...document.querySelectorAll('#log li')].map((one) => one.innerText)"
TURNS = ((1.5, 1.2), (6.0, 1.2))  # seconds of silence, and of speech after it


def microphone(path: Path) -> Path:
    """What the listener says, as a browser takes it for a microphone."""
    parts = []
    for silence, seconds in TURNS:
        t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
        vowel = 0.4 * np.sin(2 * np.pi * 300 * t) * (0.55 + 0.45 * np.sin(2 * np.pi * 4 * t))
        parts += [np.zeros(round(silence * SAMPLE_RATE)), vowel]
    write_wav(path, np.concatenate([*parts, np.zeros(90 * SAMPLE_RATE)]).astype(np.float32))  # it is played in a loop
    return path


async def converse(page: Page, agent: AgentServer, heard: list[int]) -> None:
    await page.wait("window.avatarState && window.avatarState.door", 40)
    await page.act(["click", "#talk"])
    await page.wait("window.avatarState.states.includes('interrupted')", 40)
    with contextlib.suppress(RuntimeError):  # what came instead is shown by what follows
        await page.wait("window.avatarState.segments.some((one) => one.type === 'segment.done')", 40)
    states = await page.run("window.avatarState.states")
    turn = ["listening", "thinking", "speaking"]
    assert [one for one in states if one != "idle"] == [*turn, "interrupted", *turn]
    log = await page.run(HEARD)
    assert [one.split("\n")[0] for one in log] == ["You", "Avatar, interrupted", "You", "Avatar"]
    assert agent.transcript in log[0] and len(agent.seconds) == 2
    assert all(abs(seconds - 2.1) < 0.5 for seconds in agent.seconds), "the turn, and the pause that ends it"
    before = agent.asked[1]["messages"][-2]
    assert before["role"] == "assistant" and before["content"] != "".join(agent.answer).strip()
    assert sum(heard) > 3 * SAMPLE_RATE, "the avatar listens, and nods"
    assert not [words for words in await page.words() if words.startswith("error")]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_recorded_microphone_asks_interrupts_and_asks_again(tmp_path: Path):
    tools, flag = found_tools(), f"--use-file-for-fake-audio-capture={microphone(tmp_path / 'microphone.wav')}"

    async def run() -> None:
        async with AgentServer().running() as agent:
            agent.answer = ["A long answer goes on and on and on and on. ", "It takes its time to be said. "] * 3
            settings = AgentSettings(url=agent.url, model="m", transcriber="t")
            async with served(tmp_path, agent=settings) as client:
                async with Browser(tools) as browser, browser.started(flag) as started:
                    async with browser.page(started, str(client.make_url("/"))) as page:
                        await until(lambda: client.hub.guests)
                        heard = count_heard(client)
                        await answer_shortly(agent, page, heard)

    async def answer_shortly(agent: AgentServer, page: Page, heard: list[int]) -> None:
        async def later() -> None:
            while not agent.asked:  # however long the browser takes
                await asyncio.sleep(0.05)
            agent.answer = ["Yes. "]  # to the second turn

        task = asyncio.create_task(later())
        await converse(page, agent, heard)
        await task

    asyncio.run(run())


def count_heard(client: Any) -> list[int]:
    """Counts the samples that the session hears."""
    session = next(iter(client.hub.guests.values())).listener.session
    heard: list[int] = []
    hear = session.hear

    def counted(samples: np.ndarray) -> None:
        heard.append(len(samples))
        hear(samples)

    session.hear = counted
    return heard
