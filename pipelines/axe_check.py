"""Check pages for accessibility with axe-core in headless Chromium: light and dark, on a desktop and on a phone.

    npm install playwright-core axe-core
    python -m pipelines.axe_check --pages runs/me.person/report/report.html runs/me/report/report.html --run runs/me

Asked are the rules of WCAG 2.2 A and AA and the good practice of axe-core, and that the Tab key reaches everything that
can be used. axe-core (MPL-2.0) is a tool of this check: it stays where npm put it, and is no part of the project.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.paths import write_json
from pipelines.live_browser import HERE, Browser, Page, Tools, free_port
from pipelines.web_steps import GRAPHICS, served

AXE_SECONDS = 120.0  # that axe-core may take on a long page
PRESSES = 16  # of the Tab key before it is asked what they reached
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
START_SECONDS = 300.0  # a busy machine takes its time
# Whether a page is done, whichever it is: an avatar that is drawn, a service that is connected, any other page.
READY = """document.readyState === 'complete'
  && (!document.querySelector('avatar-player') || document.querySelector('avatar-player').engine?.frame >= 0)
  && (!document.querySelector('#stage #canvas') || Boolean(window.avatarState?.door))"""
SCHEMES = ("light", "dark")
SITE_LEFT_OUT = ("_static", "_sources", "_modules")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to check."""

    pages: tuple[str, ...] = ()
    """HTML files, or addresses."""
    run: Path | None = None
    """RUN folder: also checks the pages of `avatar serve` and `avatar view`."""
    web: Path | None = None
    """Web folder of `avatar export --format web`: also checks its page."""
    site: Path | None = None
    """Folder of a built site: also checks every page in it."""
    axe: Path = Path("node_modules/axe-core")
    """Folder of axe-core."""
    chromium: Path | None = None
    """The browser. Default: the first one that is found."""
    playwright: Path | None = None
    """Folder of playwright-core. Default: node_modules/playwright-core here."""
    tab: bool = True
    """Press the Tab key until it has reached everything. Without it, a page takes half the time."""
    shots: Path | None = None
    """Folder for an image of each page."""
    json: Path | None = None
    """Write the record here."""


@dataclass(frozen=True)
class Checked:
    """A page to check: what it is called, and its address."""

    name: str
    url: str


async def check(config: Config, pages: list[Checked], tools: Tools, drawn: bool) -> dict[str, Any]:
    """Check each page in light and dark, on a desktop and on a phone; the Tab key once at each size.

    Args:
        config: What to check.
        pages: The pages.
        tools: The programs that drive a browser.
        drawn: Whether they draw an avatar, which needs a graphics processor, or one in software.

    Returns:
        By the name of the page and of the look: violations, what axe is not sure of, and what Tab does not reach.
    """
    scripts = [(config.axe / "axe.min.js").read_text(), (HERE / "axe_probe.js").read_text()]
    found: dict[str, Any] = {}
    flags = GRAPHICS if drawn else ("--disable-gpu",)  # which takes a fifth of the processor time
    async with Browser(tools) as browser, browser.started(*flags) as chromium:
        for page in pages:
            looks = found.setdefault(page.name, {})
            width, height = SIZES["desktop"]
            async with browser.page(chromium, page.url, width=width, height=height) as tab:
                await tab.wait(READY)
                for script in scripts:
                    await tab.run(f"{script}; undefined")
                for size, scheme in itertools.product(SIZES, SCHEMES):
                    look = f"{size}, {scheme}"
                    await tab.act(
                        ["setViewportSize", dict(zip(("width", "height"), SIZES[size]))],
                        ["emulateMedia", {"colorScheme": scheme}], ["pause", 500],  # colours may fade
                    )  # fmt: skip
                    shot = None if config.shots is None else config.shots / f"{page.name} {look}.png"
                    looks[look] = await look_at(tab, shot, colours=scheme != SCHEMES[0])
                    if config.tab and scheme == SCHEMES[-1]:  # the Tab key reaches the same in all colours
                        looks[look] |= await tabbed(tab)
                    print(f"{page.name} ({look}): {told(looks[look])}", flush=True)
    return found


async def look_at(tab: Page, shot: Path | None, colours: bool) -> dict[str, Any]:
    """Check a page that is loaded, and then what is hidden in it until something happens.

    Args:
        tab: The page.
        shot: Where its image goes.
        colours: Ask for colours alone: the rest was checked at this size.
    """
    if shot is not None:
        shot.parent.mkdir(parents=True, exist_ok=True)
        await tab.shot(shot)
    probe = f"axeProbe.violations({json.dumps(colours)})"
    result = await tab.run(probe, AXE_SECONDS)
    if await tab.run("axeProbe.reveal()"):
        revealed = await tab.run(probe, AXE_SECONDS)
        for kind, seen in revealed.items():
            known = {found["id"] for found in result[kind]}
            result[kind] += [found | {"revealed": True} for found in seen if found["id"] not in known]
    return result


