"""Posed Gaussians as plain tensors: they can be moved and joined before they are drawn, and have a depth."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.methods.gaussian.splats import Splats, project, rasterize
from avatar.methods.registry import DEFAULT, method
from avatar.motion import Motion

FRAME = 2


@pytest.fixture(scope="module")
def motion() -> Motion:
    turn = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.2, 0.0], [0.1, -0.3, 0.05]])
    return Motion.zeros(3, 25.0).map(head_rotation=turn, head_translation=torch.tensor([0.0, 0.0, 60.0]).repeat(3, 1))


@pytest.fixture(scope="module")
def model(motion):
    return method(DEFAULT).synthetic(400, 96, motion).eval()


@pytest.fixture(scope="module")
def camera():
    return Camera.source(2.6 * 96, 48, 48, 96, 96)


def drawn(splats: Splats, camera, **options):
    with torch.no_grad():
        return rasterize(splats, project(splats, camera), camera, **options)


def test_a_frame_is_its_splats_projected_and_drawn(model, motion, camera):
    with torch.no_grad():
        out, splats = model(motion, FRAME, camera), model.splats(motion, FRAME)
    image, alpha, depth = drawn(splats, camera, background=model.background_at(camera))
    assert torch.equal(image, out.rgb) and torch.equal(alpha, out.alpha) and depth is None
    assert len(splats) == 400 and all(len(getattr(splats, part.name)) == 400 for part in fields(Splats))
    assert (splats.scales > 0).all() and splats.opacities.min() >= 0 and splats.opacities.max() <= 1


def test_moving_the_splats_is_moving_the_camera_the_other_way(model, motion, camera):
    world = torch.eye(4)
    world[:3, :3] = axis_angle_to_matrix(torch.tensor([0.1, 0.4, -0.2]))
    world[:3, 3] = torch.tensor([3.0, -2.0, 10.0])
    with torch.no_grad():
        splats = model.splats(motion, FRAME)
    there = replace(camera, viewmat=camera.viewmat @ torch.linalg.inv(world))
    before, after = drawn(splats, camera)[0], drawn(splats.transformed(world), there)[0]
    assert (before - after).abs().max() < 2e-3 < before.max()
    double = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))  # twice as large and twice as far is the same image
    assert (before - drawn(splats.transformed(double), camera)[0]).abs().max() < 2e-3


def test_joined_splats_hide_each_other(model, motion, camera):
    with torch.no_grad():
        splats = model.splats(motion, FRAME)
    behind = torch.eye(4)
    behind[2, 3] = 40.0
    both = Splats.cat([splats.transformed(behind), splats])
    assert len(both) == 800
    alone, alpha, depth = drawn(splats, camera, with_depth=True)
    image, _, near = drawn(both, camera, with_depth=True)
    solid = (alpha > 0.99)[..., 0]
    assert solid.any() and (image - alone)[solid].abs().max() < 0.02  # the one in front is seen
    assert (near - depth)[solid].abs().max() < 2
    assert drawn(splats.transformed(behind), camera, with_depth=True)[2].max() > 85


def test_depth_is_where_the_head_is_and_changes_nothing_else(model, motion, camera):
    with torch.no_grad():
        plain, deep = (model(motion, FRAME, camera, with_depth=asked) for asked in (False, True))
    assert plain.depth is None and torch.equal(plain.rgb, deep.rgb) and torch.equal(plain.alpha, deep.alpha)
    covered = deep.alpha > 0.5
    assert deep.depth.shape == (96, 96, 1) and (deep.depth[covered] > 48).all() and (deep.depth[covered] < 72).all()
    assert (deep.depth[deep.alpha == 0] == 0).all()


def test_parts_are_drawn_over_nothing(model, motion, camera):
    with torch.no_grad():
        whole, alone = model(motion, FRAME, camera), model(motion, FRAME, camera, part="person")
    over = alone.rgb + (1 - alone.alpha) * model.background_at(camera)
    assert torch.allclose(over, whole.rgb, atol=1e-5)
    with pytest.raises(AvatarError, match="no part 'hat'"):
        model(motion, FRAME, camera, part="hat")
