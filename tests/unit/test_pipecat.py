"""The plug-in of pipecat, in pipelines of pipecat itself."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():  # what pipecat and its packages do, not this one
    warnings.simplefilter("ignore")
    pytest.importorskip("pipecat", reason="the extra `pipecat` is not installed")
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        ErrorFrame,
        Frame,
        InputAudioRawFrame,
        InterruptionFrame,
        LLMFullResponseEndFrame,
        OutputImageRawFrame,
        TTSAudioRawFrame,
        TTSStartedFrame,
        TTSStoppedFrame,
        UserStartedSpeakingFrame,
        UserStoppedSpeakingFrame,
    )
    from pipecat.pipeline.worker import PipelineParams
    from pipecat.tests.utils import SleepFrame, run_test

    from avatar.integrations import pipecat as plug_in
    from avatar.integrations.pipecat import AvatarVideoService

from tests.fake_avatar import FPS, SIZE
from tests.serving import fake_session, in_step
from tests.wait import wait_for

pytestmark = pytest.mark.filterwarnings("ignore")

RATE = 24000
FRAME = round(RATE / FPS)


@pytest.fixture(autouse=True)
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The session that a service opens."""
    session = in_step(fake_session(tmp_path))
    monkeypatch.setattr(plug_in, "open_session", lambda *_: session)
    yield session
    wait_for(lambda: not [one for one in threading.enumerate() if one.name in ("avatar-take", "avatar-draw")])


