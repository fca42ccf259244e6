"""Faults of free view: a whole person has none, and each fault raises its own number and no other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from avatar.eval import view_geometry
from avatar.eval.view_colors import Surface, out_of_place, speckled, surface_depth, uncomposited
from avatar.eval.view_geometry import MESH, FaceMesh
from avatar.geometry.cameras import Camera
from avatar.geometry.mesh import face_normals
from avatar.infer.view_quality import Silhouette, cut_off, edges, holes
from tests.person import canonical_shape

SIZE, DISTANCE, RADIUS, FAULTS = 256, 60.0, 9.0, ("holes", "edge_roughness", "edge_width_px", "islands", "cut_off")
CAMERA = Camera.source(2.2 * SIZE, SIZE / 2, SIZE / 2, SIZE, SIZE)
BODY, BODY_RADIUS = 20.0, 13.0  # how far below, centimetres
PIVOT = torch.tensor([0.0, 0.0, DISTANCE])


class Scene:
    """A ball on a larger one, skin in front and hair above and behind, drawn exactly from any camera."""

    def __init__(self, azimuth: float = 0.0) -> None:
        self.camera = CAMERA.orbit(PIVOT, azimuth, 0.0)
        y, x = np.mgrid[:SIZE, :SIZE]
        origin, rays = self.camera.rays(torch.from_numpy(np.stack([x, y], -1)))
        o, d = (origin - PIVOT).double().numpy(), rays.double().numpy()
        body = np.array([0.0, BODY, 0.0])
        depths = np.stack([self._hit(o, d, RADIUS), self._hit(o - body, d, BODY_RADIUS)])
        self.depth = depths.min(0)
        hit = np.isfinite(self.depth)
        self.depth[~hit] = 0
        self.alpha = cv2.GaussianBlur(hit.astype(np.float32), (0, 0), 0.7)
        place = o + self.depth[..., None] * d
        hair = place[..., 2:] > 0.9 * place[..., 1:2]
        colors = np.where(depths[1] < depths[0], 2, hair[..., 0])
        self.exact, self.skin = self.depth.copy(), hit & (colors == 0)
        self.rgb = np.array([[0.8, 0.6, 0.5], [0.3, 0.2, 0.1], [0.2, 0.3, 0.7]], np.float32)[colors.astype(int)]

    @staticmethod
    def _hit(o: np.ndarray, d: np.ndarray, radius: float) -> np.ndarray:
        a, b = (d**2).sum(-1), (d * o).sum(-1)
        square = b * b - a * ((o**2).sum() - radius**2)
        return np.where(square > 0, (-b - np.sqrt(np.maximum(square, 0))) / a, np.inf)

    def faults(self) -> dict[str, float]:
        silhouette = Silhouette.of(self.alpha)
        found = holes(silhouette) | edges(silhouette) | {"cut_off": cut_off(silhouette)}
        colors = {"color_outliers": out_of_place(self.whole(), Scene().whole()).mean()}
        spots, tested = speckled(self.face(), Scene().face())
        colors["speckles"] = spots.sum() / tested.sum()
        return {name: found[name] for name in FAULTS} | colors

    def whole(self) -> Surface:
        return Surface.coarse(self.rgb, self.alpha, self.depth, self.camera)

    def face(self) -> Surface:
        """The ball without hair, at its exact depth."""
        return Surface.face(self.rgb, self.alpha, self.depth, np.where(self.skin, self.exact, np.nan), self.camera)


def punch(scene: Scene) -> None:
    for x, y in ((120, 90), (128, 120), (128, 210), (100, 100)):
        cv2.circle(scene.alpha, (x, y), 5, 0.0, -1)


def tear(scene: Scene) -> None:
    noise = cv2.GaussianBlur(np.random.default_rng(0).normal(size=(SIZE, SIZE)), (0, 0), 1.6)
    y, x = np.mgrid[:SIZE, :SIZE]
    shifted = [(a + 8 * noise * (y < 200)).astype(np.float32) for a in (x, y)]
    scene.alpha = np.asarray(cv2.remap(scene.alpha, shifted[0], shifted[1], cv2.INTER_LINEAR))


def blur(scene: Scene) -> None:
    scene.alpha = cv2.GaussianBlur(scene.alpha, (0, 0), 5, borderType=cv2.BORDER_REPLICATE)


def float_beside(scene: Scene) -> None:
    cv2.circle(scene.alpha, (20, 30), 9, 1.0, -1)


def cut(scene: Scene) -> None:
    scene.alpha[-25:] = 0


def halo(scene: Scene) -> None:
    """A reddish disc behind the head, as large as a part of it that comes into sight."""
    y, x = np.mgrid[:SIZE, :SIZE]
    behind = ((x - 145) ** 2 + (y - 128) ** 2 < 84**2) & (scene.alpha < 0.5)
    scene.rgb[behind], scene.alpha[behind], scene.depth[behind] = (0.8, 0.1, 0.1), 1, DISTANCE + RADIUS


def speckle(scene: Scene) -> None:
    """Hair seen through gaps in the cheek; its colour is elsewhere on the person, and near where it is."""
    for x, y in ((70, 100), (80, 130), (100, 110)):
        cv2.circle(scene.rgb, (x, y), 3, (0.3, 0.2, 0.1), -1)
        cv2.circle(scene.depth, (x, y), 3, DISTANCE + 0.8 * RADIUS, -1)


def test_a_whole_person_has_no_faults() -> None:
    for azimuth in (0.0, 15.0, -30.0):
        found = Scene(azimuth).faults()
        assert found["edge_width_px"] < 4
        assert found["edge_roughness"] < 0.03 and found["color_outliers"] + found["speckles"] < 0.005
        assert found["holes"] == found["cut_off"] == found["islands"] == 0


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (punch, "holes"), (tear, "edge_roughness"), (blur, "edge_width_px"), (float_beside, "islands"),
        (cut, "cut_off"), (halo, "color_outliers"), (speckle, "speckles"),
    ],
)  # fmt: skip
def test_a_fault_raises_its_own_number_and_no_other(spoil, name: str) -> None:
    scene = Scene(30.0)
    before = scene.faults()
    spoil(scene)
    after = scene.faults()
    rise = {"edge_width_px": 3.0, "edge_roughness": 0.05, "color_outliers": 0.03, "speckles": 0.005}
    slack = {"edge_width_px": 1.5, "edge_roughness": 0.03, "color_outliers": 0.01}
    assert after[name] > before[name] + rise.get(name, 0.006), (before, after)
    others = {other for other in after if other != name and after[other] > before[other] + slack.get(other, 0.003)}
    assert not others, (before, after)


def test_a_turned_head_is_compared_with_where_it_was() -> None:
    """A mark moves with the head: at its new place it is foreign, but not where it was."""
    front, turned = Scene(), Scene()
    front.rgb[100:150, 100:130] = (0.1, 0.7, 0.2)
    turned.rgb[100:150, 150:180] = (0.1, 0.7, 0.2)
    shift = np.array([-50 / CAMERA.focal * (DISTANCE - RADIUS), 0, 0])
    stayed = out_of_place(turned.whole(), front.whole())
    back = out_of_place(turned.whole().moved(np.eye(3), shift), front.whole())
    assert stayed.mean() > 0.03 and (stayed & back).mean() < 0.01


def test_nobody_has_no_numbers() -> None:
    empty = np.zeros((64, 64), np.float32)
    silhouette = Silhouette.of(empty)
    found = holes(silhouette) | edges(silhouette) | {"cut_off": cut_off(silhouette)}
    assert all(np.isnan(value) for value in found.values())
    nothing = Surface.coarse(np.zeros((64, 64, 3), np.float32), empty, empty, CAMERA)
    assert not len(nothing.pixels) and not len(out_of_place(nothing, Scene().whole()))
    assert not out_of_place(Scene().whole(), nothing).any() and not speckled(Scene().face(), nothing)[1].any()


def test_colours_are_those_without_the_background() -> None:
    rgb = np.full((4, 4, 3), 0.8, np.float32) * 0.5 + 0.5 * 0.5
    assert uncomposited(rgb, np.full((4, 4), 0.5, np.float32), 0.5) == pytest.approx(0.8)


def test_the_depth_of_a_surface_passes_over_gaps() -> None:
    depth = np.full((100, 100), 50.0)
    depth[40:43, 40:43] = 70.0
    alpha = np.ones((100, 100))
    assert surface_depth(depth, alpha) == pytest.approx(50)
    alpha[:, 60:] = 0
    assert surface_depth(depth, alpha)[50, 90] == 50


# --- against the face mesh ------------------------------------------------------------------------------------------


def mesh() -> FaceMesh:
    points = canonical_shape()[:MESH].astype(np.float64) + [0, 0, DISTANCE]
    return FaceMesh(points, face_normals(points), 9.0)


def test_depth_and_normals_are_those_of_the_mesh_or_differ_by_what_was_added() -> None:
    of_mesh = view_geometry.mesh_depth(mesh(), CAMERA)
    known = np.isfinite(of_mesh)
    assert 0.05 < known.mean() < 0.4 and abs(np.nanmin(of_mesh) - mesh().points[:, 2].min()) < 0.3
    alpha = np.ones_like(of_mesh)
    same, _ = view_geometry.depth_error(of_mesh, alpha, of_mesh)
    assert same == {"depth_error_cm": 0, "depth_bias_cm": 0}
    far, difference = view_geometry.depth_error(of_mesh + 0.5, alpha, of_mesh)
    assert far["depth_error_cm"] == pytest.approx(0.5) and far["depth_bias_cm"] == pytest.approx(0.5)
    assert np.array_equal(np.isfinite(difference), known)
    x = (np.arange(SIZE) + 0.5 - SIZE / 2) / CAMERA.focal
    flat = np.full((SIZE, SIZE), DISTANCE)
    tilted = np.broadcast_to(DISTANCE / (1 - np.tan(np.radians(20)) * x), flat.shape)
    assert view_geometry.normal_error(tilted, alpha, flat, CAMERA) == pytest.approx(20, abs=0.5)
    assert np.nanmin(view_geometry.normals(flat, CAMERA)[..., 2]) == pytest.approx(-1, abs=1e-6)  # to the camera


def test_what_faces_away_is_not_compared() -> None:
    turned = CAMERA.orbit(PIVOT, 60.0, 0.0)
    shown = mesh().facing(turned) > view_geometry.FACING
    left = mesh().points[:, 0] > 0
    assert shown[left].mean() > 0.6 > 0.3 > shown[~left].mean()
    share = np.isfinite(view_geometry.mesh_depth(mesh(), turned)).mean()
    assert 0.3 < share / np.isfinite(view_geometry.mesh_depth(mesh(), CAMERA)).mean() < 0.9


def test_landmarks_are_measured_from_the_posed_mesh() -> None:
    camera = CAMERA.orbit(PIVOT, 20.0, 0.0)
    landmarks = np.zeros((478, 2))
    landmarks[:MESH] = mesh().project(camera)[0] + [3, 4]
    found = view_geometry.landmark_error(landmarks, mesh(), camera)
    assert found["landmark_error_px"] == pytest.approx(5 * 512 / SIZE)
    eyes = 9.0 / mesh().project(camera)[1].mean() * CAMERA.focal
    assert found["landmark_error"] == pytest.approx(5 / eyes)
    hidden = mesh().facing(camera) < view_geometry.LANDMARK_FACING
    landmarks[:MESH][hidden] += 100
    assert view_geometry.landmark_error(landmarks, mesh(), camera) == found
    assert np.isnan(view_geometry.landmark_error(landmarks * np.nan, mesh(), camera)["landmark_error"])
