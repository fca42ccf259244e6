"""The step of `python -m pipelines.live_check` that films a conversation: the page, and what is heard."""

from __future__ import annotations

import asyncio
import base64
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from pipelines.live_steps import Bench, watching

FILM_FPS = 25
WIDTH, HEIGHT = 1000, 760


async def conversation(bench: Bench) -> dict[str, Any]:
    """A browser whose microphone is a recording: the avatar repeats it, is interrupted, and says a text."""
    frames = bench.folder / "conversation"
    frames.mkdir(exist_ok=True)
    for old in frames.glob("*.jpg"):
        old.unlink()
    flag = f"--use-file-for-fake-audio-capture={bench.wav}"
    async with bench.page("", flag, width=WIDTH, height=HEIGHT, keep=True) as (server, page):
        await page.record(frames)
        await asyncio.sleep(2)
        async with watching(server, page) as watch:
            await page.act(["click", "#echo"], ["pause", min(10000, 1000 * bench.seconds)])
            await page.shot(bench.folder / "conversation-microphone.png")
            await page.act(["click", "#echo"], ["pause", 1500], ["fill", "#text", "Now I say something of my own."])
            await page.act(["key", "Control+Enter"], ["pause", 4500])
            opening = [row[5] for row in watch.rows]
        images = await page.recorded()
        sound = await page.run("window.liveProbe.sound()")
        words = await page.words()
        door = await page.run("window.avatarState.door")
    film = bench.folder / "conversation.mp4"
    write_film(film, images, sound)
    return {"door": door, "images": len(images), "film": film.name, "words_of_the_page": words,
            "lips_opened_cm": round(max(opening) - min(opening), 2) if opening else None}  # fmt: skip


def write_film(path: Path, images: list[tuple[float, str]], sound: dict[str, Any] | None) -> None:
    """Write images that came at some milliseconds, and audio, as a video of 25 frames per second."""
    if not images:
        raise RuntimeError("The page was not filmed.")
    begin = images[0][0]
    with av.open(str(path), "w") as film:
        video = film.add_stream("libx264", rate=FILM_FPS, options={"crf": "23", "preset": "veryfast"})
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt = WIDTH // 2 * 2, HEIGHT // 2 * 2, "yuv420p"
        audio = film.add_stream("aac", rate=sound["rate"], layout="mono") if sound else None
        if sound and isinstance(audio, AudioStream):
            _write_sound(film, audio, sound, begin)
        shown, frame = -1, None
        for n in range(round((images[-1][0] - begin) / 1000 * FILM_FPS)):
            newest = max(0, sum(at <= begin + 1000 * n / FILM_FPS for at, _ in images) - 1)
            if newest != shown:
                shown = newest
                with av.open(images[shown][1]) as still:
                    frame = next(still.decode(video=0)).reformat(video.width, video.height, "yuv420p")
            assert frame is not None
            frame.pts, frame.time_base = n, Fraction(1, FILM_FPS)
            film.mux(video.encode(frame))
        film.mux(video.encode(None))


def _write_sound(film: Any, stream: AudioStream, sound: dict[str, Any], begin: float) -> None:
    samples = np.frombuffer(base64.b64decode(sound["data"]), "<i2")
    early = round((begin - sound["begin"]) / 1000 * sound["rate"])
    samples = samples[early:] if early >= 0 else np.r_[np.zeros(-early, np.int16), samples]
    for i in range(0, len(samples) - 1024, 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, i : i + 1024].astype(np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = sound["rate"], i, Fraction(1, sound["rate"])
        film.mux(stream.encode(frame))
    film.mux(stream.encode(None))
