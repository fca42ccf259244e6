"""When frames are taken, and what goes out before its time: no frame waits for the clock, and no audio for a frame."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiortc", reason="it is not installed")

from avatar.infer.session import Session
from avatar.io.audio import SAMPLE_RATE
from avatar.serve.ahead import AHEAD_SECONDS, Ahead
from avatar.serve.arrival import MARGIN_SECONDS, Arrival
from avatar.serve.catching_up import KEPT_SECONDS, LEAST_PIECES, CatchingUp
from avatar.serve.frame_threads import FrameThreads
from avatar.serve.listener import MICROPHONE, PATIENCE_AHEAD_SECONDS, PATIENCE_SECONDS, Listener
from avatar.serve.metrics import Metrics
from avatar.serve.outbox import AudioPart
from avatar.serve.segments import one
from avatar.serve.tracks import PACKET, SpeechTrack
from tests.fake_avatar import FPS, FRAME, FakeAvatar, LoudnessSpeech, LoudnessStream
from tests.node import told
from tests.serving import fake_session
from tests.wait import wait_for

PIECE = SAMPLE_RATE // 50
HELD = 3 * FRAME  # samples after a frame that a speech network waits for
WORKLET = Path(__file__).parents[2] / "avatar/serve/page/speaker-worklet.js"


class LateStream(LoudnessStream):
    def push(self, samples: np.ndarray) -> Any:
        self._waits = np.concatenate([getattr(self, "_waits", np.zeros(0, np.float32)), samples])
        ready = max(0, len(self._waits) - HELD)
        found, self._waits = self._waits[:ready], self._waits[ready:]
        return super().push(found)

    def finish(self) -> Any:
        from avatar.motion import Motion

        return Motion.cat([super().push(self._waits), super().finish()])


class LateSpeech(LoudnessSpeech):
    """Lips of a frame need 0.12 s of audio after it."""

    look_ahead = 4 / FPS

    def open(self) -> LateStream:
        super().open()
        return LateStream(self)


class Clock:
    """A clock that stands still, but while somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class News:
    """Stands for the event that says that audio came: each piece comes at its second."""

    def __init__(self, clock: Clock, times: list[float], push: Any) -> None:
        self._clock, self._times, self._push = clock, times, push
        self._set = False

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def wait(self, seconds: float) -> bool:
        until = self._clock.now + seconds
        if self._times and self._times[0] <= until:
            self._clock.now = max(self._clock.now, self._times.pop(0))
            self._push()
            return True
        self._clock.now = until
        return False


def noise(seconds: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.01, 0.5, round(seconds * SAMPLE_RATE)).astype(np.float32)


def talk(folder: Path, times: list[float], said: np.ndarray, frames: int, ahead: bool = False) -> list[AudioPart]:
    """What comes out where a microphone gives pieces of 20 ms at some seconds from the begin."""
    fake_session(folder)
    clock = Clock()
    avatar: Any = FakeAvatar(folder)
    listener = Listener(Session(avatar, speech=LateSpeech(), flush_seconds=None), Metrics(), clock)
    listener.ahead_seconds = AHEAD_SECONDS if ahead else 0.0
    listener.images = False
    listener.echo(True)
    pieces = iter(said.reshape(-1, PIECE))
    parts: list[AudioPart] = []

    def take(now: float) -> float:
        longer = listener.take(now)
        parts.extend(part for part in asyncio.run(listener.outbox.get()) if isinstance(part, AudioPart))
        if len(parts) >= frames:
            threads.stop(wait=False)
        return longer

    threads = FrameThreads(FPS, take, lambda: False, lambda error: pytest.fail(str(error)), clock, listener.prepare)
    listener._threads = threads
    threads._news = News(clock, [100.0 + at for at in times], lambda: listener.push_microphone(next(pieces)))  # type: ignore[assignment]
    threads._take_on()
    listener._segments.end(MICROPHONE)
    listener.stop()
    return parts


