"""One planner: live audio is spoken as a file is, at once and with the same controls; a file is decoded once."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.infer import planner
from avatar.infer.controls import Controls
from avatar.infer.planner import plan_motion
from avatar.infer.sources import AudioFile, checked_samples
from avatar.io.audio import SAMPLE_RATE, chunked, write_wav
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.blinks import LIDS
from avatar.motion.motion import POSE_TRACKS
from tests.fake_avatar import FPS, FRAME, FakeAvatar, LoudnessSpeech
from tests.talking import talking


@functools.cache
def person() -> Motion:
    """Four seconds of somebody who talks."""
    return talking()[0][:100]


@pytest.fixture
def avatar(tmp_path: Path) -> Any:
    person().save(tmp_path / "motion.safetensors")
    return FakeAvatar(tmp_path)


def voice(seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.6 * np.abs(np.sin(2 * np.pi * t)) * np.sin(800 * t)).astype(np.float32)


def spoken(avatar: Any, controls: Controls, chunks: Any, frames: int | None = None) -> Motion:
    return Motion.cat(list(plan_motion(avatar, controls, frames=frames, speech=LoudnessSpeech()).stream(chunks)))


def test_every_frame_comes_as_soon_as_its_sound(avatar: Any):
    speech = LoudnessSpeech()
    plan = plan_motion(avatar, Controls(), frames=None, speech=speech)
    done = speech.heard = 0
    for chunk in itertools.islice(itertools.cycle(chunked(voice(2.0), 320)), 1000):  # 20 s in chunks of 20 ms
        done += len(plan.push(chunk))
        assert speech.heard < (done + 1) * FRAME
    assert done == 500


@pytest.mark.parametrize("how", [{}, {"pose": ("still",)}, {"lip_scale": ("1.5",), "emotion": ("happy:0.5@1-",)}])
def test_live_audio_is_spoken_as_a_file_is(avatar: Any, tmp_path: Path, how: dict[str, Any]):
    write_wav(tmp_path / "sound.wav", voice(4.0))
    controls = Controls(seed=3, **how)
    file = AudioFile(tmp_path / "sound.wav")
    frames = file.frames(FPS)
    from_file = spoken(avatar, controls, file, frames)
    live = spoken(avatar, controls, chunked(voice(4.0), 777))
    assert len(live) == len(from_file) == frames == 100
    for name in ("arkit", "face", "gaze", *POSE_TRACKS):
        torch.testing.assert_close(getattr(live, name), getattr(from_file, name), atol=1e-3, rtol=0)
    if how:
        plain = spoken(avatar, Controls(seed=3), chunked(voice(4.0)))
        assert max(float((getattr(plain, n) - getattr(live, n)).abs().max()) for n in ("arkit", *POSE_TRACKS)) > 0.01


def test_however_a_file_is_cut_the_motion_is_the_same(avatar: Any):
    """Pauses, a moving camera and timed controls included."""
    controls = Controls(idle=1.0, gaze=("camera",), blink=("20",), pose=("still@1-2",), lip_scale=("2@0.5-1",))

    def run(size: int) -> Motion:
        plan = plan_motion(avatar, controls, frames=50, speech=LoudnessSpeech(), camera=lambda t: torch.ones(3) * t)
        assert plan.frames == 100 and plan.audio_start == -1
        return Motion.cat(list(plan.stream(chunked(voice(2.0), size))))

    whole, pieces = run(SAMPLE_RATE), run(313)
    assert len(whole) == len(pieces) == 100
    for name in ("arkit", "face", "gaze", *POSE_TRACKS):
        torch.testing.assert_close(getattr(pieces, name), getattr(whole, name), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"idle": 1.0}, "--idle"),
        ({"motion": True}, "--motion"),
        ({"pose": ("generated@2-4",)}, "--pose generated"),
        ({"pose": ("generated",), "idle": 1.0}, "--idle and --pose generated"),
    ],
)
def test_what_must_know_the_audio_beforehand_is_refused(avatar: Any, how: dict[str, Any], named: str):
    how = {name: avatar.run / "motion.safetensors" if name == "motion" else value for name, value in how.items()}
    with pytest.raises(AvatarError, match=f"^{named} cannot be had"):
        plan_motion(avatar, Controls(**how), frames=None, speech=LoudnessSpeech())


def test_samples_that_are_no_audio(avatar: Any):
    for samples in (np.zeros(100, np.int16), np.zeros((2, 100), np.float32)):
        with pytest.raises(AvatarError, match="float32"):
            checked_samples(samples)
    broken = voice(1.0)
    broken[:8000] = np.nan
    broken[8000:] *= 9
    track = spoken(avatar, Controls(), map(checked_samples, [np.zeros(0, np.float32), broken]))
    jaw = track.arkit[:, INDEX["jawOpen"]]
    assert len(track) == 25 and float(jaw[:12].max()) == 0 and float(jaw.max()) == 1


def test_a_plan_takes_floats_of_any_size_and_ends_once(avatar: Any):
    sound = voice(1.0)
    for pieces in (sound.astype(np.float64), sound.tolist(), torch.from_numpy(sound)):
        plan = plan_motion(avatar, Controls(), frames=None, speech=LoudnessSpeech())
        assert plan.push(pieces).arkit.dtype == torch.float32  # type: ignore[arg-type]
        plan.finish()
        for again in (plan.finish, lambda plan=plan: plan.push(sound)):
            with pytest.raises(AvatarError, match="finished"):
                again()
    with pytest.raises(AvatarError, match="list"):
        checked_samples(sound[0])  # what a plan sees of an array that was given for a list of arrays


def test_live_audio_is_spoken_by_the_streaming_network_loaded_once(avatar: Any, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(planner, "load_speech", lambda run, fps, which: asked.append(which) or LoudnessSpeech())
    for which in ("auto", "shared", "auto"):
        plan = plan_motion(avatar, Controls(speech=which), frames=None)
        assert len(Motion.cat(list(plan.stream(chunked(voice(1.0)))))) == 25
    assert asked == ["streaming", "shared"]
    plan_motion(avatar, Controls(), frames=25)
    assert asked[2:] == ["auto"]


def test_a_motion_needs_no_audio_to_be_decoded(avatar: Any):
    talking(seed=5)[0].save(avatar.run / "other.safetensors")
    taken = []
    plan = plan_motion(avatar, Controls(motion=avatar.run / "other.safetensors"), frames=50)
    track = Motion.cat(list(plan.stream(taken.append(1) or np.zeros(16000, np.float32) for _ in range(99))))
    assert len(track) == plan.frames == len(talking(seed=5)[0]) and len(taken) <= 1


@pytest.mark.parametrize("header", [True, False])
def test_a_file_knows_its_end_and_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: bool):
    from dataclasses import replace

    from avatar.io import audio

    write_wav(tmp_path / "sound.wav", voice(3.3))
    decoded: list[Path] = []
    decode, probe = audio._decode, audio.probe_audio
    monkeypatch.setattr(audio, "_decode", lambda path, *rest: decoded.append(path) or decode(path, *rest))
    if not header:
        monkeypatch.setattr(audio, "probe_audio", lambda path, track=None: replace(probe(path, track), duration=None))
    file = AudioFile(tmp_path / "sound.wav")
    assert file.frames(FPS) == 83
    samples = np.concatenate(list(file))
    assert decoded == [tmp_path / "sound.wav"]
    np.testing.assert_allclose(samples, voice(3.3), atol=1e-4)


def test_render_decodes_its_audio_once(avatar: Any, monkeypatch: pytest.MonkeyPatch):
    """Lips and generated head motion hear the same samples; the writer muxes the original packets by itself."""
    from avatar.cli.main import main
    from avatar.data.run import HEADMOTION
    from avatar.headmotion.generator import MotionGenerator
    from avatar.infer import avatar as avatar_module
    from avatar.io import audio
    from tests.swaying import swaying

    track, sound = swaying(20)
    MotionGenerator.fit(track, [(0, len(track))], sound, steps=2).save(avatar.run / HEADMOTION)
    moved = [spoken(avatar, Controls(pose=("generated",)), chunked(voice(3.0), size), 75) for size in (16000, 1600)]
    torch.testing.assert_close(moved[0].head_rotation, moved[1].head_rotation, atol=1e-5, rtol=0)
    monkeypatch.setattr(avatar_module.Avatar, "load", staticmethod(FakeAvatar))
    monkeypatch.setattr(planner, "load_speech", lambda *_: LoudnessSpeech())
    write_wav(avatar.run / "sound.wav", voice(3.0))
    decoded, decode = [], audio.decode
    monkeypatch.setattr(audio, "decode", lambda path, *rest, **how: decoded.append(path) or decode(path, *rest, **how))
    options = ["--audio", avatar.run / "sound.wav", "--pose", "generated", "--idle", 1, "--out", avatar.run / "o.mp4"]
    assert main([str(a) for a in ["render", avatar.run, *options]]) == 0
    assert decoded == [avatar.run / "sound.wav"]


@pytest.mark.parametrize("rate", ["0", "20"])
def test_an_emotion_narrows_eyes_that_blink_at_a_given_rate_as_it_does_others(avatar: Any, rate: str):
    def lids(**how: Any) -> torch.Tensor:
        return spoken(avatar, Controls(**how), [voice(4.0)], 100).face[:, LIDS]

    usual = lids(emotion=("happy@1-3",)) - lids()
    assert float(usual[50].max()) < -0.01
    torch.testing.assert_close(lids(emotion=("happy@1-3",), blink=(rate,)) - lids(blink=(rate,)), usual)
