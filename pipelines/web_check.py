"""Measure a web folder in a real browser: images against `avatar render`, lips, the clock, processor time, speech.

    python -m pipelines.web_check --run runs/me --audio speech.wav --playwright node_modules/playwright-core

Needs Node.js, playwright-core and Chromium, which draws in software. The folders are exported first, in both sizes. The
record holds what was measured, and on what machine.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.export.base import ExportSource
from avatar.export.web.folder import clip_name
from avatar.export.write import export_avatar
from avatar.infer.avatar import Avatar
from avatar.infer.controls import Controls
from avatar.infer.planner import plan_motion
from avatar.infer.renderer import counts_text
from avatar.infer.sources import AudioFile
from avatar.motion import Motion
from avatar.paths import write_json
from pipelines import web_steps
from pipelines.live_browser import Browser, Page, Tools
from pipelines.web_speech import speech
from pipelines.web_steps import Bench

Step = Literal["images", "lips", "clock", "speed", "speech"]
STEPS: tuple[Step, ...] = ("images", "lips", "clock", "speed", "speech")
LEAST_PSNR = {"full": (40.0, 36.0), "compact": (36.0, 34.0)}  # dB, mean and worst
LEAST_LIPS, MOST_DRIFT, MOST_LAG_MS = 0.98, 1.0, 5.0
# Of speech in the page: centimetres, correlation, processor seconds per second of audio, seconds.
MOST_APART, LEAST_OPENING, MOST_WORK, MOST_LATE = 1e-3, 0.999, 0.5, 0.3
CORES = {"webgl": 2, "cpu": 1}  # that a way of drawing uses of two free ones
MOST_BYTES = {"full": 6e6, "compact": 3e6}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure, and where the record goes."""

    run: Path
    """RUN folder of the avatar."""
    audio: Path
    """What the avatar says."""
    sizes: tuple[Literal["full", "compact"], ...] = ("full", "compact")
    """Which folders to export and measure."""
    steps: tuple[Step, ...] = STEPS
    """Which steps to make."""
    frames: int = 24
    """Images from each camera."""
    talk: int = 100
    """Frames in a row whose lips are tracked."""
    seconds: float = 60.0
    """How long a clip is played."""
    turns: int = 20
    """Frames whose processor time is counted."""
    chromium: Path | None = None
    """The browser. Default: the first one that is found."""
    playwright: Path | None = None
    """Folder of playwright-core. Default: node_modules/playwright-core here."""
    exported: bool = False
    """Measure the folders that --out holds already."""
    out: Path | None = None
    """Folder for the web folders and for images, true ones left of the page's. Default: a temporary one."""
    json: Path | None = None
    """Write the record here."""


def planned(avatar: Avatar, audio: Path) -> Motion:
    """What the avatar does while it says something."""
    file = AudioFile(audio)
    plan = plan_motion(avatar, Controls(), frames=file.frames(avatar.fps))
    return Motion.cat(list(plan.stream(file)))


async def measure(config: Config, bench: Bench, tools: Tools, keep: Callable[[str, Any], None]) -> None:
    """Make the steps in one browser."""
    camera = bench.avatar.view_camera
    async with Browser(tools) as browser, browser.started(*web_steps.GRAPHICS) as chromium:
        keep("browser", f"Chromium {browser.version}, SwiftShader")
        with web_steps.served(bench.folder) as url:
            size = (max(512, camera.width), max(512, camera.height))
            async with web_steps.opened(browser, chromium, url, size) as page:
                steps: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
                    "images": lambda: web_steps.images(bench, page, config.frames),
                    "lips": lambda: web_steps.lips(bench, page, config.talk),
                    "clock": lambda: web_steps.clock(bench, page, config.seconds),
                    "speed": lambda: web_steps.speed(bench, page, browser, config.turns),
                }
                for name in config.steps:
                    if name != "speech":
                        keep(name, await steps[name]())
                await complaints(page)
        async with browser.page(chromium, (bench.folder / "index.html").as_uri()) as page:
            await page.wait("document.querySelector('avatar-player')?.engine?.frame >= 0")
            keep("from_disk", True)
            await complaints(page)
    if "speech" in config.steps:
        async with Browser(tools) as browser:
            keep("speech", await speech(bench, browser))


async def complaints(page: Page) -> None:
    """Refuse a page that warned or failed."""
    words = [word for word in await page.words() if "GPU stall due to ReadPixels" not in word]
    if words:
        raise AvatarError(f"The page complains: {'; '.join(words)[:500]}")


