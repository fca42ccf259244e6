"""Who leaves keeps nothing, also while tracks are written, and a camera that is closed is measured no more."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="it is not installed")
pytest.importorskip("aiortc", reason="it is not installed")

from aiohttp import ClientTimeout
from aiohttp.test_utils import TestClient, TestServer

from avatar import writing
from avatar.errors import AvatarError
from avatar.record import app as page
from avatar.record import recordings
from avatar.record import session as module
from avatar.record.app import make_app
from avatar.record.session import RecordingSession
from avatar.serve.app import BODY_SECONDS, read_body
from avatar.serve.hub import Settings
from tests.browser import found_tools
from tests.serving import TOKEN
from tests.unit.test_record import HEADERS, a_take, session

PAGE = Path(module.__file__).with_name("page")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recordings of the tests do not lie among the user's."""
    monkeypatch.setattr(recordings, "cache_dir", lambda: tmp_path / "cache")


@pytest.fixture
def recorded(tmp_path: Path) -> RecordingSession:
    """A session with enough of a person who agreed."""
    one = session(tmp_path / "gift", lambda text: a_take(text, 40.0))
    one.agree("A Giver", True)
    one.record("first", b"film", ".webm")
    return one


def writes(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """Let the tracks be one small file, and something happen once it is written."""

    def write(folder: Path, *_: object) -> None:
        (folder / "001").write_text("a track")
        meanwhile()

    monkeypatch.setattr(module, "write_tracks", write)


def test_leaving_while_the_tracks_are_written_keeps_nothing(tmp_path, recorded, monkeypatch) -> None:
    def leave() -> None:
        thread = threading.Thread(target=recorded.decline)
        thread.start()
        thread.join(10)

    writes(monkeypatch, leave)
    with pytest.raises(AvatarError, match="without your consent"):
        recorded.finish()
    recorded.close()
    assert recorded.declined and recorded.result is None and list(tmp_path.iterdir()) == [tmp_path / "cache"]
    recorded.agree("A Giver", True)
    with pytest.raises(AvatarError, match="without your consent"):
        recorded.record("first", b"film", ".webm")


def test_leaving_while_the_folder_gets_its_name_removes_it(tmp_path, recorded, monkeypatch) -> None:
    put, leaving = writing._put, threading.Thread(target=recorded.decline)

    def name(new: Path, target: Path) -> None:
        leaving.start()
        leaving.join(0.3)
        put(new, target)

    writes(monkeypatch, lambda: None)
    monkeypatch.setattr(writing, "_put", name)
    recorded.finish()
    leaving.join(10)
    recorded.close()
    assert recorded.declined and recorded.result is None and not (tmp_path / "gift").exists()


def test_stopping_while_the_tracks_are_written_keeps_nothing(tmp_path, recorded, monkeypatch) -> None:
    writes(monkeypatch, recorded.close)
    with pytest.raises(AvatarError):
        recorded.finish()
    assert recorded.result is None and list(tmp_path.iterdir()) == [tmp_path / "cache"]


def test_the_program_ends_also_where_the_page_is_gone(tmp_path, recorded, monkeypatch) -> None:
    written, ended = threading.Event(), threading.Event()
    writes(monkeypatch, lambda: written.wait(10))

    async def run() -> None:
        app = make_app(recorded, Settings(token=TOKEN), end=ended.set)
        async with TestClient(TestServer(app)) as client:  # it cancels what nobody waits for, as the command does
            with pytest.raises(asyncio.TimeoutError):
                await client.post("/api/finish", headers=HEADERS, timeout=ClientTimeout(total=0.3))
            await asyncio.sleep(0.1)
            written.set()
            assert await asyncio.to_thread(ended.wait, 5)

    asyncio.run(run())
    assert recorded.result is not None and (tmp_path / "gift").is_dir()


def test_a_recording_has_time_to_come_through_a_forwarded_port(recorded, monkeypatch) -> None:
    given: list[float] = []

    async def read(request: Any, most: int, seconds: float = BODY_SECONDS) -> bytes:
        given.append(seconds)
        return await read_body(request, most, seconds)

    async def run() -> None:
        async with TestClient(TestServer(make_app(recorded, Settings(token=TOKEN), end=lambda: None))) as client:
            answer = await client.post("/api/takes/s1", data=b"film", headers=HEADERS | {"Content-Type": "video/webm"})
            assert answer.status == 202

    monkeypatch.setattr(page, "read_body", read)
    asyncio.run(run())
    two_minutes = 120 * 9e6 / 8  # bytes, as the page records them
    assert two_minutes / given[0] < 200e3  # a second, as a slow line takes them


WATCH = """
const contexts = [], timers = new Set();
globalThis.AudioContext = class {
  constructor() { this.state = "running"; contexts.push(this); }
  createAnalyser() { return { getFloatTimeDomainData() {} }; }
  createMediaStreamSource() { return { connect() {} }; }
  close() { this.state = "closed"; }
};
globalThis.setInterval = (work) => { timers.add(work); return work; };
globalThis.clearInterval = (work) => timers.delete(work);
const { watchLevel } = await import(process.argv[2]);
const first = watchLevel({}, () => {});
first();
watchLevel({}, () => {});
console.log(JSON.stringify([timers.size, contexts.map((one) => one.state)]));
"""


def test_a_microphone_is_measured_until_it_is_told_to_stop(tmp_path: Path) -> None:
    if (node := shutil.which("node")) is None:
        pytest.skip("there is no node")
    (tmp_path / "camera.mjs").write_text((PAGE / "camera.js").read_text())
    (tmp_path / "watch.mjs").write_text(WATCH)
    command = [node, str(tmp_path / "watch.mjs"), (tmp_path / "camera.mjs").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1, ["closed", "running"]]


COUNTED = """
window.contexts = [];
const Context = window.AudioContext;
window.AudioContext = class extends Context { constructor() { super(); window.contexts.push(this); } };
undefined
"""
TAKEN = "document.querySelector('#video').srcObject.getTracks()[0].dispatchEvent(new Event('ended')); undefined"


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_page_lets_go_of_a_closed_camera_and_of_tracks_nobody_gives(tmp_path, recorded, monkeypatch) -> None:
    from pipelines.live_browser import Browser, Page

    tools = found_tools()
    written = threading.Event()
    writes(monkeypatch, lambda: written.wait(20))

    async def use(page: Page) -> None:
        await page.wait("window.recordState?.().state", 40)
        await page.run(COUNTED)
        for opened in (1, 2):
            await page.act(["click", "#open"])
            await page.wait(f"window.contexts.length === {opened} && !document.querySelector('#record').disabled", 40)
            await page.run(TAKEN)
        await page.wait("window.contexts.every((one) => one.state === 'closed')", 10)
        await page.act(["click", "#finish"], ["click", "#finish"])  # the second leaves out the last text
        await page.wait("document.querySelector('#notices').innerText.includes('being written')", 20)
        await page.act(["click", "#leave"])
        await page.wait("document.querySelector('#notices').innerText.includes('Nothing is kept')", 20)
        written.set()
        await asyncio.sleep(1)
        shown = await page.run("document.querySelector('main').innerText")
        assert "Nothing is kept" in shown and "Thank you" not in shown and "without your consent" not in shown

    async def run() -> None:
        app: Any = make_app(recorded, Settings(token=TOKEN), end=lambda: None)
        async with TestClient(TestServer(app)) as client, Browser(tools) as browser, browser.started() as started:
            async with browser.page(started, f"{client.make_url('/')}#token={TOKEN}") as page:
                await use(page)

    asyncio.run(run())
    assert recorded.declined and not (tmp_path / "gift").exists()
