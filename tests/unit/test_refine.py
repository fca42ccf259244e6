"""The joint fit against a synthetic head whose camera, shape, pose and lips are known."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from avatar.motion.face_channels import CHANNEL_INDEX, LIPS_INNER, encode
from avatar.preprocess import bundle, face_motion, head_fit, texture
from avatar.preprocess.refine import pose_jitter

SIZE = 512
CENTRE = np.array([256.0, 256.0])


def face_like(rng: np.random.Generator) -> np.ndarray:
    """478 points on a curved sheet of a face's size in head axes, with the irises last."""
    x, y = rng.uniform(-7.5, 7.5, 478), rng.uniform(-8, 9, 478)
    y[list(LIPS_INNER)], x[list(LIPS_INNER)] = 4.5, np.linspace(-2.5, 2.5, len(LIPS_INNER))
    x[33], x[133], x[362], x[263] = -4.5, -2, 2, 4.5
    y[[33, 133, 362, 263]] = -2.5
    x[[468, 473]], y[[468, 473]] = [-3.25, 3.25], -2.5
    x[2], y[2] = 0, 2.0
    return np.stack([x, y, 0.09 * x**2 + 0.04 * y**2 - 6 * np.exp(-(x**2 + y**2) / 5) - 4], 1)


@dataclass
class Scene:
    canonical: np.ndarray
    shape: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    focal: float
    landmarks: np.ndarray
    opening: np.ndarray
    segments: list[tuple[int, int]]


def make_scene(frames: int = 400, noise: float = 0.7, seed: int = 0, cut: bool = False) -> Scene:
    rng = np.random.default_rng(seed)
    canonical = face_like(rng)
    shape = canonical * [1.05, 0.97, 1.1] + 0.15 * rng.standard_normal((478, 3))
    turn = gaussian_filter1d(rng.standard_normal((frames, 3)), 15, axis=0)
    rotation = turn / turn.std(0) * np.radians([5, 9, 4])
    translation = np.array([1.0, -2.0, 80.0]) + gaussian_filter1d(rng.standard_normal((frames, 3)), 15, axis=0) * 4
    segments = [(0, frames)]
    if cut:
        half = frames // 2
        rotation[half:] += np.radians([3, -8, 2])
        translation[half:] += [3, 1, 5]
        segments = [(0, half), (half, frames)]
    opening = np.clip(gaussian_filter1d(rng.standard_normal(frames), 2) * 2.5, 0, None)
    moved = np.repeat(shape[None], frames, 0)
    lower = (canonical[:, 1] > 4) & (canonical[:, 1] < 9)
    moved[:, lower, 1] += 0.6 * opening[:, None]
    matrices = bundle.rotation_matrices(rotation)
    local = np.einsum("tij,tnj->tni", matrices, moved) + translation[:, None]
    focal = 1100.0
    pixels = focal * local[..., :2] / local[..., 2:] + CENTRE
    shake = 0.5 * noise * rng.standard_normal((frames, 1, 2))  # the detector moves all points of a picture at once
    pixels += noise * rng.standard_normal(pixels.shape) + shake
    depth = (local[..., 2:] - local[..., 2:].mean(1, keepdims=True)) * focal / local[..., 2:].mean(1, keepdims=True)
    landmarks = np.concatenate([pixels, depth * 0.9], -1).astype(np.float32)  # a network's depth is a guess
    return Scene(canonical, shape, rotation, translation, focal, landmarks, opening, segments)


def truth_in_gauge(scene: Scene, points: np.ndarray) -> bundle.Solution:
    truth = bundle.Solution(
        focal=scene.focal, shape=scene.shape[points], rotation=scene.rotation, translation=scene.translation
    )
    return bundle.to_gauge(truth, scene.canonical[points], np.ones(len(points)))


def angles_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    relative = bundle.rotation_matrices(a).swapaxes(1, 2) @ bundle.rotation_matrices(b)
    return np.degrees(np.linalg.norm(bundle.to_axis_angle(relative), axis=1))


def fit(scene: Scene, valid: np.ndarray | None = None) -> head_fit.Fit:
    valid = np.ones(len(scene.landmarks), bool) if valid is None else valid
    return head_fit.fit_head(scene.landmarks, valid, scene.segments, scene.canonical, CENTRE, SIZE)


@pytest.mark.parametrize("seed", [0, 1])
def test_head_rotation_and_shape_are_recovered(seed: int) -> None:
    scene = make_scene(seed=seed, noise=1.0)
    found = fit(scene)
    truth = truth_in_gauge(scene, found.points)
    assert angles_between(found.solution.rotation, truth.rotation).mean() < 1.0
    assert np.linalg.norm(found.solution.shape - truth.shape, axis=1).mean() < 0.2
    assert abs(np.log(found.solution.focal / scene.focal)) < 0.12
    assert found.residual.mean() < 2.0


