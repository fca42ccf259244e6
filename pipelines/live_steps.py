"""The steps of `python -m pipelines.live_check` that look at one page in a browser."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from pipelines import live_numbers as numbers
from pipelines.live_browser import Browser, Feeder, Page, Server, busy_processes, serving
from pipelines.live_watch import GONE, POLL_SECONDS, Watch, watching

DOORS = {"webrtc": "WebRTC", "websocket": "WebSocket"}
INTERRUPTED_MS = 1500.0  # in which an interruption has to show
# Waits in the page until it is loud, presses Escape, and says when.
INTERRUPT = """new Promise((done) => {
  const timer = setInterval(() => {
    const last = window.liveProbe.levels.at(-1);
    if (!last || last[1] < -35) return;
    clearInterval(timer);
    const at = performance.timeOrigin + performance.now();
    document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
    done(at);
  }, 5);
})"""
LOADED = """(() => {
  const [page] = performance.getEntriesByType("navigation");
  const first = window.liveProbe.images[0];
  return first && { at: first[1] - performance.timeOrigin, load: page.loadEventEnd };
})()"""


@dataclass(kw_only=True)
class Bench:
    """What the steps share.

    Attributes:
        run: RUN folder of the avatar.
        options: Of `avatar serve`.
        speech: float32 16 kHz mono, said again and again.
        wav: The same as a file.
        browser: Drives browsers.
        folder: Gets photographs, logs and videos.
        seconds: Of talk in each measurement.
        minutes: Of the step ``hour``.
        times: Loads of the page, and interruptions.
        talks: Sessions of a step that talks.
        rivals: Busy processes of the step ``loaded``.
        most_sessions: Sessions at once that are tried.
        stack: Ends the server that steps share.
    """

    run: Path
    options: tuple[str, ...]
    speech: np.ndarray
    wav: Path
    browser: Browser
    folder: Path
    seconds: float
    minutes: float
    times: int
    most_sessions: int
    talks: int = 1
    rivals: int = 10
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _shared: Server | None = field(default=None, init=False)

    @asynccontextmanager
    async def server(self) -> AsyncGenerator[Server]:
        """The server that steps share; it is started where there is none, or none any more."""
        if self._shared is None or self._shared.process.poll() is not None:
            await self.stack.aclose()
            starting = serving(self.run, self.folder / "server.log", *self.options)
            self._shared = await self.stack.enter_async_context(starting)
        yield self._shared

    @asynccontextmanager
    async def page(self, door: str, *flags: str, **options: Any) -> AsyncGenerator[tuple[Server, Page]]:
        """A server, and a page that shows its avatar."""
        async with self.server() as server, self.browser.started(*flags) as browser:
            async with self.browser.page(browser, server.page(door), **options) as page:
                got = await page.connected()
                if door and got != DOORS[door]:
                    raise RuntimeError(f"The page came in by {got}.")
                await page.listen()
                yield server, page


@contextmanager
def cores(server: Server, found: dict[str, Any], name: str) -> Generator[None]:
    """Note how many cores the server uses meanwhile."""
    began, used = time.monotonic(), server.processor_seconds()
    yield
    found[name] = round((server.processor_seconds() - used) / (time.monotonic() - began), 3)


# --- the steps ------------------------------------------------------------------------------------------------------


async def first_image(bench: Bench) -> dict[str, Any]:
    """Page loaded to first image, by both doors."""
    found: dict[str, Any] = {}
    async with bench.server() as server, bench.browser.started() as browser:
        for door in DOORS:
            times: list[dict[str, float]] = []
            for _ in range(bench.times):
                async with bench.browser.page(browser, server.page(door)) as page:
                    await page.wait("window.liveProbe.images.length > 0", 60)
                    times.append(await page.run(LOADED))
                    if len(times) == 1:
                        await page.shot(bench.folder / f"first-{door}.png")
                await asyncio.sleep(0.5)
            found[door] = {
                "from_load_event_ms": numbers.summary([one["at"] - one["load"] for one in times]),
                "from_navigation_ms": numbers.summary([one["at"] for one in times]),
            }
    return found


async def talk(bench: Bench, door: str) -> dict[str, Any]:
    """Latency, lips against sound, frames per second and freezes while the avatar talks, in one session or several."""
    sessions: list[dict[str, Any]] = []
    spans: list[list[numbers.Span]] = []
    for _ in range(bench.talks):
        found, these = await _talk(bench, door)
        sessions.append(found)
        spans.append(these)
    return together(sessions, spans)


async def loaded(bench: Bench) -> dict[str, Any]:
    """The same beside busy processes of the same priority, by both doors."""
    found: dict[str, Any] = {"rivals": bench.rivals}
    for door in DOORS:
        async with bench.server():  # it begins before the others do
            with busy_processes(bench.rivals):
                one, spans = await _talk(bench, door)
        found[door] = together([one], [spans])
    return found


async def _talk(bench: Bench, door: str) -> tuple[dict[str, Any], list[numbers.Span]]:
    """What one session measured, and the latencies of its pieces."""
    found: dict[str, Any] = {"door": door, "seconds": bench.seconds}
    async with bench.page(door) as (server, page), watching(server, page) as watch:
        with cores(server, found, "idle_cores"):
            await asyncio.sleep(min(8.0, bench.seconds / 2))
        watch.forget()
        before = (await page.run("window.liveProbe.stats()")) or {}
        feeder = Feeder(server, page.session, bench.speech)
        with cores(server, found, "talking_cores"):
            await feeder.run(bench.seconds)
        await asyncio.sleep(3)
        await page.shot(bench.folder / f"talk-{door}.png")
        await asyncio.sleep(POLL_SECONDS)
    spans = numbers.latencies(watch.shown, feeder.sent, feeder.pieces, watch.until)
    return found | described(watch, feeder, before, door, spans), spans


def together(sessions: list[dict[str, Any]], spans: list[list[numbers.Span]]) -> dict[str, Any]:
    """Several sessions as one: latencies of all pieces, of lips and frames the worst, sums of faults."""
    worst = {
        name: numbers.worst_lips([one.get(name) or {} for one in sessions])
        for name in ("lips_ms", "lips_by_stamps_ms") if any(name in one for one in sessions)
    }  # fmt: skip
    sums = {name: sum(one[name] for one in sessions) for name in FAULTS if all(name in one for one in sessions)}
    latency = numbers.latency_summary([span for these in spans for span in these])
    between = numbers.intervals([[span.ms for span in these] for these in spans])
    if latency is not None and between:
        latency |= {"interval_95": between}
    found: dict[str, Any] = sessions[0] | worst | sums | {"latency_ms": latency}
    found["frames_per_second"] = min(one["frames_per_second"] for one in sessions)
    found["longest_gap_ms"] = max(one["longest_gap_ms"] for one in sessions)
    found["sessions_without_image"] = sum(not one["images_shown"] for one in sessions)
    if len(sessions) > 1:
        found["latency_p50_of_sessions_ms"] = [(one["latency_ms"] or {}).get("p50") for one in sessions]
        found["sessions"] = sessions
    return found


FAULTS = (
    "chunks", "chunks_left_out", "chunks_never_shown", "images_shown", "images_unread", "gaps_over_200_ms", "freezes",
    "underruns", "skipped", "freezeCount", "framesDropped", "packetsLost", "concealedSamples", "concealmentEvents",
)  # fmt: skip


def described(
    watch: Watch, feeder: Feeder, before: dict[str, Any], door: str, spans: list[numbers.Span]
) -> dict[str, Any]:
    """Numbers of a talk."""
    begin, end = feeder.sent[0], feeder.sent[-1]
    times = [at for at, _ in watch.shown]
    drawn = sorted((row[4], row) for row in watch.rows)
    found: dict[str, Any] = {
        "latency_ms": numbers.latency_summary(spans),
        "of_it_until_drawn_ms": numbers.latency_summary(
            numbers.latencies(drawn, feeder.sent, feeder.pieces, watch.until)
        ),
        "chunks": len(feeder.sent), "chunks_left_out": len(feeder.sent) - len(spans),
        "chunks_never_shown": sum(not span.shown for span in spans),
        "images_shown": sum(begin <= at < end for at in times), "images_unread": watch.unread,
        **numbers.rates(times, begin, end),
    }  # fmt: skip
    last = watch.reports[-1] if watch.reports else {}
    if door == "webrtc":
        found["lips_ms"] = of_offsets(numbers.playout_offsets(watch.reports))
        found["lips_by_stamps_ms"] = of_offsets(numbers.stamp_offsets(watch.sync, watch.shown, watch.first_audio))
        for kind, names in COUNTED.items():
            for name in names:
                found[name] = (last.get(kind) or {}).get(name, 0) - (before.get(kind) or {}).get(name, 0)
        found["buffers_ms"] = {kind: held(before.get(kind) or {}, last.get(kind) or {}) for kind in COUNTED}
    else:
        pages = [one["page"] for one in watch.reports if one.get("page")]
        means = [1000 * one["audioDelay"] for one in pages if one.get("audioDelay") is not None]
        worst = [1000 * one["worstDelay"] for one in pages if one.get("worstDelay") is not None]
        found["lips_ms"] = of_offsets(means) | ({"worst": round(max(worst), 1)} if worst else {})
        page = pages[-1] if pages else {}
        early = before.get("page") or {}
        found |= {name: page.get(name, 0) - early.get(name, 0) for name in ("freezes", "underruns", "skipped")}
        for name in ("buffer", "spare", "output"):
            found[f"audio_{name}_ms"] = [round(1000 * one.get(name, 0), 1) for one in (early, page)]
    return found


COUNTED = {
    "video": ("freezeCount", "totalFreezesDuration", "framesDropped", "packetsLost", "framesDecoded"),
    "audio": ("concealedSamples", "silentConcealedSamples", "concealmentEvents", "totalSamplesReceived",
              "insertedSamplesForDeceleration", "removedSamplesForAcceleration"),
}  # fmt: skip


def held(before: dict[str, Any], after: dict[str, Any]) -> float:
    """Milliseconds that the browser's jitter buffer held what came out of it."""
    count = after.get("jitterBufferEmittedCount", 0) - before.get("jitterBufferEmittedCount", 0)
    seconds = after.get("jitterBufferDelay", 0) - before.get("jitterBufferDelay", 0)
    return round(1000 * seconds / count, 1) if count else 0.0


