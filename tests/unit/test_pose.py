"""Head poses are aligned with the look of the whole head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avatar.data.footage import Footage, pose_at
from avatar.geometry.cameras import Camera
from avatar.motion import Motion
from avatar.preprocess.head_align import Reference, knots, moved, spread
from avatar.preprocess.pose import measure, steadied

SIDE, FRAMES = 256, 32
RADII, MIDDLE = np.array([7.5, 10.0, 9.0]), np.array([0.0, -1.0, 6.0])  # of an egg, head axes, centimetres


class Egg:
    """Footage of a painted egg that nods and turns, tracked as a landmark network does: nods are read too small.

    Args:
        gain: Tracked pitch over true pitch.
        dark: Frames that show nothing.
    """

    def __init__(self, gain: float, dark: tuple[int, ...] = ()) -> None:
        self.width = self.height = SIDE
        self.camera = Camera.source(480.0, SIDE / 2, SIDE / 2, SIDE, SIDE)
        time = np.arange(FRAMES) / FRAMES * 2 * np.pi
        self.rotation = np.stack([0.07 * np.sin(time), 0.15 * np.cos(time), 0.05 * np.sin(2 * time)], 1)
        self.translation = np.array([0.0, 1.0, 60.0]) + 0.5 * np.stack([np.sin(time), np.cos(time), np.sin(time)], 1)
        tracked, shift = self.rotation * [gain, 1, 1], self.translation.copy()
        shift[:, 2] += 10 * (gain - 1) * self.rotation[:, 0]
        tensors = {"head_rotation": tracked, "head_translation": shift}
        self.motion = Motion.zeros(FRAMES, 25.0).map(
            valid=torch.ones(FRAMES, dtype=torch.bool),
            **{name: torch.from_numpy(value.astype(np.float32)) for name, value in tensors.items()},
        )
        self.dark = dark
        self.landmarks = np.zeros((FRAMES, 478, 3), np.float32)
        self.shape = np.zeros((478, 3), np.float32)
        self.train_frames = np.arange(FRAMES)
        rng = np.random.default_rng(0)
        self.waves = rng.normal(0, 7, (30, 3)), rng.uniform(0, 2 * np.pi, 30)

    def drawn(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Grey image and depth [H, W], NaN beside the egg."""
        from scipy.spatial.transform import Rotation

        y, x = np.mgrid[:SIDE, :SIDE] + 0.5
        rays = np.stack([(x - SIDE / 2) / 480, (y - SIDE / 2) / 480, np.ones_like(x)], -1)
        turn = Rotation.from_rotvec(self.rotation[index]).as_matrix()
        along, start = rays @ turn / RADII, (-self.translation[index] @ turn - MIDDLE) / RADII
        a, b, c = (along**2).sum(-1), along @ start, start @ start - 1
        inside = b**2 - a * c
        depth = np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.nan)
        at = start + along * np.nan_to_num(depth)[..., None]
        paint = np.sin(at @ self.waves[0].T + self.waves[1]).sum(-1)
        return np.where(inside > 0, 128 + 12 * paint, 20).clip(0, 255), depth

    def image(self, index: int) -> np.ndarray:
        grey = self.drawn(index)[0] * (index not in self.dark)
        return np.repeat(grey[..., None], 3, -1).astype(np.uint8)

    def masks(self, index: int, size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        face = np.isfinite(self.drawn(index)[1]).astype(np.float32)
        return {"face": face, "hair": np.zeros_like(face)}


def reference_of(egg: Footage) -> Reference:
    """Frame 0, where tracked and true pose are the same."""
    assert isinstance(egg, Egg)
    depth = egg.drawn(0)[1]
    return Reference(egg, 0, depth, np.isfinite(depth))


def gain(egg: Egg, rotation: np.ndarray) -> float:
    return float(np.polyfit(egg.rotation[:, 0], rotation[:, 0], 1)[0])


def aligned(egg: Egg) -> tuple[np.ndarray, np.ndarray, float]:
    change, (before, after), share = measure(egg, [(0, FRAMES)], reference_of)
    assert after < before or gain(egg, egg.motion.head_rotation.numpy()) > 0.95
    poses = egg.motion.head_rotation.double().numpy(), egg.motion.head_translation.double().numpy()
    return *moved(*poses, change), share


def test_nods_and_distance_are_read_from_the_whole_head():
    egg = Egg(gain=0.7)
    rotation, translation, share = aligned(egg)
    tracked = egg.motion.head_rotation.numpy(), egg.motion.head_translation.numpy()
    assert share == 1
    assert gain(egg, tracked[0]) < 0.8
    assert 0.9 < gain(egg, rotation) < 1.05
    error = lambda found: np.std(found - egg.translation, axis=0)[2]  # noqa: E731
    assert error(translation) < 0.6 * error(tracked[1])
    for axis in (1, 2):  # yaw and roll were right
        assert np.degrees(np.std((rotation - egg.rotation)[:, axis])) < 0.3


def test_right_poses_stay():
    egg = Egg(gain=1.0)
    rotation, translation, _ = aligned(egg)
    assert np.degrees(np.std(rotation - egg.rotation, axis=0)).max() < 0.2
    assert np.std(translation - egg.translation, axis=0).max() < 0.1


def test_a_frame_that_shows_nothing_does_not_pull_its_neighbours():
    rotation, translation, _ = aligned(Egg(gain=0.7))
    bad_rotation, bad_translation, share = aligned(Egg(gain=0.7, dark=(20,)))
    assert 0.8 < share < 1
    bad_translation += (translation - bad_translation).mean(0)  # the mean stays, whichever frames it is of
    assert np.degrees(np.abs(bad_rotation - rotation).max()) < 0.5
    assert np.abs(bad_translation - translation).max() < 0.3


def test_frames_without_an_alignment_keep_their_pose():
    egg = Egg(gain=0.7, dark=tuple(range(1, FRAMES)))
    change, _, share = measure(egg, [(0, FRAMES)], reference_of)
    assert share == 1 / 9
    assert not change.any()


def test_nothing_is_measured_where_no_frame_is_valid():
    egg = Egg(gain=0.7)
    egg.motion = egg.motion.map(valid=torch.zeros(FRAMES, dtype=torch.bool))

    def never(data: Footage) -> Reference:
        raise AssertionError

    assert not measure(egg, [(0, FRAMES)], never)[0].any()


def test_nothing_changes_without_a_head_to_align_with():
    assert not measure(Egg(gain=0.7), [(0, FRAMES)], lambda data: None)[0].any()


def test_changes_do_not_cross_a_cut():
    segments = [(0, 10), (10, 20)]
    frames = knots(segments, np.ones(20, bool))
    changes = [np.full((len(frames[0]), 6), 1.0), np.zeros((len(frames[1]), 6))]
    everywhere = spread(changes, frames, segments, 20)
    assert (everywhere[:10] == pytest.approx(1.0)) and not everywhere[10:].any()
    assert [at[-1] for at in frames] == [9, 19]


def test_pose_at_is_the_tracked_pose():
    egg = Egg(gain=1.0)
    assert pose_at(egg, 5)[1] == pytest.approx(egg.translation[5], abs=1e-5)


def test_the_distance_is_steadied_but_not_its_movements():
    rng = np.random.default_rng(0)
    time = np.arange(200) / 25
    rotation = np.stack([0.1 * np.sin(2 * np.pi * 1.5 * time), 0.1 * np.cos(3 * time), 0 * time], 1)
    true = 60 + 0.4 * np.sin(time) + 10 * rotation[:, 0]  # a slow sway, and quick nods about the neck
    true[100:] += 5  # a cut
    tracked = np.stack([0.05 * true, -0.02 * true, true + rng.normal(0, 0.2, 200)], 1)
    segments = [(0, 100), (100, 199)]  # the last frame belongs to none
    result = steadied(rotation, tracked, segments, 25.0)
    assert np.abs(result[:199, 2] - true[:199]).std() < 0.5 * np.abs(tracked[:199, 2] - true[:199]).std()
    assert abs(np.mean(result[95:100, 2] - true[95:100])) < 0.2 > abs(np.mean(result[100:105, 2] - true[100:105]))
    assert result[:, :2] / result[:, 2:] == pytest.approx(tracked[:, :2] / tracked[:, 2:])  # the same in the image
    assert (result[199] == tracked[199]).all()
    lean = np.where(time < 4, 60.0, 50.0)  # in one frame: nothing of it is noise
    assert steadied(0 * rotation, np.stack([lean, lean, lean], 1), [(0, 200)], 25.0)[:, 2] == pytest.approx(
        lean, abs=0.35
    )


def test_poses_without_a_head_stay():
    assert not steadied(np.zeros((3, 3)), np.zeros((3, 3)), [(0, 3), (3, 3)], 25.0).any()
