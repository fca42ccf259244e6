"""Turned heads that a training leaves out: chosen, never read, and measured apart from the held-out part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from avatar.checks import Record
from avatar.data import PersonDataset
from avatar.data.run import CONFIG, TRAINING
from avatar.data.yaw import KEY, HeldOutYaw, head_yaw, hold_out_yaw
from avatar.errors import AvatarError
from avatar.eval import bootstrap
from avatar.eval.held_out_yaw import measure_held_out_yaw
from avatar.eval.measure import Tools
from avatar.motion import Motion
from avatar.paths import write_json
from avatar.train.config import check
from avatar.train.run import leave_out
from avatar.train.trainer import Trainer
from tests.person import make_person, small_config


def test_yaw_is_the_angle_to_the_camera() -> None:
    motion = Motion.zeros(3, 25.0)
    place = torch.tensor([[0.0, 0, 60], [0, 0, 60], [60, 0, 60]])
    turn = torch.tensor([[0.0, 0, 0], [0, -0.2, 0], [0, torch.pi / 4, 0]])
    found = head_yaw(motion.map(head_rotation=turn, head_translation=place))
    assert found == pytest.approx([0, np.degrees(0.2), 0], abs=1e-4)  # the last one looks into the camera from aside


def swinging(frames: int = 600) -> np.ndarray:
    return 15 * np.sin(np.arange(frames) / 20) + np.random.default_rng(0).normal(size=frames)


def test_the_largest_yaw_is_left_out_and_as_many_frontal_blocks() -> None:
    yaw, frames = swinging(), np.arange(10, 590)
    held_out = hold_out_yaw(yaw, frames, 0.1, 25.0)
    turned, frontal = np.array(held_out.turned), np.array(held_out.frontal)
    rest = np.setdiff1d(frames, turned)
    assert len(turned) == 2 * len(frontal) == 116 and not set(turned) & set(frontal)
    assert np.abs(yaw[turned]).min() > np.abs(yaw[rest]).max() - 2
    assert np.abs(yaw[frontal]).mean() < 0.4 * np.abs(yaw[rest]).mean()
    assert (np.diff(frontal) == 1).mean() > 0.6  # blocks, not single frames beside ones that are trained on
    assert np.diff([10, *frontal, 589]).max() < 120  # all over the video
    right, left, front = held_out.yaw
    assert right < -10 and left > 10 and abs(front) < 2
    assert HeldOutYaw.parse(Record(held_out.to_json(), "x"), 600) == held_out


def test_too_few_or_too_many_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AvatarError, match=r"--hold-out-yaw 0\.01 of 100 frames leaves out 1"):
        hold_out_yaw(swinging(), np.arange(100), 0.01, 25.0)
    for share in (-0.1, 0.3, float("nan")):
        with pytest.raises(AvatarError, match="--hold-out-yaw"):
            check(replace(small_config(tmp_path, tmp_path), hold_out_yaw=share))
    for wrong in ({"turned": [700]}, {"frontal": []}, {"yaw": [1, 2]}, {"share": "much"}):
        stored = hold_out_yaw(swinging(), np.arange(600), 0.1, 25.0).to_json() | wrong
        with pytest.raises(AvatarError):
            HeldOutYaw.parse(Record(stored, "x"), 600)


def trained(folder: Path, spoil: str) -> dict[str, torch.Tensor]:
    """A training that leaves frames out, of a person of whose frames some are noise."""
    data = PersonDataset(make_person(folder / "person"))
    config = small_config(folder / "person", folder / "run", steps=6)
    held_out = leave_out(data, 0.1)
    assert held_out is not None and not set(data.train_frames) & set(held_out.frames)
    frames = {"": [], "left out": held_out.frames, "trained": data.train_frames}[spoil]
    for frame in frames:
        noise = np.random.default_rng(int(frame)).integers(0, 255, (96, 96, 3), dtype=np.uint8)
        cv2.imwrite(str(data.image_path(int(frame))), noise)
    trainer = Trainer(data, config)
    trainer.run(folder / "run")
    assert frames is not held_out.frames or trainer.poses.knots.isfinite().all()
    return {name: value.clone() for name, value in trainer.state().items()}


def test_no_picture_that_is_left_out_reaches_the_avatar(tmp_path: Path) -> None:
    plain = trained(tmp_path / "a", "")
    changed = trained(tmp_path / "b", "left out")
    assert [name for name in plain if not torch.equal(plain[name], changed[name])] == []
    other = trained(tmp_path / "c", "trained")  # the test itself
    assert not torch.equal(plain["model.gaussians.means"], other["model.gaussians.means"])


def test_poses_of_what_is_left_out_are_aligned(tmp_path: Path) -> None:
    data = PersonDataset(make_person(tmp_path / "person"))
    data.left_out = np.array([8, 9])
    trainer = Trainer(data, small_config(tmp_path / "person", tmp_path / "run", steps=1))
    before = trainer.poses.knots.detach().clone()
    trainer.align_held_out()
    moved = (trainer.poses.knots - before).abs().sum(1) > 0
    of_left_out = trainer.poses.index[8:10].unique()
    assert moved[of_left_out].any() and not moved[trainer.poses.index[20:24].unique()].any()


class Painter:
    """Draws the real frame with noise, more of it on some frames."""

    device = torch.device("cpu")
    camera = None

    def __init__(self, data: PersonDataset, noisy: set[int]) -> None:
        self._data, self._noisy = data, noisy

    def render(self, camera: Any, motion: Any, index: int, background: Any = None) -> torch.Tensor:
        rng = np.random.default_rng(index)
        noise = rng.normal(0, 16 if index in self._noisy else 4, (96, 96, 3))
        return torch.from_numpy((self._data.image(index) + noise).clip(0, 255).astype(np.uint8))


def test_turned_frames_are_compared_with_frontal_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = PersonDataset(make_person(tmp_path / "person", frames=200, fps=5.0))
    run = tmp_path / "run"
    run.mkdir()
    (run / CONFIG).write_text('format = "avatar-run-2"\n')
    tools = Tools(tracker=SimpleNamespace())  # pyright: ignore[reportArgumentType]
    write_json(run / TRAINING, {"steps": 1})
    assert measure_held_out_yaw(run, Painter(data, set()), data, tools) is None  # pyright: ignore[reportArgumentType]
    held_out = leave_out(data, 0.2)
    assert held_out is not None
    write_json(run / TRAINING, {"steps": 1, KEY: held_out.to_json()})
    avatar: Any = Painter(data, set(held_out.turned))
    widened, blocks = bootstrap.widened, list[float]()
    monkeypatch.setattr(bootstrap, "widened", lambda values, at, n: blocks.append(n) or widened(values, at, n))
    found = measure_held_out_yaw(run, avatar, data, tools)
    assert found is not None
    assert found["turned"]["frames"] == 72 and found["frontal"]["frames"] == 36
    difference = found["difference"]
    assert difference["psnr_face"] == pytest.approx(-12, abs=0.7) and difference["psnr"] == pytest.approx(-12, abs=0.7)
    assert difference["psnr"] == found["turned"]["psnr"] - found["frontal"]["psnr"]
    low, high = difference["intervals"]["psnr_face"]
    assert low < difference["psnr_face"] < high
    assert set(blocks) == {72 / 5, 36 / 5} and blocks[-2:] == [36 / 5, 36 / 5]  # of a difference, the fewer
