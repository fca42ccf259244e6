"""One listener of the live service: one time line, audio that never waits for images, segments that count once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avatar.errors import AvatarError
from avatar.infer.fades import FADE
from avatar.io.audio import SAMPLE_RATE
from avatar.serve.listener import MICROPHONE_PAUSE_SECONDS, Listener
from avatar.serve.metrics import Metrics
from avatar.serve.outbox import MOST_AUDIO_SECONDS, MOST_IMAGES, AudioPart, ImagePart, Outbox, Part
from avatar.serve.segments import MOST_WAITING, Segments, one
from tests.fake_avatar import FPS, FRAME
from tests.serving import fake_session
from tests.wait import wait_for


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    listener = Listener(fake_session(tmp_path), Metrics(), clock=lambda: 0.0)
    yield listener
    listener.stop()


def noise(seconds: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.01, 0.5, round(seconds * SAMPLE_RATE)).astype(np.float32)


def sent(listener: Listener) -> list[Part]:
    """What waits to be sent."""
    outbox = listener.outbox
    outbox.put({"type": "end of this test"})
    return asyncio.run(outbox.get())[:-1] if not outbox.images else asyncio.run(outbox.get())


def run(listener: Listener, start: int, stop: int, draw: bool = True) -> list[Part]:
    """Frames by their numbers, at their own times."""
    parts: list[Part] = []
    for frame in range(start, stop):
        listener.take(frame / FPS)
        if draw:
            assert listener.draw()
        parts += asyncio.run(listener.outbox.get())
    return parts


def audio(parts: list[Part]) -> np.ndarray:
    return np.concatenate([part.samples for part in parts if isinstance(part, AudioPart)])


def test_images_come_before_anything_is_said_and_belong_to_their_audio(listener: Listener):
    parts = run(listener, 0, 5)
    images = [part for part in parts if isinstance(part, ImagePart)]
    starts = [part.start for part in parts if isinstance(part, AudioPart)]
    np.testing.assert_allclose([image.pts for image in images], np.arange(5) / FPS)
    np.testing.assert_allclose(starts, np.arange(5) / FPS, atol=1e-9)
    assert not audio(parts).any() and len(audio(parts)) == 5 * FRAME


def test_audio_leaves_before_its_image_is_drawn_and_images_that_are_late_are_left_out(listener: Listener):
    said = noise(0.4)
    assert listener.say("a", one(said))
    wait_for(lambda: listener.session.waiting_seconds >= 0.4)
    parts = run(listener, 0, 12, draw=False)
    heard = audio(parts)
    np.testing.assert_array_equal(heard[heard != 0], said)
    assert listener.draw() and not listener.draw()  # the newest alone
    (image,) = [part for part in asyncio.run(listener.outbox.get()) if isinstance(part, ImagePart)]
    assert image.pts == pytest.approx(11 / FPS)
    assert listener._metrics.value("images_skipped_total") == 11


def test_a_listener_who_was_held_up_gets_all_audio_in_one_part(listener: Listener):
    said = noise(0.3)
    listener.say("a", one(said))
    wait_for(lambda: listener.session.waiting_seconds >= 0.3)
    first = run(listener, 0, 1)
    listener.take(10 / FPS)
    late = asyncio.run(listener.outbox.get())
    (part,) = [part for part in late if isinstance(part, AudioPart)]
    assert len(part.samples) == 10 * FRAME and part.start == pytest.approx(1 / FPS)
    heard = np.concatenate([audio(first), part.samples])
    np.testing.assert_array_equal(heard[heard != 0], said)


def test_an_interruption_drops_the_rest_with_a_fade_and_says_what_was_played(listener: Listener):
    said, reply = noise(2.0), noise(0.2, 2)
    listener.say("answer", one(said))
    listener.say("more", one(noise(1.0)))
    wait_for(lambda: listener.session.waiting_seconds >= 1.9)
    before = audio(run(listener, 0, 20))
    found = listener.interrupt()
    assert found.segment == "answer" and 0 < found.played_ms <= 800
    played = round(found.played_ms * SAMPLE_RATE / 1000)
    np.testing.assert_array_equal(before[len(before) - played :], said[:played])
    after = audio(run(listener, 20, 30))
    assert after[:FADE].any() and not after[FADE:].any()
    listener.say("reply", one(reply))
    wait_for(lambda: listener.session.waiting_seconds >= 0.2)
    parts = run(listener, 30, 45)
    np.testing.assert_array_equal(audio(parts)[audio(parts) != 0], reply)
    assert {"type": "segment.done", "segment": "reply"} in parts
    # The same again, and a word about something that is over, change nothing.
    assert listener.interrupt("answer") == found and listener.interrupt("more").played_ms == 0
    assert not listener.say("answer", one(said)) and listener.session.waiting_seconds == 0


def test_an_interruption_of_what_is_over_leaves_what_is_said_alone(listener: Listener):
    listener.say("first", one(noise(0.2)))
    wait_for(lambda: listener.session.waiting_seconds >= 0.2)
    run(listener, 0, 10)
    listener.say("second", one(noise(1.0)))
    wait_for(lambda: listener.session.waiting_seconds >= 1.0)
    assert listener.interrupt("first").played_ms == 200
    assert listener.session.waiting_seconds >= 1.0
    run(listener, 10, 20)
    assert listener.interrupt("second").played_ms > 0


def test_a_segment_waits_with_its_source_until_there_is_room(listener: Listener):
    made = []

    def pieces() -> Iterator[np.ndarray]:
        for i in range(100):
            made.append(i)
            yield noise(0.5, i)

    listener.say("long", pieces())
    wait_for(lambda: listener.session.waiting_seconds >= 1.9)
    assert len(made) <= 6 and listener.session.waiting_seconds <= 2.1
    listener.interrupt()
    count = len(made)
    threading.Event().wait(0.1)
    assert len(made) <= count + 1


def test_a_source_that_fails_is_said_in_words_and_the_next_segment_is_spoken(listener: Listener):
    def broken() -> Iterator[np.ndarray]:
        yield noise(0.1)
        raise AvatarError("The text has nothing to say.")

    listener.say("bad", broken())
    listener.say("good", one(noise(0.1)))
    wait_for(lambda: listener.session.waiting_seconds >= 0.2)
    words = [part for part in run(listener, 0, 20) if isinstance(part, dict)]
    failed = {"type": "segment.failed", "segment": "bad", "message": "The text has nothing to say."}
    assert failed in words and {"type": "segment.done", "segment": "good"} in words


def test_so_many_segments_may_wait(listener: Listener):
    hold = threading.Event()

    def waits() -> Iterator[np.ndarray]:
        hold.wait(10)
        yield noise(0.1)

    listener.say("first", waits())
    wait_for(lambda: not listener._segments._waiting)
    for i in range(MOST_WAITING):
        listener.say(f"{i}", one(noise(0.1)))
    with pytest.raises(AvatarError, match="segments wait"):
        listener.say("too many", one(noise(0.1)))
    hold.set()


def test_a_microphone_is_repeated_only_while_it_is_asked_for(tmp_path: Path):
    now = 0.0
    listener = Listener(fake_session(tmp_path), Metrics(), clock=lambda: now)
    listener.push_microphone(noise(0.1))
    assert listener.session.waiting_seconds == 0
    listener.echo(True)
    said = noise(0.4)
    parts: list[Part] = []
    for frame in range(30):
        now = frame / FPS
        listener.push_microphone(said[frame * FRAME : (frame + 1) * FRAME])
        listener.take(now)
        parts += asyncio.run(listener.outbox.get())
    heard = audio(parts)
    np.testing.assert_array_equal(heard[heard != 0][: len(said)], said)  # a fade follows
    assert 30 / FPS > 0.4 + MICROPHONE_PAUSE_SECONDS and {"type": "segment.done", "segment": "microphone"} in parts
    listener.stop()


def test_what_is_asked_for_goes_before_a_microphone_that_never_ends(listener: Listener):
    """A microphone gives samples in silence, too; it is repeated again once the segment was taken."""
    assert listener._segments.push("microphone", noise(0.1)) > 0
    listener.say("asked", one(noise(0.2, 2)))
    assert listener._segments.push("microphone", noise(0.1)) == 0
    wait_for(lambda: listener.session.waiting_seconds >= 0.3)
    wait_for(lambda: not listener._segments._open and not listener._segments._waiting)
    assert listener._segments.push("microphone", noise(0.1)) > 0
    words = [part for part in run(listener, 0, 20) if isinstance(part, dict)]
    assert [part["segment"] for part in words if part["type"] == "segment.done"] == ["microphone", "asked"]


def test_a_segment_that_fails_midway_is_over_once_what_was_made_of_it_was_said(listener: Listener):
    def broken() -> Iterator[np.ndarray]:
        yield noise(1.0)
        raise AvatarError("The file is damaged.")

    listener.say("bad", broken())
    wait_for(lambda: listener.session.waiting_seconds >= 1.0 and not listener._segments._open)
    early, late = run(listener, 0, 20), run(listener, 20, 40)
    failed = {"type": "segment.failed", "segment": "bad", "message": "The file is damaged."}
    assert failed not in early and late.count(failed) == 1
    assert not any(isinstance(part, dict) and part["type"] == "segment.done" for part in early + late)
    listener.say("worse", broken())
    wait_for(lambda: listener.session.waiting_seconds >= 1.0 and not listener._segments._open)
    run(listener, 40, 45)
    listener.interrupt()
    listener.say("good", one(noise(0.2)))
    wait_for(lambda: listener.session.waiting_seconds >= 0.2)
    words = [part for part in run(listener, 45, 70) if isinstance(part, dict)]
    assert not any(part["type"] == "segment.failed" for part in words), "it was interrupted"


def test_so_few_images_wait_and_a_slow_reader_is_noticed():
    outbox = Outbox()
    for i in range(10):
        outbox.put(ImagePart(i / FPS, np.zeros((2, 2, 3), np.uint8), 0.0))
        outbox.put(AudioPart(i / FPS, np.zeros(FRAME, np.float32), False, 0.0))
    assert outbox.images == MOST_IMAGES and outbox.skipped == 10 - MOST_IMAGES
    parts = asyncio.run(outbox.get())
    assert len([part for part in parts if isinstance(part, AudioPart)]) == 10
    for i in range(round(MOST_AUDIO_SECONDS * FPS) + 2):
        outbox.put(AudioPart(i / FPS, np.zeros(FRAME, np.float32), False, 0.0))
    assert outbox.overrun


def test_threads_run_and_end(tmp_path: Path):
    listener = Listener(fake_session(tmp_path), Metrics())
    listener.start()
    wait_for(lambda: listener.outbox.images)
    listener.stop()
    assert not listener._threads.alive and not listener.failed


def test_an_avatar_that_cannot_be_drawn_any_more_ends_its_own_session_in_words(tmp_path: Path):
    session = fake_session(tmp_path)
    listener = Listener(session, Metrics())

    def broken(*_: object) -> np.ndarray:
        raise RuntimeError("no memory")

    session.draw = broken  # type: ignore[method-assign]
    listener.start()
    wait_for(lambda: listener.failed)
    assert "log" in listener.failed
    listener.stop()


def test_empty_segments_are_over_at_once(tmp_path: Path):
    words: list[dict[str, object]] = []
    segments = Segments(fake_session(tmp_path), words.append)
    segments.say("nothing", iter(()))
    assert wait_for(lambda: words) == [{"type": "segment.done", "segment": "nothing"}]
    segments.close()
