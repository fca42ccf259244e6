"""The step of `python -m pipelines.live_check` that films a conversation: the page, and what is heard."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soxr
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from avatar.audio.turns import HANGOVER_SECONDS
from avatar.io.audio import SAMPLE_RATE, load_audio, write_wav
from avatar.io.text_to_speech import say
from pipelines import live_numbers as numbers
from pipelines.live_agent import StandIn
from pipelines.live_browser import serving
from pipelines.live_steps import Bench
from pipelines.live_watch import POLL_SECONDS, Watch, watching

FILM_FPS = 25
WIDTH, HEIGHT = 1000, 760
LOUD_DB, OPEN_CM = -50.0, 0.1
ANSWERING_SECONDS, LAST_SECONDS = 8.0, 12.0  # after the question, and after the interruption
TURNS = (  # what the listener says, and what the agent answers
    (
        "Good morning. I have a question about the weather, and then one about trains. Will it rain here today?",
        "It will stay dry until noon. After that some clouds come in from the west, and there may be a few drops in "
        "the evening. Tomorrow looks better, with sun from the morning on, and the day after will be warmer. Further "
        "than that nobody can tell, but I would pack a light coat in any case.",
    ),
    ("Wait, that is enough. When does the next train leave?", "The next train leaves at ten past three."),
)  # fmt: skip


async def conversation(bench: Bench) -> dict[str, Any]:
    """A browser whose microphone is a recording asks an agent, interrupts the answer, and gets another one."""
    frames = bench.folder / "conversation"
    frames.mkdir(exist_ok=True)
    for old in frames.glob("*.jpg"):
        old.unlink()
    wav = bench.folder / "microphone.wav"
    seconds = write_microphone(wav, bench.folder)
    agent, flag = StandIn(TURNS), f"--use-file-for-fake-audio-capture={wav}"
    async with agent.running() as url, bench.browser.started(flag) as browser:
        options = (*bench.options, "--agent", url, "--agent-model", "any", "--agent-transcriber", "any")
        async with serving(bench.run, bench.folder / "conversation.log", *options) as server:
            page_options = {"width": WIDTH, "height": HEIGHT, "keep": True}
            async with bench.browser.page(browser, server.page(), **page_options) as page:
                door = await page.connected()
                await page.listen()
                async with watching(server, page) as watch:
                    await asyncio.sleep(3 * POLL_SECONDS)
                    await page.record(frames)
                    await page.act(["click", "#talk"], ["pause", 1000 * seconds])
                    await page.shot(bench.folder / "conversation.png")
                images = await page.recorded()
                heard = await page.run("window.liveProbe.sound(window.liveProbe.samples)")
                spoken = await page.run("window.liveProbe.sound(window.liveProbe.spoken)")
                words = await page.words()
                states = await page.run("window.avatarState.states")
    film = bench.folder / "conversation.mp4"
    write_film(film, images, mixed(heard, spoken))
    return {"door": door, "images": len(images), "film": film.name, "words_of_the_page": words, "states": states,
            "turns_heard": agent.heard, "turns_answered": agent.answered, **timed(watch)}  # fmt: skip


def write_microphone(path: Path, folder: Path) -> float:
    """Write what the listener says: a question, and an interruption while it is answered; returns its seconds."""
    parts = [np.zeros(round(1.5 * SAMPLE_RATE), np.float32)]
    for number, (text, pause) in enumerate(((TURNS[0][0], ANSWERING_SECONDS), (TURNS[1][0], LAST_SECONDS))):
        spoken = folder / f"microphone-{number}.wav"
        say(text, spoken)
        parts += [load_audio(spoken), np.zeros(round(pause * SAMPLE_RATE), np.float32)]
    samples = np.concatenate(parts)
    write_wav(path, np.concatenate([samples, np.zeros(60 * SAMPLE_RATE, np.float32)]))  # Chromium plays it in a loop
    return len(samples) / SAMPLE_RATE


def timed(watch: Watch) -> dict[str, Any]:
    """What is known of the times of a conversation, milliseconds; the microphone's are exact to 20 ms or so."""
    turns = numbers.loud_spans(watch.voice)
    found: dict[str, Any] = {"turns_of_the_microphone": len(turns)}
    if len(turns) < 2:
        return found
    asked, again = turns[0][1], turns[1]
    rest = float(np.median([row[5] for at, row in watch.shown if at < turns[0][0]] or [0.0]))
    opened = [at for at, row in watch.shown if at > asked and row[5] - rest > OPEN_CM]
    heard = [at for at, db in watch.levels if at > asked and db > LOUD_DB]
    answered = [at for at, db in watch.levels if at > again[1] + 300 and db > LOUD_DB]
    over = again[1] + 500 * HANGOVER_SECONDS  # before that nothing is answered
    while_listening = [row[5] - rest for at, row in watch.shown if turns[0][0] < at < asked]
    closing = numbers.closed_after(watch.shown, again[0], rest, over)
    return found | {
        "question_to_sound_ms": round(heard[0] - asked) if heard else None,
        "question_to_open_mouth_ms": round(opened[0] - asked) if opened else None,
        "of_it_the_pause_that_ends_a_turn_ms": round(1000 * HANGOVER_SECONDS),
        "interruption_to_silence_ms": numbers.silence_after(watch.levels, again[0], over),
        "interruption_to_closed_mouth_ms": closing and closing.ms,
        "interruption_mouth_closed": closing is None or closing.seen,
        "second_question_to_sound_ms": round(answered[0] - again[1]) if answered else None,
        "lips_while_listening_cm": round(max(map(abs, while_listening)), 3) if while_listening else None,
        **numbers.rates([at for at, _ in watch.shown], watch.began, watch.until),
    }


