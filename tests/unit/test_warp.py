"""The torso's warp: the grid, how it is measured on bending cloth, and what the rig does with it."""

import cv2
import numpy as np
import torch

from avatar.fields.rigging import HeadRig, Pose
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
    rig = HeadRig(torch.zeros(3), torch.tensor([0.0, 0, 97]), pivot, torch.tensor([[-20.0, -10.0], [20.0, 10.0]]))
    means = torch.tensor([[-20.0, 15.0, 100.0], [-10.0, 7.5, 50.0], [20.0, 15.0, 100.0], [0.0, 0.0, 97.0]])
    weight = torch.tensor([[0.0], [0.0], [0.0], [1.0]])
    warp = torch.zeros(ROWS, COLUMNS, 2)
    warp[:, 0, 1] = -2.0
    pose = Pose(torch.zeros(3), torch.tensor([0.0, 0, 97]), torch.zeros(3), torch.zeros(3), warp.flatten())
    moved, _ = rig(means, torch.tensor([[1.0, 0, 0, 0]]).repeat(4, 1), weight, pose)
    # What is nearer covers the same pixels and moves by less; the far side and the head stay.
    torch.testing.assert_close(moved - means, torch.tensor([[0, -2.0, 0], [0, -1.0, 0], [0, 0, 0], [0, 0, 0]]))
    assert len(warp.flatten()) == WIDTH
    back = rig.torso_at_rest(moved[:3], torch.zeros(3), torch.zeros(3), warp.flatten())
    torch.testing.assert_close(back, means[:3])
