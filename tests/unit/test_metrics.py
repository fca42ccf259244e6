"""Metrics must notice what they claim to notice: noise, blur, shifts, late mouths, shaking heads, missing blinks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from avatar.eval import metrics
from avatar.motion.face_channels import EYE_LOWER, EYE_UPPER, LIPS_INNER, LIPS_OUTER

FPS = 25.0


def picture(size: int = 96) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(size, size, 3)), (1.5, 1.5, 0))
    image = np.stack([0.5 + 0.3 * np.sin(12 * x), 0.3 + 0.5 * y, np.hypot(x - 0.5, y - 0.5)], -1) + 0.1 * noise
    return (image.clip(0, 1) * 255).astype(np.uint8)


def half_masks(size: int = 96) -> dict[str, np.ndarray]:
    left = np.zeros((size, size), np.float32)
    left[:, : size // 2] = 1
    zero = np.zeros_like(left)
    return {"face": left, "lips": zero, "eyes": zero, "mouth": zero, "background": 1 - left}


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


def test_psnr_and_ssim_equal_other_implementations() -> None:
    a = picture()
    b = (a * 0.8 + np.random.default_rng(1).normal(0, 12, a.shape)).clip(0, 255).astype(np.uint8)
    ta, tb = a.astype(np.float32) / 255, b.astype(np.float32) / 255
    assert metrics.psnr(ta, tb) == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-4)
    oracle = structural_similarity(
        a / 255, b / 255, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1
    )
    assert float(metrics.ssim_map(ta, tb).mean()) == pytest.approx(oracle, abs=1e-4)


def test_distortions_cost_quality_and_masks_place_them() -> None:
    real = picture()
    blurred = gaussian_filter(real, (4, 4, 0))
    right = real.copy()
    right[:, 60:] = 255 - right[:, 60:]
    results = []
    for rendered in (real, blurred, right):
        quality = metrics.PictureQuality(lpips=None)
        quality.add(rendered, real, half_masks())
        results.append(quality.summary())
    same, blur, outside = results
    assert same["psnr"] == metrics.MAX_PSNR and same["ssim"] == pytest.approx(1, abs=1e-5) and same["lpips"] is None
    assert blur["psnr"] < 40 and blur["ssim"] < 0.95
    assert outside["psnr"] < 15 and outside["psnr_face"] == metrics.MAX_PSNR  # the damage is outside the face
    assert outside["ssim_face"] > 0.95 > outside["ssim"]
    faceless = metrics.PictureQuality(lpips=None)
    faceless.add(real, real, {"face": np.zeros((96, 96), np.float32)})
    assert faceless.summary()["psnr_face"] is None  # not a perfect score


def test_landmark_distance_with_and_without_position() -> None:
    real = face(50)
    assert metrics.landmark_distance(real, real, 512, align=True) == 0
    moved = real + np.array([3.0, 4.0])
    assert metrics.landmark_distance(moved, real, 512, align=False) == pytest.approx(5)
    assert metrics.landmark_distance(moved, real, 512, align=True) == pytest.approx(0, abs=1e-9)
    assert metrics.landmark_distance(moved / 2, real / 2, 256, align=False) == pytest.approx(5)  # 512 is the unit
    still = np.repeat(real[:1], 50, 0)
    aligned = metrics.landmark_distance(still, real, 512, align=True)
    assert aligned is not None and aligned > 0.2
    lost = moved.copy()
    lost[::2] = np.nan
    assert metrics.landmark_distance(lost, real, 512, align=False) == pytest.approx(5)


@pytest.mark.parametrize("late", [-4, 0, 3])
def test_lag_is_found_with_its_sign(late: int) -> None:
    track = face(220)
    real, rendered = track[10:210], track[10 - late : 210 - late]
    result = metrics.lag_correlation(
        metrics.relative_opening(rendered), metrics.relative_opening(real), [(0, 90), (90, 200)]
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
    result = metrics.lag_correlation(swapped, real, [(0, 60), (60, 120)])
    assert result.lag == 2 and result.best_correlation == pytest.approx(1)
    short = metrics.lag_correlation(np.roll(first[:8], 1), first[:8], [(0, 8)])
    assert short.lag is not None and abs(short.lag) <= 4  # two frames that agree by chance prove nothing
    still = metrics.lag_correlation(np.zeros(120), real, [(0, 120)])
    assert still.correlation is None and still.lag is None


def test_jitter_sees_shaking_but_not_nodding() -> None:
    real = face(100)
    shaking = real + np.random.default_rng(0).normal(0, 0.5, (100, 1, 2))
    calm = metrics.pose_jitter(real, 512, [(0, 100)])
    rough = metrics.pose_jitter(shaking, 512, [(0, 100)])
    assert calm is not None and rough is not None
    assert calm < 0.05 and rough == pytest.approx(
        0.5 * 12**0.5, rel=0.15
    )  # second difference of noise: sqrt(6) per axis
    wobble = metrics.face_metrics(shaking, real, 512, FPS, [(0, 100)])["pose_wobble"]
    assert wobble == pytest.approx(rough, rel=0.05)
    jump = np.concatenate([real, real + 100])
    assert metrics.pose_jitter(jump, 512, [(0, 100), (100, 200)]) == pytest.approx(calm, rel=0.1)


def test_blinks_are_counted() -> None:
    track = face(125)
    openness = metrics.eye_openness(track)
    assert metrics.count_blinks(openness, FPS, [(0, 125)]) == 2
    assert metrics.count_blinks(openness, FPS, [(0, 60), (60, 125)]) == 2
    assert metrics.count_blinks(np.full(125, 0.3), FPS, [(0, 125)]) == 0
    openness[40:44] = np.nan
    assert metrics.count_blinks(openness, FPS, [(0, 125)]) == 2
    closing = np.linspace(0.3, 0.02, 125)  # falls asleep: not a blink
    assert metrics.count_blinks(closing, FPS, [(0, 125)]) == 0


def test_summary_of_a_face_that_lost_its_voice() -> None:
    real = face(125)
    mute = np.repeat(real[:1], 125, 0)
    mute[7] = np.nan
    result = metrics.face_metrics(mute, real, 512, FPS, [(0, 125)])
    assert result["mouth_correlation"] is None and result["mouth_range"] == pytest.approx(0)
    assert result["blinks"] == 0 and result["frames_without_face"] == 1
    same = metrics.face_metrics(real, real, 512, FPS, [(0, 125)])
    assert (
        same["lmd"] == 0 == same["pose_wobble"]
        and same["mouth_correlation"] == pytest.approx(1)
        and same["mouth_lag_frames"] == 0
    )
    assert same["mouth_range"] == pytest.approx(1) and same["blinks"] == 2
