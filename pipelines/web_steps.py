"""The steps of `python -m pipelines.web_check`: what a page of a web folder shows, says, and costs."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from avatar.infer.avatar import Avatar
from avatar.io.audio import SAMPLE_RATE, load_audio
from avatar.motion import Motion
from avatar.motion.face_channels import opening_change, relative_opening
from pipelines.live_browser import HERE, Browser, Page

GRAPHICS = ("--enable-unsafe-swiftshader", "--use-angle=swiftshader")  # in software, the same on every machine
RENDERERS = ("webgl", "cpu")
SHARES = ((0.0, 0.0), (0.7, 0.0), (-0.5, 0.5))  # cameras: shares of the view limits, before they slow down
READ_SECONDS = 20  # of audio that is compared
SPARE_SECONDS = 300.0  # that a busy machine may need
MOST_LAG = SAMPLE_RATE // 4  # samples


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all steps work with.

    Attributes:
        avatar: The avatar.
        motion: What it does in the clip.
        audio: The file that is spoken.
        clip: Name of the clip.
        folder: The web folder.
        shots: Where images go.
    """

    avatar: Avatar
    motion: Motion
    audio: Path
    clip: str
    folder: Path
    shots: Path

    def truth(self, frame: int, view: tuple[float, float]) -> np.ndarray:
        """What `avatar render` shows of a frame, uint8 RGB."""
        camera = self.avatar.view_camera
        behind = self.avatar.view_background(camera)
        turned = camera.orbit(self.avatar.pivot, *view)
        return self.avatar.render(
            turned, self.motion, frame, None if behind is None else torch.from_numpy(behind)
        ).numpy()

    @property
    def views(self) -> list[tuple[float, float]]:
        """The cameras, degrees."""
        limits = self.avatar.cone.limits()
        return [
            (x * (limits.right if x > 0 else limits.left), y * (limits.up if y > 0 else limits.down)) for x, y in SHARES
        ]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None: ...


@contextmanager
def served(folder: Path) -> Generator[str]:
    """A plain web server for a folder; gives its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@asynccontextmanager
async def opened(browser: Browser, chromium: str, url: str, size: tuple[int, int]) -> AsyncGenerator[Page]:
    """A page of a web folder that shows its avatar."""
    async with browser.page(chromium, f"{url}index.html", width=size[0], height=size[1]) as page:
        await page.wait("document.querySelector('avatar-player')?.engine?.frame >= 0")
        await page.run((HERE / "web_probe.js").read_text())
        yield page


async def shot(page: Page, path: Path, size: tuple[int, int]) -> np.ndarray:
    """The corner of a page as uint8 RGB, of a size (width, height)."""
    await page.shot(path)
    image = cv2.imread(str(path))
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)[: size[1], : size[0]]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR of two images, dB."""
    return float(10 * np.log10(255**2 / max(float(np.square(a.astype(float) - b).mean()), 1e-9)))


async def images(bench: Bench, page: Page, count: int) -> dict[str, Any]:
    """Compare screenshots with what `avatar render` shows, from all cameras, drawn by WebGL and without it."""
    return {renderer: await images_by(renderer, bench, page, count) for renderer in RENDERERS}


async def images_by(renderer: str, bench: Bench, page: Page, count: int) -> dict[str, Any]:
    """Compare screenshots of one way of drawing."""
    camera = bench.avatar.view_camera
    size = (camera.width, camera.height)
    await page.run(f"webCheck.open({size[0]}, {bench.clip!r}, {renderer!r})")
    found: list[list[float]] = []
    for view in bench.views:
        row: list[float] = []
        for frame in np.linspace(0, len(bench.motion) - 1, count).astype(int).tolist():
            answer = await page.run(f"webCheck.show({frame}, {view[0]}, {view[1]})")
            assert answer["frame"] == frame and np.allclose(answer["view"], view, atol=1e-6), answer
            name = bench.shots / f"{renderer}_{frame:05d}_{view[0]:.0f}_{view[1]:.0f}.png"
            image, exact = await shot(page, name, size), bench.truth(frame, view)
            cv2.imwrite(str(name), cv2.cvtColor(np.concatenate([exact, image], 1), cv2.COLOR_RGB2BGR))
            row.append(psnr(exact, image))
        found.append(row)
    values = np.array(found)
    return {"frames": count, "views": [[round(x, 1) for x in view] for view in bench.views],
            "mean": round(float(values.mean()), 2), "worst": round(float(values.min()), 2),
            "mean_of_view": values.mean(1).round(2).tolist()}  # fmt: skip


