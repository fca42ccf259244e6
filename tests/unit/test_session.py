"""A live session: frames come with their audio, nothing is lost or loaded again, and the lips never jump."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.infer import layers, planner
from avatar.infer.controls import Controls
from avatar.infer.fades import FADE
from avatar.infer.session import Frame, Session
from avatar.infer.utterances import frame_samples
from avatar.io.audio import SAMPLE_RATE
from avatar.motion import Motion
from avatar.motion.arkit import INDEX, MOUTH
from tests.fake_avatar import FPS, FRAME, FakeAvatar, LoudnessSpeech
from tests.talking import talking

JAW = INDEX["jawOpen"]


class SlowSpeech(LoudnessSpeech):
    """Needs 0.16 s of audio after a frame."""

    look_ahead = 0.16

    def open(self) -> Any:
        stream, ahead = super().open(), round(self.look_ahead * SAMPLE_RATE)
        push, finish, held = stream.push, stream.finish, np.zeros(0, np.float32)

        def late(samples: np.ndarray) -> Motion:
            nonlocal held
            held = np.concatenate([held, samples])
            known, held = held[: max(0, len(held) - ahead)], held[max(0, len(held) - ahead) :]
            self.heard += len(samples) - len(known)
            return push(known)

        def last() -> Motion:
            self.heard -= len(held)
            return Motion.cat([push(held), finish()])

        stream.push, stream.finish = late, last  # type: ignore[method-assign]
        return stream


class WholeFrames(LoudnessSpeech):
    """Frames of any rate, each when its audio is complete; `LoudnessSpeech` itself counts frames of one rate."""

    def __init__(self, fps: float) -> None:
        super().__init__()
        self.fps, self.look_ahead = fps, 1 / fps

    def open(self) -> Any:
        stream, pushed, given = super().open(), 0, 0

        def frames(count: float) -> Motion:
            nonlocal given
            new, given = int(count) - given, int(count)
            return self.motion(np.ones(new))

        def push(samples: np.ndarray) -> Motion:
            nonlocal pushed
            pushed += len(samples)
            return frames(pushed * self.fps / SAMPLE_RATE + 1e-6)

        stream.push = push  # type: ignore[method-assign]
        stream.finish = lambda: frames(np.ceil(pushed * self.fps / SAMPLE_RATE - 1e-6))  # type: ignore[method-assign]
        return stream


class Watched(FakeAvatar):
    """Remembers the motion of every frame."""

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self.shown: list[Motion] = []

    def render(self, camera: Camera, motion: Motion, index: int, background=None) -> torch.Tensor:
        self.shown.append(motion[index : index + 1])
        return super().render(camera, motion, index, background)


@functools.cache
def person() -> Motion:
    """Four seconds of somebody who talks."""
    return talking()[0][:100]


@pytest.fixture
def avatar(tmp_path: Path) -> Any:
    person().save(tmp_path / "motion.safetensors")
    return Watched(tmp_path)


@pytest.fixture
def session(avatar: Any) -> Session:
    return Session(avatar, speech=LoudnessSpeech())


def loud(seconds: float, level: float = 0.5) -> np.ndarray:
    """Every sample differs from the others, so that none can be lost or heard twice unnoticed."""
    count = round(seconds * SAMPLE_RATE)
    return (level * np.sin(np.arange(count) * 1.0)).astype(np.float32)


def steps(session: Session, start: float, stop: float, every: float = 1 / FPS) -> list[Frame]:
    return [frame for now in np.arange(start, stop - 1e-9, every) for frame in session.step(float(now))]


def heard(frames: list[Frame]) -> np.ndarray:
    return np.concatenate([frame.audio for frame in frames])


def faded_out(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether audio goes on without a jump and is silent 10 ms later."""
    envelope = np.abs(after[:FADE]).reshape(4, -1).max(1)
    largest = np.abs(np.diff(loud(1.0))).max()
    loudly = bool(envelope[0] > 0.3 and envelope[-1] < 0.15 and (np.diff(envelope) < 0).all())
    return loudly and abs(after[0] - before[-1]) < 0.1 * largest and not after[FADE:].any()


def motion_of(avatar: Any, frames: list[Frame]) -> Motion:
    return Motion.cat(avatar.shown[-len(frames) :])


