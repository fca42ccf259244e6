"""Open exported files in other programs, and compare what they show with what is shown here.

    python -m pipelines.readers_check --run runs/me --audio speech.wav --modules node_modules

Needs Node.js, Chromium, and a node_modules folder with playwright-core, three, @sparkjsdev/spark, playcanvas,
@pixiv/three-vrm and @pixiv/three-vrm-animation. The record holds what was measured, with what version of each.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from avatar.environment import environment
from avatar.export.base import ExportSource
from avatar.infer.avatar import Avatar
from avatar.paths import read_json, write_json
from pipelines import readers_steps, web_steps
from pipelines.live_browser import Browser, Page, Tools
from pipelines.readers_steps import Bench
from pipelines.web_check import finish, planned

Step = Literal["still", "talking", "mesh", "vrma", "live-link"]
STEPS: tuple[Step, ...] = ("still", "talking", "mesh", "vrma", "live-link")
PACKAGES = ("three", "@sparkjsdev/spark", "playcanvas", "@pixiv/three-vrm", "@pixiv/three-vrm-animation")
LEAST_PSNR = 45.0  # dB, with the settings that Gaussians are trained with here
MOST_ERROR = 1e-4  # of values that a reader plays
START_SECONDS = 180.0
IMPORTS = {
    "three": "./modules/three/build/three.module.js", "three/addons/": "./modules/three/examples/jsm/",
    "@sparkjsdev/spark": "./modules/@sparkjsdev/spark/dist/spark.module.js",
    "playcanvas": "./modules/playcanvas/build/playcanvas.mjs",
    "@pixiv/three-vrm": "./modules/@pixiv/three-vrm/lib/three-vrm.module.js",
    "@pixiv/three-vrm-animation": "./modules/@pixiv/three-vrm-animation/lib/three-vrm-animation.module.js",
}  # fmt: skip
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<style>body {{ margin: 0; background: #000 }}</style>
<script type="importmap">{imports}</script><script type="module" src="{script}"></script>
"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to open, and where the record goes."""

    run: Path
    """RUN folder of the avatar, of `--method gaussian`."""
    audio: Path
    """What the avatar says."""
    modules: Path = Path("node_modules")
    """Folder of the JavaScript packages."""
    playwright: Path | None = None
    """Folder of playwright-core. Default: the one in --modules."""
    chromium: Path | None = None
    """The browser. Default: the first one that is found."""
    steps: tuple[Step, ...] = STEPS
    """Which steps to make."""
    frames: int = 4
    """Images of the talking avatar from each of three cameras."""
    out: Path | None = None
    """Folder for the exported files and for images, true ones first. Default: a temporary one."""
    json: Path | None = None
    """Write the record here. What it holds of steps that are not made now stays, with the commit of its own."""


@asynccontextmanager
async def page_of(browser: Browser, bench: Bench, name: str) -> AsyncGenerator[Page]:
    """A page that runs one of the scripts beside this file, in a browser of its own."""
    script = f"readers_{name}.js"
    (bench.folder / script).write_text((Path(__file__).parent / script).read_text())
    (bench.folder / f"{name}.html").write_text(PAGE.format(imports=json.dumps({"imports": IMPORTS}), script=script))
    async with browser.started(*web_steps.GRAPHICS) as chromium:
        with web_steps.served(bench.folder) as url:
            async with browser.page(chromium, f"{url}{name}.html") as page:
                await page.wait("window.readers", START_SECONDS)
                yield page


async def measure(config: Config, bench: Bench, tools: Tools, keep: Callable[[str, Any], None]) -> None:
    """Make the steps."""
    async with Browser(tools) as browser:
        for name in ("spark", "playcanvas"):
            if "still" in config.steps:
                async with page_of(browser, bench, name) as page:
                    keep(f"still in {name}", await readers_steps.still(bench, page, name))
            if "talking" in config.steps:
                for matched in (False, True):
                    async with page_of(browser, bench, name) as page:
                        found = await readers_steps.talking(bench, page, name, matched, config.frames)
                        keep(f"talking in {name}{', as trained' if matched else ''}", found)
        if "mesh" in config.steps:
            async with page_of(browser, bench, "spark") as page:
                keep("mesh in three.js", await readers_steps.mesh(bench, page))
        if "vrma" in config.steps:
            async with page_of(browser, bench, "vrm") as page:
                keep("vrma in three-vrm", await readers_steps.vrma(bench, page))
        keep("browser", {"name": f"Chromium {browser.version}, SwiftShader"})
    if "live-link" in config.steps:
        keep("live-link", readers_steps.live_link(bench))


def rows_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked and what was measured."""
    rows: list[tuple[str, float, float, bool]] = []
    for name, value in found.items():
        if name.startswith("still"):
            rows += [(f"{file} {name}, as trained: PSNR to avatar render", one["as trained"], LEAST_PSNR,
                      one["as trained"] >= LEAST_PSNR) for file, one in value.items() if file != "commit"]  # fmt: skip
        elif name.endswith("as trained"):
            rows.append((f"{name}: PSNR to the web page, worst", value["worst"], LEAST_PSNR,
                         value["worst"] >= LEAST_PSNR))  # fmt: skip
        elif "most_error" in value:
            rows.append((f"{name}: largest error", value["most_error"], MOST_ERROR, value["most_error"] <= MOST_ERROR))
    return [{"what": what, "measured": value, "asked": asked, "kept": kept} for what, value, asked, kept in rows]


def main(config: Config) -> None:
    """Export, open, print, and write the record."""
    tools = Tools(config.chromium, config.playwright or config.modules / "playwright-core")
    avatar = Avatar.load(config.run, device="cpu", precision="float32")
    motion = planned(avatar, config.audio)
    source = ExportSource(folder=config.run, avatar=avatar, motion=motion, audio=config.audio)
    record: dict[str, Any] = environment() | {
        "avatar": config.run.name, "audio": config.audio.name, "clip_seconds": round(len(motion) / motion.fps, 2),
        "readers": {name: read_json(config.modules / name / "package.json")["version"] for name in PACKAGES},
        "found": read_json(config.json)["found"] if config.json is not None and config.json.exists() else {},
    }  # fmt: skip

    def keep(name: str, value: Any) -> None:
        record["found"][name] = value | {"commit": record["commit"]}
        print(f"{name}: {json.dumps(value)}", flush=True)
        if config.json is not None:
            write_json(config.json, record)

    with tempfile.TemporaryDirectory() as temporary:
        folder = config.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "modules").exists():
            (folder / "modules").symlink_to(config.modules.resolve(), target_is_directory=True)
        bench = Bench(source=source, folder=folder)
        bench.export(config.steps)
        asyncio.run(measure(config, bench, tools, keep))
    record["table"] = rows_of(record["found"])
    finish(record, config.json)


if __name__ == "__main__":
    from avatar.cli.errors import command_code

    sys.exit(command_code("readers_check", lambda: main(tyro.cli(Config))))
