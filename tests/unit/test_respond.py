"""Sound that is still coming in is spoken at once, as a file would be, and with the same controls."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.infer.controls import Controls
from avatar.infer.planner import plan_motion, respond
from avatar.io.audio import SAMPLE_RATE, chunked, write_wav
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.motion import POSE_TRACKS
from tests.fake_avatar import FPS, FakeAvatar
from tests.talking import talking

FRAME = round(SAMPLE_RATE / FPS)


class Loudness:
    """Opens the jaw with each frame's sound as soon as it is there; counts what it was given."""

    fps = FPS

    def __init__(self) -> None:
        self.heard = 0

    def stream(self, chunks: Iterable[np.ndarray]) -> Iterator[Motion]:
        held = np.zeros(0)
        for chunk in chunks:
            self.heard += len(chunk)
            held = np.concatenate([held, chunk])
            count = len(held) // FRAME
            level = np.abs(held[: count * FRAME].reshape(count, FRAME)).max(1)
            held = held[count * FRAME :]
            motion = Motion.zeros(count, FPS)
            motion.arkit[:, INDEX["jawOpen"]] = torch.from_numpy(level).float()
            yield motion


@pytest.fixture
def avatar(tmp_path: Path) -> Any:
    talking()[0][:100].save(tmp_path / "motion.safetensors")
    return FakeAvatar(tmp_path)


def voice(seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.6 * np.abs(np.sin(2 * np.pi * t)) * np.sin(800 * t)).astype(np.float32)


def test_every_frame_comes_as_soon_as_its_sound(avatar: Any):
    speech = Loudness()
    said = respond(avatar, Controls(), itertools.cycle(chunked(voice(2.0), 320)), speech=speech)
    done = speech.heard = 0  # it may have tried itself
    for block in itertools.islice(said, 1500):  # a minute in chunks of 20 ms, of a sound without an end
        done += len(block)
        assert speech.heard <= (done + 1) * FRAME
    assert done == 1500


@pytest.mark.parametrize("how", [{}, {"pose": ("still",)}, {"lip_scale": ("1.5",), "emotion": ("happy:0.5@1-",)}])
def test_a_stream_is_spoken_as_a_file_is(avatar: Any, tmp_path: Path, how: dict[str, Any]):
    sound = voice(4.0)
    write_wav(tmp_path / "sound.wav", sound)
    controls = Controls(seed=3, **how)
    live = Motion.cat(list(respond(avatar, controls, chunked(sound, 777), speech=Loudness())))
    file = Motion.cat(list(plan_motion(avatar, controls, tmp_path / "sound.wav", speech=Loudness()).motions))
    assert len(live) == len(file) == 100
    for name in ("arkit", "face", "gaze", *POSE_TRACKS):
        torch.testing.assert_close(getattr(live, name), getattr(file, name), atol=1e-3, rtol=0)
    if how:
        plain = Motion.cat(list(respond(avatar, Controls(seed=3), chunked(sound), speech=Loudness())))
        assert max(float((getattr(plain, n) - getattr(live, n)).abs().max()) for n in ("arkit", *POSE_TRACKS)) > 0.01


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"idle": 1.0}, "--idle"),
        ({"motion": True}, "--motion"),
        ({"pose": ("generated@2-4",)}, "--pose generated"),
        ({"pose": ("generated",), "idle": 1.0}, "--idle and --pose generated"),
    ],
)
def test_what_must_know_the_sound_beforehand_is_refused(avatar: Any, how: dict[str, Any], named: str):
    how = {name: avatar.run / "motion.safetensors" if name == "motion" else value for name, value in how.items()}
    with pytest.raises(AvatarError, match=f"^{named} cannot be had"):
        respond(avatar, Controls(**how), chunked(voice(1.0)), speech=Loudness())


def test_chunks_that_are_not_sound(avatar: Any):
    for chunk in (np.zeros(100, np.int16), np.zeros((2, 100), np.float32)):
        with pytest.raises(AvatarError, match="float32"):
            list(respond(avatar, Controls(), [chunk], speech=Loudness()))
    broken = voice(1.0)
    broken[:8000] = np.nan
    broken[8000:] *= 9
    track = Motion.cat(list(respond(avatar, Controls(), [np.zeros(0, np.float32), broken], speech=Loudness())))
    jaw = track.arkit[:, INDEX["jawOpen"]]
    assert len(track) == 25 and float(jaw[:12].max()) == 0 and float(jaw.max()) == 1


def test_live_lips_speak_a_stream(avatar: Any, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr("avatar.infer.planner.choose_speech", lambda run, fps, which: asked.append(which) or Loudness())
    for which in ("auto", "prior"):
        assert len(Motion.cat(list(respond(avatar, Controls(speech=which), chunked(voice(1.0)))))) == 25
    assert asked == ["live", "prior"]