def test_frames_come_at_the_pace_of_the_clock(session: Session):
    assert len(session.step(100.0)) == 1
    assert session.step(100.0) == [] and session.step(100.03) == []
    frames = session.step(100.041) + session.step(100.13)
    assert [frame.pts for frame in frames] == pytest.approx([0.04, 0.08, 0.12])
    assert all(frame.image.dtype == np.uint8 and frame.image.shape == (48, 48, 3) for frame in frames)
    assert all(len(frame.audio) == FRAME and not frame.audio.any() and not frame.speaking for frame in frames)


def test_audio_comes_out_as_it_went_in_and_with_its_lips(avatar: Any, session: Session):
    steps(session, 0, 0.4)
    sound = loud(1.0)
    sound[: 10 * FRAME] *= 0.4
    assert session.push_audio(sound) == len(sound)
    session.end_utterance()
    frames = steps(session, 0.4, 2.4)
    np.testing.assert_array_equal(heard(frames)[: len(sound)], sound)
    assert not heard(frames)[len(sound) :].any()
    assert [frame.speaking for frame in frames] == 25 * [True] + 25 * [False]
    assert {frame.utterance for frame in frames[:25]} == {1} and {frame.utterance for frame in frames[25:]} == {0}
    jaw = motion_of(avatar, frames).arkit[:, JAW].numpy()
    level = np.abs(sound.reshape(25, FRAME)).max(1)
    np.testing.assert_allclose(jaw[4:25], level[4:], atol=1e-6)  # but for the first frames, which ease there
    rest = float(jaw[-1])
    assert rest == pytest.approx(float(avatar.shown[0].arkit[0, JAW]), abs=1e-6)


def test_a_frame_owns_its_samples_at_any_rate(avatar: Any):
    avatar.fps = 30000 / 1001
    speech = LoudnessSpeech()
    speech.fps = avatar.fps
    session = Session(avatar, speech=speech)
    session.push_audio(loud(5.0))
    frames = list(session.frames())
    bounds = [round(i * SAMPLE_RATE / avatar.fps) for i in range(len(frames) + 1)]
    assert [len(frame.audio) for frame in frames] == np.diff(bounds).tolist()
    np.testing.assert_array_equal(heard(frames)[: 5 * SAMPLE_RATE], loud(5.0))
    assert sum(frame_samples(i, avatar.fps) for i in range(30000)) == round(30000 * SAMPLE_RATE / avatar.fps)


def test_small_pushes_in_real_time_are_spoken_with_little_delay(session: Session):
    sound, out = loud(2.0), []
    for i in range(125):  # 16 ms each
        session.push_audio(sound[i * 256 : (i + 1) * 256])
        out += session.step(i * 0.016)
    session.end_utterance()
    out += steps(session, 2.0, 3.0)
    first = next(i for i, frame in enumerate(out) if frame.speaking)
    assert first <= 3
    audio = heard(out)
    begin = int(np.flatnonzero(audio)[0]) - 1  # sin(0) is 0
    np.testing.assert_array_equal(np.sort(audio[audio != 0]), np.sort(sound[sound != 0]))
    np.testing.assert_array_equal(audio[begin : begin + 20 * FRAME], sound[: 20 * FRAME])


def test_an_utterance_that_nobody_ends_is_flushed(session: Session):
    session.step(0.0)
    session.push_audio(loud(0.5)[: 12 * FRAME + 100])
    frames = steps(session, 0.04, 1.5)
    assert np.count_nonzero(heard(frames)) == np.count_nonzero(loud(0.5)[: 12 * FRAME + 100])
    assert session.waiting_seconds == 0


def test_what_waits_is_bounded_and_wrong_samples_are_refused(avatar: Any):
    session = Session(avatar, speech=LoudnessSpeech(), limit_seconds=2)
    assert session.push_audio(loud(1.5)) == 24000
    assert session.push_audio(loud(1.5)) == 8000
    assert session.push_audio(loud(0.1)) == 0
    steps(session, 0, 1.0)
    assert session.push_audio(loud(5.0)) == SAMPLE_RATE
    for samples in (np.zeros(160, np.int16), np.zeros((160, 2), np.float32)):
        with pytest.raises(AvatarError, match="16 kHz mono float32"):
            session.push_audio(samples)