def of_offsets(values: list[float]) -> dict[str, float]:
    """Mean, mean of the sizes, and worst of offsets."""
    if not values:
        return {}
    sizes = np.abs(values)
    return {
        "mean": round(float(np.mean(values)), 1), "mean_size": round(float(sizes.mean()), 1),
        "p95_size": round(float(np.quantile(sizes, 0.95)), 1), "worst": round(float(sizes.max()), 1),
        "count": len(values),
    }  # fmt: skip


async def say_file(server: Server, page: Page, wav: Path) -> None:
    """Let the avatar say an audio file."""
    async with aiohttp.ClientSession() as client:
        address = f"{server.url}/api/sessions/{page.session}/audio"
        async with client.post(address, data=wav.read_bytes(), params={"access_token": server.token}) as answer:
            if answer.status != 200:
                raise RuntimeError(await answer.text())


async def interruption(bench: Bench) -> dict[str, Any]:
    """Interruption to silence and to a closed mouth, by both doors."""
    found: dict[str, Any] = {}
    for door in DOORS:
        silent: list[float | None] = []
        closed: list[numbers.Closing | None] = []
        async with bench.page(door) as (server, page), watching(server, page) as watch:
            await asyncio.sleep(2 * POLL_SECONDS)
            rest = float(np.median([row[5] for row in watch.rows[-20:]]))
            for n in range(bench.times):
                watch.forget()
                await say_file(server, page, bench.wav)
                await asyncio.sleep(1.2 + 0.37 * (n % 5))
                at = await asyncio.wait_for(page.run(INTERRUPT), 20)
                await asyncio.sleep(INTERRUPTED_MS / 1000 + POLL_SECONDS)
                at -= watch.reports[-1]["ahead"] - 0.5
                until = min(at + INTERRUPTED_MS, watch.until)  # a mouth that was not looked at is not open
                silent.append(numbers.silence_after(watch.levels, at, until))
                closed.append(numbers.closed_after(watch.shown, at, rest, until))
        found[door] = numbers.interruptions(silent, closed)
    return found