@pytest.mark.parametrize("phase", [0.0, 0.007, 0.013, 0.02, 0.031, 0.039])
def test_the_first_frame_is_taken_when_it_is_ready_however_audio_and_clock_meet(tmp_path: Path, phase: float):
    said = noise(1.0)
    times = [0.2 + phase + 0.02 * n for n in range(len(said) // PIECE)]
    parts = talk(tmp_path, times, said, 24)
    first = next(part for part in parts if part.speaking)
    ready = 100.0 + times[(FRAME + HELD) // PIECE - 1]
    assert 0 <= first.made - ready < MARGIN_SECONDS + 0.002
    # One time line: no sample is missing or twice, and the clock of frames goes with it.
    for part, after in pairwise(parts):
        assert after.start == pytest.approx(part.start + len(part.samples) / SAMPLE_RATE, abs=1e-9)
        assert after.made - after.start == pytest.approx(part.made - part.start, abs=1e-4)
    spoken = np.concatenate([part.samples for part in parts if part.speaking])
    np.testing.assert_array_equal(spoken, said[: len(spoken)])
    assert {len(part.samples) for part in parts if part.speaking} == {FRAME}
    assert all(FRAME // 2 <= len(part.samples) <= 3 * FRAME // 2 for part in parts)


@pytest.mark.parametrize("late", [0.025, 0.06])
def test_a_piece_that_is_late_makes_no_hole_where_the_page_has_audio_for_that_time(tmp_path: Path, late: float):
    said = noise(1.0)
    times = [0.2 + 0.02 * n for n in range(len(said) // PIECE)]
    times[20:] = [max(at, times[20] + late) for at in times[20:]]
    for ahead, patience in ((True, PATIENCE_AHEAD_SECONDS), (False, PATIENCE_SECONDS)):
        parts = talk(tmp_path, list(times), said, 26, ahead)
        first = next(n for n, part in enumerate(parts) if part.speaking)
        speaking = [part.speaking for part in parts[first : first + 16]]
        assert all(speaking) == (late <= patience + MARGIN_SECONDS), "a hole is a frame of silence"


def test_a_correction_that_is_small_or_too_late_is_none():
    arrival = Arrival(FPS, 0.16)
    assert arrival.longer(5.0) == 0.0
    arrival.note(10.0, PIECE)  # so it is ready at 10.14
    assert arrival.longer(10.14 + MARGIN_SECONDS - 0.04 * 2 + 0.001) == 0.0
    assert arrival.longer(10.14 + MARGIN_SECONDS - 0.04 * 2 - 0.015) == pytest.approx(0.015)
    assert arrival.longer(10.14 + MARGIN_SECONDS - 0.04 * 2 + 0.015) == pytest.approx(-0.015)
    arrival.note(10.03, PIECE)  # the second piece came 10 ms late
    assert arrival.longer(10.15 + MARGIN_SECONDS - 0.04 * 2 - 0.015) == pytest.approx(0.015)
    assert arrival.longer(10.2) == 0.0
    arrival.clear()
    assert arrival.longer(10.0) == 0.0


def test_a_frame_in_which_something_is_said_keeps_its_length(tmp_path: Path):
    session = fake_session(tmp_path)
    session.take(0.0)
    session.push_audio(noise(0.2))
    (frame,) = session.take(0.04, longer=0.01)
    assert len(frame.audio) == FRAME and frame.longer == 0
    session.interrupt()
    (frame,) = session.take(0.08, longer=-0.01)
    assert len(frame.audio) == FRAME - 160 and frame.longer == -0.01
    (frame,) = session.take(0.11)  # the clock follows
    assert frame.pts == pytest.approx(0.11) and session.take(0.149) == []


def test_pauses_of_a_microphone_that_is_late_are_left_out_until_it_is_on_time():
    def said(waiting: float) -> np.ndarray:
        up, out = CatchingUp(0.2), []
        for piece in sound.reshape(-1, PIECE):
            out.append(up.kept(piece, waiting - sum(not len(one) for one in out) * 0.02))
        return np.concatenate(out)

    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    word = (0.3 * np.sin(2 * np.pi * 300 * t)).astype(np.float32)
    pause = np.random.default_rng(0).normal(0, 1e-3, SAMPLE_RATE).astype(np.float32)
    sound = np.concatenate([pause, word, pause, word])
    np.testing.assert_array_equal(said(0.21), sound)
    late = said(0.5)
    assert np.count_nonzero(np.abs(late) > 0.01) == np.count_nonzero(np.abs(sound) > 0.01), "no word is shorter"
    assert len(sound) - len(late) == pytest.approx(0.3 * SAMPLE_RATE, abs=PIECE), "not more than it was late"
    later = said(5.0)
    kept = round(KEPT_SECONDS * SAMPLE_RATE)
    assert len(later) == pytest.approx(2 * (len(word) + kept) + LEAST_PIECES * PIECE, abs=8 * PIECE)


def test_a_microphone_that_was_held_up_is_on_time_after_its_next_pause(tmp_path: Path):
    word = (0.3 * np.sin(np.arange(SAMPLE_RATE) * 0.12)).astype(np.float32)
    sound = np.concatenate([np.zeros(4 * PIECE, np.float32), word, np.zeros(SAMPLE_RATE, np.float32), word])
    times = [0.2 + 0.02 * n for n in range(len(sound) // PIECE)]
    times[5:55] = [max(at, times[5] + 0.5) for at in times[5:55]]  # half a second comes at once
    line = np.concatenate([part.samples for part in talk(tmp_path, times, sound, 75)])
    loud = np.nonzero(np.abs(line) > 0.01)[0]
    second = loud[1:][np.diff(loud) > SAMPLE_RATE // 2][-1] / SAMPLE_RATE  # begin of the second word
    on_time = 0.2 + 2 + 4 * PIECE / SAMPLE_RATE + HELD / SAMPLE_RATE
    assert on_time < second < on_time + 0.12, "without it, half a second and more"


# --- audio before its time --------------------------------------------------------------------------------------------


def test_a_page_that_gets_audio_before_its_time_hears_what_the_frames_have(tmp_path: Path):
    listener = Listener(fake_session(tmp_path), Metrics(), clock=lambda: 0.0)
    listener.images, listener.ahead_seconds = False, AHEAD_SECONDS
    said = noise(2.0)
    listener.say("a", one(said))
    wait_for(lambda: listener.session.waiting_seconds >= 1.9)
    ahead, line, before, voids = Ahead(), np.full(2 * SAMPLE_RATE, np.nan, np.float32), 0, 0
    expected: list[np.ndarray] = []
    for n in range(30):
        if n == 15:
            listener.interrupt()
        listener.take(n / FPS)
        for part in asyncio.run(listener.outbox.get()):
            if not isinstance(part, AudioPart):
                continue
            begin = round(part.start * SAMPLE_RATE)
            end = begin + len(part.samples)
            before += int(np.isfinite(line[begin:end]).sum())
            if ahead.confirm(part):
                voids += 1
                line[end:] = np.nan
            line[begin:end] = part.samples
            more = ahead.more(part)
            assert np.isnan(line[end + len(part.ahead) - len(more) : end + len(part.ahead)]).all(), (
                "nothing comes twice"
            )
            line[end + len(part.ahead) - len(more) : end + len(part.ahead)] = more
            expected.append(part.samples)
    assert voids == 1 and before > 14 * FRAME
    np.testing.assert_array_equal(line[: 30 * FRAME], np.concatenate(expected))
    assert not line[16 * FRAME : 30 * FRAME].any() and np.isnan(line[30 * FRAME :]).all()
    listener.stop()


def part(start: float, samples: np.ndarray, ahead: np.ndarray | None = None, late: float = 0.0) -> AudioPart:
    made = time.monotonic() - 10 + start + late
    return AudioPart(start, samples, True, made, 1, None, np.zeros(0, np.float32) if ahead is None else ahead)


def test_a_track_sends_what_was_foreseen_where_a_frame_is_late_and_nothing_twice():
    async def test() -> None:
        said, track = noise(0.4), SpeechTrack()
        track.put(part(0.0, said[:FRAME], said[FRAME : 4 * FRAME]))
        frames = [await track.recv() for _ in range(5)]  # two frames, and the half of one
        track.put(part(0.04, said[FRAME : 2 * FRAME], said[2 * FRAME : 4 * FRAME], late=0.05))
        track.put(part(0.08, said[2 * FRAME : 3 * FRAME]))
        frames.append(await track.recv())
        assert [frame.pts for frame in frames] == [n * PACKET for n in range(6)]
        out = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        np.testing.assert_allclose(out / 32767, said[: 6 * PACKET], atol=1e-4)
        track.put(part(0.12, np.zeros(FRAME, np.float32)))  # another than was foreseen
        assert not (await track.recv()).to_ndarray().any()
        assert len(track._lags) == 4 and min(track._lags) == pytest.approx(track._lags[0], abs=0.01)
        track.stop()

    asyncio.run(test())


SCENE = """
import fs from "node:fs";
globalThis.sampleRate = 16000; globalThis.currentTime = 0;
globalThis.AudioWorkletProcessor = class { constructor() { this.port = { postMessage() {} }; } };
let Speaker; globalThis.registerProcessor = (_, made) => { Speaker = made; };
(0, eval)(fs.readFileSync(process.argv[2], "utf8"));
const scene = JSON.parse(fs.readFileSync(0)), speaker = new Speaker(), heard = [];
let next = 0;
for (let block = 0; block < scene.blocks; block += 1) {
  while (next < scene.parts.length && scene.parts[next].at <= currentTime) {
    const { at, flush, pts, value, count, ahead, cut } = scene.parts[next++];
    const samples = Float32Array.from({ length: count || 0 }, (_, n) => (value === null ? pts * 16000 + n : value));
    speaker.port.onmessage({ data: flush ? { flush } : { pts, samples, ahead, cut } });
  }
  const out = new Float32Array(128);
  speaker.process([], [[out]]);
  heard.push(...out);
  currentTime += 128 / sampleRate;
}
const { underruns, target } = speaker;
console.log(JSON.stringify({ heard, underruns, target, spare: speaker.spare / sampleRate }));
"""


def played(tmp_path: Path, parts: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """What the page's worklet plays; a part whose value is None counts its samples."""
    script = tmp_path / "scene.mjs"
    script.write_text(SCENE)
    scene = json.dumps({"parts": parts, "blocks": round(seconds * 125)})
    return told(script, WORKLET, given=scene)


def frames_of(begin: int, end: int, value: float | None, late: float = 0.0) -> list[dict[str, Any]]:
    return [{"at": n / 25 + late, "pts": n / 25, "value": value, "count": FRAME} for n in range(begin, end)]


def test_the_page_goes_on_with_what_was_sent_before_its_time(tmp_path: Path):
    parts = frames_of(1, 20, None)
    stalled = [one | {"at": 0.9} for one in frames_of(16, 20, None)]  # nothing comes for 0.24 s
    parts = [*parts[:15], {"at": 0.6, "pts": 0.64, "value": None, "count": 3200, "ahead": True}, *stalled]
    found = played(tmp_path, parts, 0.85)
    heard = np.array(found["heard"])
    first = int(np.nonzero(heard > 600)[0][0])
    np.testing.assert_array_equal(np.diff(heard[first:]), 1)  # each sample once
    assert found["underruns"] == 0
    assert played(tmp_path, [*parts[:15], *stalled], 0.85)["underruns"] == 1, "without it, there is a gap"


def test_the_page_replaces_what_was_sent_before_its_time_and_drops_it_where_it_is_void(tmp_path: Path):
    before = {"at": 0.4, "pts": 0.44, "value": 0.5, "count": 3200, "ahead": True}
    parts = [*frames_of(1, 11, 0.25), before, {"at": 0.44, "pts": 0.44, "value": 0.125, "count": FRAME, "cut": True}]
    later = frames_of(12, 20, 0.0625, late=0.2)  # until they come, nothing is known
    heard = np.array(played(tmp_path, [*parts, *later], 1.0)["heard"])
    values = [value for value, last in zip(heard, [0, *heard]) if value != last and value in (0.25, 0.5, 0.125, 0.0625)]
    assert values == [0.25, 0.125, 0.0625]


def test_the_page_keeps_as_much_waiting_as_it_needs_in_silences(tmp_path: Path):
    uneven = [one | {"at": one["at"] + 0.03 * (n % 2)} for n, one in enumerate(frames_of(1, 200, 0.0))]
    found = played(tmp_path, sorted(uneven, key=lambda one: one["at"]), 7.9)
    assert found["underruns"] == 0 and found["target"] - 0.01 < found["spare"] < found["target"] + 0.02
    burst = [one | {"at": max(one["at"], 0.5)} for one in frames_of(1, 200, 0.0)]  # 0.4 s too much waits
    found = played(tmp_path, burst, 7.9)
    assert found["target"] - 0.01 < found["spare"] < found["target"] + 0.02
    talking = [one | {"value": 0.5} for one in burst]
    assert played(tmp_path, talking, 7.9)["spare"] > 0.15, "nothing of speech is left out"
    breathing = [one | {"value": 0.01 if n % 25 < 8 else 0.5} for n, one in enumerate(burst)]
    assert played(tmp_path, breathing, 7.9)["spare"] < 0.1, "a room that is heard between words is a silence, too"


def test_the_page_is_silent_after_an_interruption(tmp_path: Path):
    before = {"at": 0.6, "pts": 0.64, "value": 0.5, "count": 3200, "ahead": True}
    parts = [*frames_of(1, 16, 0.5), before, {"at": 0.61, "flush": True}, *frames_of(16, 20, 0.5, 0.01)]
    heard = np.array(played(tmp_path, parts, 0.8)["heard"])
    at = round(0.61 * SAMPLE_RATE)
    assert heard[at - 200 : at].any() and not heard[at + 400 :].any()
