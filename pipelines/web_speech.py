"""The step `speech` of `python -m pipelines.web_check`: lips that the page makes itself, of files and a microphone."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avatar.audio2motion.load import load_streaming
from avatar.export.web import format as web
from avatar.export.web.splats import StoredGaussians
from avatar.infer.controls import Controls
from avatar.infer.planner import plan_motion
from avatar.infer.sources import AudioFile
from avatar.io.audio import SAMPLE_RATE, load_audio, write_wav
from avatar.motion import Motion
from avatar.motion.mouth import FACE, opening_weights
from pipelines import web_steps
from pipelines.live_browser import HERE, Browser, Page
from pipelines.web_steps import Bench, processor_seconds

HEARD_SECONDS, LISTEN_SECONDS, SETTLE_SECONDS = 20, 12.0, 2.0
LOADS_SECONDS = 300.0  # that a busy machine may need
IMAGES = 12
LISTEN_SIZE = 256  # pixels of the images while the microphone is open: a machine without a graphics card draws them


async def speech(bench: Bench, browser: Browser) -> dict[str, Any]:
    """Let the page speak a file and the microphone, from a web server and from disk."""
    short = bench.shots / "spoken.wav"
    samples = load_audio(bench.audio)[: HEARD_SECONDS * SAMPLE_RATE]
    write_wav(short, samples)
    found: dict[str, Any] = {"bytes": {path.name: path.stat().st_size for path in sorted(bench.folder.glob("speech*"))}}
    flags = (*web_steps.GRAPHICS, f"--use-file-for-fake-audio-capture={short.resolve()}")
    with web_steps.served(bench.folder) as url:
        for name, address in (("http", url), ("file", f"{bench.folder.resolve().as_uri()}/")):
            async with browser.started(*flags) as chromium:
                size = (bench.avatar.view_camera.width, bench.avatar.view_camera.height)
                async with web_steps.opened(browser, chromium, address, size) as page:
                    await page.run((HERE / "web_speech_probe.js").read_text())
                    await page.run(f"webCheck.open({size[0]}, {bench.clip!r}, 'cpu')")
                    found[name] = {"file": await spoken(bench, page, browser, short)}
                    found[name]["microphone"] = await listened(bench, page, browser, samples)
    return found


async def spoken(bench: Bench, page: Page, browser: Browser, audio: Path) -> dict[str, Any]:
    """Compare what the page makes of a file with what the same network, linear, makes of it here."""
    file, linear = AudioFile(audio), load_streaming(bench.avatar.run, bench.avatar.fps).linear()
    plan = plan_motion(bench.avatar, Controls(), frames=file.frames(bench.avatar.fps), speech=linear)
    motion = Motion.cat(list(plan.stream(file)))
    content = base64.b64encode(audio.read_bytes()).decode()
    answer = await page.run(f"speechCheck.speak('{content}')", LOADS_SECONDS)
    lips, coefficients = np.array(answer["lips"]), np.array(answer["coefficients"])
    exact, alike = motion.face[:, FACE].numpy(), alike_frames(bench)
    fitted = exact_coefficients(bench, motion[:alike])
    missed = coefficients[: len(fitted)] - fitted
    before = processor_seconds(browser.pid)
    heard = await page.run(f"speechCheck.hear('{content}')", LOADS_SECONDS)
    spent = processor_seconds(browser.pid) - before
    return {
        "frames": len(lips), "frames_of_render": len(exact), "lips_cm_apart": float(np.abs(lips - exact).max()),
        "opening_correlation": agreement(lips, exact),
        "coefficients_apart": {
            "frames": len(fitted), "spread": round(float(fitted.std(0).mean()), 3),
            "most": round(float(np.abs(missed).max()), 3), "rms": round(float(np.square(missed).mean() ** 0.5), 4),
        },
        "psnr": await psnr(bench, page, motion), "plays_after_ms": round(answer["began"]),
        "lips_made_after_ms": round(answer["all"]),
        "processor_per_second": round(spent / heard["seconds"], 3),
        "seconds_per_second": round(heard["milliseconds"] / 1000 / heard["seconds"], 3),
    }  # fmt: skip


async def psnr(bench: Bench, page: Page, motion: Motion) -> dict[str, float]:
    """Compare screenshots of what was spoken with what `avatar render` shows, while the loop has not begun again."""
    camera, values = bench.avatar.view_camera, []
    last = min(len(motion), alike_frames(bench)) - 1
    for frame in np.linspace(0, last, IMAGES).astype(int).tolist():
        answer = await page.run(f"webCheck.show({frame}, 0, 0)")
        assert answer["frame"] == frame, answer
        image = await web_steps.shot(page, bench.shots / f"spoken_{frame:05d}.png", (camera.width, camera.height))
        behind = bench.avatar.view_background(camera)
        exact = bench.avatar.render(camera, motion, frame, None if behind is None else torch.from_numpy(behind))
        values.append(web_steps.psnr(exact.numpy(), image))
    return {"mean": round(float(np.mean(values)), 2), "worst": round(min(values), 2)}


def alike_frames(bench: Bench) -> int:
    """Frames at the beginning in which the page's loop is what `avatar render` shows under the lips."""
    about = json.loads((bench.folder / web.MANIFEST).read_text())["speech"]
    return about["frames"] - about["back"]


def exact_coefficients(bench: Bench, motion: Motion) -> np.ndarray:
    """What the folder would store of a motion [T, M]."""
    order = torch.from_numpy(web.unpack(bench.folder / web.ORDER)["order"].astype(np.int64))
    reader = StoredGaussians(web.unpack(bench.folder / web.GAUSSIANS), order, bench.avatar.model.animated())
    return torch.stack([reader.coefficients(motion, index) for index in range(len(motion))]).numpy()


async def listened(bench: Bench, page: Page, browser: Browser, samples: np.ndarray) -> dict[str, Any]:
    """How far images stay behind a microphone that says the samples again and again."""
    await page.run(f"webCheck.open({LISTEN_SIZE}, {bench.clip!r}, 'cpu')")
    before = processor_seconds(browser.pid)
    answer = await page.run(f"speechCheck.listen({LISTEN_SECONDS})", LOADS_SECONDS)
    spent = processor_seconds(browser.pid) - before
    if answer["slow"]:
        return {"slow": True, "load": round(os.getloadavg()[0], 1)}
    rows = np.array(answer["rows"])
    late = (rows[:, 0] - rows[:, 1])[rows[:, 0] > SETTLE_SECONDS]
    return {
        "seconds": round(answer["heard"], 1), "frames": answer["frames"], "images": len(rows), "hertz": answer["rate"],
        "image_behind_audio_s": {"median": round(float(np.median(late)), 3), "most": round(float(late.max()), 3),
                                 "p95": round(float(np.quantile(late, 0.95)), 3)},
        "processor_per_second_with_drawing": round(spent / answer["heard"], 3),
        "seconds_of_file": round(len(samples) / SAMPLE_RATE, 2), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of the opening of the mouth in two runs of lip channels."""
    count = min(len(a), len(b))
    return round(float(np.corrcoef((a @ opening_weights())[:count], (b @ opening_weights())[:count])[0, 1]), 6)