async def busy(bench: Bench) -> dict[str, Any]:
    """Both cores taken away for 20 s: is sound interrupted, and what is the latency before, meanwhile, and after."""
    found: dict[str, Any] = {}
    for door in DOORS:
        async with bench.page(door) as (server, page), watching(server, page) as watch:
            await asyncio.sleep(3)
            feeder = Feeder(server, page.session, bench.speech)
            feeding = asyncio.create_task(feeder.run(45))
            await asyncio.sleep(10)
            begin, before = 1000 * time.time(), await page.run("window.liveProbe.stats()")
            with busy_processes():
                await asyncio.sleep(20)
            end, after = 1000 * time.time(), await page.run("window.liveProbe.stats()")
            await feeding
            await asyncio.sleep(1.5 + POLL_SECONDS)
        spans = numbers.latencies(watch.shown, feeder.sent, feeder.pieces, watch.until)
        times = [at for at, _ in watch.shown]
        part: dict[str, Any] = {"chunks_left_out": len(feeder.sent) - len(spans)}
        for name, low, high in (("before", 0, begin), ("meanwhile", begin, end), ("from_5_s_after", end + 5000, 1e15)):
            part[f"latency_{name}_ms"] = numbers.latency_summary([one for one in spans if low <= one.sent < high])
            rates = numbers.rates(times, max(low, feeder.sent[0]), min(high, feeder.sent[-1]))
            part[f"frames_per_second_{name}"] = rates["frames_per_second"]
        if door == "webrtc":
            for name in ("concealedSamples", "silentConcealedSamples", "concealmentEvents", "totalSamplesReceived"):
                part[name] = (after.get("audio") or {}).get(name, 0) - (before.get("audio") or {}).get(name, 0)
        else:
            part["underruns"] = ((after.get("page") or {}).get("underruns", 0)) - (
                (before.get("page") or {}).get("underruns", 0)
            )
        found[door] = part
    return found


