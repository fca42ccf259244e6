"""Metrics of faces must notice late mouths, shaking heads, missing blinks, wandering eyes."""

from __future__ import annotations

import numpy as np
import pytest

from avatar.eval import bootstrap
from avatar.eval import face_metrics as metrics
from avatar.eval.face_metrics import FaceTrack
from avatar.motion.arkit import ARKIT, INDEX
from avatar.motion.face_channels import EYE_LOWER, EYE_UPPER, LIPS_INNER, LIPS_OUTER

FPS = 25.0


def face(frames: int, seed: int = 0) -> np.ndarray:
    """Landmarks [T, 478, 2] of a drawn face in a 512 picture: it talks, blinks twice and nods slowly."""
    t = np.arange(frames) / FPS
    points = np.random.default_rng(seed).uniform(150, 350, (478, 2))
    for contour, a, b in ((LIPS_OUTER, 60, 22), (LIPS_INNER, 45, 10)):
        phase = 2 * np.pi * np.arange(len(contour)) / len(contour)
        points[list(contour)] = np.stack([256 - a * np.cos(phase), 330 + b * np.sin(phase)], -1)
    for side, x in (("right", 190), ("left", 322)):
        for upper, lower in zip(EYE_UPPER[side], EYE_LOWER[side], strict=True):
            points[upper], points[lower] = (x, 190), (x, 210)
    points[[33, 133, 362, 263]] = [(160, 200), (220, 200), (292, 200), (352, 200)]
    out = np.repeat(points[None], frames, 0)
    opening = 12 * np.abs(np.sin(7 * t) * np.sin(1.7 * t + 0.4))
    out[:, [14, 87, 317], 1] += opening[:, None]
    for at in (1.0, 3.0):
        lid = 18 * np.exp(-(((t - at) / 0.06) ** 2))
        for side in ("left", "right"):
            out[:, list(EYE_UPPER[side]), 1] += lid[:, None]
    out[..., 1] += (5 * np.sin(t))[:, None]
    return out


def test_landmark_distance_with_and_without_position() -> None:
    real = face(50)

    def distance(rendered: np.ndarray, align: bool, width: int = 512, other: np.ndarray = real) -> float | None:
        return bootstrap.value(bootstrap.mean, metrics.landmark_distance(rendered, other, width, align))

    assert distance(real, align=True) == 0
    moved = real + np.array([3.0, 4.0])
    assert distance(moved, align=False) == pytest.approx(5)
    assert distance(moved, align=True) == pytest.approx(0, abs=1e-9)
    assert distance(moved / 2, False, 256, real / 2) == pytest.approx(5)  # 512 is the unit
    still = np.repeat(real[:1], 50, 0)
    aligned = distance(still, align=True)
    assert aligned is not None and aligned > 0.2
    lost = moved.copy()
    lost[::2] = np.nan
    assert distance(lost, align=False) == pytest.approx(5)


def test_the_lmd_that_is_shown_is_aligned() -> None:
    real = face(50)
    tracks = [FaceTrack(landmarks=points, arkit=np.zeros((50, 52))) for points in (real + np.array([3.0, 4.0]), real)]
    series = metrics.compared_series(*tracks, 512, [(0, 50)])
    assert series["lmd"] == pytest.approx(0, abs=1e-9) and series["lmd_raw"] == pytest.approx(5)


@pytest.mark.parametrize("late", [-4, 0, 3])
def test_lag_is_found_with_its_sign(late: int) -> None:
    track = face(220)
    real, rendered = track[10:210], track[10 - late : 210 - late]
    result = metrics.lag_correlation(
        metrics.relative_opening(rendered), metrics.relative_opening(real), [(0, 90), (90, 200)], 10
    )
    assert result.lag == late
    assert result.best_correlation == pytest.approx(1, abs=1e-3)
    assert result.correlation is not None and (result.correlation < 0.9 if late else result.correlation > 0.999)


def test_lag_does_not_look_across_cuts_and_knows_nothing_of_stillness() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 60))
    real = np.concatenate([first, second])
    swapped = np.concatenate([np.roll(first, 2), np.roll(second, 2)])
    swapped[[0, 1, 60, 61]] = 50.0  # nonsense that only a window across the cut would use at the true lag
    result = metrics.lag_correlation(swapped, real, [(0, 60), (60, 120)], 10)
    assert result.lag == 2 and result.best_correlation == pytest.approx(1)
    short = metrics.lag_correlation(np.roll(first[:16], 1), first[:16], [(0, 16)], 10)
    assert short.lag is not None and abs(short.lag) <= 8  # two frames that agree by chance prove nothing
    still = metrics.lag_correlation(np.zeros(120), real, [(0, 120)], 10)
    assert still.correlation is None and still.lag is None


