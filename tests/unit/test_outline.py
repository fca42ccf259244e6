"""The outline: how much of each pixel is the person's, and frames before another background."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest
import torch

from avatar.methods.batch import Batch
from avatar.methods.gaussian.config import GaussianConfig, RegularizerConfig
from avatar.methods.gaussian.model import GaussianModel
from avatar.train.matte import refined

SIDE = 256


def disc(radius: float) -> np.ndarray:
    """Coverage [H, W] by a soft-edged disc."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2 + 0.5
    return np.clip((radius - np.hypot(x, y)) / 2 + 0.5, 0, 1).astype(np.float32)


def scene(color: tuple[float, float, float] = (0.5, 0.3, 0.2)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, background, and true coverage: a brown disc before a wall that goes from blue to green."""
    true = disc(80)[..., None]
    wall = np.zeros((SIDE, SIDE, 3), np.float32)
    wall[..., 2], wall[..., 1] = np.linspace(0.9, 0.4, SIDE), np.linspace(0.2, 0.8, SIDE)
    noise = np.random.default_rng(0).normal(0, 0.01, wall.shape).astype(np.float32)
    return true * np.array(color, np.float32) + (1 - true) * wall + noise, wall, true[..., 0]


@pytest.mark.parametrize("wrong", [-1.0, 0.0, 1.0])
def test_colors_mend_a_mask_that_is_too_wide_or_too_narrow(wrong: float):
    image, wall, true = scene()
    mask = cv2.GaussianBlur(disc(80 + wrong), (0, 0), 1.0)
    coverage = refined(image, wall, mask)
    assert np.abs(coverage - true).max() < 0.15 and np.abs(coverage - true).mean() < 0.001
    assert wrong == 0 or np.abs(mask - true).max() > 0.3


def test_the_mask_decides_where_colors_do_not():
    image, wall, _ = scene()
    flat = np.full_like(wall, 0.5)
    mask = disc(82)
    assert refined(flat, flat, mask) == pytest.approx(mask, abs=1e-5)
    for empty in (np.zeros_like(mask), np.ones_like(mask)):
        assert (refined(image, wall, empty) == empty).all()


def frame() -> Batch:
    image, wall, true = scene()
    image[:40, :40] = 1  # somebody passes behind
    parts = (torch.from_numpy(part) for part in (image, np.ones((SIDE, SIDE, 1), np.float32), true[..., None]))
    image, weight, person = parts
    return Batch(3, image, weight, person, person, torch.from_numpy(wall), (16, 16, 48, 48), (24, 36, 40, 46))


def test_before_another_color_only_the_person_stays():
    color, first = torch.tensor([1.0, 0.0, 0.2]), frame()
    batch = first.before(color)
    assert torch.allclose(batch.background, color.expand(SIDE, SIDE, 3))
    wanted = first.person * torch.tensor([0.5, 0.3, 0.2]) + (1 - first.person) * color
    assert torch.allclose(batch.image, wanted, atol=0.06)  # the noise; those who pass behind are gone as well
    assert float(batch.image.min()) >= 0 and float(batch.image.max()) <= 1


def test_some_steps_have_a_random_background_and_measuring_has_none():
    def sample(share: float, progress: float, seed: int, batch: Batch) -> Batch:
        loss = RegularizerConfig(random_background=share)
        model = cast(GaussianModel, SimpleNamespace(config=GaussianConfig(loss=loss)))
        return GaussianModel.sample(model, batch, progress, np.random.default_rng(seed))

    def kept(share: float, progress: float) -> list[bool]:
        return [sample(share, progress, seed, first) is first for seed in range(40)]

    first = frame()
    assert 5 < kept(0.5, 0.2).count(True) < 35
    assert all(kept(0.0, 0.2)) and all(kept(0.5, 1.0))
    one, other = (sample(1.0, 0.2, seed, first).background[0, 0] for seed in (1, 2))
    assert (one != other).any()
