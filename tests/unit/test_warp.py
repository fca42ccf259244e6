"""The torso's warp: the grid, how it is measured on bending cloth, and what skinning does with it."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from avatar.fields.skinning import Pose, Skinning
from avatar.geometry.se3 import axis_angle_to_matrix, axis_angle_to_quat, quat_multiply
from avatar.geometry.warp import COLUMNS, ROWS, WIDTH, cells, halves
from avatar.preprocess.warp import ClothWarp

SIZE = 160
REST = np.eye(2, 3)


def test_cells_interpolate_a_linear_field_and_hold_it_outside():
    box = torch.tensor([[-2.0, 1.0], [3.0, 5.0]])
    nodes = torch.stack(torch.meshgrid(torch.linspace(1, 5, ROWS), torch.linspace(-2, 3, COLUMNS), indexing="ij"), -1)
    nodes = nodes.flip(-1).reshape(-1, 2)  # each node displaced by its own position
    points = torch.rand(50, 2) * (box[1] - box[0]) + box[0]
    index, weight = cells(points, box)
    torch.testing.assert_close((nodes[index] * weight[..., None]).sum(1), points)
    index, weight = cells(torch.tensor([[9.0, -4.0], [3.0, 5.0]]), box)
    torch.testing.assert_close((nodes[index] * weight[..., None]).sum(1), torch.tensor([[3.0, 1.0], [3.0, 5.0]]))


def test_a_point_that_is_not_a_number_has_nodes_but_no_weights():
    index, weight = cells(torch.tensor([[float("nan"), 0.0]]), torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    assert index.min() >= 0 and index.max() < ROWS * COLUMNS
    assert weight.isnan().all()


def test_halves_are_the_two_shoulders():
    warp = torch.zeros(ROWS, COLUMNS, 2)
    warp[:, : COLUMNS // 2, 1] = 2.0
    assert halves(warp.flatten()).tolist() == [0.0, 2.0, 0.0, 0.0]


def cloth() -> tuple[np.ndarray, np.ndarray]:
    """A patterned cloth in the lower part of a picture, and where it is."""
    rng = np.random.default_rng(0)
    pattern = cv2.GaussianBlur(rng.uniform(0, 255, (SIZE, SIZE)).astype(np.float32), (0, 0), 2.5)
    picture = np.clip((pattern - pattern.mean()) * 4 + 128, 0, 255).astype(np.uint8)
    part = np.zeros((SIZE, SIZE), bool)
    part[60:150, 10:150] = True
    picture[~part] = 90
    return picture, part


def bent(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cloth with its left side lifted by up to 4 pixels, and the displacement of each pixel."""
    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32)
    lift = -4 * np.exp(-(((x - 40) / 35) ** 2)) * np.ones_like(y)
    return cv2.remap(picture, x, y - lift, cv2.INTER_LINEAR), lift


def test_bending_cloth_is_measured_beyond_a_rigid_motion_and_a_change_of_light():
    picture, part = cloth()
    other, lift = bent(picture)
    shifted = cv2.warpAffine(other, np.array([[1.0, 0, 5], [0, 1, -3]]), (SIZE, SIZE))
    darker = np.clip(shifted * 0.8 + 10, 0, 255).astype(np.uint8)
    darker[90:120, 60:90] = 255  # a hand
    warp = ClothWarp(picture, part, REST)
    nodes, support = warp.fit(darker, np.array([[1.0, 0, 5], [0, 1, -3]]), np.zeros((ROWS * COLUMNS, 2)))
    assert support > 0.7
    points = torch.tensor([[40.0, 80], [40, 130], [75, 130], [120, 80], [140, 140]], dtype=torch.float64)
    index, weight = (x.numpy() for x in cells(points, torch.from_numpy(warp.box)))
    found = (nodes[index] * weight[..., None]).sum(1)
    true = lift[points[:, 1].long(), points[:, 0].long()]
    assert np.abs(found[:, 1] - true).max() < 0.5
    assert np.abs(found[:, 0]).max() < 0.4


