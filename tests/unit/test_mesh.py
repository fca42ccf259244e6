"""`avatar export --format mesh`: the surface of a density, its colors, the file, and who has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avatar.cli.main import main
from avatar.errors import AvatarError
from avatar.export import mesh
from avatar.methods.base import Volume
from tests.nerf import nerf_config
from tests.person import make_person, small_config, train

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


def test_a_run_of_a_field_is_written_and_one_of_gaussians_refused(tmp_path, capsys, monkeypatch):
    person = make_person(tmp_path / "person", frames=16)
    field, gaussian, out = tmp_path / "field", tmp_path / "gaussian", tmp_path / "head.ply"
    train(nerf_config(person, field, 2))
    train(small_config(person, gaussian, 2))
    for run in (field, gaussian):
        (run / "training.json").write_text("{}")
    export = ["export", str(field), "--format", "mesh", "--out", str(out), "--device", "cpu"]
    assert main([*export, "--resolution", "24", "--level", "0.5"]) == 0
    header, _, body = out.read_bytes().partition(b"end_header\n")
    vertices, faces = (int(line.split()[-1]) for line in header.decode().splitlines() if line.startswith("element"))
    assert vertices > 100 and faces > 100 and len(body) == 15 * vertices + 13 * faces
    rows = np.frombuffer(body[: 15 * vertices], [("place", "<f4", 3), ("color", "u1", 3)])
    assert np.abs(rows["place"]).max() < 30  # centimetres
    capsys.readouterr()
    assert main(["export", str(gaussian), "--format", "mesh", "--out", str(tmp_path / "x.ply"), "--device", "cpu"]) == 2
    assert "gaussian has no density" in capsys.readouterr().err
    monkeypatch.setattr(mesh, "find_spec", lambda name: None)
    assert main(export) == 2
    assert "needs scikit-image" in capsys.readouterr().err
