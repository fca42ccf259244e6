"""Head motion of a video in which the face is lost for a while, as where slides are shown."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from avatar.data.run import HEADMOTION
from avatar.headmotion.generator import MotionGenerator
from avatar.headmotion.loop import pose_track
from avatar.infer.layers import LoopedPose, PersonMotion
from avatar.motion import Motion
from avatar.motion.blinks import LIDS
from avatar.motion.gaps import measured_segments
from avatar.motion.statistics import EYES, MotionStats
from avatar.train.speech import train_headmotion
from tests.fake_avatar import FPS, FakeAvatar
from tests.person import person_info
from tests.swaying import swaying
from tests.unit.test_personal import blinks_per_minute, head

FRAMES = 1000
SLIDES = slice(300, 700)


def with_slides() -> Motion:
    """Somebody who sways and blinks, with slides in the middle; there the track goes evenly from before to after."""
    track = head(FRAMES)[0]
    rotation, arkit, face, valid = (
        getattr(track, name).clone() for name in ("head_rotation", "arkit", "face", "valid")
    )
    count = SLIDES.stop - SLIDES.start
    rotation[SLIDES] = torch.lerp(rotation[SLIDES.start], rotation[SLIDES.stop], torch.linspace(0, 1, count)[:, None])
    arkit[SLIDES], face[SLIDES], valid[SLIDES] = 0, 0, False
    return track.map(head_rotation=rotation, arkit=arkit, face=face, valid=valid)


@pytest.fixture
def person(tmp_path: Path) -> PersonMotion:
    with_slides().save(tmp_path / "motion.safetensors")
    avatar: Any = FakeAvatar(tmp_path)
    avatar.person = person_info(fps=FPS, num_frames=FRAMES, segments=((0, FRAMES),))
    return PersonMotion.of(avatar)


def test_the_head_never_does_what_bridges_a_lost_face(person: PersonMotion) -> None:
    for seed in range(3):
        played = LoopedPose(person, "own", FPS, seed).read(0, 5000)
        speed = played.head_rotation.diff(dim=0).diff(dim=0).norm(dim=1)
        still = torch.nn.functional.max_pool1d(speed[None, None], 25, 1)[0, 0]  # a second of even drift
        assert float(still.min()) > 1e-5


def test_a_resting_head_blinks_as_often_as_in_what_was_seen(person: PersonMotion) -> None:
    played = LoopedPose(person, "still", FPS, 0).read(0, 20000)
    assert 17 < blinks_per_minute(played) < 24  # 20 in what was seen, 12 with the slides


def test_a_lost_face_is_not_how_somebody_rests(person: PersonMotion) -> None:
    """It is lost with the head far off, eyes and mouth wide open; that is nobody's rest, range or stillness."""
    track = with_slides()
    rotation, face, gaze, arkit = (getattr(track, n).clone() for n in ("head_rotation", "face", "gaze", "arkit"))
    rotation[SLIDES], face[SLIDES], gaze[SLIDES], arkit[SLIDES] = 1.0, -2.0, 0.7, 0.9
    arkit[SLIDES][:, EYES] = 0
    seen, lost = track[track.valid], track.map(head_rotation=rotation, face=face, gaze=gaze, arkit=arkit)
    found, expected = MotionStats.of(lost), MotionStats.of(seen)
    for name in ("rest", "low", "high"):
        for part in ("head_rotation", "face", "gaze", "arkit"):
            torch.testing.assert_close(getattr(getattr(found, name), part), getattr(getattr(expected, name), part))
    assert (found.closed, found.opened, found.pressed) == (expected.closed, expected.opened, expected.pressed)
    held = pose_track(lost, [(0, SLIDES.start), (SLIDES.stop, FRAMES)], 1, FPS, "still")
    torch.testing.assert_close(held.head_rotation[0], seen.head_rotation.mean(0), atol=0.02, rtol=0)
    nobody = MotionStats.of(lost.map(valid=torch.zeros(FRAMES, dtype=torch.bool)))
    assert torch.isfinite(nobody.rest.face).all(), "all of it, where no face was ever seen"


def test_generated_motion_learns_nothing_from_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost face blinks, too, where tracking finds another face: that shape is not the person's."""
    track, _ = swaying(40.0)
    monkeypatch.setattr(MotionGenerator.fit, "__defaults__", (0.0, 0, 2))  # delay, seed, steps
    data: Any = SimpleNamespace(info=person_info(num_frames=FRAMES, has_audio=False))
    blinks = []
    for kept in (True, False):
        valid, face = track.valid.clone(), track.face.clone()
        valid[SLIDES] = kept
        face[SLIDES][:, LIDS] *= 3
        track.map(valid=valid, face=face).save(tmp_path / "motion.safetensors")
        train_headmotion(data, tmp_path, seed=0)
        blinks.append(MotionGenerator.load(tmp_path / HEADMOTION).blinks)
    assert len(blinks[1].lengths) < len(blinks[0].lengths)
    assert float(blinks[1].closed.min()) > 0.6 * float(blinks[0].closed.min())


def track(*lost: tuple[int, int], frames: int = 200) -> Motion:
    motion = Motion.zeros(frames, FPS)
    for start, end in lost:
        motion.valid[start:end] = False
    return motion


@pytest.mark.parametrize(
    ("lost", "parts"),
    [
        ((), [(0, 80), (80, 200)]),
        (((20, 30), (75, 85)), [(0, 80), (80, 200)]),  # no longer than 0.4 s, also across a cut
        (((0, 30), (100, 111)), [(30, 80), (80, 100), (111, 200)]),
        (((60, 200),), [(0, 60)]),
        (((20, 60), (75, 190)), [(0, 80), (80, 200)]),  # nothing of 1.5 s is left
        (((0, 200),), [(0, 80), (80, 200)]),
    ],
)
def test_segments_end_where_a_face_is_lost_for_long(
    lost: tuple[tuple[int, int], ...], parts: list[tuple[int, int]]
) -> None:
    assert measured_segments(track(*lost), [(0, 80), (80, 200)]) == parts
