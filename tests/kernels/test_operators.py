"""How torch operators are defined: what a call loads, and what an operator without a gradient says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from avatar import native
from avatar.errors import AvatarError
from avatar.native.operators import Kernels, operator

pytestmark = pytest.mark.usefixtures("needs_native")

# Drawing and speaking, and a gradient; `train` has what its optimiser loads.
START = """
import sys, torch
import avatar.audio2motion.load, avatar.infer.jobs, avatar.methods.nerf.method
from avatar.geometry.cameras import Camera
from avatar.headmotion.loop import pose_track
from avatar.infer.camera_path import CameraPath
from avatar.methods.gaussian.method import GaussianAvatar
from avatar.motion import Motion

motion = Motion.zeros(100, 25.0).map(head_translation=torch.tensor([0.0, 0.0, 60.0]).repeat(100, 1))
pose_track(motion, [(0, 100)], 4, 25.0)
model = GaussianAvatar.synthetic(50, 32, motion)
source = Camera.source(80.0, 16.0, 16.0, 32, 32)
camera = CameraPath.parse("5,1").camera(source, torch.tensor([0.0, 0.0, 60.0]), 0.0)
with torch.no_grad():
    assert model.playback()(camera, motion, 0).any()
model(motion, 0, camera).rgb.sum().backward()
assert model.gaussians.means.grad.any()
sys.exit(" ".join({"torch._dynamo", "torch._inductor", "scipy", "cv2"} & sys.modules.keys()) or None)
"""


def test_playing_and_a_gradient_load_neither_a_compiler_nor_scipy():
    """Each is a part of a second before the first frame; `torch.library.custom_op` would load the compiler."""
    root = Path(__file__).parents[2]
    result = subprocess.run([sys.executable, "-c", START], cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_an_operator_without_a_gradient_says_so():
    offsets = torch.tensor([0, 2], dtype=torch.int32)
    density, colors = torch.ones(2, requires_grad=True), torch.eye(2)
    color = native.march_rays(offsets, torch.zeros(2), torch.ones(2), density, colors)[0]
    (first,) = torch.autograd.grad(color.sum(), density, create_graph=True)
    with pytest.raises(AvatarError, match="march_rays_backward has no gradient"):
        first.sum().backward()


def _like(x: Tensor, factor: float) -> Tensor:
    return torch.empty_like(x)


def _twice(native: Kernels, x: Tensor, factor: float) -> Tensor:
    return 2 * factor * x


def _thrice(native: Kernels, x: Tensor, factor: float) -> Tensor:
    return 3 * factor * x


def _by_factor(ctx, gradient: Tensor) -> tuple[Tensor, None]:
    return 3 * ctx.factor * gradient, None


def _keep(ctx, inputs, output) -> None:
    ctx.factor = inputs[1]


def test_the_last_definition_of_an_operator_holds():
    """A notebook or a debugger that reloads a module defines its operators again."""
    x = torch.ones(2, requires_grad=True)
    assert operator("of_a_test", _like, _twice)(x.detach(), 1.5).tolist() == [3.0, 3.0]
    again = operator("of_a_test", _like, _thrice, _by_factor, _keep)
    again(x, 2.0).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [6.0, 6.0]
    assert again(torch.ones(3, 4, device="meta"), 1.0).shape == (3, 4)
    torch.library.opcheck(again, (x, 2.0))
