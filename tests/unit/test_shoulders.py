"""Shoulder lifts are read off the outline of the clothes, side by side, beyond what the rigid torso explains."""

from __future__ import annotations

import numpy as np
import pytest

from avatar.paths import write_json
from avatar.preprocess import shoulders
from avatar.preprocess.parse import SIZE, save_mask
from avatar.preprocess.stage import StageContext

SIDE, FOCAL, DEPTH, FRAMES = 512, 1000.0, 80.0, 40


def _person(folder, right_px, left_px, sway_px):
    """Masks of a torso whose two shoulders move by given picture pixels, and landmarks of a face between them."""
    (folder / "parse" / "masks").mkdir(parents=True)
    (folder / "track").mkdir()
    y = np.arange(SIZE)[:, None] + 0.5
    x = np.arange(SIZE)[None] + 0.5
    for t in range(FRAMES):
        lift = np.where(x < SIZE / 2, right_px[t], left_px[t]) * SIZE / SIDE
        edge = 200 + 0.2 * np.abs(x - SIZE / 2 - sway_px[t] * SIZE / SIDE) + lift
        clothes = np.clip(y - edge + 0.5, 0, 1) * (y > 120)
        shares = np.stack([0 * clothes, 0 * clothes, clothes, 1 - clothes])
        save_mask(folder / "parse" / "masks" / f"{t:06d}.png", shares)
    landmarks = np.zeros((FRAMES, 478, 3), np.float32)
    landmarks[:, :, 0] = np.linspace(200, 312, 478)
    np.save(folder / "track" / "landmarks.npy", landmarks)
    results = {"ingest": {"size": SIDE}, "track": {"segments": [[0, 20], [20, FRAMES]]},
               "parse": {"keyframes": list(range(FRAMES))}}  # fmt: skip
    for name, result in results.items():
        write_json(folder / name / "stage.json", {"key": "drawn", "result": result})
    return StageContext(person=folder, config=None)  # type: ignore[arg-type]


def test_each_side_is_measured_and_the_rigid_part_is_not(tmp_path):
    time = np.arange(FRAMES)
    right, left = 8 * np.sin(time / 12), -5 * np.cos(time / 15)
    sway = np.where(time < 20, 0.0, 14.0)
    ctx = _person(tmp_path, right, left, sway)
    to_frame = np.tile(np.eye(2, 3), (FRAMES, 1, 1))
    to_frame[:, 0, 2] = sway
    found = shoulders.measure(ctx, to_frame, FOCAL, DEPTH) * FOCAL / DEPTH
    assert found.shape == (FRAMES, 2)
    for side, truth in ((0, right), (1, left)):
        error = found[:, side] - (truth - np.median(truth))
        assert np.abs(error).mean() < 0.8, f"side {side}"


def test_no_shoulders_in_the_picture_is_no_motion(tmp_path):
    zero = np.zeros(FRAMES)
    ctx = _person(tmp_path, zero + 1000, zero + 1000, zero)
    found = shoulders.measure(ctx, np.tile(np.eye(2, 3), (FRAMES, 1, 1)), FOCAL, DEPTH)
    assert found == pytest.approx(0)
