"""What `python -m pipelines.live_check` works with: a server, a browser, and audio that comes in pieces."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE

CHUNK = SAMPLE_RATE // 50  # samples of a piece: 20 ms
START_SECONDS = 180.0  # in which a server has to answer
ANSWER_SECONDS = 60.0  # in which the browser has to answer
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
HERE = Path(__file__).parent
FLAGS = (
    "--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream", "--disable-features=WebRtcHideLocalIpsWithMdns",
    # A window that is not seen must not be slowed down.
    "--disable-background-timer-throttling", "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
)  # fmt: skip


class Tools:
    """The programs that drive a browser.

    Args:
        chromium: The browser; None: the first one that is found.
        playwright: Folder of playwright-core; None: as node finds it from the working directory.

    Raises:
        AvatarError: One of them is missing.
    """

    def __init__(self, chromium: Path | None, playwright: Path | None) -> None:
        node = shutil.which("node")
        if node is None:
            raise AvatarError("There is no node to drive a browser with.", fix="Install Node.js 18 or newer.")
        found = str(chromium) if chromium else next(filter(None, map(shutil.which, BROWSERS)), "")
        if not found or not Path(found).exists():
            raise AvatarError(f"There is no Chromium {found}.".replace(" .", "."), fix="Give its path with --chromium.")
        self.node, self.chromium = node, found
        self.playwright = str(playwright.resolve()) if playwright else str(Path.cwd() / "node_modules/playwright-core")
        if not Path(self.playwright, "package.json").exists():
            raise AvatarError(
                f"playwright-core is not in {self.playwright}.",
                fix="Run `npm install playwright-core` and give its folder with --playwright.",
            )


class Browser:
    """A browser that is driven through a child process."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._process: asyncio.subprocess.Process | None = None
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._reader: asyncio.Task[None] | None = None
        self.version = ""

    async def __aenter__(self) -> Browser:
        self._process = await asyncio.create_subprocess_exec(
            self._tools.node, str(HERE / "live_driver.js"), self._tools.playwright, self._tools.chromium,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 28, start_new_session=True,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None and self._process.stdin is not None and self._reader is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 15)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    @property
    def pid(self) -> int:
        """Number of the process that drives it."""
        assert self._process is not None
        return self._process.pid

    async def ask(self, command: str, seconds: float = ANSWER_SECONDS, **options: Any) -> Any:
        """Let the driver do something.

        Raises:
            RuntimeError: It could not.
        """
        assert self._process is not None and self._process.stdin is not None
        number = next(self._numbers)
        self._waiting[number] = answer = asyncio.get_running_loop().create_future()
        self._process.stdin.write((json.dumps(options | {"id": number, "command": command}) + "\n").encode())
        try:
            return await asyncio.wait_for(answer, seconds)
        finally:
            self._waiting.pop(number, None)

    @asynccontextmanager
    async def started(self, *flags: str) -> AsyncGenerator[str]:
        """A browser of its own, with more flags."""
        found = await self.ask("launch", args=[*FLAGS, *flags])
        self.version = found["version"]
        try:
            yield found["id"]
        finally:
            with suppress(RuntimeError, asyncio.TimeoutError):
                await self.ask("quit", browser=found["id"])

    @asynccontextmanager
    async def page(self, browser: str, url: str, **options: Any) -> AsyncGenerator[Page]:
        """A page that is loaded; it is closed at the end."""
        found = await self.ask("open", browser=browser, url=url, **options)
        try:
            yield Page(self, found["id"])
        finally:
            with suppress(RuntimeError, asyncio.TimeoutError):
                await self.ask("close", page=found["id"])

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        async for line in self._process.stdout:
            content = json.loads(line)
            future = self._waiting.get(content["id"])
            if future is None or future.done():
                continue
            if "error" in content:
                future.set_exception(RuntimeError(content["error"]))
            else:
                future.set_result(content.get("result"))  # nothing came back: it has none
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(RuntimeError("The driver of the browser ended."))


