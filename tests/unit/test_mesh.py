"""The surface of a density, or of images with depth, and its colors. Files of a run are in `test_nerf`."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.export import mesh, texture
from avatar.export.fusion import Fusion, Shot, with_all_of_it
from avatar.geometry.cameras import Camera
from avatar.methods.volume import Volume
from tests.unit.test_export_gaussians import read_glb

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
    surface = mesh.head_surface(Volume(BOX, ball), 48, 5.0)
    vertices, faces, colors = surface.vertices, surface.faces, surface.colors()
    radius = np.linalg.norm(vertices - CENTRE.numpy(), axis=1)
    assert radius.min() > 3.8 and radius.max() < 4.4  # neither the hollow inside nor the speck
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    normal = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    outward = (normal * (vertices[faces].mean(1) - CENTRE.numpy())).sum(1)
    turned = normal[:, 1]  # y points down: from outside, triangles turn counter-clockwise in the file's axes
    assert (np.abs(turned) > 0).any() and ((outward > 0).mean() > 0.99)
    away = (vertices - CENTRE.numpy()) / radius[:, None]
    assert np.median((surface.outward * away).sum(1)) > 0.97
    assert (colors[vertices[:, 0] > 1.5] == [255, 0, 0]).all() and (colors[vertices[:, 0] < -0.5] == [0, 255, 0]).all()


def test_a_surface_at_the_side_of_the_box_is_closed():
    def full(points):
        return torch.full((len(points),), 9.0), torch.zeros(len(points), 3)

    surface = mesh.head_surface(Volume(BOX, full), 16, 5.0)
    vertices, faces = surface.vertices, surface.faces
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    assert np.allclose(vertices.min(0), BOX[0], atol=0.9) and np.allclose(vertices.max(0), BOX[1], atol=0.9)


def test_no_density_is_no_mesh():
    def nothing(points):
        return torch.zeros(len(points)), torch.zeros(len(points), 3)

    with pytest.raises(AvatarError, match="as dense as --level 5"):
        mesh.head_surface(Volume(BOX, nothing), 16, 5.0)


def test_images_with_depth_from_all_sides_make_a_sphere():
    """A ball, red in front and green behind, seen by cameras around it."""
    shots = []
    for azimuth in range(-180, 180, 30):
        camera = Camera.source(150.0, 48.0, 48.0, 96, 96).orbit(torch.tensor([0.0, 0.0, 40.0]), azimuth, 10)
        shots.append(_ball_from(camera, torch.tensor([0.0, 0.0, 40.0]), 4.0))
    box = torch.tensor([[-6.0] * 3, [6.0] * 3])
    fusion = Fusion(shots, box, torch.eye(3), torch.tensor([0.0, 0.0, 40.0]))
    surface = mesh.fused_surface(fusion, 40)
    vertices, faces, colors = surface.vertices, surface.faces, surface.colors()
    radius = np.linalg.norm(vertices, axis=1)
    seen = np.abs(vertices[:, 1]) < 3.3  # no camera looks from above or below
    assert np.median((surface.outward * vertices / radius[:, None]).sum(1)[seen]) > 0.97
    assert np.abs(radius[seen] - 4).max() < 0.35
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    for side, color in ((vertices[:, 2] < -1, [255, 0, 0]), (vertices[:, 2] > 1, [0, 255, 0])):
        assert np.abs(colors[seen & side].astype(float) - color).mean() < 6


@pytest.mark.parametrize("focal", [300.0, 1500.0])
def test_a_close_up_is_looked_at_from_farther_away(focal: float):
    """All of a ball around the pivot is in the image, from all sides; where it is anyway, nothing changes."""
    camera = Camera.source(focal, 120.0, 140.0, 256, 256)
    pivot, radius = torch.tensor([-2.0, 1.0, 60.0]), 17.0
    whole = with_all_of_it(camera, pivot, radius)
    assert (whole is camera) == (focal == 300.0)
    around = torch.nn.functional.normalize(torch.randn(2000, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    for azimuth in (0.0, 70.0, 180.0):
        pixels = whole.orbit(pivot, azimuth, 20.0).project(pivot + radius * around)
        assert pixels.min() > 0 and pixels.max() < 256
    if focal > 300:
        assert float((pixels.amax(0) - pixels.amin(0)).max()) > 0.8 * 256  # as large as may be


def _ball_from(camera: Camera, centre: torch.Tensor, radius: float) -> Shot:
    pixels = torch.cartesian_prod(torch.arange(96), torch.arange(96)).flip(-1)
    origin, along = camera.rays(pixels)
    away = origin - centre
    a, b, c = (along * along).sum(-1), 2 * (along * away).sum(-1), (away * away).sum() - radius**2
    inside = b * b - 4 * a * c
    depth = torch.where(inside > 0, (-b - inside.clamp_min(0).sqrt()) / (2 * a), torch.inf)
    hit = origin + along * depth.nan_to_num(posinf=0)[:, None]
    front = (hit[:, 2:] < centre[2]).float()
    rgb = torch.cat([front, 1 - front, 0 * front], 1).view(96, 96, 3)
    return Shot(camera, rgb, depth.view(96, 96), torch.ones(96, 96, dtype=torch.bool))


def test_a_mesh_as_gltf_has_linear_colors(tmp_path):
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    colors = np.array([[255, 0, 128], [0, 255, 0], [0, 0, 255]], np.uint8)
    mesh.write_glb(tmp_path / "a.glb", vertices, np.array([[0, 1, 2]], np.int32), colors)
    document, numbers = read_glb(tmp_path / "a.glb")
    (primitive,) = document["meshes"][0]["primitives"]
    assert primitive["mode"] == 4 and numbers(primitive["indices"])[:, 0].tolist() == [0, 1, 2]
    assert np.allclose(numbers(primitive["attributes"]["POSITION"]), vertices)
    found = numbers(primitive["attributes"]["COLOR_0"]) / 65535
    assert found[0] == pytest.approx([1, 0, 0.2158, 1], abs=1e-3)  # 128 of 255 is 22 % of the light


@pytest.fixture(scope="module")
def striped() -> mesh.Surface:
    """A ball of radius 4 with stripes of half a centimetre, as fine as its triangles."""
    surface = mesh.head_surface(Volume(BOX, ball), 24, 5.0)
    return mesh.Surface(surface.vertices, surface.faces, surface.outward, stripes)


def stripes(points: np.ndarray, _: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.sin(2 * np.pi * points)


def test_a_texture_holds_what_lies_between_the_vertices(striped):
    """Read back as a renderer does, in the middle of each triangle, it has the color of that point."""
    unwrapped = texture.unwrap(striped.vertices, striped.faces, 512)
    image = texture.bake(unwrapped, striped.vertices, striped.outward, striped.color)
    assert image.shape == (512, 512, 3) and unwrapped.texels.min() >= 1 and unwrapped.texels.max() <= 511
    middle = unwrapped.texels[unwrapped.faces].mean(1)
    read = _bilinear(image, middle)
    exact = 255 * stripes(striped.vertices[striped.faces].mean(1), striped.outward)
    assert np.abs(read - exact).mean() < 4
    of_vertices = striped.colors()[striped.faces].mean(1)
    assert np.abs(of_vertices - exact).mean() > 20, "colors of vertices cannot show this"
    np.testing.assert_array_equal(unwrapped.source[unwrapped.faces], striped.faces)


def test_no_two_triangles_share_a_texel(striped):
    unwrapped = texture.unwrap(striped.vertices, striped.faces, 512)
    a, b, c = (unwrapped.texels[unwrapped.faces[:, k]] for k in range(3))
    area = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    index, *_ = texture._texels(unwrapped, striped.vertices, striped.outward)
    assert len(np.unique(index)) > 0.97 * len(index) and area.sum() > 0.3 * 512**2, "and the square is used"


def test_a_large_texture_of_a_coarse_mesh_takes_little_memory(striped):
    unwrapped = texture.unwrap(striped.vertices, striped.faces, 1024)
    tracemalloc.start()
    index, *_ = texture._texels(unwrapped, striped.vertices, striped.outward)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(index) > 0.3 * 1024**2 and most < 400e6


def test_triangles_color_a_texture_one_after_the_other(striped):
    """Together, in an order of their own, they make what they make alone: where two share a texel, the later one."""
    unwrapped = texture.unwrap(striped.vertices, striped.faces, 128)
    alone = [replace(unwrapped, faces=unwrapped.faces[k : k + 1]) for k in range(len(unwrapped.faces))]
    found = [texture._texels(one, striped.vertices, striped.outward) for one in alone]
    together = texture._texels(unwrapped, striped.vertices, striped.outward)
    for exact, part in zip(map(np.concatenate, zip(*found, strict=True)), together, strict=True):
        np.testing.assert_array_equal(part, exact)


def test_a_texture_that_is_too_small_is_refused(striped):
    with pytest.raises(AvatarError, match="larger --texture"):
        texture.unwrap(striped.vertices, striped.faces, 8)


def test_a_textured_mesh_as_gltf(striped, tmp_path):
    unwrapped = texture.unwrap(striped.vertices, striped.faces, 256)
    image = texture.bake(unwrapped, striped.vertices, striped.outward, striped.color)
    mesh.write_textured(tmp_path / "a.glb", striped, unwrapped, image)
    document, numbers = read_glb(tmp_path / "a.glb")
    (primitive,) = document["meshes"][0]["primitives"]
    uv = numbers(primitive["attributes"]["TEXCOORD_0"])
    assert np.allclose(uv * 256, unwrapped.texels, atol=1e-3)
    faces = numbers(primitive["indices"])[:, 0].reshape(-1, 3)
    place = numbers(primitive["attributes"]["POSITION"])
    assert np.allclose(place[faces], striped.exported[striped.faces])
    (view,) = [document["bufferViews"][one["bufferView"]] for one in document["images"]]
    data = (tmp_path / "a.glb").read_bytes()
    begin = data.index(b"\x89PNG")
    stored = cv2.imdecode(np.frombuffer(data[begin : begin + view["byteLength"]], np.uint8), cv2.IMREAD_COLOR)
    assert (cv2.cvtColor(stored, cv2.COLOR_BGR2RGB) == image).all()
    assert document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"] == {"index": 0}


def _bilinear(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    x, y = (places - 0.5).astype(np.float32).T
    return cv2.remap(image, x[:, None], y[:, None], cv2.INTER_LINEAR)[:, 0].astype(float)
