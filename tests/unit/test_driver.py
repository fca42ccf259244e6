"""A live avatar inside a voice agent, without the agent's library: units in order, no audio lost or doubled."""

from __future__ import annotations

import asyncio
import importlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from avatar.errors import AvatarError
from avatar.integrations.driver import HOLD_FRAMES, MOST_READY, Driver, Unit
from avatar.integrations.speech import Speech
from tests.fake_avatar import FPS
from tests.serving import fake_session
from tests.wait import wait_for

RATE = 24000
FRAME = round(RATE / FPS)


@pytest.fixture
def driver(tmp_path: Path) -> Iterator[Driver]:
    driver = Driver(fake_session(tmp_path), RATE, clock=lambda: 0.0)
    yield driver
    driver.stop(wait=True)


def noise(seconds: float, rate: int = RATE, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(500, 16000, round(seconds * rate)).astype(np.int16)


def push(driver: Driver, samples: np.ndarray, rate: int = RATE) -> int:
    return asyncio.run(driver.push(samples, rate))


def got(driver: Driver) -> list[Unit]:
    """The units that are ready."""
    units = list(driver._ready)
    driver._ready.clear()
    return units


def run(driver: Driver, start: int, stop: int, draw: bool = True) -> list[Unit]:
    """Frames by their numbers, at their own times."""
    units: list[Unit] = []
    for frame in range(start, stop):
        driver.take(frame / FPS)
        if draw:
            driver.draw()
        units += got(driver)
    return units


def audio(units: list[Unit]) -> np.ndarray:
    return np.concatenate([unit.audio for unit in units])


def marks(units: list[Unit]) -> list[object]:
    return [mark for unit in units for mark in unit.marks]


def level(unit: Unit) -> float:
    assert unit.image is not None
    return float(unit.image.mean())


def test_idle_images_come_before_anything_is_said(driver: Driver):
    units = run(driver, 0, 10)
    assert len(units) == 10 - HOLD_FRAMES[0] and all(unit.image is not None for unit in units)
    assert not len(audio(units))


def test_an_image_comes_with_the_audio_that_belongs_to_it_bit_by_bit(driver: Driver):
    run(driver, 0, 5)
    said = noise(0.2)
    said[FRAME : 2 * FRAME] = 0  # the lips shut in the second frame
    push(driver, said)
    driver.end_speech()
    driver.mark("spoken")
    spoken = [unit for unit in run(driver, 5, 20) if len(unit.audio)]
    assert [len(unit.audio) for unit in spoken] == [FRAME] * 5
    np.testing.assert_array_equal(audio(spoken), said)
    assert [unit.marks for unit in spoken] == [()] * 4 + [("spoken",)]
    open_, shut = level(spoken[2]), level(spoken[1])
    assert open_ > shut + 20
    assert driver.quiet


def test_nothing_is_lost_or_doubled_however_audio_is_cut(driver: Driver):
    said = noise(1.37)
    at, units, sizes = 0, run(driver, 0, 3), np.random.default_rng(3)
    for frame in range(3, 70):
        size = int(sizes.integers(1, 2000))
        if at < len(said):
            push(driver, said[at : at + size])
            at += size
            if at >= len(said):
                driver.end_speech()
                driver.mark("end")
        units += run(driver, frame, frame + 1)
    np.testing.assert_array_equal(audio(units), said)
    assert marks(units) == ["end"]


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2), (22050, 1), (8000, 1)])
def test_any_rate_comes_out_at_one(driver: Driver, rate: int, channels: int):
    t = np.arange(round(0.5 * rate)) / rate
    tone = (9000 * np.sin(2 * np.pi * 300 * t)).astype(np.int16)
    said = tone if channels == 1 else np.stack([tone] * channels, 1)
    for piece in np.array_split(said, 7):
        push(driver, piece, rate)
    driver.end_speech()
    out = audio(run(driver, 0, 40)).astype(float)
    wanted = 9000 * np.sin(2 * np.pi * 300 * np.arange(RATE // 2) / RATE)
    assert abs(len(out) - len(wanted)) <= 2
    middle = slice(2000, -2000)
    np.testing.assert_allclose(out[: len(wanted)][middle], wanted[: len(out)][middle], atol=150)


def test_speeches_and_what_is_marked_between_them_keep_their_order(driver: Driver):
    first, second = noise(0.3), noise(0.25, seed=2)
    push(driver, first)
    driver.end_speech()
    driver.mark("first")
    driver.mark("also")
    push(driver, second)
    driver.end_speech()
    driver.mark("second")
    units = run(driver, 0, 40)
    np.testing.assert_array_equal(audio(units), np.concatenate([first, second]))
    at = {mark: i for i, unit in enumerate(units) for mark in unit.marks}
    assert list(at) == ["first", "also", "second"]
    assert sum(len(unit.audio) for unit in units[: at["first"] + 1]) == len(first)


def test_an_interruption_drops_the_rest_and_what_follows_is_complete(driver: Driver):
    said, reply = noise(2.0), noise(0.2, seed=2)
    push(driver, said)
    driver.end_speech()
    driver.mark("said")
    before = audio(run(driver, 0, 15))
    assert 0 < len(before) < len(said)
    np.testing.assert_array_equal(before, said[: len(before)])
    assert driver.interrupt() == ["said"] and driver.quiet
    assert driver.interrupt() == []
    idle = run(driver, 15, 30)
    assert not len(audio(idle)) and not marks(idle)
    assert level(idle[-1]) < 10 and sum(unit.image is not None for unit in idle) >= 14
    push(driver, reply)
    driver.end_speech()
    driver.mark("reply")
    units = run(driver, 30, 45)
    np.testing.assert_array_equal(audio(units), reply)
    assert marks(units) == ["reply"]


def test_a_speech_after_an_interruption_is_complete_though_frames_are_being_taken(driver: Driver):
    """The frame that is under way belongs to what was interrupted; the next speech must not pay for it."""
    push(driver, noise(1.0))
    run(driver, 0, 10)
    reply, take = noise(0.2, seed=2), driver.session.take
    reply[FRAME : 2 * FRAME] = 0  # the lips shut in the second frame

    def interrupted(now: float) -> object:
        frames = take(now)
        driver.session.take = take  # type: ignore[method-assign]
        driver.interrupt()
        push(driver, reply)
        driver.end_speech()
        return frames

    driver.session.take = interrupted  # type: ignore[method-assign,assignment]
    spoken = [unit for unit in run(driver, 10, 30) if len(unit.audio)]
    np.testing.assert_array_equal(audio(spoken), reply)
    assert level(spoken[1]) < level(spoken[2]) - 20


def said_next(driver: Driver, samples: np.ndarray, mark: str, *, lasting: bool = False) -> None:
    """A whole speech and its mark, which last or do not."""
    asyncio.run(driver.push(samples, RATE, interruptible=not lasting, about=mark))
    driver.end_speech()
    driver.mark(f"{mark} {'lasts' if lasting else ''}")


def test_what_may_not_be_interrupted_goes_on_without_a_gap_and_what_waits_is_dropped(driver: Driver):
    driver._lasts = lambda mark: "lasts" in mark
    notice, answer, reply = noise(1.0), noise(1.0, seed=2), noise(0.4, seed=3)
    said_next(driver, notice, "notice", lasting=True)
    said_next(driver, answer, "answer")
    units = run(driver, 0, 10)
    assert driver.interrupt() == ["answer "] and not driver.quiet
    units += run(driver, 10, 15)
    said_next(driver, reply, "reply")
    units += run(driver, 15, 70)
    spoken = [i for i, unit in enumerate(units) if len(unit.audio)]
    np.testing.assert_array_equal(audio(units), np.concatenate([notice, reply]))
    assert marks(units) == ["notice lasts", "reply "] and driver.quiet
    first = [i for i in spoken if units[i].about == "notice"]
    assert first == list(range(first[0], first[0] + 25)), "the notice has no gap"
    assert units[first[-1]].marks == ("notice lasts",)
    assert [units[i].interruptible for i in spoken] == [False] * 25 + [True] * 10
    assert {units[i].about for i in spoken[25:]} == {"reply"}
    assert level(units[spoken[27]]) > 20, "its lips move"


def test_what_may_not_be_interrupted_and_waits_is_said_next(driver: Driver):
    driver._lasts = lambda mark: "lasts" in mark
    answer, notice = noise(1.0), noise(0.4, seed=2)
    said_next(driver, answer, "answer")
    said_next(driver, notice[:4000], "notice", lasting=True)
    asyncio.run(driver.push(notice[4000:], RATE, interruptible=False, about="more"))  # still comes
    units = run(driver, 0, 10)
    assert driver.interrupt() == ["answer "] and driver.interrupt() == []
    driver.end_speech()
    after = run(driver, 10, 40)
    np.testing.assert_array_equal(audio(after), notice)
    assert len(audio(units)) < len(answer) and marks(after) == ["notice lasts"] and driver.quiet
    assert level(next(unit for unit in after[3:] if len(unit.audio))) > 20


def test_an_interruption_ends_a_push_that_waits_for_room_unless_it_may_not(driver: Driver):
    async def fast(interruptible: bool) -> int:
        pushing = asyncio.create_task(driver.push(noise(25.0), RATE, interruptible=interruptible))
        await asyncio.sleep(0.05)
        assert not pushing.done()
        driver.interrupt()
        if not interruptible:
            await asyncio.sleep(0.05)
            assert not pushing.done()
            driver.stop()
        return await pushing

    assert asyncio.run(fast(True)) < 25 * RATE and driver.quiet
    assert asyncio.run(fast(False)) < 25 * RATE and not driver.quiet


def test_where_rendering_is_slow_images_are_left_out_and_audio_is_not(driver: Driver):
    said = noise(1.0)
    push(driver, said)
    driver.end_speech()
    units: list[Unit] = []
    for frame in range(60):
        driver.take(frame / FPS)
        if frame % 5 == 0:
            driver.draw()
        units += got(driver)
    np.testing.assert_array_equal(audio(units), said)
    spoken = [unit for unit in units if len(unit.audio)]
    assert 3 <= sum(unit.image is not None for unit in spoken) <= 7


def test_a_late_image_comes_with_the_next_unit(driver: Driver):
    draw, drawn = driver.session.draw, []

    def slow(frame: object) -> np.ndarray:
        for later in range(3, 3 + HOLD_FRAMES[1] + 1):
            driver.take(later / FPS)
        drawn.append(draw(frame))  # type: ignore[arg-type]
        return drawn[-1]

    run(driver, 0, 2)
    push(driver, noise(1.0))
    driver.take(2 / FPS)
    driver.session.draw = slow  # type: ignore[method-assign]
    driver.draw()
    driver.session.draw = draw  # type: ignore[method-assign]
    got(driver)
    units = run(driver, 7, 8)
    assert units[0].image is drawn[0]


def test_late_frames_are_made_up_for_and_a_machine_that_slept_says_the_rest_afterwards(driver: Driver):
    said = noise(2.0)
    push(driver, said)
    driver.end_speech()
    units = run(driver, 0, 10)
    units += run(driver, 15, 16)
    made_up = len(audio(units))
    assert made_up >= 12 * FRAME
    units += run(driver, 500, 501)
    assert len(audio(units)) - made_up <= 2 * FRAME
    units += run(driver, 501, 560)
    np.testing.assert_array_equal(audio(units), said)


def test_time_stands_still_where_nobody_gets_the_units(driver: Driver):
    said = noise(2.0)
    push(driver, said)
    driver.end_speech()
    for frame in range(40):
        driver.take(frame / FPS)
        driver.draw()
    assert len(driver._ready) == MOST_READY
    np.testing.assert_array_equal(audio(got(driver) + run(driver, 40, 110)), said)


def test_a_source_that_is_faster_than_the_avatar_waits(driver: Driver):
    async def fast() -> None:
        pushing = asyncio.create_task(driver.push(noise(40.0), RATE))
        await asyncio.sleep(0.05)
        assert not pushing.done() and 20 <= driver.waiting_seconds <= 22
        driver.interrupt()
        assert await pushing < 25 * RATE
        assert driver.quiet and driver.session.waiting_seconds == 0

    asyncio.run(fast())


def test_an_avatar_that_breaks_says_so_and_gives_back_what_was_not_played(driver: Driver):
    def broken(_: object) -> np.ndarray:
        raise RuntimeError("no memory")

    said = noise(0.5)
    push(driver, said)
    driver.end_speech()
    driver.mark("after")
    push(driver, said)
    driver.session.draw = broken  # type: ignore[method-assign]
    driver._threads._clock = time.monotonic
    driver.start()
    wait_for(lambda: driver.failed)
    assert "no memory" in driver.failed and driver.over and not push(driver, said) and not driver.mark("too late")
    rest = got(driver) + driver.rest()
    np.testing.assert_array_equal(audio(rest), np.concatenate([said, said]))
    assert marks(rest) == ["after"] and driver.quiet
    at = next(i for i, unit in enumerate(rest) if unit.marks)
    np.testing.assert_array_equal(audio(rest[: at + 1]), said)
    assert asyncio.run(driver.get()) is None


def test_threads_run_and_end(tmp_path: Path):
    async def listen() -> None:
        driver = Driver(fake_session(tmp_path), RATE)
        driver.start()
        said = noise(0.2)
        await driver.push(said, RATE)
        driver.end_speech()
        driver.mark("end")
        units: list[Unit] = []
        while "end" not in marks(units):
            unit = await driver.get()
            assert unit is not None
            units.append(unit)
        np.testing.assert_array_equal(audio(units), said)
        await asyncio.to_thread(driver.stop, True)
        assert not driver._threads.alive
        while await driver.get() is not None:
            pass

    asyncio.run(asyncio.wait_for(listen(), 20))


@pytest.mark.parametrize("package", ["pipecat", "livekit"])
def test_without_its_package_a_plug_in_says_what_to_install(monkeypatch: pytest.MonkeyPatch, package: str):
    monkeypatch.delitem(sys.modules, f"avatar.integrations.{package}", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(AvatarError, match=rf"pip install 'avatar-toolkit\[{package}\]'"):
        importlib.import_module(f"avatar.integrations.{package}")


def test_audio_that_cannot_be_used_is_refused_in_words():
    speech = Speech(RATE)
    with pytest.raises(AvatarError, match="samples per second"):
        speech.add(np.zeros(10, np.int16), 5)
    with pytest.raises(AvatarError, match="float32"):
        speech.add(np.zeros(10, np.float32), RATE)
    assert len(speech.close()) == 1 and not speech.over  # nothing was said, and it still ends once
    assert not len(speech.take(1)[0]) and speech.over