def rows_of(size: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked and what was measured of one folder."""
    mean, worst = LEAST_PSNR[size]
    rows = [("bytes of the folder", found["bytes"], MOST_BYTES[size], found["bytes"] <= MOST_BYTES[size])]
    for renderer, images in found.get("images", {}).items():
        rows += [(f"PSNR by {renderer}, mean", images["mean"], mean, images["mean"] >= mean),
                 (f"PSNR by {renderer}, worst", images["worst"], worst, images["worst"] >= worst)]  # fmt: skip
    if lips := found.get("lips"):
        value = lips["page_to_motion"]
        rows += [("opening of the lips, correlation", value, LEAST_LIPS, value >= LEAST_LIPS)]
    if clock := found.get("clock"):
        lag = max((abs(ms) for ms in clock["audio_lag_ms"].values()), default=0.0)
        off = max(clock["most_frames_off"], abs(clock["drift_frames"]))
        rows += [("image off its audio at most, and drift, frames", off, MOST_DRIFT, off < MOST_DRIFT),
                 ("lag of the audio files, ms", lag, MOST_LAG_MS, lag <= MOST_LAG_MS)]  # fmt: skip
    for where in ("http", "file"):
        if about := found.get("speech", {}).get(where):
            file, late = about["file"], about["microphone"].get("image_behind_audio_s", {}).get("median")
            apart, opening = file["lips_cm_apart"], file["opening_correlation"]
            work = file["processor_per_second"]
            rows += [
                (f"lips made in the page ({where}), cm from render's", apart, MOST_APART, apart < MOST_APART),
                (f"their opening ({where}), correlation", opening, LEAST_OPENING, opening > LEAST_OPENING),
                (f"processor seconds per second of audio ({where})", work, MOST_WORK, work < MOST_WORK),
                (
                    f"image behind the microphone ({where}), median seconds",
                    late,
                    MOST_LATE,
                    bool(late and late < MOST_LATE),
                ),
            ]
    for how, speed in found.get("speed", {}).items():
        renderer, width = how.split()
        asked, cores = {"512": 8.0, "384": 15.0}[width], CORES[renderer]
        could = round(1000 * cores / speed["processor_ms"], 1)
        rows += [(f"frames/s by {renderer} at {width}, {cores} free cores", could, asked, could >= asked)]
    return [{"what": f"{size}: {what}", "measured": value, "asked": asked, "kept": kept}
            for what, value, asked, kept in rows]  # fmt: skip


def folder_bytes(folder: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    if folder.is_file():
        return folder.stat().st_size
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main(config: Config) -> None:
    """Export, measure, print, and write the record."""
    if config.exported and config.out is None:
        raise AvatarError("--exported needs the folder of the web folders.", fix="Give --out.")
    tools = Tools(config.chromium, config.playwright)
    avatar = Avatar.load(config.run, device="cpu")
    motion = planned(avatar, config.audio)
    record: dict[str, Any] = environment() | {
        "avatar": config.run.name, "made_of": counts_text(avatar.info), "audio": config.audio.name,
        "clip_seconds": round(len(motion) / motion.fps, 2), "folders": {}, "table": [],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as temporary:
        for size in config.sizes:
            folder = (config.out or Path(temporary)) / size
            shots = folder.with_name(f"{size}-images")
            shots.mkdir(parents=True, exist_ok=True)
            source = ExportSource(folder=config.run, avatar=avatar, motion=motion, audio=config.audio)
            if not config.exported:
                options = {"compact": size == "compact", "speech_input": "speech" in config.steps}
                export_avatar(source, "web", folder, overwrite=True, **options)
            spoken = sum(path.stat().st_size for path in folder.glob("speech*"))
            found: dict[str, Any] = {
                "bytes": folder_bytes(folder) - spoken,
                "speech_bytes": spoken,
                "avatar_bytes": folder_bytes(folder / "avatar.bin"),
            }
            record["folders"][size] = found

            def keep(name: str, value: Any, found: dict[str, Any] = found) -> None:
                found[name] = value
                print(f"{name}: {json.dumps(value)}", flush=True)
                if config.json is not None:
                    write_json(config.json, record)

            bench = Bench(avatar=avatar, motion=motion, audio=config.audio, clip=clip_name(config.audio.stem),
                          folder=folder, shots=shots)  # fmt: skip
            asyncio.run(measure(config, bench, tools, keep))
            record["table"] += rows_of(size, found)
    finish(record, config.json)


def finish(record: dict[str, Any], path: Path | None) -> None:
    """Write the record where a path is given, and print its table: what was asked and what was measured."""
    if path is not None:
        write_json(path, record)
    for row in record["table"]:
        print(f"{'kept  ' if row['kept'] else 'MISSED'} {row['what']}: {row['measured']} (asked {row['asked']})")


if __name__ == "__main__":
    from avatar.cli.errors import command_code

    sys.exit(command_code("web_check", lambda: main(tyro.cli(Config))))