def test_late_frames_are_not_drawn_but_their_audio_is_heard(avatar: Any, session: Session):
    session.step(0.0)
    session.push_audio(loud(2.0))
    drawn = len(avatar.shown)
    frames = session.step(0.08)
    assert len(frames) == 2  # one frame late: both are drawn
    frames += session.step(0.4)
    assert len(frames) == 3 and len(avatar.shown) == drawn + 3
    assert frames[-1].pts == pytest.approx(0.4) and len(frames[-1].audio) == 8 * FRAME
    np.testing.assert_array_equal(heard(frames), loud(2.0)[: 10 * FRAME])
    pause = session.step(60.0)  # nobody looked for a minute: nothing is lost, nothing has to be caught up with
    assert len(pause) == 1 and pause[0].pts == pytest.approx(60.0)
    rest = steps(session, 60.04, 63)
    np.testing.assert_array_equal(heard(pause + rest)[: 40 * FRAME], loud(2.0)[10 * FRAME :])


def test_an_interruption_drops_what_was_not_shown(avatar: Any, session: Session):
    session.push_audio(loud(1.0))
    session.end_utterance()
    steps(session, 0, 1.2)
    assert session.interrupt() == (0, 0)  # it was over
    session.push_audio(loud(3.0))
    frames = steps(session, 1.2, 2.0)
    assert session.interrupt() == (2, pytest.approx(0.8))
    assert session.interrupt() == (0, 0)
    after = steps(session, 2.0, 3.0)
    assert len(frames) == 20 and frames[-1].speaking
    assert not heard(after)[FADE:].any() and not any(frame.speaking for frame in after)
    assert faded_out(frames[-1].audio, after[0].audio)
    jaw = motion_of(avatar, after).arkit[:, JAW]
    assert float(jaw[:5].max()) <= 0.5 and float(jaw[6:].std()) < 1e-6  # shut within a quarter of a second
    session.push_audio(loud(0.2))
    assert [frame.utterance for frame in steps(session, 3.0, 3.2)] == [3] * 5


def test_an_interruption_while_a_frame_is_drawn_silences_it(avatar: Any, session: Session):
    session.push_audio(loud(3.0))
    steps(session, 0, 0.4)
    draw, answers = avatar.render, []

    def interrupted(*rest: Any) -> torch.Tensor:
        answers.append(session.interrupt())
        return draw(*rest)

    avatar.render = interrupted
    frame = session.step(0.4)[0]
    assert len(answers) == 1 and answers[0] == (1, pytest.approx(0.4))
    assert not frame.audio[FADE:].any() and not frame.speaking
    assert faded_out(loud(3.0)[: 10 * FRAME], frame.audio)


def test_a_source_that_stalls_fades_out_and_in_again(avatar: Any):
    session = Session(avatar, speech=LoudnessSpeech(), flush_seconds=None)
    sound = loud(2.0)
    session.push_audio(sound[: 10 * FRAME])
    frames = steps(session, 0, 0.56)
    session.push_audio(sound[10 * FRAME :])
    session.end_utterance()
    frames += steps(session, 0.56, 3)
    audio = heard(frames)
    np.testing.assert_array_equal(audio[: 10 * FRAME], sound[: 10 * FRAME])
    assert faded_out(sound[: 10 * FRAME], frames[10].audio) and not audio[11 * FRAME : 14 * FRAME].any()
    assert abs(audio[14 * FRAME]) < 0.01  # the sample itself is 0.06 there; the next ones show the slope
    np.testing.assert_allclose(
        audio[14 * FRAME : 14 * FRAME + FADE], sound[10 * FRAME : 10 * FRAME + FADE] * np.arange(FADE) / FADE, atol=1e-6
    )
    np.testing.assert_array_equal(audio[14 * FRAME + FADE : 54 * FRAME], sound[10 * FRAME + FADE :])
    assert not audio[54 * FRAME :].any() and {frame.utterance for frame in frames} == {0, 1}


