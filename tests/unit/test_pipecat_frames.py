"""The plug-in of pipecat, frame by frame and without pipecat: flags that stay with their audio, and chunks of bytes."""

from __future__ import annotations

import asyncio
import importlib
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests import fake_pipecat
from tests.fake_avatar import FPS
from tests.serving import fake_session, in_step
from tests.wait import wait_for

RATE = 24000
FRAME = round(RATE / FPS)
PLUG_IN = "avatar.integrations.pipecat"


@pytest.fixture
def pipecat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Frames of a pretended pipecat, with the plug-in as ``plug_in`` and what it opens as ``session``."""
    frames = fake_pipecat.install(monkeypatch)
    before = sys.modules.pop(PLUG_IN, None)
    frames.plug_in, frames.session = importlib.import_module(PLUG_IN), in_step(fake_session(tmp_path))
    monkeypatch.setattr(frames.plug_in, "open_session", lambda *_: frames.session)
    yield frames
    del sys.modules[PLUG_IN]
    if before is not None:
        sys.modules[PLUG_IN] = before
    wait_for(lambda: not [one for one in threading.enumerate() if one.name in ("avatar-take", "avatar-draw")])


def noise(seconds: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(500, 16000, round(seconds * RATE)).astype(np.int16)


def run(pipecat: Any, talk: Callable[[Any, Callable[..., Awaitable[None]]], Awaitable[None]]) -> Any:
    """The service, after a talk with it that gets the service and what processes frames, and all that was said."""

    async def test() -> Any:
        service = pipecat.plug_in.AvatarVideoService("nowhere")
        await service.setup(SimpleNamespace(audio_out_sample_rate=RATE))

        async def send(*frames: Any) -> None:
            for frame in frames:
                await service.process_frame(frame, fake_pipecat.FrameDirection.DOWNSTREAM)

        await send(pipecat.StartFrame())
        await talk(service, send)
        while service._driver is not None and not service._driver.quiet:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        await service.cancel(pipecat.CancelFrame())
        await service.cleanup()
        return service

    return asyncio.run(asyncio.wait_for(test(), 60))


def spoken(service: Any, kind: str = "TTSAudioRawFrame") -> list[Any]:
    return [frame for frame in service.pushed if type(frame).__name__ == kind]


def audio(service: Any) -> np.ndarray:
    return np.frombuffer(b"".join(frame.audio for frame in spoken(service)), np.int16)


def said(pipecat: Any, samples: np.ndarray, lasting: bool = False, to: str | None = None) -> tuple[Any, Any]:
    """The frames of a speech."""
    frames = pipecat.TTSAudioRawFrame(samples.tobytes(), RATE, 1), pipecat.TTSStoppedFrame()
    for frame in frames:
        frame.interruptible, frame.transport_destination = not lasting, to
    return frames


def test_speech_that_may_not_be_interrupted_is_said_to_its_end_and_the_answer_after_it_is_dropped(pipecat: Any):
    notice, answer, reply = noise(0.6), noise(0.6, 2), noise(0.2, 3)
    first, second, third = said(pipecat, notice, lasting=True), said(pipecat, answer), said(pipecat, reply)

    async def talk(service: Any, send: Any) -> None:
        await send(*first, *second)
        while not spoken(service):
            await asyncio.sleep(0.01)
        await send(pipecat.InterruptionFrame())
        await send(*third)

    service = run(pipecat, talk)
    np.testing.assert_array_equal(audio(service), np.concatenate([notice, reply]))
    assert spoken(service, "TTSStoppedFrame") == [first[1], third[1]]
    at = service.pushed.index(first[1])
    assert sum(len(frame.audio) for frame in service.pushed[:at] if frame in spoken(service)) == 2 * len(notice)
    assert [frame.interruptible for frame in spoken(service)] == [False] * 15 + [True] * 5


def test_an_interruption_stops_the_answer_and_not_what_waits_and_may_not_be_interrupted(pipecat: Any):
    answer, notice = noise(2.0), noise(0.2, 2)

    async def talk(service: Any, send: Any) -> None:
        await send(*said(pipecat, answer), *said(pipecat, notice, lasting=True))
        while not spoken(service):
            await asyncio.sleep(0.01)
        await send(pipecat.InterruptionFrame())

    service = run(pipecat, talk)
    heard = audio(service)
    np.testing.assert_array_equal(heard[-len(notice) :], notice)
    np.testing.assert_array_equal(heard[: -len(notice)], answer[: len(heard) - len(notice)])
    assert len(heard) < len(answer)
    (stopped,) = spoken(service, "TTSStoppedFrame")
    assert not stopped.interruptible and service.pushed.index(stopped) > service.pushed.index(spoken(service)[-1])


def test_audio_goes_where_it_was_to_go_and_images_to_the_camera(pipecat: Any):
    async def talk(service: Any, send: Any) -> None:
        await send(*said(pipecat, noise(0.2), to="stage", lasting=True), *said(pipecat, noise(0.2)))

    service = run(pipecat, talk)
    assert [frame.transport_destination for frame in spoken(service)] == ["stage"] * 5 + [None] * 5
    pairs = pairwise(service.pushed)
    images = [image for image, after in pairs if hasattr(image, "image") and hasattr(after, "audio")]
    assert not any(getattr(image, "transport_destination", None) for image in images)  # it may take no video
    assert [image.interruptible for image in images] == [False] * 5 + [True] * 5


@pytest.mark.parametrize("channels", [1, 2])
def test_chunks_that_end_within_a_sample_are_no_noise(pipecat: Any, channels: int):
    samples = noise(0.4)
    raw, cuts = np.repeat(samples, channels).tobytes(), (0, 1, 1002, 1003, 6001, None)
    chunks = [raw[start:end] for start, end in pairwise(cuts)]
    heard: list[np.ndarray] = []
    pipecat.session.hear = lambda piece: heard.append(piece)

    async def talk(service: Any, send: Any) -> None:
        for chunk in chunks:
            await send(pipecat.TTSAudioRawFrame(chunk, RATE, channels, "a"))
            await send(pipecat.InputAudioRawFrame(chunk, 16000, channels))
        await send(pipecat.TTSStoppedFrame())

    service = run(pipecat, talk)
    np.testing.assert_array_equal(audio(service), samples)
    np.testing.assert_allclose(np.concatenate(heard) * 32768, samples, atol=1)


@pytest.mark.parametrize("between", ["TTSStoppedFrame", "InterruptionFrame", "another context", "goes on"])
def test_what_was_left_of_a_sample_is_no_part_of_another_speech(pipecat: Any, between: str):
    samples = noise(0.4)
    raw = samples.tobytes()
    half = len(raw) // 2

    async def talk(service: Any, send: Any) -> None:
        whole = between != "goes on"  # else its first byte was in the chunk before
        first = pipecat.TTSAudioRawFrame(raw[: half + 1], RATE, 1, "a")
        first.interruptible = between != "goes on"
        await send(first)
        if between != "another context":
            await send(getattr(pipecat, "InterruptionFrame" if between == "goes on" else between)())
        context = "b" if between == "another context" else "a"
        rest = pipecat.TTSAudioRawFrame(raw[half if whole else half + 1 :], RATE, 1, context)
        rest.interruptible = first.interruptible
        await send(rest, pipecat.TTSStoppedFrame())

    service = run(pipecat, talk)
    wanted = samples[half // 2 :] if between == "InterruptionFrame" else samples
    np.testing.assert_array_equal(audio(service)[-len(wanted) :], wanted)


def test_where_there_is_no_avatar_whole_samples_pass(pipecat: Any, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("no such run")

    monkeypatch.setattr(pipecat.plug_in, "open_session", broken)
    samples = noise(0.1)
    raw = samples.tobytes()

    async def talk(service: Any, send: Any) -> None:
        await send(pipecat.TTSAudioRawFrame(raw[:1001], RATE, 1), pipecat.TTSAudioRawFrame(raw[1001:], RATE, 1))

    service = run(pipecat, talk)
    assert [frame.num_frames for frame in spoken(service)] == [500, len(samples) - 500]
    assert [len(frame.audio) % 2 for frame in spoken(service)] == [0, 0] and "no such run" in service.errors[0]
    np.testing.assert_array_equal(audio(service), samples)
