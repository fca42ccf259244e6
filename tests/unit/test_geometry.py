"""Rotations, cameras and the lift from picture to head."""

from __future__ import annotations

import numpy as np
import torch

from avatar.geometry import se3
from avatar.geometry.cameras import Camera
from avatar.geometry.landmarks import landmarks_to_head
from avatar.geometry.smoothstep import smooth, smoothstep


def test_rotation_round_trips():
    axis_angle = torch.randn(200, 3, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    axis_angle[0] = 0
    axis_angle[1] = torch.tensor([torch.pi - 1e-6, 0, 0])
    matrix = se3.axis_angle_to_matrix(axis_angle)
    torch.testing.assert_close(matrix @ matrix.mT, torch.eye(3, dtype=torch.double).expand_as(matrix))
    torch.testing.assert_close(se3.axis_angle_to_matrix(se3.matrix_to_axis_angle(matrix)), matrix)
    torch.testing.assert_close(se3.quat_to_matrix(se3.axis_angle_to_quat(axis_angle)), matrix)


def test_quaternion_product_is_matrix_product():
    a, b = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    product = se3.quat_to_matrix(se3.quat_multiply(a, b))
    torch.testing.assert_close(product, se3.quat_to_matrix(a) @ se3.quat_to_matrix(b))


def test_axis_angle_gradient_is_finite_at_zero():
    zero = torch.zeros(4, 3, requires_grad=True)
    (se3.axis_angle_to_matrix(zero).sum() + se3.axis_angle_to_quat(zero).sum()).backward()
    assert torch.isfinite(zero.grad).all()


def test_orbit_keeps_the_pivot_in_place_and_shows_the_side():
    camera = Camera.source(800.0, 256.0, 256.0, 512, 512)
    pivot = torch.tensor([0.0, 0.0, 60.0])
    turned = camera.orbit(pivot, azimuth=20, elevation=10, zoom=1.0)
    torch.testing.assert_close(turned.project(pivot), camera.project(pivot))
    # From a camera that moved to its right, a point in front of the pivot appears further left.
    front = pivot - torch.tensor([0.0, 0.0, 5.0])
    assert camera.orbit(pivot, 20, 0).project(front)[0] < camera.project(front)[0]
    # From a camera that moved up, it appears lower.
    assert camera.orbit(pivot, 0, 20).project(front)[1] > camera.project(front)[1]


def test_resized_camera_scales_pixels():
    camera = Camera.source(800.0, 250.0, 260.0, 512, 512)
    point = torch.tensor([3.0, -2.0, 50.0])
    torch.testing.assert_close(camera.resized(256, 256).project(point), camera.project(point) / 2)


def test_landmarks_lift_back_to_the_neutral_face():
    camera = Camera.source(900.0, 256.0, 250.0, 512, 512)
    generator = torch.Generator().manual_seed(3)
    shape = torch.randn(478, 3, generator=generator) * 5
    rotation = torch.randn(7, 3, generator=generator) * 0.2
    translation = torch.tensor([1.0, -2.0, 70.0]).expand(7, 3)
    world = shape @ se3.axis_angle_to_matrix(rotation).mT + translation[:, None]
    lifted = landmarks_to_head(camera.project(world), shape, rotation, translation, camera)
    torch.testing.assert_close(lifted, shape.expand(7, -1, -1), atol=1e-3, rtol=0)


def test_the_smooth_step_is_one_for_numbers_arrays_and_tensors():
    steps = np.linspace(0, 1, 11)
    curve = smoothstep(3 + 2 * steps, 3, 5)
    np.testing.assert_allclose(curve, smooth(steps), atol=1e-12)
    np.testing.assert_allclose(curve + curve[::-1], 1, atol=1e-12)  # as much before the middle as after it
    assert (np.diff(curve) > 0).all() and curve[1] < 0.03  # level at the ends
    assert smoothstep(np.array([-9.0, 2.9, 5.1, 99]), 3, 5).tolist() == [0, 0, 1, 1]
    assert [smooth(float(t)) for t in steps] == smooth(steps).tolist() == smooth(torch.from_numpy(steps)).tolist()
