"""Measure `avatar serve` in a real browser: latency, lips against sound, frames, interruptions, faults, memory.

    python -m pipelines.live_check --run runs/me --playwright node_modules/playwright-core --json live.json

Needs Node.js, playwright-core and Chromium. Each step has a time-out, and a server in a process of its own. What was
measured stays in the record where a later step fails. Images carry the number of their frame in a corner
(`pipelines.live_server`), so that the page can tell which one it shows. docs/notes/live.md says what each number is.
Run it on a quiet machine; the load is kept with the numbers.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro

from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE, load_audio, write_wav
from avatar.paths import write_json
from pipelines import live_faults, live_film, live_sessions, live_steps
from pipelines.live_bars import table
from pipelines.live_browser import Browser, Tools
from pipelines.live_steps import Bench

Step = Literal[
    "first-image", "talk-webrtc", "talk-websocket", "interruption", "busy-cores", "loaded", "hour", "sessions",
    "faults", "no-udp", "conversation",
]  # fmt: skip
STEPS: dict[str, Callable[[Bench], Awaitable[dict[str, Any]]]] = {
    "first-image": live_steps.first_image,
    "talk-webrtc": partial(live_steps.talk, door="webrtc"),
    "talk-websocket": partial(live_steps.talk, door="websocket"),
    "interruption": live_steps.interruption,
    "busy-cores": live_steps.busy,
    "loaded": live_steps.loaded,
    "no-udp": live_steps.no_udp,
    "faults": live_faults.faults,
    "conversation": live_film.conversation,
    "sessions": live_sessions.sessions,
    "hour": live_steps.hour,
}
TEXT = (
    "Good morning. I would like to tell you how this works, and why it matters that my lips move with my voice. "
    "Every word that you hear was made a moment ago, and every picture was drawn for it. Please ask me whatever you "
    "like, and stop me at any time."
)
SHORT_SECONDS = 240.0  # of a step beyond what it talks


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure, and where the record goes."""

    run: Path
    """RUN folder of the avatar."""
    steps: tuple[Step, ...] = tuple(STEPS)  # type: ignore[assignment]
    """Which steps to make."""
    size: int | None = None
    """Longer side of the image in pixels. Default: as trained."""
    seconds: float = 60.0
    """Seconds of talk in each measurement."""
    minutes: float = 5.0
    """Minutes of the step hour; slopes are given per hour."""
    times: int = 10
    """Loads of the page, and interruptions."""
    talks: int = 1
    """Sessions of each step that talks; with five or more, latencies come with 95 % intervals between sessions."""
    rivals: int = 10
    """Busy processes of the step loaded."""
    most_sessions: int = 8
    """Sessions at once that are tried."""
    audio: Path | None = None
    """What the avatar says. Default: a text by text to speech."""
    chromium: Path | None = None
    """The browser. Default: the first one that is found."""
    playwright: Path | None = None
    """Folder of playwright-core. Default: node_modules/playwright-core here."""
    out: Path | None = None
    """Folder for photographs, logs and videos. Default: a temporary one."""
    json: Path | None = None
    """Write the record here."""


def speech_of(path: Path | None, folder: Path) -> np.ndarray:
    """What is said, float32 16 kHz mono."""
    if path is None:
        from avatar.io.text_to_speech import say

        path = folder / "text.wav"
        say(TEXT, path)
    samples = load_audio(path)
    return np.concatenate([samples, np.zeros(SAMPLE_RATE // 4, np.float32)])


def seconds_of(name: str, config: Config) -> float:
    """When a step is given up."""
    talk = config.talks * (2 * config.seconds + 60)
    longer = {
        "talk-webrtc": talk,
        "talk-websocket": talk,
        "loaded": 4 * config.seconds + 120,
        "hour": 60 * config.minutes,
        "sessions": 2 * config.most_sessions * (config.seconds / 4 + 90),
    }
    return SHORT_SECONDS + 2 * config.seconds + longer.get(name, 0.0) + 30 * config.times


async def measure(config: Config, folder: Path, record: dict[str, Any], keep: Callable[[], None]) -> None:
    """Make the steps one after the other, and keep the record after each."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # servers and browsers end with it
    tools = Tools(config.chromium, config.playwright)
    speech, wav = speech_of(config.audio, folder), folder / "speech.wav"
    write_wav(wav, np.tile(speech, 1 + round(60 * SAMPLE_RATE) // len(speech)))
    options = ("--session-minutes", f"{config.minutes + 60:g}")  # no session may end while it is measured
    options += ("--size", str(config.size)) if config.size else ()
    async with Browser(tools) as browser:
        bench = Bench(
            run=config.run, options=options, speech=speech, wav=wav, browser=browser, folder=folder,
            seconds=config.seconds, minutes=config.minutes, times=config.times, most_sessions=config.most_sessions,
            talks=config.talks, rivals=config.rivals,
        )  # fmt: skip
        async with bench.stack:
            for name in config.steps:
                print(f"{name} ...", flush=True)
                record["steps"][name] = await step(name, bench, config)
                record["table"] = table(record["steps"])
                record["browser"] = f"Chromium {browser.version}"
                keep()
                print(f"{name}: {json.dumps(record['steps'][name])}", flush=True)


async def step(name: str, bench: Bench, config: Config) -> dict[str, Any]:
    """What a step measured, or why it failed."""
    began, load = time.monotonic(), round(os.getloadavg()[0], 2)
    try:
        found = await asyncio.wait_for(STEPS[name](bench), seconds_of(name, config))
    except asyncio.TimeoutError:
        found = {"failed": "It took too long."}
    except Exception as error:  # one step's fault is not another's
        found = {"failed": f"{type(error).__name__}: {error}"[-500:]}
    return found | {"load_before": load, "took_s": round(time.monotonic() - began, 1)}


def gaussians_of(run: Path) -> str:
    """What the avatar is made of, in words."""
    from avatar.infer.avatar import Avatar
    from avatar.infer.renderer import counts_text

    return counts_text(Avatar.load(run).info)


def main(config: Config) -> None:
    """Measure, print, and write the record."""
    if not config.run.is_dir():
        raise AvatarError(f"There is no RUN {config.run}.", fix="Give the folder of `avatar create`.")
    record: dict[str, Any] = environment() | {"avatar": config.run.name, "made_of": gaussians_of(config.run),
                                              "size": config.size, "steps": {}}  # fmt: skip

    def keep() -> None:
        if config.json is not None:
            write_json(config.json, record)

    with tempfile.TemporaryDirectory() as temporary:
        folder = config.out or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        try:
            asyncio.run(measure(config, folder, record, keep))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None
    for row in record.get("table", ()):
        print(f"{'kept  ' if row['kept'] else 'MISSED'} {row['what']}: {row['measured']} (asked {row['asked']})")


if __name__ == "__main__":
    from avatar.cli.errors import command_code

    sys.exit(command_code("live_check", lambda: main(tyro.cli(Config))))