def noise(seconds: float, rate: int = RATE, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(500, 16000, round(seconds * rate)).astype(np.int16)


def spoken(samples: np.ndarray, rate: int = RATE, parts: int = 1) -> list[Frame]:
    pieces = np.array_split(samples, parts)
    audio = [TTSAudioRawFrame(piece.tobytes(), rate, 1) for piece in pieces]
    stopped = TTSStoppedFrame()
    stopped.pts = 1  # as services that time their words have it
    return [TTSStartedFrame(), *audio, stopped]


def run(frames: Sequence[Frame], **options: Any) -> tuple[list[Frame], list[Frame]]:
    """Frames that came out of a service, downstream and upstream."""

    async def test() -> tuple[Sequence[Frame], Sequence[Frame]]:
        service = AvatarVideoService("nowhere", **options)
        return await asyncio.wait_for(
            run_test(
                service, frames_to_send=frames, start_timeout=10,
                pipeline_params=PipelineParams(audio_out_sample_rate=RATE),
            ),
            60,
        )  # fmt: skip

    down, up = asyncio.run(test())
    return list(down), list(up)


def audio(frames: Sequence[Frame]) -> np.ndarray:
    pieces = [frame.audio for frame in frames if isinstance(frame, TTSAudioRawFrame)]
    return np.frombuffer(b"".join(pieces), np.int16)


def kinds(frames: Sequence[Frame]) -> list[type]:
    """What came, without images that come alone."""
    found = []
    for frame, after in zip(frames, [*frames[1:], None]):
        if not isinstance(frame, OutputImageRawFrame) or isinstance(after, TTSAudioRawFrame):
            found.append(type(frame))
    return found


def test_200_ms_are_5_images_with_their_audio_and_then_the_end():
    said = noise(0.2)
    down, up = run([SleepFrame(0.3), *spoken(said, parts=3)])
    pair = [OutputImageRawFrame, TTSAudioRawFrame]
    assert kinds(down) == [TTSStartedFrame, *(pair * 5), TTSStoppedFrame] and not up
    np.testing.assert_array_equal(audio(down), said)
    images = [frame for frame in down if isinstance(frame, OutputImageRawFrame)]
    assert len(images) > 5  # idle ones too
    assert all(image.sync_with_audio and image.size == (SIZE, SIZE) and image.format == "RGB" for image in images)
    assert all(len(image.image) == SIZE * SIZE * 3 for image in images)


def test_the_avatar_listens_to_the_user_and_thinks_until_it_answers(session: Any):
    heard: list[np.ndarray] = []
    thought: list[bool] = []
    session.hear, session.think = heard.append, thought.append
    user = noise(0.2, 48000)
    said = [InputAudioRawFrame(piece.tobytes(), 48000, 1) for piece in np.array_split(user, 10)]
    down, _ = run([SleepFrame(0.3), UserStartedSpeakingFrame(), *said, UserStoppedSpeakingFrame(), *spoken(noise(0.2))])
    assert sum(map(len, heard)) == pytest.approx(0.2 * 16000, abs=400) and heard[-1].dtype == np.float32
    assert thought == [False, True, False]
    assert sum(isinstance(frame, InputAudioRawFrame) for frame in down) == 10, "others may want it, too"


def test_two_answers_and_what_follows_them_keep_their_order():
    first, second = noise(0.2), noise(0.2, seed=2)
    down, _ = run([*spoken(first), LLMFullResponseEndFrame(), *spoken(second)])
    np.testing.assert_array_equal(audio(down), np.concatenate([first, second]))
    order = [frame for frame in down if not isinstance(frame, OutputImageRawFrame)]
    end = next(i for i, frame in enumerate(order) if isinstance(frame, LLMFullResponseEndFrame))
    np.testing.assert_array_equal(audio(order[:end]), first)
    assert [type(frame) for frame in order[end - 1 : end + 2]] == [
        TTSStoppedFrame, LLMFullResponseEndFrame, TTSStartedFrame,
    ]  # fmt: skip


def test_any_sample_rate_comes_out_at_that_of_the_pipeline():
    down, _ = run(spoken(noise(0.4, 16000), 16000))
    assert abs(len(audio(down)) - 0.4 * RATE) <= 2
    assert {frame.sample_rate for frame in down if isinstance(frame, TTSAudioRawFrame)} == {RATE}


def test_an_interruption_drops_what_was_not_spoken_and_the_next_answer_is_complete():
    said, reply = noise(3.0), noise(0.2, seed=2)
    down, _ = run([*spoken(said), SleepFrame(0.5), InterruptionFrame(), SleepFrame(0.2), *spoken(reply)])
    at = next(i for i, frame in enumerate(down) if isinstance(frame, InterruptionFrame))
    before, after = audio(down[:at]), audio(down[at:])
    assert len(before) < len(said)
    np.testing.assert_array_equal(before, said[: len(before)])
    np.testing.assert_array_equal(after, reply)
    stops = [i for i, frame in enumerate(down) if isinstance(frame, TTSStoppedFrame)]
    assert len(stops) == 1 and stops[0] > at  # that of what was interrupted went with it
    assert any(isinstance(frame, OutputImageRawFrame) for frame in down[at:])


def test_what_may_not_be_interrupted_is_said_to_its_end_and_goes_on_as_what_it_was():
    notice, answer = noise(1.0), noise(1.0, seed=2)
    legal = spoken(notice)
    for frame in legal:
        frame.interruptible, frame.transport_destination = False, "stage"
    down, _ = run([*legal, *spoken(answer), SleepFrame(0.5), InterruptionFrame(), SleepFrame(0.2)])
    np.testing.assert_array_equal(audio(down), notice)
    out = [frame for frame in down if isinstance(frame, TTSAudioRawFrame)]
    assert all((frame.interruptible, frame.transport_destination) == (False, "stage") for frame in out)
    at = next(i for i, frame in enumerate(down) if isinstance(frame, InterruptionFrame))
    assert 0 < len(audio(down[:at])) < len(notice)
    stops = [i for i, frame in enumerate(down) if isinstance(frame, TTSStoppedFrame)]
    assert len(stops) == 1 and len(audio(down[: stops[0]])) == len(notice)


def test_the_end_waits_for_what_is_said_and_a_cancellation_does_not():
    said = noise(0.5)
    down, _ = run([TTSAudioRawFrame(said.tobytes(), RATE, 1)])
    np.testing.assert_array_equal(audio(down), said)
    down, _ = run([*spoken(noise(30.0)), SleepFrame(0.3), CancelFrame()])
    assert len(audio(down)) < 20 * RATE and not any(isinstance(frame, EndFrame) for frame in down)


def test_an_avatar_that_cannot_start_is_one_error_and_audio_passes(monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object) -> None:
        raise RuntimeError("no such run")

    monkeypatch.setattr(plug_in, "open_session", broken)
    frames = spoken(noise(0.2), parts=2)
    down, up = run(frames)
    assert down == frames
    assert [type(frame) for frame in up] == [ErrorFrame] and "no such run" in up[0].error  # type: ignore[attr-defined]


def test_an_avatar_that_breaks_is_one_error_and_no_audio_is_lost(session: Any):
    draw, count = session.draw, iter(range(1000))

    def breaks(frame: Any) -> np.ndarray:
        if next(count) == 8:
            raise RuntimeError("no memory")
        return draw(frame)

    session.draw = breaks
    said, more = noise(0.6), noise(0.2, seed=2)
    down, up = run([*spoken(said), SleepFrame(0.7), *spoken(more)])
    np.testing.assert_array_equal(audio(down), np.concatenate([said, more]))
    assert [type(frame) for frame in up] == [ErrorFrame] and "no memory" in up[0].error  # type: ignore[attr-defined]
    stops = [i for i, frame in enumerate(down) if isinstance(frame, TTSStoppedFrame)]
    assert len(stops) == 2
    np.testing.assert_array_equal(audio(down[: stops[0]]), said)


def test_an_avatar_that_hangs_lets_go_of_what_waits(session: Any):
    let_go = threading.Event()
    session.take = lambda _: let_go.wait(20) and []
    said = noise(0.2)
    try:
        down, up = run([*spoken(said), SleepFrame(0.6)], stuck_seconds=0.2)
    finally:
        let_go.set()
    np.testing.assert_array_equal(audio(down), said)
    assert isinstance(down[-1], TTSStoppedFrame) and [type(frame) for frame in up] == [ErrorFrame]
