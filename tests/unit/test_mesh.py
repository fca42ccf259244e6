"""The surface of a density and its colors. The file and its refusals are in `test_nerf`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.export import mesh
from avatar.methods.base import Volume

pytest.importorskip("skimage")
BOX = torch.tensor([[-6.0, -5.0, -7.0], [6.0, 7.0, 5.0]])
CENTRE = torch.tensor([0.5, 1.0, -1.0])


def ball(points):
    """A hollow ball of radius 4 around `CENTRE`, red on its left and green on its right, and a speck beside it."""
    away = (points - CENTRE).norm(dim=-1)
    density = 20 * torch.sigmoid(8 * (4 - away)) * (away > 2)
    density = torch.where((points - torch.tensor([5.5, 6.5, 4.5])).norm(dim=-1) < 0.6, 20.0, density)
    left = (points[:, :1] > CENTRE[0]).float()
    return density, torch.cat([left, 1 - left, 0 * left], 1)


def test_the_surface_of_a_ball_is_a_closed_sphere():
    vertices, faces, colors = mesh.head_surface(Volume(BOX, ball), 48, 5.0)
    radius = np.linalg.norm(vertices - CENTRE.numpy(), axis=1)
    assert radius.min() > 3.8 and radius.max() < 4.4  # neither the hollow inside nor the speck
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    normal = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    outward = (normal * (vertices[faces].mean(1) - CENTRE.numpy())).sum(1)
    turned = normal[:, 1]  # y points down: from outside, triangles turn counter-clockwise in the file's axes
    assert (np.abs(turned) > 0).any() and ((outward > 0).mean() > 0.99)
    assert (colors[vertices[:, 0] > 1.5] == [255, 0, 0]).all() and (colors[vertices[:, 0] < -0.5] == [0, 255, 0]).all()


def test_a_surface_at_the_side_of_the_box_is_closed():
    def full(points):
        return torch.full((len(points),), 9.0), torch.zeros(len(points), 3)

    vertices, faces, _ = mesh.head_surface(Volume(BOX, full), 16, 5.0)
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert np.allclose(vertices.min(0), BOX[0], atol=0.9) and np.allclose(vertices.max(0), BOX[1], atol=0.9)


def test_no_density_is_no_mesh():
    def nothing(points):
        return torch.zeros(len(points)), torch.zeros(len(points), 3)

    with pytest.raises(AvatarError, match="as dense as --level 5"):
        mesh.head_surface(Volume(BOX, nothing), 16, 5.0)