class Page:
    """A page in a browser."""

    def __init__(self, browser: Browser, name: str) -> None:
        self._browser, self.name = browser, name
        self.session = ""

    async def run(self, code: str, seconds: float = ANSWER_SECONDS) -> Any:
        """The value of an expression in the page, which it has some seconds for."""
        return await self._browser.ask("eval", seconds, page=self.name, code=code)

    async def act(self, *steps: list[Any]) -> None:
        """Do what a person does: keys, clicks, texts."""
        await self._browser.ask("act", page=self.name, steps=list(steps))

    async def wait(self, code: str, seconds: float = 60.0) -> None:
        """Wait until an expression is true; the page's own rules forbid to let it poll a string.

        Raises:
            RuntimeError: It never is.
        """
        end = time.monotonic() + seconds
        while not await self.run(f"Boolean({code})"):
            if time.monotonic() > end:
                raise RuntimeError(f"This did not come true in {seconds:g} s: {code}")
            await asyncio.sleep(0.05)

    async def connected(self, seconds: float = 60.0) -> str:
        """Wait for the first image of any live service, and turn audio on; returns the door."""
        await self.wait("window.avatarState && window.avatarState.door && window.avatarState.hello", seconds)
        self.session = await self.run("window.avatarState.hello.session")
        await self.act(["key", "Shift"])  # a gesture, which lets audio play
        await self.wait("document.getElementById('listen').hidden", 20)
        return await self.run("window.avatarState.door")

    async def listen(self) -> None:
        """Measure what it plays, once it is connected; the service has to be one of `pipelines.live_server`.

        Raises:
            RuntimeError: It is another one, which has no worklet that measures.
        """
        await self.run("window.liveProbe.listen()")

    async def shot(self, file: Path) -> None:
        """Photograph it."""
        await self._browser.ask("shot", page=self.name, file=str(file))

    async def record(self, folder: Path) -> None:
        """Begin to film it."""
        await self._browser.ask("record", page=self.name, folder=str(folder))

    async def recorded(self) -> list[tuple[float, str]]:
        """Milliseconds and files of the images that were filmed."""
        return await self._browser.ask("recorded", page=self.name)

    async def words(self) -> list[str]:
        """Warnings and errors of the page since the last time."""
        return await self._browser.ask("words", page=self.name)


class Server:
    """A server that runs in a process of its own."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path, token: str) -> None:
        self.process, self.port, self.log, self.token = process, port, log, token

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def page(self, door: str = "") -> str:
        """Address of the page."""
        return f"{self.url}/" + (f"?door={door}" if door else "") + (f"#token={self.token}" if self.token else "")

    def memory(self) -> int:
        """Resident bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return 1024 * int(line.split()[1])
        return 0

    def processor_seconds(self) -> float:
        """Processor time so far, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


@asynccontextmanager
async def serving(
    run: Path, log: Path, *options: str, token: str = "", program: Sequence[str] = ("pipelines.live_server",)
) -> AsyncGenerator[Server]:
    """A server that answers: by default the one of marked images, else another module and its arguments.

    Raises:
        RuntimeError: It does not.
    """
    port = free_port()
    command = [sys.executable, "-m", *program, str(run), "--port", str(port), *options]
    with log.open("wb") as file:
        # Linux shares the cores between sessions first: server and browser are two, as where people start them.
        process = subprocess.Popen(
            command + (["--token", token] if token else []), stdout=file, stderr=file, start_new_session=True
        )
    server = Server(process, port, log, token)
    try:
        await _answering(server)
        yield server
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _answering(server: Server) -> None:
    end = time.monotonic() + START_SECONDS
    async with aiohttp.ClientSession() as client:
        while time.monotonic() < end and server.process.poll() is None:
            with suppress(aiohttp.ClientError):
                async with client.get(f"{server.url}/healthz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.2)
    raise RuntimeError(f"The server did not start: {server.log.read_text()[-500:]}")


class Feeder:
    """Says audio through the server in pieces of 20 ms, each when it would be heard by a microphone.

    Attributes:
        sent: Milliseconds since 1970 at which each piece was handed to the socket: the end of its 20 ms.
        pieces: What became of each, as `pipelines.live_server.Piece`.
    """

    def __init__(self, server: Server, session: str, samples: np.ndarray) -> None:
        self._server, self._session, self._samples = server, session, samples
        self.sent: list[float] = []
        self.pieces: list[list[int]] = []

    async def run(self, seconds: float) -> None:
        """Send the audio, again from the begin where it is over.

        Raises:
            RuntimeError: The session ended meanwhile.
        """
        pieces = np.rint(self._samples * 32767).astype("<i2")
        pieces = pieces[: len(pieces) // CHUNK * CHUNK].reshape(-1, CHUNK)
        address = f"{self._server.url}/live-check/feed/{self._session}"
        async with aiohttp.ClientSession() as client:
            async with client.ws_connect(address, params={"access_token": self._server.token}) as socket:
                await socket.receive_json()  # it listens now
                start = time.monotonic()
                for n in range(round(50 * seconds)):
                    await asyncio.sleep(max(0.0, start + (n + 1) / 50 - time.monotonic()))
                    self.sent.append(1000 * time.time())
                    await socket.send_bytes(pieces[n % len(pieces)].tobytes())
                await socket.send_str("pieces")
                answer = await socket.receive()
                if answer.type is not aiohttp.WSMsgType.TEXT:
                    raise RuntimeError("The session ended while the avatar talked.")
                self.pieces = answer.json()["pieces"]


@contextmanager
def busy_processes(count: int = os.cpu_count() or 1) -> Generator[None]:
    """Keep cores busy with processes of normal priority, each a session of its own; by default one per core."""
    command = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(command, start_new_session=True) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
