"""Free view against the truth: an avatar that draws the truth is perfect, and one that does not is not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.eval.image_metrics import MAX_PSNR
from avatar.eval.view_align import Similarity, fit_similarity
from avatar.eval.view_compare import Drawn, compare
from avatar.eval.view_truth import measure, require_same_video, umeyama
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.methods.base import PIVOT, RenderOutput
from avatar.motion import Motion
from avatar.synth.truth import Truth, read_truth
from tests.media import need_landmarker

SIZE = 64
FRAMES = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    need_landmarker()
    from avatar.synth.make import make_subject

    place = tmp_path_factory.mktemp("subject")
    make_subject(place, FRAMES / 25, SIZE, seed=0, voice="buzz", text="Mama.", supersample=1)
    return place


@dataclass
class _Model:
    """Draws the truth itself, in a world whose centimetres are ``unit`` times as many."""

    truth: object
    unit: float
    moved: float = 0.0
    cloud: bool = False

    def __call__(self, motion: Motion, index: int, camera: Camera, *, background, with_depth) -> RenderOutput:
        from avatar.synth.views import draw_view

        matrix = camera.viewmat.clone()
        matrix[:3, 3] /= self.unit
        camera = replace(camera, viewmat=matrix, cx=camera.cx + self.moved)
        view = draw_view(self.truth.subject, self.truth.shot(index), camera)
        rgb, alpha = torch.from_numpy(view.rgb), torch.from_numpy(view.alpha)[..., None]
        if self.cloud:  # in the upper left corner, where nobody is
            rgb[: SIZE // 8, : SIZE // 8], alpha[: SIZE // 8, : SIZE // 8] = 0.1, 1.0
        return RenderOutput(rgb, alpha, torch.from_numpy(view.depth)[..., None] * self.unit)


def tracked(truth: Truth, camera: Camera) -> np.ndarray:
    """Landmarks of a face without expression in every frame, [T, 478, 3] pixels."""
    turns, places = axis_angle_to_matrix(truth.motion.head_rotation), truth.motion.head_translation[:, None]
    points = torch.from_numpy(truth.subject.shape).float() @ turns.mT + places
    return np.pad(camera.project(points).numpy(), ((0, 0), (0, 0), (0, 1)))


def _measured(folder: Path, unit: float = 1.0, views=((30, 0),), frames: int = 1, crop=(0, 0, SIZE), **changes):
    from avatar.synth.truth import read_truth

    truth = read_truth(folder)
    true = truth.motion
    motion = true.map(head_translation=true.head_translation * unit)
    turn = axis_angle_to_matrix(true.head_rotation[0])
    pivot = (turn @ torch.tensor(PIVOT) + true.head_translation[0]) * unit
    x, y, side = crop
    camera = truth.camera.cropped(x, y, x + side, y + side).resized(SIZE, SIZE)
    avatar = SimpleNamespace(camera=camera, pivot=pivot, device=torch.device("cpu"),
                             model=_Model(truth, unit, **changes))  # fmt: skip
    data = SimpleNamespace(
        motion=motion, num_frames=FRAMES, fps=0.4, test_start=2, width=SIZE, height=SIZE, folder=folder,
        shape=truth.subject.shape * unit, info=SimpleNamespace(crop=crop), landmarks=tracked(truth, camera),
    )  # fmt: skip
    return measure(avatar, data, folder, None, frames=frames, views=views)


def test_the_truth_itself_is_perfect(folder):
    measured = _measured(folder, views=((30, 0), (-30, 0)), frames=5)
    for row in measured.result["views"].values():
        assert row["psnr"] > MAX_PSNR - 1 and row["iou"] == 1 and row["halo"] == row["missing"] == 0
        assert row["depth_90"] < 1e-3 and row["psnr_face"] > 50
        assert row["aligned"]["psnr"] > 35 and row["similarity"]["scale"] == pytest.approx(1, abs=0.003)
    assert measured.result["frames"] == [2, 3, 5, 6, 7]
    assert set(measured.result["groups"]) == {"yaw_30"}
    assert len(measured.result["groups"]["yaw_30"]["intervals"]["psnr"]) == 2
    assert measured.samples["yaw +30"]["truth"].shape == (SIZE, SIZE, 3)


def test_the_size_of_the_avatars_world_does_not_matter(folder):
    """Views correspond, and depths are compared in true centimetres."""
    row = _measured(folder, unit=1.25).result["views"]["+30,+0"]
    assert row["psnr"] > 50 and row["iou"] > 0.999 and row["depth_90"] < 0.01


def test_the_truth_is_cropped_as_the_person_was(folder):
    row = _measured(folder, crop=(10, 4, 44)).result["views"]["+30,+0"]
    assert row["psnr"] > 50 and row["iou"] > 0.999


def test_a_shift_is_seen_and_then_aligned(folder):
    row = _measured(folder, moved=2.0).result["views"]["+30,+0"]
    assert row["psnr"] < 25 and row["iou"] < 0.97 and row["halo"] > 0.01
    assert row["similarity"]["shift_px"][0] == pytest.approx(-2, abs=0.2)
    assert row["aligned"]["psnr"] > row["psnr"] + 8


def test_a_cloud_where_nobody_is_is_a_halo(folder):
    row = _measured(folder, cloud=True).result["views"]["+30,+0"]
    assert row["halo"] > 0.02 and row["missing"] < 1e-4 and row["psnr"] < 30 and row["psnr_face"] > 60


def test_pixels_that_are_half_covered_count_on_neither_side():
    grey, alpha = np.full((16, 16, 3), 0.5, np.float32), np.zeros((16, 16), np.float32)
    alpha[:, :8], alpha[:, 8] = 1, 0.5
    for drawn in (9, 8):  # columns of the rendering: with and without the half-covered one
        row = compare(Drawn(grey, np.where(np.arange(16) < drawn, 1, 0) * np.ones((16, 1)), None),
                      Drawn(grey, alpha, None), (alpha > 0).astype(np.uint8), None)  # fmt: skip
        assert row["iou"] == 1 and row["halo"] == row["missing"] == 0


def test_what_does_not_belong_together_is_refused(folder, tmp_path):
    with pytest.raises(AvatarError, match="holds no truth"):
        measure(SimpleNamespace(), SimpleNamespace(), tmp_path)
    with pytest.raises(AvatarError, match=r"8 frames, .* 9"):
        measure(SimpleNamespace(), SimpleNamespace(num_frames=9, folder=tmp_path), folder)
    truth = read_truth(folder)
    data = SimpleNamespace(num_frames=FRAMES, folder=tmp_path, motion=truth.motion, width=SIZE, height=SIZE,
                           info=SimpleNamespace(crop=None), landmarks=tracked(truth, truth.camera))  # fmt: skip
    require_same_video(truth, data)
    shift = 0.05 * np.ptp(data.landmarks[0, :, 1])
    data.landmarks[:, :, 0] += 0.3 * shift  # as a tracker is off
    require_same_video(truth, data)
    data.landmarks[:, :, 0] += 0.7 * shift  # somebody else, of the same length
    with pytest.raises(AvatarError, match=r"5\.0% of its height apart"):
        require_same_video(truth, data)


def test_depth_is_compared_where_both_are_solid_and_off_edges():
    rgb = np.zeros((32, 32, 3), np.float32)
    alpha, depth = np.zeros((32, 32), np.float32), np.zeros((32, 32), np.float32)
    alpha[4:28, 4:28] = 1
    depth[4:28, 4:16], depth[4:28, 16:28] = 80, 90
    off = depth + 0.5
    off[:, 15:17] = 500  # on the edge between two surfaces, where a pixel has no one depth
    regions = (alpha > 0).astype(np.uint8)
    row = compare(Drawn(rgb, alpha, off), Drawn(rgb, alpha, depth), regions, None)
    assert row["depth_median"] == pytest.approx(0.5, abs=1e-4) and row["depth_90"] == pytest.approx(0.5, abs=1e-4)
    assert np.isnan(row["psnr_hair"]) and row["psnr_face"] == MAX_PSNR


def test_a_similarity_of_the_image_is_that_of_its_camera():
    """What `Similarity.applied` does to a camera is what the fit finds in its images."""
    similarity = Similarity(1.05, 4.0, (0.03, -0.02))
    camera = Camera.source(120.0, 30.0, 34.0, 64, 64)
    points = torch.tensor([[-8.0, -9, 60], [9, -4, 60], [2, 10, 60], [-5, 6, 60]])

    def image(view: Camera, margin: int) -> np.ndarray:
        y, x = np.mgrid[: 64 + 2 * margin, : 64 + 2 * margin] + 0.5 - margin
        at = view.project(points).numpy()
        blobs = sum(np.exp(-((x - a) ** 2 + (y - b) ** 2) / (30 * (view.focal / 120) ** 2)) for a, b in at)
        return np.repeat(np.asarray(blobs, np.float32)[None, ..., None], 3, -1)

    found = fit_similarity(image(camera, 12), image(similarity.applied(camera), 0), 12, (camera.cx, camera.cy))
    assert found.scale == pytest.approx(1.05, abs=0.005) and found.roll_deg == pytest.approx(4, abs=0.3)
    assert found.shift == pytest.approx((0.03, -0.02), abs=0.003)


def test_umeyama_finds_a_similarity():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(20, 3))
    turn = axis_angle_to_matrix(torch.tensor([0.3, -0.4, 0.2], dtype=torch.float64)).numpy()
    found, shift, scale = umeyama(a, 1.3 * a @ turn.T + (1, 2, 3))
    assert np.allclose(found, turn) and np.allclose(shift, (1, 2, 3)) and scale == pytest.approx(1.3)