async def tabbed(tab: Page) -> dict[str, Any]:
    """How many things can be used, and which of them the Tab key does not reach."""
    count = await tab.run("axeProbe.begin()")
    presses = 0
    while presses < 2 * count + 20:  # a video has controls of its own, which take presses of the key
        await tab.act(*(step for _ in range(PRESSES) for step in (["key", "Tab"], ["evaluate", "axeProbe.note()"])))
        presses += PRESSES
        if not await tab.run("axeProbe.missed().length"):
            break
    return {"usable": count, "not_reached": await tab.run("axeProbe.missed()")}


def told(result: dict[str, Any]) -> str:
    """One line on a page."""
    rules = [f"{v['id']} x{v['nodes']} ({v['first']})" for v in result["violations"]]
    rules += [f"Tab does not reach {name}" for name in result.get("not_reached", ())]
    return "; ".join(rules) or "no violation"


def faults(looks: dict[str, Any]) -> int:
    """Violations of a page, each element counted once in the look that has most."""
    return max(sum(v["nodes"] for v in r["violations"]) + len(r.get("not_reached", ())) for r in looks.values())


@contextmanager
def command(*words: str) -> Generator[str]:
    """The address that a command of `avatar` prints, which runs meanwhile.

    Raises:
        AvatarError: It prints none.
    """
    port = str(free_port())
    with tempfile.TemporaryFile("w+") as log:
        arguments = [sys.executable, "-m", "avatar.cli.main", *words, "--port", port, "--device", "cpu"]
        process = subprocess.Popen(arguments, stdout=log, stderr=log, env=os.environ | {"COLUMNS": "400"})
        try:
            end = time.monotonic() + START_SECONDS
            while process.poll() is None and time.monotonic() < end:
                log.seek(0)
                if address := re.search(rf"https?://[\w.\[\]:]+:{port}/\S*", log.read()):
                    yield address[0].rstrip(".,;")
                    return
                time.sleep(0.3)
            log.seek(0)
            raise AvatarError(f"avatar {words[0]} prints no address.", why=log.read()[-500:])
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def listed(config: Config) -> list[Checked]:
    """The pages that are files or addresses."""
    pages = []
    for place in config.pages:
        path = Path(place)
        if not re.match(r"https?://", place):
            if not path.is_file():
                raise AvatarError(f"There is no page {place}.")
            pages.append(Checked("-".join(path.resolve().parts[-3:]), path.resolve().as_uri()))
        else:
            pages.append(Checked(re.sub(r"\W+", "-", place), place))
    if config.site is not None:
        files = sorted(config.site.rglob("*.html"))
        kept = [file for file in files if not set(file.relative_to(config.site).parts) & set(SITE_LEFT_OUT)]
        named = {file: "site-" + "-".join(file.relative_to(config.site).with_suffix("").parts) for file in kept}
        pages += [Checked(name, file.resolve().as_uri()) for file, name in named.items()]
    return pages


def main(config: Config) -> int:
    """Check all pages, print a table, and write the record.

    Returns:
        0 without a violation, else 1.

    Raises:
        AvatarError: A page, a folder or a program is missing.
    """
    if not (config.axe / "axe.min.js").is_file():
        raise AvatarError(f"axe-core is not in {config.axe}.", fix="Run `npm install axe-core` and give --axe.")
    tools = Tools(config.chromium, config.playwright)
    found = asyncio.run(check(config, listed(config), tools, False))
    if config.web is not None:
        with served(config.web) as url:
            found |= asyncio.run(check(config, [Checked("web", url + "index.html")], tools, True))
    for name in ("serve", "view") if config.run is not None else ():
        with command(name, str(config.run)) as url:
            found |= asyncio.run(check(config, [Checked(name, url)], tools, True))
    counted = {name: faults(looks) for name, looks in found.items()}
    version = json.loads((config.axe / "package.json").read_text())["version"]
    if config.json is not None:
        write_json(config.json, environment() | {"axe": version, "faults": counted, "pages": found})
    print(f"axe-core {version}: {sum(counted.values())} faults on {len(counted)} pages")
    for name, count in counted.items():
        print(f"  {count:4} {name}")
    return int(any(counted.values()))


if __name__ == "__main__":
    from avatar.cli.errors import command_code

    sys.exit(command_code("axe_check", lambda: sys.exit(main(tyro.cli(Config)))))
