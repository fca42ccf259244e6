"""What only `render` could do works live: generated head motion, waiting, mixes of emotions, blinks and timelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avatar.data.run import HEADMOTION
from avatar.errors import AvatarError
from avatar.headmotion.generator import MotionGenerator
from avatar.infer.controls import Controls
from avatar.infer.live_pose import LiveAudio, LivePose
from avatar.infer.session import Session
from avatar.io.audio import SAMPLE_RATE
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.serve.messages import Message, controls_of
from tests.fake_avatar import FPS, FRAME, FakeAvatar, LoudnessSpeech
from tests.swaying import swaying

SMILE = INDEX["mouthSmileLeft"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("generated")
    track, sound = swaying()
    track[:100].save(folder / "motion.safetensors")
    MotionGenerator.fit(track, [(0, len(track))], sound, steps=4).save(folder / HEADMOTION)
    return folder


def made(folder: Path, **controls: Any) -> Session:
    return Session(FakeAvatar(folder), Controls(**controls), speech=LoudnessSpeech(), flush_seconds=None)  # type: ignore[arg-type]


def motions(session: Session, frames: int, begin: int = 0) -> Motion:
    dues = [due for i in range(begin, begin + frames) for due in session.take(i / FPS)]
    return Motion.cat([session.pose(due) for due in dues])


def change(fields: dict[str, Any], session: Session, given: Controls | None = None) -> None:
    message = Message.of({"type": "controls"} | fields)
    session.set(controls_of(message.fields, given or Controls(), session.seconds))


def tone(seconds: float) -> np.ndarray:
    return (0.3 * np.sin(np.arange(round(seconds * SAMPLE_RATE)) * 0.1)).astype(np.float32)


# --- generated head motion -------------------------------------------------------------------------------------------


def test_audio_that_waits_is_known_and_the_rest_goes_on_as_it_was_until_its_end():
    audio, sound = LiveAudio(), np.arange(3 * SAMPLE_RATE, dtype=np.float32)
    audio.note(0, sound[:FRAME], sound[FRAME:SAMPLE_RATE], True)
    read = audio.read(0, 2 * SAMPLE_RATE)
    np.testing.assert_array_equal(read[:SAMPLE_RATE], sound[:SAMPLE_RATE])
    np.testing.assert_array_equal(read[SAMPLE_RATE:], sound[:SAMPLE_RATE])
    audio.note(FRAME, sound[FRAME : 2 * FRAME], sound[2 * FRAME : SAMPLE_RATE], False)
    read = audio.read(FRAME, 2 * SAMPLE_RATE)
    np.testing.assert_array_equal(read[: SAMPLE_RATE - FRAME], sound[FRAME:SAMPLE_RATE])
    assert not read[SAMPLE_RATE - FRAME :].any()
    for i in range(2, 252):  # ten seconds later
        audio.note(i * FRAME, np.ones(FRAME, np.float32), np.zeros(0, np.float32), True)
    assert not audio.read(0, 100).any() and len(audio.read(240 * FRAME, SAMPLE_RATE)) == SAMPLE_RATE


def test_audio_may_be_noted_from_any_moment_of_a_session_on():
    audio, sound, late = LiveAudio(), np.arange(2 * SAMPLE_RATE, dtype=np.float32), 10**12
    assert not audio.read(late, 100).any(), "nothing is known yet, and what is far off takes no memory"
    audio.note(late, sound[:FRAME], sound[FRAME:], True)
    np.testing.assert_array_equal(audio.read(late, len(sound)), sound)
    np.testing.assert_array_equal(audio.read(late - 5, 10), [0, 0, 0, 0, 0, 0, 1, 2, 3, 4])
    np.testing.assert_array_equal(audio.read(late + 10 * SAMPLE_RATE, 100), sound[SAMPLE_RATE:][:100])


def test_the_head_follows_audio_that_waits_as_it_follows_a_file(folder: Path):
    generator, audio = MotionGenerator.load(folder / HEADMOTION), LiveAudio()
    sound = np.concatenate([np.zeros(3 * SAMPLE_RATE, np.float32), swaying(9.0)[1]])
    audio.note(0, np.zeros(0, np.float32), sound, False)
    live, file = LivePose(generator.open(FPS), audio, FPS), generator.open(FPS)
    assert audio.wanted
    whole = Motion.cat([file.push(sound), file.finish(200)])
    got = Motion.cat([live.read(i, 1) for i in range(200)])
    torch.testing.assert_close(got.head_rotation, whole[:200].head_rotation, atol=1e-4, rtol=0)


def test_a_session_generates_head_motion_for_ever_and_without_a_jump(folder: Path):
    session = made(folder, pose=("generated",))
    session.push_audio(tone(3.0))
    session.end_utterance()
    motion = motions(session, 120)
    own, again = motions(made(folder), 120), made(folder, pose=("generated",))
    again.push_audio(tone(3.0))
    again.end_utterance()
    assert len(motion) == 120 and motion.head_rotation.std(0).max() > 0.005
    steps = torch.rad2deg(motion.head_rotation.diff(dim=0)).norm(dim=1)
    assert steps.max() < 4 and (motion.head_rotation - own.head_rotation).abs().max() > 0.02
    torch.testing.assert_close(motions(again, 60).head_rotation, motion.head_rotation[:60], atol=1e-6, rtol=0)


def test_generated_motion_can_be_chosen_while_it_runs_and_needs_its_generator(folder: Path, tmp_path: Path):
    session = made(folder)
    before = motions(session, 20)
    change({"pose": "generated"}, session)
    after = motions(session, 60, 20)
    both = Motion.cat([before, after])
    assert torch.rad2deg(both.head_rotation.diff(dim=0)).norm(dim=1).max() < 4
    assert (after.head_rotation - motions(made(folder), 80)[20:].head_rotation)[20:].abs().max() > 0.01
    swaying()[0][:100].save(tmp_path / "motion.safetensors")
    with pytest.raises(AvatarError, match="cannot generate head motion"):
        change({"pose": "generated"}, made(tmp_path))


def test_generated_motion_that_is_chosen_later_hears_what_is_said_then(folder: Path):
    session, reads = made(folder), []
    motions(session, 100)
    hour = round(3600 * FPS)
    session.take(3600.0)  # the time line jumps; frames and samples are counted on
    session.push_audio(tone(6.0))
    session.end_utterance()
    read = session._audio.read

    def noted(start: int, count: int) -> np.ndarray:
        reads.append((start - 101 * FRAME, read(start, count)))
        return reads[-1][1]

    session._audio.read = noted  # type: ignore[method-assign]
    change({"pose": "generated"}, session)
    motions(session, 75, hour + 1)
    assert len(reads) > 3
    for start, samples in reads:
        np.testing.assert_array_equal(samples, tone(6.0)[start : start + len(samples)])


def test_waiting_may_be_asked_for_and_a_whole_motion_is_refused(folder: Path, tmp_path: Path):
    session = made(folder, idle=3.0)
    assert len(motions(session, 5)) == 5
    swaying(4.0)[0].save(tmp_path / "other.safetensors")
    with pytest.raises(AvatarError, match="--pose"):
        session.set(Controls(motion=tmp_path / "other.safetensors"))
    session.set(Controls(pose=(str(tmp_path / "other.safetensors"),)))
    assert len(motions(session, 5, 5)) == 5


# --- messages --------------------------------------------------------------------------------------------------------


def test_times_of_a_message_count_from_then_on(folder: Path):
    session = made(folder)
    motions(session, 50)
    change({"timeline": [{"control": "emotion", "value": "happy:0.8", "start": 1.0, "end": 2.0}]}, session)
    smile = (motions(session, 80, 50).arkit - motions(made(folder), 130)[50:].arkit)[:, SMILE]
    assert smile[:15].abs().max() < 0.02 and smile[27:48].min() > 0.2 and smile[60:].abs().max() < 0.02


def test_mixes_and_blinks_come_over_what_was_started_with(folder: Path):
    fields = Message.of({"type": "controls", "emotion": "happy:0.5+surprised:0.3", "blink": 20, "pose": "still"}).fields
    found = controls_of(fields, Controls(emotion=("sad",), seed=3), 7.0)
    assert found.emotion == ("sad", "happy:0.5+surprised:0.3") and found.blink == ("20",) and found.seed == 3
    assert found.pose == ("still",) and not found.later
    found.check()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"emotion": "merry"}, 'The field "emotion"'), ({"emotion": "happy:0.5+merry:0.2"}, "no emotion 'merry'"),
        ({"emotion": ["happy"]}, 'The field "emotion"'), ({"blink": 1000}, "out of range"),
        ({"blink": "often"}, "no number"), ({"timeline": {}}, "no list"), ({"timeline": [{}] * 101}, "no list"),
        ({"timeline": [{"control": "pose", "value": "/etc/passwd"}]}, "own, still, generated"),
        ({"timeline": [{"control": "wink", "value": 1}]}, "no control 'wink'"),
        ({"timeline": [{"control": "gaze", "value": "camera", "start": 3, "end": 2}]}, "start must come before"),
        ({"timeline": [{"control": "emotion", "value": "happy", "start": "now"}]}, "start"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_said_in_one_sentence(fields: dict[str, Any], words: str):
    with pytest.raises(AvatarError, match=words):
        Message.of({"type": "controls"} | fields)
