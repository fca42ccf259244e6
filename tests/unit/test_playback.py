"""Playback on a CPU draws what the model itself draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix, axis_angle_to_quat, quat_multiply
from avatar.infer.avatar import Avatar
from avatar.methods.gaussian.method import GaussianAvatar
from avatar.methods.gaussian.playback import CpuFrames, quaternion_product, rotation_matrix, rotation_quaternion
from avatar.motion import Motion
from avatar.native.library import library
from tests.person import person_info

SIZE = 64


def _model(torso: int) -> GaussianAvatar:
    """A trained-looking model, the last Gaussians of which belong to the torso and hardly follow the head."""
    motion = Motion.zeros(20, 25.0)
    motion = motion.map(
        head_translation=torch.tensor([0.0, 0.0, 60.0]).repeat(20, 1), face=torch.rand(20, motion.face.shape[1])
    )
    model = GaussianAvatar.synthetic(900, SIZE, motion).eval()
    with torch.no_grad():
        model.field.head.weight.normal_(0, 0.3)
        model.gaussians.quats.normal_()
        model.skinning.head_rotation.copy_(torch.tensor([0.1, -0.2, 0.05]))
        if torso:
            model.gaussians.region[-torso:] = 5
            model.gaussians.skinning_weight[-torso:] = -2
    return model


def _motion() -> Motion:
    torch.manual_seed(3)
    still = Motion.zeros(4, 25.0)
    spread = {"head_rotation": 0.3, "torso_rotation": 0.1, "torso_translation": 1.0, "torso_warp": 1.0, "face": 0.3}
    rows = {name: scale * torch.randn_like(getattr(still, name)) for name, scale in spread.items()}
    rows["head_translation"] = torch.tensor([0.5, -0.3, 60.0]) + torch.randn(4, 3)
    rows["head_rotation"][0] = rows["torso_rotation"][0] = 0  # at rest
    return still.map(**rows)


@pytest.mark.parametrize("torso", [0, 300])
@pytest.mark.parametrize("background", [None, torch.full((SIZE, SIZE, 3), 200, dtype=torch.uint8)])
def test_frames_are_the_models(torso: int, background: Tensor | None):
    if library() is None:
        pytest.skip("without the native library a model draws its frames itself")
    torch.manual_seed(0)
    model, motion = _model(torso), _motion()
    camera = Camera.source(2.6 * SIZE, SIZE / 2, SIZE / 2, SIZE, SIZE)
    frames = model.playback("float32")
    assert isinstance(getattr(frames, "__self__", None), CpuFrames)
    images = []
    for index in range(len(motion)):
        image, direct = frames(camera, motion, index, background), model.draw(camera, motion, index, background)
        assert image.dtype == torch.uint8 and image.shape == direct.shape
        difference = (image.int() - direct.int()).abs()
        assert (difference > 1).float().mean() < 1e-3 and difference.float().mean() < 0.01
        images.append(direct.int())
    assert (images[0] - images[1]).abs().float().mean() > 1  # the motion is seen


def test_whoever_gets_a_frame_may_draw_on_it(tmp_path: Path):
    torch.manual_seed(0)
    avatar, motion = Avatar(tmp_path, _model(0), person_info(), {}), _motion()
    view = avatar.camera
    frames = [avatar.render(view, motion, 0), avatar.draw(view, motion, 0)]
    frames += [getattr(avatar, f"render_{part}")(view, motion, 0) for part in avatar.model.parts]
    for frame in frames:
        frame[:4] = 0
        assert not frame[:4].any() and frame[4:].any()
    assert avatar.render(view, motion, 0)[:4].any(), "the next frame is a whole one"


@pytest.mark.parametrize("turn", [[0.0, 0.0, 0.0], [1e-9, 0.0, 0.0], [0.3, -0.2, 0.5], [3.0, 0.4, -0.6]])
def test_plain_rotations_are_those_of_torch(turn: list[float]):
    exact = torch.tensor(turn, dtype=torch.float64)
    torch.testing.assert_close(
        torch.tensor(rotation_matrix(turn)).double(), axis_angle_to_matrix(exact), atol=1e-7, rtol=0
    )
    quat = axis_angle_to_quat(exact)
    torch.testing.assert_close(torch.tensor(rotation_quaternion(turn)).double(), quat, atol=1e-7, rtol=0)
    other = torch.tensor([0.5, -0.5, 0.1, 0.7], dtype=torch.float64)
    product = quaternion_product(rotation_quaternion(turn), (0.5, -0.5, 0.1, 0.7))
    torch.testing.assert_close(torch.tensor(product).double(), quat_multiply(quat, other), atol=1e-7, rtol=0)
