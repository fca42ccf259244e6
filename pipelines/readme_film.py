"""Film a call in a browser for README.md: an avatar answers, is turned, and smiles.

``python -m pipelines.readme_film RUN --playwright FOLDER`` starts `avatar serve` with a stand-in for a language model,
opens its page in Chromium, and does there what a visitor does. The page is real, and so is its time; only the answer is
written beforehand. The avatar has to be that of a synthetic subject: what is published must show nobody who exists.
Nothing else should run meanwhile.
"""

from __future__ import annotations

import asyncio
import io
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from avatar.errors import AvatarError
from avatar.writing import atomic_file
from pipelines.live_agent import StandIn
from pipelines.live_browser import Browser, Page, Tools, serving
from pipelines.live_film import even

if TYPE_CHECKING:
    from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
LEAST_QUALITY = 30
QUESTION = "How were you made?"
ANSWER = "From one short video, without a graphics card. You can look at me from the side, and I can smile, too."
SWING, SWING_SECONDS, STEP_MS = 110, 3.2, 40  # pixels that the pointer drags to either side; how long; between moves
MIDDLE, DOWN = 290, 420  # where in the image it does
# The browser's own pointer is not filmed.
POINTER = """(() => {
  const dot = document.createElement("div");
  Object.assign(dot.style, { position: "fixed", left: "-40px", top: "0", width: "20px", height: "20px", zIndex: 99,
    borderRadius: "50%", background: "#1c6b5899", border: "2px solid #fff", transform: "translate(-50%, -50%)",
    pointerEvents: "none" });
  document.body.append(dot);
  addEventListener("pointermove", ({ clientX, clientY }) => {
    Object.assign(dot.style, { left: `${clientX}px`, top: `${clientY}px` });
  }, true);
})()"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Film a call for README.md."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar demo`, or of another synthetic subject."""
    out: Path = ROOT / "docs" / "images" / "readme.webp"
    """The WebP to write."""
    chromium: Path | None = None
    """The browser; default: the first Chromium that is found."""
    playwright: Path | None = None
    """Folder of playwright-core; default: node_modules/playwright-core."""
    window: tuple[int, int] = (980, 700)
    """Width and height of the page in pixels."""
    width: int = 720
    """Width of the film in pixels."""
    fps: float = 12.5
    """Images per second."""
    quality: int = 85
    """Quality of WebP to begin with; it is lowered until the file is small enough."""
    megabytes: float = 3.0
    """Largest size of the file."""


def visit() -> list[list[Any]]:
    """What the visitor does, as `Page.act` takes it: ask, turn the avatar while it answers, let it smile."""
    drag: list[list[Any]] = [["mouse", "move", MIDDLE, DOWN], ["pause", 300], ["mouse", "down"]]
    moves = round(1000 * SWING_SECONDS / STEP_MS)
    for number in range(1, moves + 1):
        phase = number / moves
        x = MIDDLE + SWING * math.sin(2 * math.pi * phase) * math.sin(math.pi * phase) ** 0.5
        drag += [["mouse", "move", round(x), DOWN], ["pause", STEP_MS]]
    return [
        ["pause", 500], ["click", "#text"], ["type", "#text", QUESTION, {"delay": 45}], ["click", "#ask"],
        ["pause", 2600], *drag, ["mouse", "up"], ["pause", 200], ["hover", "#emotion"],
        ["selectOption", "#emotion", "happy"], ["pause", 400],
        ["hover", "#strength"], ["fill", "#strength", "1.3"], ["pause", 3000],
    ]  # fmt: skip


async def call(config: Config, tools: Tools, folder: Path) -> list[tuple[float, str]]:
    """Milliseconds and files of the images that the browser showed during a call."""
    width, height = config.window
    async with Browser(tools) as browser, browser.started() as started, StandIn([(QUESTION, ANSWER)]).running() as url:
        options = ("--agent", url, "--agent-model", "any", "--pose", "own")
        async with serving(config.run, folder / "log", *options, program=("avatar.cli.main", "serve")) as server:
            async with browser.page(started, server.page(), width=width, height=height) as page:
                await page.connected()
                return await filmed(page, folder)


async def filmed(page: Page, folder: Path) -> list[tuple[float, str]]:
    """Let the visitor act, and film it."""
    await page.run(POINTER)
    await asyncio.sleep(1.0)  # the first images come in a burst
    await page.record(folder)
    await page.act(*visit())
    return await page.recorded()


def encoded(film: Sequence[Image.Image], fps: float, quality: int) -> bytes:
    """The film as an animated WebP that begins again."""
    data = io.BytesIO()
    film[0].save(data, "WEBP", save_all=True, append_images=film[1:], duration=round(1000 / fps), loop=0,
                 quality=quality, method=4)  # fmt: skip
    return data.getvalue()


def small_enough(film: Sequence[Image.Image], config: Config) -> tuple[bytes, int]:
    """The film at the best quality that stays below the largest size, and that quality.

    Raises:
        AvatarError: There is none.
    """
    data = b""
    for quality in range(config.quality, LEAST_QUALITY - 1, -5):
        data = encoded(film, config.fps, quality)
        if len(data) <= 1e6 * config.megabytes:
            return data, quality
    raise AvatarError(f"The film has {len(data) / 1e6:.1f} MB.", fix="Choose a smaller --width or --fps.")


def main(config: Config) -> None:
    """Film it.

    Raises:
        AvatarError: The avatar is that of somebody who exists, a tool is missing, or the file stays too large.
    """
    from PIL import Image

    from avatar.data.consent import of_folder

    if of_folder(config.run).relation != "synthetic":
        raise AvatarError(f"{config.run} is not the avatar of a synthetic subject.", fix="Make one: avatar demo")
    tools = Tools(config.chromium, config.playwright)
    size = config.width, round(config.width * config.window[1] / config.window[0])
    with tempfile.TemporaryDirectory() as folder:
        shown = asyncio.run(call(config, tools, Path(folder)))
        film = [Image.open(file).convert("RGB").resize(size, Image.Resampling.LANCZOS)
                for file in even(shown, config.fps)]  # fmt: skip
    data, quality = small_enough(film, config)
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(config.out) as temporary:
        temporary.write_bytes(data)
    print(f"{config.out}: {len(film)} of {len(shown)} images, {len(data) / 1e6:.2f} MB, quality {quality}.")


if __name__ == "__main__":
    main(tyro.cli(Config))