def test_an_utterance_may_wait_for_its_source_as_long_as_it_takes(avatar: Any):
    session = Session(avatar, speech=LoudnessSpeech(), flush_seconds=None)
    session.push_audio(loud(0.2))
    frames = steps(session, 0, 2)
    session.push_audio(loud(0.2))
    frames += steps(session, 2, 4)
    assert {frame.utterance for frame in frames if frame.speaking} == {1} and not any(frame.ended for frame in frames)
    assert session.end_utterance() == 1
    assert [frame.ended for frame in steps(session, 4, 4.2)] == [(1,), (), (), (), ()]


def test_every_end_and_interruption_may_come_twice(session: Session):
    assert session.end_utterance() == 0 and session.interrupt() == (0, 0) and session.interrupt() == (0, 0)
    numbers = []
    for round_ in range(3):
        session.push_audio(loud(0.2))
        numbers += [session.end_utterance(), session.end_utterance()]
        session.push_audio(loud(0.2))  # after the end: another one
        numbers.append(session.end_utterance())
        frames = steps(session, 2 * round_, 2 * round_ + 1)
        assert [frame.utterance for frame in frames[:11]] == [numbers[-3]] * 5 + [numbers[-1]] * 5 + [0]
        assert [number for frame in frames for number in frame.ended] == numbers[-2:]
        session.push_audio(loud(2.0))  # interrupted: by no end
        frames = steps(session, 2 * round_ + 1, 2 * round_ + 1.2)
        assert session.interrupt() == (frames[-1].utterance, pytest.approx(0.2)) and session.interrupt() == (0, 0)
        assert session.end_utterance() == frames[-1].utterance
        assert not any(frame.ended or frame.speaking for frame in steps(session, 2 * round_ + 1.2, 2 * round_ + 2))
    assert numbers == [1, 1, 2, 4, 4, 5, 7, 7, 8]
    session.push_audio(loud(1.0))
    session.interrupt()  # before a frame of it was shown
    session.push_audio(loud(1.0))
    assert session.end_utterance() == 11
    assert {frame.utterance for frame in steps(session, 6, 7)} == {11}


def test_rubbish_is_refused_or_silence(avatar: Any, session: Session):
    for wrong in (
        np.zeros(160, np.int16),
        np.zeros((160, 2), np.float32),
        np.zeros((1, 160), np.float32),
        np.array(0.5),
    ):
        with pytest.raises(AvatarError, match="16 kHz mono float32"):
            session.push_audio(wrong)
    for wrong in (b"abcd", "abcd", None, [None, 1.0]):
        with pytest.raises(AvatarError, match="16 kHz mono float32"):
            session.push_audio(wrong)  # type: ignore[arg-type]
    assert session.push_audio(np.zeros(0, np.float32)) == 0 and session.end_utterance() == 0
    broken = loud(0.4)
    broken[::7], broken[1::7], broken[2::7] = np.nan, np.inf, 50.0
    assert session.push_audio(broken) == len(broken)
    broken[:] = 0.9  # the caller's array is his own again
    session.end_utterance()
    audio = heard(steps(session, 0, 1))
    assert np.isfinite(audio).all() and not audio[0 : 10 * FRAME : 7].any() and set(audio[2 : 10 * FRAME : 7]) == {1.0}
    assert np.isfinite(Motion.cat(avatar.shown).arkit.numpy()).all()
    for never in (float("nan"), float("inf"), -float("inf")):
        with pytest.raises(AvatarError, match="step"):
            session.step(never)


def test_the_size_of_frames_changes_while_it_runs(session: Session):
    assert session.step(0)[0].image.shape == (48, 48, 3)
    session.set(camera=session.avatar.camera.resized(64, 32))
    assert session.step(0.04)[0].image.shape == (32, 64, 3)
    before = session._wanted
    with pytest.raises(AvatarError, match="no emotion"):
        session.set(Controls(pose=("still",), emotion=("furious",)), session.avatar.camera)
    assert session._wanted is before and session.step(0.08)[0].image.shape == (32, 64, 3)