def test_smoothing_lowers_the_error_and_stops_at_cuts() -> None:
    scene = make_scene(noise=1.0, cut=True)
    found = fit(scene)
    truth = truth_in_gauge(scene, found.points)
    raw = angles_between(found.raw_pose[:, :3], truth.rotation)
    smooth = angles_between(found.solution.rotation, truth.rotation)
    assert smooth.mean() <= raw.mean()
    half = scene.segments[0][1]
    assert smooth[half - 1 : half + 1].max() < 2.0
    assert pose_jitter(found.solution.rotation, scene.segments) < 0.5 * pose_jitter(
        found.raw_pose[:, :3], scene.segments
    )


def test_frames_without_a_face_are_bridged() -> None:
    scene = make_scene()
    valid = np.ones(len(scene.landmarks), bool)
    valid[100:106] = False
    scene.landmarks[100:106] += 60  # whatever stands there must not matter
    found = fit(scene, valid)
    truth = truth_in_gauge(scene, found.points)
    assert angles_between(found.solution.rotation, truth.rotation)[100:106].mean() < 1.2


def test_outlying_points_do_not_pull_the_pose() -> None:
    scene = make_scene()
    rng = np.random.default_rng(3)
    spoilt = rng.random((len(scene.landmarks), 478)) < 0.05
    scene.landmarks[spoilt, :2] += rng.normal(0, 25, (spoilt.sum(), 2)).astype(np.float32)
    found = fit(scene)
    assert angles_between(found.solution.rotation, truth_in_gauge(scene, found.points).rotation).mean() < 1.0


def test_mouth_motion_is_measured_in_the_head() -> None:
    scene = make_scene()
    valid = np.ones(len(scene.landmarks), bool)
    found = fit(scene)
    shape = face_motion.neutral_shape(scene.landmarks, valid, found.solution, CENTRE, scene.canonical, found.points)
    motion = face_motion.make_motion(
        scene.landmarks,
        np.zeros((len(valid), 52), np.float32),
        valid,
        scene.segments,
        found.solution,
        shape,
        CENTRE,
        25.0,
    )
    lip = motion.face[:, CHANNEL_INDEX["lip_inner_y_cos0"]].numpy()
    assert np.corrcoef(lip, scene.opening)[0, 1] > 0.97
    truth = 0.6 * scene.opening
    assert abs(np.polyfit(truth, lip, 1)[0] - 1) < 0.1
    assert np.abs(np.median(lip[scene.opening == 0])) < 0.05  # closed is neutral


def test_a_face_that_comes_nearer_has_its_mouth_closed_where_it_is_closed() -> None:
    """Far away it is open by 0.35 cm, near by 0.2 cm, which is more pixels."""
    rng, far = np.random.default_rng(0), np.arange(80) < 60
    canonical = face_like(rng)
    canonical[list(LIPS_INNER), 0] = -2.5 * np.cos(2 * np.pi * np.arange(20) / 20)  # the lips are above each other
    moved = np.repeat(canonical[None], 80, 0)
    lower = list(LIPS_INNER[1:10])
    moved[:, lower, 1] += np.where(far, 0.35, 0.2)[:, None]
    places = np.where(far[:, None], [0.0, 0, 80], [0.0, 0, 40])
    pixels = 900 * moved[..., :2] / (moved + places[:, None])[..., 2:] + CENTRE
    landmarks = np.concatenate([pixels, np.zeros((80, 478, 1))], -1).astype(np.float32)
    points = np.setdiff1d(np.arange(478), LIPS_INNER)
    poses = bundle.Solution(focal=900.0, shape=canonical[points], rotation=np.zeros((80, 3)), translation=places)
    shape = face_motion.neutral_shape(landmarks, np.ones(80, bool), poses, CENTRE, canonical, points)
    opening = shape[lower, 1].mean() - canonical[lower, 1].mean()
    assert abs(opening - 0.2) < 0.08