@pytest.mark.parametrize("late", [-25, -12, 10, 14])
def test_a_lag_at_the_border_of_the_search_is_none(late: int) -> None:
    track = metrics.relative_opening(face(260))
    real, rendered = track[30:230], track[30 - late : 230 - late]
    inside = metrics.lag_correlation(rendered, real, [(0, 200)], max_lag=abs(late) + 2)
    assert inside.lag == late and inside.best_correlation == pytest.approx(1, abs=1e-3)
    border = metrics.lag_correlation(rendered, real, [(0, 200)], max_lag=min(10, abs(late)))
    assert border.lag != late and (border.best_correlation or 0) < 0.95
    assert border.correlation == inside.correlation


def test_a_signal_that_grows_beyond_the_search_has_no_lag() -> None:
    real = np.cos(np.linspace(0, np.pi, 200))  # the farther apart, the more alike or the less: no lag is best
    rendered = np.cos(np.linspace(0, np.pi, 200) - 1.0)
    found = metrics.lag_correlation(rendered, real, [(0, 200)], 10)
    assert found.lag is None and found.best_correlation is None and found.correlation is not None


def jitter(points: np.ndarray, segments: list[tuple[int, int]]) -> float:
    value = bootstrap.value(bootstrap.root_mean, metrics.squared_jitter(points, 512, segments))
    assert value is not None
    return value


def test_jitter_sees_shaking_but_not_nodding() -> None:
    real = face(100)
    shaking = real + np.random.default_rng(0).normal(0, 0.5, (100, 1, 2))
    calm, rough = jitter(real, [(0, 100)]), jitter(shaking, [(0, 100)])
    assert calm < 0.05 and rough == pytest.approx(
        0.5 * 12**0.5, rel=0.15
    )  # second difference of noise: sqrt(6) per axis
    assert jitter(shaking - real, [(0, 100)]) == pytest.approx(rough, rel=0.05)
    jump = np.concatenate([real, real + 100])
    assert jitter(jump, [(0, 100), (100, 200)]) == pytest.approx(calm, rel=0.1)


def test_blinks_are_counted() -> None:
    track = face(125)
    openness = metrics.eye_openness(track)

    def count(openness: np.ndarray, *segments: tuple[int, int]) -> float:
        return metrics.blink_onsets(openness, FPS, list(segments or [(0, 125)])).sum()

    assert count(openness) == 2 and count(openness, (0, 60), (60, 125)) == 2
    onsets = np.flatnonzero(metrics.blink_onsets(openness, FPS, [(0, 125)]))
    assert np.abs(onsets - np.array([25, 75])).max() <= 3
    assert count(np.full(125, 0.3)) == 0
    openness[40:44] = np.nan
    assert count(openness) == 2
    assert count(np.linspace(0.3, 0.02, 125)) == 0  # falls asleep: not a blink


@pytest.mark.parametrize(("seconds", "blinks"), [(0.2, 1), (0.6, 1), (1.2, 0), (2.0, 0)])
def test_long_closed_eyes_are_no_blink(seconds: float, blinks: int) -> None:
    openness = np.full(250, 0.3)
    openness[100 : 100 + round(seconds * FPS)] = 0.05
    assert metrics.blink_onsets(openness, FPS, [(0, 250)]).sum() == blinks


def test_gaze_is_an_angle_and_closed_eyes_have_none() -> None:
    real = face(50)
    for side, (a, b) in metrics.EYE_CORNERS.items():
        real[:, metrics.IRIS[side][0]] = real[:, [a, b]].mean(1)
    looking = real.copy()
    millimetre = 60 / (10 * metrics.EYE_WIDTH)  # the drawn eyes are 60 pixels wide
    looking[:, [468, 473], 0] += 2 * millimetre
    assert np.allclose(metrics.gaze_error(real, real)[:15], 0)
    error = metrics.gaze_error(looking, real)
    assert error[0] == pytest.approx(np.degrees(np.arcsin(0.2 / metrics.EYE_RADIUS)), rel=1e-3)
    assert np.isnan(error[24:27]).all()  # a blink


def test_blendshapes_are_compared_by_the_half_of_the_face() -> None:
    real = FaceTrack(landmarks=face(50), arkit=np.zeros((50, 52)))
    scores = np.zeros((50, 52))
    scores[:, INDEX["browInnerUp"]] = 0.5
    scores[:, INDEX["eyeLookInLeft"]] = 0.9  # is gaze
    scores[20] = np.nan
    series = metrics.compared_series(FaceTrack(landmarks=face(50), arkit=scores), real, 512, [(0, 50)])
    assert series["upper_face_error"][0] == pytest.approx(0.5 / len(metrics.UPPER_FACE))
    assert series["lower_face_error"][0] == 0 and np.isnan(series["upper_face_error"][20])
    parts = set(metrics.UPPER_FACE) | set(metrics.LOWER_FACE)
    assert {ARKIT[i] for i in set(range(52)) - parts} == {n for n in ARKIT if n.startswith(("eyeLook", "tongue"))}