def test_an_utterance_begins_without_a_slow_step(avatar: Any):
    """Its look-ahead is heard in shares while the avatar idles; afterwards every frame gets what it needs."""
    speech = SlowSpeech()
    session = Session(avatar, speech=speech)
    session.push_audio(loud(4.0))
    heard_before, shares, frames = speech.heard, [], []
    for now in np.arange(0, 6, 1 / FPS):
        frames += session.step(float(now))
        shares.append(speech.heard - heard_before)
        heard_before = speech.heard
        if sum(shares) == 4 * SAMPLE_RATE:
            break
    assert max(shares) <= 0.08 * SAMPLE_RATE
    assert next(i for i, frame in enumerate(frames) if frame.speaking) == 2
    np.testing.assert_array_equal(heard(frames)[2 * FRAME :], loud(4.0)[: (len(frames) - 2) * FRAME])
    rest = list(session.frames())
    assert rest[-1].ended == (1,)
    session.push_audio(loud(1.0))
    assert next(session.frames()).speaking  # without a clock nobody waits for a step


def test_speech_after_a_silence_is_ready_when_it_begins(avatar: Any):
    session = Session(avatar, speech=SlowSpeech())
    sound = np.concatenate([np.zeros(2 * SAMPLE_RATE, np.float32), loud(1.0)])
    session.push_audio(sound)
    session.end_utterance()
    np.testing.assert_array_equal(heard(steps(session, 0, 3)), sound)


def test_lips_never_jump(avatar: Any, session: Session):
    """At begin, end and interruption, whatever the sound does there; inside, lips move as the network says."""
    rest = session._rest.arkit[0, JAW]
    avatar.shown.clear()
    loudest = np.tile(np.array([0.9, -0.9], np.float32), 30 * FRAME)  # from the first sample on
    session.push_audio(loudest[: 20 * FRAME])
    session.end_utterance()
    steps(session, 0, 1.6)
    session.push_audio(loudest)
    steps(session, 1.6, 2.4)
    session.interrupt()
    steps(session, 2.4, 3.2)
    mouth = Motion.cat(avatar.shown).arkit[:, list(MOUTH)]
    assert float(mouth.max()) == pytest.approx(0.9)
    assert float(mouth.diff(dim=0).abs().max()) < 0.36 * float(0.9 - rest)


def test_an_interruption_closes_the_mouth_within_four_frames(avatar: Any, session: Session):
    session.push_audio(np.tile(np.array([0.9, -0.9], np.float32), 10 * FRAME))
    session.end_utterance()
    steps(session, 0, 0.4)
    session.interrupt()
    before = len(avatar.shown)
    steps(session, 0.4, 1)
    jaw = Motion.cat(avatar.shown[before:]).arkit[:, JAW] - session._rest.arkit[0, JAW]
    assert float(jaw[2]) > 0.1 and not jaw[3:].any()


def test_idling_moves_and_breathes_with_lips_at_rest(avatar: Any, session: Session):
    frames = steps(session, 0, 8)
    motion = motion_of(avatar, frames)
    assert float(motion.arkit[:, JAW].std()) < 1e-6
    assert float(motion.head_rotation.std(0).min()) > 1e-3
    assert float(motion.torso_translation[:, 1].std()) > 0.02
    assert float(motion.head_rotation.diff(dim=0).abs().max()) < 0.05


def test_long_silence_is_heard_but_not_by_the_network(avatar: Any):
    speech = LoudnessSpeech()
    session = Session(avatar, speech=speech)
    word = loud(1.013)  # no whole number of frames
    sound = np.concatenate([np.zeros(3 * SAMPLE_RATE + 77), word, np.zeros(5 * SAMPLE_RATE), word])
    sound = sound.astype(np.float32)
    out: list[Frame] = []
    for i in range(0, len(sound), 331):  # pieces that fit no frame
        session.push_audio(sound[i : i + 331])
        out += session.step(i / SAMPLE_RATE)
    out += steps(session, len(sound) / SAMPLE_RATE, len(sound) / SAMPLE_RATE + 1)
    assert speech.opened == 1 + 2 and speech.heard < 4.5 * SAMPLE_RATE  # once to see how much it needs
    audio = heard(out)
    begins = [np.flatnonzero(audio)[0], np.flatnonzero(audio[6 * SAMPLE_RATE :])[0] + 6 * SAMPLE_RATE]
    assert begins[1] - begins[0] == 5 * SAMPLE_RATE + len(word)  # no sample more or less in between
    assert {frame.utterance for frame in out if frame.speaking} == {1}
    assert not any(frame.speaking for frame in out[:75])