def test_long_videos_are_lifted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of lifted landmarks fills gigabytes; the parts must come out as the whole does."""
    rng = np.random.default_rng(0)
    shape = face_like(rng)
    turns, places = rng.normal(0, 0.1, (90, 3)), rng.normal(0, 1, (90, 3)) + [0, 0, 60]
    poses = bundle.Solution(focal=900.0, shape=shape, rotation=turns, translation=places)
    pixels = bundle.project(poses, CENTRE) + rng.normal(0, 1, (90, 478, 2))
    landmarks = np.concatenate([pixels, np.zeros((90, 478, 1))], -1).astype(np.float32)
    made = []
    for at_once in (90, 37):
        monkeypatch.setattr(face_motion, "AT_ONCE", at_once)
        scores, valid = np.zeros((90, 52), np.float32), np.ones(90, bool)
        made.append(face_motion.make_motion(landmarks, scores, valid, [(0, 90)], poses, shape, CENTRE, 25.0))
    for name in ("face", "gaze"):
        np.testing.assert_allclose(getattr(made[1], name), getattr(made[0], name), atol=1e-5)


def test_pose_derivatives_match_differences() -> None:
    rng = np.random.default_rng(0)
    state = bundle.Solution(
        focal=900.0,
        shape=face_like(rng)[:9],
        rotation=rng.normal(0, 0.4, (3, 3)),
        translation=rng.normal(0, 1, (3, 3)) + [0, 0, 60],
    )
    _, by_pose, by_shape, by_focal = bundle._derivatives(state, CENTRE)
    step = 1e-6
    for k in range(6):
        pose = np.concatenate([state.rotation, state.translation], 1)
        high, low = pose.copy(), pose.copy()
        high[:, k] += step
        low[:, k] -= step
        ends = [
            bundle.project(
                bundle.Solution(focal=900.0, shape=state.shape, rotation=p[:, :3], translation=p[:, 3:]), CENTRE
            )
            for p in (high, low)
        ]
        np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), by_pose[..., k], rtol=1e-5, atol=1e-4)
    assert by_shape.shape == (3, 9, 2, 3)
    np.testing.assert_allclose(by_focal, bundle.project(state, CENTRE) - CENTRE)


def test_quick_closures_survive_the_smoothing_and_noise_does_not() -> None:
    rng = np.random.default_rng(0)
    clean = np.repeat([[1.0]], 200, 0)
    clean[60:62] = clean[120:123] = clean[150] = 0  # lips closing for one to three frames
    noisy = clean + 0.03 * rng.standard_normal(clean.shape)
    smooth = face_motion.smooth_channels(noisy, [(0, 200)])
    assert smooth[60:62].max() < 0.1 and smooth[121] < 0.1 and smooth[150] < 0.15
    still = np.r_[5:50, 70:110]
    assert np.diff(smooth[still, 0]).std() < 0.5 * np.diff(noisy[still, 0]).std()
    assert encode(np.zeros((1, 478, 3))).shape[1] == len(CHANNEL_INDEX)


def test_smoothing_does_not_reach_over_a_cut() -> None:
    rng = np.random.default_rng(0)
    track = np.concatenate([np.zeros((50, 1)), np.ones((50, 1))]) + 0.05 * rng.standard_normal((100, 1))
    smooth = face_motion.smooth_channels(track, [(0, 50), (50, 100)])
    assert smooth[49] < 0.15 and smooth[50] > 0.85


def textured(rng: np.random.Generator, size: int = 160) -> np.ndarray:
    """A smooth random picture, uint8 RGB."""
    grey = gaussian_filter1d(gaussian_filter1d(rng.standard_normal((size, size)), 2.5, axis=0), 2.5, axis=1)
    grey = (grey - grey.min()) / np.ptp(grey) * 255
    return np.repeat(grey.astype(np.uint8)[..., None], 3, 2)


def test_texture_is_followed_to_a_fraction_of_a_pixel_and_where_it_is_covered_not_at_all() -> None:
    rng = np.random.default_rng(0)
    picture = textured(rng)
    base = np.stack(np.meshgrid([40.0, 80.0, 120.0], [40.0, 80.0, 120.0]), -1).reshape(-1, 2)
    count = 24
    true = np.repeat(base[None], count, 0)
    pictures = []
    for t in range(count):
        angle, scale, move = 0.1 * np.sin(t), 1 + 0.04 * np.cos(t), rng.uniform(-5, 5, 2)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        shift = 80 - turn @ [80, 80] + move
        true[t] = base @ turn.T + shift
        matrix = np.column_stack([turn, shift + turn @ [0.5, 0.5] - 0.5])
        moved = cv2.warpAffine(picture, matrix, (160, 160), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
        gain = rng.uniform(0.7, 1.0)  # the light changes
        pictures.append((moved * gain).astype(np.uint8))
    pictures[5][:] = textured(np.random.default_rng(9))  # something else stands before it
    expected = true + np.repeat(rng.normal(0, 0.6, (count, 1, 2)), len(base), 1)
    seen, confidence = texture.follow(pictures, list(enumerate(pictures)), expected, face_height=160)
    ok = np.arange(count) != 5
    # The patches are averaged where they were expected, so that all frames may share one offset.
    error = seen - true - np.median((seen - true)[ok], axis=0)
    assert confidence[ok].min() > 0.8
    assert (confidence[5] > 0).sum() <= 2
    before = np.abs(expected - true)[ok].mean()
    assert np.abs(error[ok]).mean() < 0.06 * before


def test_texture_measurements_lower_the_pose_error() -> None:
    scene = make_scene(noise=1.5)
    found = fit(scene)
    truth = truth_in_gauge(scene, found.points)
    clean = make_scene(noise=0.2)  # the same scene, measured better
    confidence = np.ones((len(scene.landmarks), len(found.points)))
    confidence[:, ::3] = 0  # some points have no texture
    valid = np.ones(len(scene.landmarks), bool)
    better = head_fit.refit(
        found, clean.landmarks[:, found.points, :2].astype(float), confidence, scene.landmarks, valid,
        scene.segments, CENTRE, 250.0,
    )  # fmt: skip
    off = [angles_between(f.solution.rotation, truth.rotation) for f in (found, better)]
    spread = [np.std(f.solution.rotation - truth.rotation, axis=0).mean() for f in (found, better)]
    assert spread[1] < 0.35 * spread[0]
    assert off[1].mean() < 0.4