async def hour(bench: Bench) -> dict[str, Any]:
    """Memory of the server and drift of lips against sound while it talks and idles in turns."""
    found: dict[str, Any] = {"minutes": bench.minutes}
    offsets: list[tuple[float, float]] = []
    began, memory, fps = time.monotonic(), list[tuple[float, int]](), 0.0
    try:
        async with bench.page("webrtc") as (server, page), watching(server, page) as watch:
            began, memory = time.monotonic(), watch.memory
            fps = float(await page.run("window.avatarState.hello.fps"))
            with cores(server, found, "cores"):
                while time.monotonic() - began < 60 * bench.minutes:
                    watch.forget()
                    await Feeder(server, page.session, bench.speech).run(min(40.0, 30 * bench.minutes))
                    part = numbers.stamp_offsets(watch.sync, watch.shown, watch.first_audio)
                    if part:
                        offsets.append((time.monotonic() - began, float(np.median(part))))
                    await asyncio.sleep(20)
    except GONE as error:  # what was measured until then counts
        found["ended"] = f"{type(error).__name__}: {error}"[-500:]
    found["measured_minutes"] = round((time.monotonic() - began) / 60, 1)
    settled = [(at - began, value) for at, value in memory if at - began > 0.2 * 60 * bench.minutes]
    return found | numbers.memory_slope(settled) | numbers.drift(offsets, fps)


async def no_udp(bench: Bench) -> dict[str, Any]:
    """A browser that may use relays only, where there is none: the page comes in by the WebSocket without being told.

    Chromium's policy ``disable_non_proxied_udp`` does not do: between two programs of one machine it lets UDP through.
    """
    async with bench.server() as server, bench.browser.started() as browser:
        async with bench.browser.page(browser, server.page(), noUdp=True) as page:
            with suppress(RuntimeError):  # it is seen for a moment only
                await page.wait("document.getElementById('waiting').innerText.includes('WebSocket')", 30)
                await page.shot(bench.folder / "no-udp-waiting.png")
            door = await page.connected()
            loaded = await page.run("window.avatarState.firstImageMs")
            await asyncio.sleep(2)
            await page.shot(bench.folder / "no-udp.png")
            words = await page.words()
    return {"door": door, "first_image_ms": round(loaded), "words_of_the_page": words}