def test_controls_and_camera_change_while_it_runs(avatar: Any, session: Session):
    before = motion_of(avatar, steps(session, 0, 2))
    session.set(controls=Controls(pose=("still",), gaze=("camera",)))
    after = motion_of(avatar, steps(session, 2, 4))
    assert float(after.head_rotation[15:].std(0).max()) < 0.3 * float(before.head_rotation.std(0).max())
    session.set(controls=Controls(pose=("still",), gaze=("camera",), emotion=("happy",)))
    smiling = motion_of(avatar, steps(session, 4, 6)).arkit[:, INDEX["mouthSmileLeft"]]
    assert float(smiling[-1] - after.arkit[-1, INDEX["mouthSmileLeft"]]) > 0.7
    assert float(smiling.diff().abs().max()) < 0.2 and float(smiling[0]) < 0.2  # it fades in
    turned = avatar.camera.orbit(avatar.pivot, 30.0, 0.0, 1.0)
    session.set(camera=turned)
    looking = motion_of(avatar, steps(session, 6, 6.4))
    assert avatar.views[-1] is turned
    assert float((looking.gaze[-1] - after.gaze[-1]).norm()) > 0.1  # the eyes follow the new camera
    with pytest.raises(AvatarError, match="no emotion"):
        session.set(controls=Controls(emotion=("furious",)))
    steps(session, 6.4, 7)


def test_a_second_utterance_loads_nothing(avatar: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(planner, "load_speech", lambda *_: LoudnessSpeech())
    session, other = Session(avatar), Session(avatar)
    assert session._utterances._speech is other._utterances._speech

    def never(*_: object, **__: object) -> None:
        raise AssertionError("something is loaded")

    monkeypatch.setattr(planner, "load_speech", never)
    monkeypatch.setattr(layers.Motion, "load", never)
    monkeypatch.setattr("avatar.io.checkpoint.load_tensors", never)
    for start in (0, 2):
        session.push_audio(loud(1.0))
        session.end_utterance()
        frames = steps(session, start, start + 2)
        assert sum(frame.speaking for frame in frames) == 25
    assert not heard(steps(other, 0, 1)).any()  # and nothing of one session reaches another


def test_threads_may_push_interrupt_and_set_while_another_steps(session: Session):
    stop, broken = threading.Event(), []

    def disturb() -> None:
        number = 0
        try:
            while not stop.is_set():
                number += 1
                session.push_audio(loud(0.05))
                if number % 7 == 0:
                    session.interrupt()
                if number % 50 == 0:
                    session.set(controls=Controls(lip_scale=("1.2",)))
                stop.wait(0.001)
        except Exception as error:
            broken.append(error)

    threads = [threading.Thread(target=disturb) for _ in range(2)]
    for thread in threads:
        thread.start()
    frames = steps(session, 0, 3)
    stop.set()
    for thread in threads:
        thread.join()
    assert not broken and len(heard(frames)) == 75 * FRAME
    session.interrupt()
    assert not heard(steps(session, 3, 4))[FADE:].any() and session.waiting_seconds == 0


@pytest.mark.parametrize("rate", [24, 30000 / 1001, 30, 60])
def test_a_pause_within_an_utterance_inserts_nothing_at_any_rate(avatar: Any, rate: float):
    avatar.fps = rate
    session = Session(avatar, speech=WholeFrames(rate))
    quiet = np.zeros(round(1.53 * SAMPLE_RATE), np.float32)
    said = np.concatenate([loud(1.0), quiet, loud(0.71), quiet, loud(1.0)])
    session.push_audio(said)
    np.testing.assert_array_equal(heard(list(session.frames()))[: len(said)], said)


@pytest.mark.parametrize("began", [0.0, 1.7e9])  # a clock that counts from 1970 has coarse numbers
@pytest.mark.parametrize("seconds", [1.3, 1.32])  # the last frame is filled by half, or wholly
def test_without_a_clock(session: Session, began: float, seconds: float):
    session.step(began)
    session.push_audio(loud(seconds))
    frames = list(session.frames())
    assert len(frames) == 33 and [frame.ended for frame in frames if frame.ended] == [(1,)]
    np.testing.assert_array_equal(heard(frames)[: round(seconds * SAMPLE_RATE)], loud(seconds))
    assert list(session.frames()) == []