async def lips(bench: Bench, page: Page, count: int) -> dict[str, Any]:
    """Track the opening of the mouth in screenshots of frames in a row, and correlate it with the motion's."""
    from avatar.preprocess.face_tracker import FaceTracker

    camera = bench.avatar.view_camera
    size = (camera.width, camera.height)
    await page.run(f"webCheck.open({size[0]}, {bench.clip!r})")
    opening = opening_change(bench.motion.face).numpy()
    start = int(np.argmax(np.convolve(np.abs(np.diff(opening)), np.ones(count), "valid")))  # where it talks most
    shown: list[float] = []
    drawn: list[float] = []
    with FaceTracker() as tracker:
        for frame in range(start, start + count):
            await page.run(f"webCheck.show({frame}, 0, 0)")
            for images_of, image in (
                (shown, await shot(page, bench.shots / "lips.png", size)), (drawn, bench.truth(frame, (0, 0)))
            ):  # fmt: skip
                images_of.append(float(relative_opening(tracker.track(image)[0][None])[0]))
    said = opening[start : start + count]

    def agree(a: Any, b: Any) -> float:
        known = np.isfinite(a) & np.isfinite(b)
        return round(float(np.corrcoef(np.asarray(a)[known], np.asarray(b)[known])[0, 1]), 4)

    return {"frames": count, "first": start, "tracked": int(np.isfinite(shown).sum()),
            "page_to_motion": agree(shown, said), "render_to_motion": agree(drawn, said),
            "page_to_render": agree(shown, drawn)}  # fmt: skip


async def clock(bench: Bench, page: Page, seconds: float) -> dict[str, Any]:
    """Play, and see whether images stay with the audio, and whether files of audio begin where they should."""
    await page.run(f"webCheck.open(256, {bench.clip!r})")
    fps = bench.motion.fps
    rows = np.array(await page.run(f"webCheck.play({seconds})", seconds + SPARE_SECONDS))
    # Whether the image is the audio's when it is chosen; how long drawing takes on a busy machine is no drift.
    chosen = rows[:, 1] * fps - (rows[:, 2] + 0.5)
    edge = min(10.0, seconds / 4)
    early, late = chosen[rows[:, 0] < edge], chosen[rows[:, 0] > rows[-1, 0] - edge]
    lags: dict[str, float] = {}
    exact = load_audio(bench.audio)[: READ_SECONDS * SAMPLE_RATE]
    for suffix in ("opus", "m4a"):
        if (bench.folder / f"clips/{bench.clip}.{suffix}").is_file():
            answer = await page.run(f"webCheck.audio('clips/{bench.clip}.{suffix}', {READ_SECONDS})")
            lags[suffix] = round(1000 * lag(exact, np.array(answer["samples"]) / 32767) / SAMPLE_RATE, 2)
    return {
        "seconds": round(float(rows[-1, 0]), 2), "audio_seconds": round(float(rows[-1, 1]), 2), "images": len(rows),
        "most_frames_off": round(float(np.abs(chosen).max()), 3),
        "drift_frames": round(float(late.mean() - early.mean()), 3),
        "drawing_ms": round(1000 * float(rows[:, 3].mean()), 1), "audio_lag_ms": lags,
    }  # fmt: skip


def lag(exact: np.ndarray, other: np.ndarray) -> int:
    """Samples by which one recording is later than the same in another."""
    count = min(len(exact), len(other))
    size = 2 * count
    spectrum = np.fft.rfft(other[:count], size) * np.conj(np.fft.rfft(exact[:count], size))
    product = np.fft.irfft(spectrum, size)
    return int(np.argmax(np.concatenate([product[-MOST_LAG:], product[: MOST_LAG + 1]]))) - MOST_LAG


async def speed(bench: Bench, page: Page, browser: Browser, frames: int) -> dict[str, Any]:
    """Draw as fast as it goes, and count the processor time of the whole browser."""
    found: dict[str, Any] = {}
    for (size, share), renderer in itertools.product(((512, 1.0), (384, 0.5)), RENDERERS):
        about = await page.run(f"webCheck.open({size}, {bench.clip!r}, {renderer!r})")
        await page.run(f"webCheck.speed(3, {share})")
        before = processor_seconds(browser.pid)
        answer = await page.run(f"webCheck.speed({frames}, {share})", SPARE_SECONDS)
        spent = processor_seconds(browser.pid) - before
        found[f"{renderer} {size}"] = {
            "gaussians": round(about["gaussians"] * share), "processor_ms": round(1000 * spent / frames, 1),
            "script_ms": round(answer["script"], 1), "frames_per_second": round(1000 / answer["milliseconds"], 2),
            "load": round(os.getloadavg()[0], 1),
        }  # fmt: skip
    return found


def processor_seconds(root: int) -> float:
    """Processor time so far of a process and all that it started, seconds."""
    parents: dict[int, int] = {}
    times: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        parents[int(path.parent.name)] = int(fields[1])
        times[int(path.parent.name)] = int(fields[11]) + int(fields[12])
    total = 0
    for process in times:
        above = process
        while above not in (root, 0) and above in parents:
            above = parents[above]
        total += times[process] if above == root else 0
    return total / os.sysconf("SC_CLK_TCK")
