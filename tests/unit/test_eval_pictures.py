"""Picture metrics must notice what they claim to notice: noise, blur, holes, flicker at the neck."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from avatar.eval import image_metrics as metrics
from avatar.eval import images
from avatar.eval.image_metrics import ImageMeter, RealFrame, frechet_distance
from avatar.losses.lpips import LPIPS
from tests.unit.test_lpips import random_weights


def picture(size: int = 96) -> np.ndarray:
    y, x = np.mgrid[:size, :size] / size
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(size, size, 3)), (1.5, 1.5, 0))
    image = np.stack([0.5 + 0.3 * np.sin(12 * x), 0.3 + 0.5 * y, np.hypot(x - 0.5, y - 0.5)], -1) + 0.1 * noise
    return (image.clip(0, 1) * 255).astype(np.uint8)


def half_masks(size: int = 96) -> dict[str, np.ndarray]:
    left = np.zeros((size, size), np.float32)
    left[:, : size // 2] = 1
    zero = np.zeros_like(left)
    return {
        "face": left,
        "lips": zero,
        "eyes": zero,
        "mouth": zero,
        "hair": zero,
        "neck": zero,
        "clothes": zero,
        "background": 1 - left,
    }


def body_masks(size: int = 96) -> dict[str, np.ndarray]:
    """A head above a neck above clothes, and the background beside them."""
    zero = np.zeros((size, size), np.float32)
    masks = {name: zero.copy() for name in ("hair", "face", "lips", "mouth", "eyes", "neck", "clothes", "background")}
    masks["background"][:] = 1
    for name, rows in (("face", slice(10, 60)), ("neck", slice(60, 75)), ("clothes", slice(75, 96))):
        masks[name][rows, 20:76] = 1
        masks["background"][rows, 20:76] = 0
    return masks


def landmarks(size: int = 96) -> np.ndarray:
    """Lips around (48, 48)."""
    points = np.full((478, 2), size / 2)
    phase = 2 * np.pi * np.arange(len(metrics.LIPS)) / len(metrics.LIPS)
    points[list(metrics.LIPS)] += np.stack([10 * np.cos(phase), 5 * np.sin(phase)], -1)
    return points


def real_frame(image: np.ndarray, lpips: LPIPS | None = None, **options) -> RealFrame:
    return RealFrame(image, body_masks(), landmarks(), lpips, **options)


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
    meter = ImageMeter()
    frame = RealFrame(real, half_masks(), landmarks(), None)
    for rendered in (real, blurred, right):
        meter.compare(rendered, frame)
    same, blur, outside = meter.rows
    assert same["psnr"] == metrics.MAX_PSNR and same["ssim"] == pytest.approx(1, abs=1e-5) and "lpips" not in same
    assert blur["psnr"] < 40 and blur["ssim"] < 0.95
    assert outside["psnr"] < 15 and outside["psnr_face"] == metrics.MAX_PSNR  # the damage is outside the face
    assert outside["ssim_face"] > 0.95 > outside["ssim"]
    meter.compare(real, RealFrame(real, dict.fromkeys(body_masks(), np.zeros((96, 96), np.float32)), landmarks(), None))
    assert np.isnan(meter.series()["psnr_face"][-1])  # not a perfect score


def test_lpips_and_features_of_the_real_frame_are_computed_once() -> None:
    network = LPIPS(random_weights())
    real = picture()
    rendered = gaussian_filter(real, (2, 2, 0))
    frame, meter = real_frame(real, network), ImageMeter()
    meter.observe(frame)
    meter.compare(rendered, frame)
    a, b = (torch.from_numpy(x.astype(np.float32) / 255) for x in (rendered, real))
    assert meter.rows[1]["lpips"] == pytest.approx(float(network(a, b)), rel=1e-5) and "lpips" not in meter.rows[0]
    assert len(meter.pooled) == 2 and meter.pooled[0].shape == (384 + 256 + 256,)


def test_a_blurred_mouth_is_not_sharp() -> None:
    real = picture()
    blurred = gaussian_filter(real, (2, 2, 0))
    sharp, soft = (metrics.mouth_gradient_energy(x, landmarks()) for x in (real, blurred))
    assert soft < 0.7 * sharp
    elsewhere = real.copy()
    elsewhere[:20] = blurred[:20]
    assert metrics.mouth_gradient_energy(elsewhere, landmarks()) == sharp
    assert np.isnan(metrics.mouth_gradient_energy(real, np.full((478, 2), np.nan)))


def test_a_blurred_mouth_is_seen_in_a_video() -> None:
    real = picture()
    meter = ImageMeter()
    frame = real_frame(real)
    meter.observe(frame)
    meter.compare(gaussian_filter(real, (2, 2, 0)), frame)
    sharp, soft = meter.series()["mouth_gradient"]
    assert soft < 0.7 * sharp


def test_the_seam_is_between_head_neck_and_clothes() -> None:
    band = metrics.seam_band(body_masks(), landmarks())
    assert band[58:62, 40:56].all() and band[73:77, 40:56].all()  # chin and collar
    assert not band[66:70, 40:56].any() and not band[:50].any() and not band[:, :18].any()
    assert not metrics.seam_band(body_masks(), landmarks() * np.nan).any()


def test_flicker_at_the_neck_is_seen_and_a_cut_is_none() -> None:
    rng = np.random.default_rng(0)

    def change(flicker: float, cut: bool) -> np.ndarray:
        meter = ImageMeter()
        for t in range(8):
            image = picture().astype(float)
            image[55:80] += flicker * rng.normal(size=(25, 96, 3))
            if t >= 4 and cut:
                image += 40
            after = image.clip(0, 255).astype(np.uint8)
            meter.compare(after, real_frame(picture(), after_cut=cut and t == 4))
        return meter.series()["seam_change"]

    calm, rough, cut = change(0, False), change(10, False), change(0, True)
    assert np.isnan(calm[:2]).all() and (calm[2:] == 0).all()
    assert np.nanmean(rough) == pytest.approx(6 * 100, rel=0.2)  # the second difference of noise has 6 times its power
    assert np.isnan(cut[[0, 1, 4, 5]]).all() and np.nanmean(cut) == 0


def test_frechet_distance_equals_the_formula() -> None:
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    a = rng.normal(size=(400, 5)) @ rng.normal(size=(5, 5)) + 1
    b = rng.normal(size=(300, 5))
    ca, cb = np.cov(a.T), np.cov(b.T)
    root = np.asarray(sqrtm(ca @ cb)).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(ca + cb - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected / np.trace(cb), rel=1e-6)
    assert frechet_distance(b, b) == pytest.approx(0, abs=1e-9)
    few = rng.normal(size=(6, 40))  # fewer frames than features
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(few + 1, few) > 0.3


def test_mouths_on_a_contact_sheet_are_as_high_as_the_largest():
    points = np.zeros((478, 2), np.float32)
    points[:, 0], points[:, 1] = np.linspace(40, 60, 478), 70
    image = np.full((100, 100, 3), 200, np.uint8)
    sheet = images.contact_sheet([{"real": image, "audio": image}] * 2, [points, points], ["1 s", "2 s"], tile=300)
    x0, _, x1, _ = metrics.mouth_box(points, (100, 100))
    rows = 2 * (300 + images.LABEL_HEIGHT) + 2 * (images.MOUTH_ZOOM * (x1 - x0) + images.LABEL_HEIGHT)
    assert sheet.shape == (rows, 600, 3)
