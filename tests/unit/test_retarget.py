"""One person's motion on another: the source's rest and range are gone, the target's are there, the motion is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.infer.sources import read_motion
from avatar.io.video_writer import VideoWriter
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.blinks import EYES, LIDS
from avatar.motion.face_channels import BROW_INNER, CHANNEL_INDEX, opening_change
from avatar.motion.retarget import back_and_forth, follow_pose, restyle, retarget
from avatar.motion.statistics import MotionStats
from avatar.preprocess.face_tracker import track_motion
from tests.media import need_landmarker
from tests.talking import talking

assert BROW_INNER  # the channel below is their mean
BROW = CHANNEL_INDEX["brow_left_inner_y"]


@pytest.fixture(scope="module")
def target() -> MotionStats:
    return MotionStats.of(talking(seed=1)[0])


@pytest.fixture(scope="module")
def source() -> Motion:
    """Somebody else: says another thing, opens the mouth 0.6 times as far, rests with the lips apart, holds the brows
    high, stands elsewhere and looks aside."""
    track = talking(seed=2, text="You may open the map by the bay. We are about to leave. Bob, move!", scale=0.6)[0]
    face = track.face.clone()
    face[:, CHANNEL_INDEX["lip_inner_y_sin1"]] += 0.1
    face[:, BROW] += 0.4
    turn = axis_angle_to_matrix(torch.tensor([[0.1, 0.3, -0.1]]))
    rotation = matrix_to_axis_angle(axis_angle_to_matrix(track.head_rotation) @ turn)
    return track.map(
        face=face, head_rotation=rotation, head_translation=track.head_translation + torch.tensor([9, 5, 40])
    )


def quantiles(values: torch.Tensor) -> np.ndarray:
    return np.quantile(values.numpy(), [0.1, 0.5, 0.95])


def test_the_mouth_goes_from_closed_to_open_as_the_targets_does(source: Motion, target: MotionStats):
    moved = retarget(source, MotionStats.of(source), target)
    was, now = opening_change(source.face), opening_change(moved.face)
    assert np.corrcoef(was, now)[0, 1] > 0.98
    expected = [target.closed, target.opened]
    assert quantiles(was)[0] > 0.15 and quantiles(was)[2] < 0.8 * target.opened  # the test itself
    np.testing.assert_allclose(quantiles(now)[[0, 2]], expected, atol=0.1)


def test_brows_eyes_and_pose_are_counted_from_rest(source: Motion, target: MotionStats):
    moved = retarget(source, MotionStats.of(source), target)
    assert float(moved.face[:, BROW].median()) == pytest.approx(float(target.rest.face[0, BROW]), abs=0.15)
    shut = source.arkit[:, EYES].mean(1) > 0.8
    assert float(moved.arkit[shut][:, EYES].min()) > 0.6 and float(moved.face[shut][:, LIDS].max()) < -0.3
    torch.testing.assert_close(moved.gaze.median(0).values, target.rest.gaze[0], atol=0.03, rtol=0)
    torch.testing.assert_close(moved.head_translation.mean(0), target.rest.head_translation[0], atol=0.1, rtol=0)
    torch.testing.assert_close(moved.head_rotation.mean(0), target.rest.head_rotation[0], atol=0.03, rtol=0)


def test_a_pose_is_followed(source: Motion, target: MotionStats):
    moved = follow_pose(source, MotionStats.of(source), target)
    for a, b in ((0, 30), (10, 80)):  # what the head turned between two moments, in the world
        turns = [axis_angle_to_matrix(track.head_rotation[[b, a]].double()) for track in (source, moved)]
        was, now = (turn[0] @ turn[1].T for turn in turns)
        torch.testing.assert_close(now, was, atol=1e-5, rtol=0)
    shift = source.head_translation - source.head_translation[:1]
    torch.testing.assert_close(moved.head_translation - moved.head_translation[:1], shift, atol=1e-4, rtol=0)
    # This torso goes half as far as the head, in the target's own track.
    along = np.corrcoef(moved.torso_translation[:, 0], moved.head_translation[:, 0])[0, 1]
    ratio = float(moved.torso_translation[:, 0].std() / moved.head_translation[:, 0].std())
    assert along > 0.8 and ratio == pytest.approx(0.5, abs=0.15)


def test_ones_own_pose_stays_what_it_is(target: MotionStats):
    same = follow_pose(target.track, target, target)
    torch.testing.assert_close(same.head_rotation, target.track.head_rotation, atol=1e-5, rtol=0)
    torch.testing.assert_close(same.head_translation, target.track.head_translation, atol=1e-4, rtol=0)


def test_a_short_pose_is_played_back_and_forth(source: Motion):
    long = back_and_forth(source[:10], torch.arange(40))
    assert len(long) == 40
    assert float(long.head_translation.diff(dim=0).norm(dim=1).max()) <= float(
        source[:10].head_translation.diff(dim=0).norm(dim=1).max() + 1e-6
    )
    torch.testing.assert_close(long.head_rotation[10:19], source.head_rotation[0:9].flip(0))


def test_style_is_the_range_of_another(source: Motion, target: MotionStats):
    """The target speaks as timidly as the source, and holds the brows as high."""
    style = MotionStats.of(source)
    styled = restyle(target.track, target, style)
    was, now, wanted = (opening_change(t.face) for t in (target.track, styled, source))
    assert float(was.std()) > 1.3 * float(wanted.std())
    assert float(now.std()) == pytest.approx(float(wanted.std()), rel=0.2)
    assert np.corrcoef(was, now)[0, 1] > 0.98
    assert float(styled.face[:, BROW].mean()) == pytest.approx(float(source.face[:, BROW].mean()), abs=0.02)


def test_motion_of_a_run_a_file_and_nothing(tmp_path: Path, source: Motion, target: MotionStats):
    source.save(tmp_path / "motion.safetensors")
    for path in (tmp_path, tmp_path / "motion.safetensors"):
        torch.testing.assert_close(read_motion(path, target).face, source.face)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(AvatarError, match="empty"):
        read_motion(tmp_path / "empty.mp4", target)


def test_a_video_is_tracked(tmp_path: Path):
    need_landmarker()
    from avatar.synth.make import make_subject

    made = make_subject(tmp_path, 1.2, 160, seed=0, voice="buzz", text="My map, a pie.", motion=1.5, supersample=1)
    found, truth = track_motion(made.video), made.truth
    assert len(found) == len(truth)
    assert np.corrcoef(opening_change(found.face), truth.arkit[:, INDEX["jawOpen"]])[0, 1] > 0.8
    assert np.corrcoef(found.head_rotation[:, 1], truth.head_rotation[:, 1])[0, 1] > 0.9


def test_a_video_without_a_face_says_so(tmp_path: Path):
    need_landmarker()
    with VideoWriter(tmp_path / "wall.mp4", 96, 96, 25.0) as writer:
        for _ in range(4):
            writer.write(np.full((96, 96, 3), 120, np.uint8))
    with pytest.raises(AvatarError, match="face was found in only 0%"):
        track_motion(tmp_path / "wall.mp4")