def mixed(*sounds: dict[str, Any] | None) -> dict[str, Any] | None:
    """Sounds of one rate as one, each from when it begins."""
    there = [sound for sound in sounds if sound is not None]
    if not there:
        return None
    rate, begin = there[0]["rate"], min(sound["begin"] for sound in there)
    parts = []
    for sound in there:
        samples = np.frombuffer(base64.b64decode(sound["data"]), "<i2").astype(np.float32)
        if sound["rate"] != rate:
            samples = soxr.resample(samples, sound["rate"], rate)
        parts.append(np.concatenate([np.zeros(round((sound["begin"] - begin) / 1000 * rate)), samples]))
    whole = np.zeros(max(map(len, parts)))
    for part in parts:
        whole[: len(part)] += part
    data = whole.clip(-32768, 32767).astype("<i2").tobytes()
    return {"begin": begin, "rate": rate, "data": base64.b64encode(data).decode()}


def even(images: Sequence[tuple[float, str]], fps: float) -> list[str]:
    """The image that was on the screen at each moment of a film with so many images a second.

    Args:
        images: Milliseconds and files, in order.
        fps: Of the film.

    Raises:
        RuntimeError: There are none.
    """
    if not images:
        raise RuntimeError("The page was not filmed.")
    begin, chosen, newest = images[0][0], [], 0
    for number in range(int((images[-1][0] - begin) / 1000 * fps) + 1):
        while newest + 1 < len(images) and images[newest + 1][0] <= begin + 1000 * number / fps:
            newest += 1
        chosen.append(images[newest][1])
    return chosen


def write_film(path: Path, images: list[tuple[float, str]], sound: dict[str, Any] | None) -> None:
    """Write images that came at some milliseconds, and audio, as a video of 25 frames per second."""
    shown = even(images, FILM_FPS)
    begin = images[0][0]
    with av.open(str(path), "w") as film:
        video = film.add_stream("libx264", rate=FILM_FPS, options={"crf": "23", "preset": "veryfast"})
        assert isinstance(video, VideoStream)
        video.width, video.height, video.pix_fmt = WIDTH // 2 * 2, HEIGHT // 2 * 2, "yuv420p"
        audio = film.add_stream("aac", rate=sound["rate"], layout="mono") if sound else None
        if sound and isinstance(audio, AudioStream):
            _write_sound(film, audio, sound, begin)
        newest, frame = "", None
        for n, file in enumerate(shown[: round((images[-1][0] - begin) / 1000 * FILM_FPS)]):
            if file != newest:
                newest = file
                with av.open(file) as still:
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