def test_plain_cloth_cannot_be_followed():
    _, part = cloth()
    assert not ClothWarp(np.full((SIZE, SIZE), 90, np.uint8), part, REST).usable
    assert not ClothWarp(cloth()[0], np.zeros((SIZE, SIZE), bool), REST).usable


def test_the_rig_moves_clothes_with_the_warp_and_the_head_not():
    pivot = torch.tensor([0.0, 15.0, 100.0])
    skinning = Skinning(torch.zeros(3), torch.tensor([0.0, 0, 97]), pivot, torch.tensor([[-20.0, -10.0], [20.0, 10.0]]))
    means = torch.tensor([[-20.0, 15.0, 100.0], [-10.0, 7.5, 50.0], [20.0, 15.0, 100.0], [0.0, 0.0, 97.0]])
    weight = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    warp = torch.zeros(ROWS, COLUMNS, 2)
    warp[:, 0, 1] = -2.0
    pose = Pose(torch.zeros(3), torch.tensor([0.0, 0, 97]), torch.zeros(3), torch.zeros(3), warp.flatten())
    moved, _ = skinning(means, torch.tensor([[1.0, 0, 0, 0]]).repeat(4, 1), weight, pose)
    # What is nearer covers the same pixels and moves by less; the far side and the head stay.
    torch.testing.assert_close(moved - means, torch.tensor([[0, -2.0, 0], [0, -1.0, 0], [0, 0, 0], [0, 0, 0]]))
    assert len(warp.flatten()) == WIDTH
    back = skinning.torso_at_rest(moved[:3], torch.zeros(3), torch.zeros(3), warp.flatten())
    torch.testing.assert_close(back, means[:3])


def plainly(skinning: Skinning, means: torch.Tensor, quats: torch.Tensor, weight: torch.Tensor, pose: Pose) -> tuple:
    """Skinning, a motion after the other."""
    head = axis_angle_to_matrix(pose.head_rotation) @ axis_angle_to_matrix(skinning.head_rotation).T
    by_head = (means - skinning.head_translation) @ head.T + pose.head_translation
    warped = means + skinning.warp(means, pose.torso_warp)
    torso = axis_angle_to_matrix(pose.torso_rotation)
    by_torso = (warped - skinning.torso_pivot) @ torso.T + skinning.torso_pivot + pose.torso_translation
    q_head = quat_multiply(axis_angle_to_quat(pose.head_rotation), axis_angle_to_quat(-skinning.head_rotation))
    q_torso = axis_angle_to_quat(pose.torso_rotation)
    q_head = -q_head if q_head @ q_torso < 0 else q_head
    turned = [quat_multiply(q.expand_as(quats), quats) for q in (q_head, q_torso)]
    return weight * by_head + (1 - weight) * by_torso, weight * turned[0] + (1 - weight) * turned[1]


@pytest.mark.parametrize("turn", [0.3, 4.0])  # radians; the quaternions of the second have opposite signs
def test_the_rig_is_its_plain_expression(turn):
    g = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    box = torch.tensor([[-20.0, -10.0], [20.0, 10.0]], dtype=torch.float64)
    skinning = Skinning(
        0.2 * draw(3), draw(3) + torch.tensor([0.0, 0, 97]), draw(3) + torch.tensor([0.0, 15, 100]), box
    )
    means, quats, weight = 9 * draw(40, 3) + torch.tensor([0.0, 10, 100]), draw(40, 4), torch.sigmoid(draw(40, 1))
    axis = F.normalize(draw(3), dim=0)
    pose = Pose(turn * axis, 97 + draw(3), 0.1 * draw(3), draw(3), draw(WIDTH))
    leaves = [x.requires_grad_() for x in (means, quats, weight, *pose)]
    got, expected = (f(means, quats, weight, pose) for f in (skinning, lambda *inputs: plainly(skinning, *inputs)))
    cotangents = [draw(40, 3), draw(40, 4)]
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x, y)
    gradients = (torch.autograd.grad(outputs, leaves, cotangents) for outputs in (got, expected))
    for x, y in zip(*gradients, strict=True):
        torch.testing.assert_close(x, y)
        assert y.abs().max() > 0
