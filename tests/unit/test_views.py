"""Free view of an avatar: which views, which frames, what is measured of each, and how it is shown."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from avatar.data import PersonDataset
from avatar.data.yaw import head_yaw
from avatar.errors import AvatarError
from avatar.eval import view_sheets, view_tables, views
from avatar.eval.measure import Tools
from avatar.eval.options import EvalOptions
from avatar.eval.view_geometry import FaceMesh
from avatar.eval.views import ALL, FRONTAL, QUICK, View, ViewMeasurement, measure_views, pick_frames, turned_head
from avatar.geometry.cameras import Camera
from avatar.methods.base import PIVOT, RenderOutput
from avatar.motion import Motion
from tests.person import make_person

PLACE = torch.tensor([0.0, 1.0, 62.0])


class Ball:
    """A method that draws a ball where the head is; what it was seen of is the side towards the filming camera."""

    name = "ball"
    knows = True

    def __call__(self, motion: Motion, index: int, camera: Camera, *, background, with_depth) -> RenderOutput:
        depth = self.depth(motion, index, camera)
        alpha = torch.isfinite(depth).float()[..., None]
        color = torch.tensor([0.8, 0.6, 0.5]).expand(*depth.shape, 3)
        return RenderOutput(color * alpha + background * (1 - alpha), alpha, depth.nan_to_num(0, 0, 0)[..., None])

    def depth(self, motion: Motion, index: int, camera: Camera) -> torch.Tensor:
        y, x = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
        origin, rays = camera.rays(torch.stack([x, y], -1))
        o = origin - motion.head_translation[index]
        a, b = (rays * rays).sum(-1), (rays * o).sum(-1)
        square = b * b - a * ((o * o).sum() - 81)
        return torch.where(square > 0, (-b - square.clamp_min(0).sqrt()) / a, torch.inf)

    def seen(self, motion: Motion, index: int, camera: Camera) -> torch.Tensor | None:
        depth = self.depth(motion, index, camera)
        y, x = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
        origin, rays = camera.rays(torch.stack([x, y], -1))
        place = origin + rays * depth[..., None].nan_to_num(0, 0, 0)
        return (place[..., 2] < motion.head_translation[index, 2]).float() if self.knows else None


class NoTracker:
    """Finds a face where the middle of the image is not grey: all landmarks there."""

    def track(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = image.shape[0]
        found = (image[size // 2, size // 2] != 128).any()
        return np.full((478, 2), size / 2 if found else np.nan, np.float32), np.zeros(52, np.float32)


class Recogniser:
    """Sees how much of the image is grey."""

    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return np.array([(image == 128).mean(), 1.0])


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> PersonDataset:
    return PersonDataset(make_person(tmp_path_factory.mktemp("views") / "person", frames=120))


def measured(data: PersonDataset, **more: Any) -> ViewMeasurement:
    avatar: Any = SimpleNamespace(camera=data.camera, pivot=PLACE, device=torch.device("cpu"), model=Ball())
    arguments = {"quick": False} | more
    return measure_views(avatar, data, Tools(tracker=NoTracker(), recogniser=Recogniser()), **arguments)


@pytest.fixture(scope="module")
def full(data: PersonDataset) -> ViewMeasurement:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "FRAMES", 5)
        return measured(data)


def test_all_views_are_measured_and_only_turned_ones_show_the_unseen(full: ViewMeasurement) -> None:
    result = full.result
    json.dumps(result, allow_nan=False)
    assert len(result["frames"]) == 5 and min(result["frames"]) >= 108
    groups = result["groups"]
    assert list(groups) == ["frontal", *(f"azimuth_{a}" for a in (15, 30, 45)), "elevation_15", "head_yaw_25"]
    assert groups["frontal"]["unseen"] == 0 < groups["azimuth_15"]["unseen"] < groups["azimuth_45"]["unseen"]
    assert groups["azimuth_45"]["unseen"] == pytest.approx((1 - np.cos(np.radians(45))) / 2, abs=0.06)
    assert groups["frontal"]["identity"] == pytest.approx(1) and groups["azimuth_45"]["no_face"] == 0
    assert groups["azimuth_30"]["holes"] == 0 == groups["azimuth_30"]["color_outliers"]
    one = [row for row in result["by_view"] if row["azimuth"] == -45]
    assert len(result["by_view"]) == len(ALL) and len(one) == 1
    other = next(row for row in result["by_view"] if row["azimuth"] == 45)
    assert groups["azimuth_45"]["unseen"] == pytest.approx((one[0]["unseen"] + other["unseen"]) / 2)
    assert not any(group["intervals"] for group in groups.values())  # five frames of half a second tell none


def test_the_small_form_is_small_and_a_method_may_not_know_what_was_seen(data, monkeypatch) -> None:
    monkeypatch.setattr(Ball, "knows", False)
    found = measured(data, quick=True)
    assert len(found.result["frames"]) == 3 and len(found.result["by_view"]) == len(QUICK)
    assert "unseen" not in found.result["groups"]["azimuth_30"]
    assert "identity" not in found.result["groups"]["azimuth_30"]  # slow
    assert not any(group["intervals"] for group in found.result["groups"].values())  # three frames tell none
    page = view_tables.in_html(found.result)
    assert "azimuth ±30" in page and "<small>" not in page and view_tables.in_terminal(found.result, 80)


def test_a_method_that_says_of_other_pixels_what_was_seen_is_refused(data, monkeypatch) -> None:
    monkeypatch.setattr(Ball, "seen", lambda *_: torch.zeros(3, 4))
    with pytest.raises(AvatarError, match=r"says of \[3, 4\] pixels what was seen"):
        measured(data, quick=True)


def test_a_method_without_depth_is_measured_by_its_silhouette(data, monkeypatch) -> None:
    draw = Ball.__call__

    def flat(self, *arguments, **named) -> RenderOutput:
        out = draw(self, *arguments, **named)
        return RenderOutput(out.rgb, out.alpha)

    monkeypatch.setattr(Ball, "__call__", flat)
    monkeypatch.setattr(views, "QUICK_FRAMES", 1)
    found = measured(data, quick=True)
    assert "depth_error_cm" not in found.result["groups"]["frontal"] and view_sheets.geometry_sheet(found) is None
    assert found.result["groups"]["frontal"]["holes"] == 0


def test_frames_are_measured_held_out_ones(data: PersonDataset) -> None:
    frames = pick_frames(data, 4)
    assert len(frames) == 4 and min(frames) >= data.test_start
    valid = torch.ones(data.num_frames, dtype=torch.bool)
    valid[frames] = False
    stub: Any = SimpleNamespace(motion=data.motion.map(valid=valid), test_frames=data.test_frames)
    assert not set(pick_frames(stub, 4)) & set(frames)
    assert len(pick_frames(stub, 50)) == len(data.test_frames) - 4


def test_a_head_is_turned_about_a_point_inside_it(data: PersonDataset) -> None:
    frame = data.motion[110:111]
    turned = turned_head(frame, 25.0)
    place = data.motion.head_translation[110]
    mesh, before = (FaceMesh.of(data, 110, motion, 0) for motion in (turned, frame))
    assert mesh is not None and before is not None
    assert head_yaw(turned)[0] - head_yaw(frame)[0] == pytest.approx(25, abs=3)  # it also moves a little
    pivot = torch.tensor(PIVOT)
    distance = [np.linalg.norm(m.points - (place + pivot).numpy(), axis=1) for m in (mesh, before)]
    assert np.abs(distance[0] - distance[1]).max() < 0.6
    assert mesh.points[1, 0] - before.points[1, 0] > 2  # the nose, to the person's left
    assert turned_head(frame, 0.0) is frame


def test_the_face_mesh_is_where_the_landmarks_are(data: PersonDataset) -> None:
    mesh = FaceMesh.of(data, 40, data.motion, 40)
    assert mesh is not None
    assert mesh.project(data.camera)[0] == pytest.approx(np.asarray(data.landmarks[40])[:468, :2], abs=1e-2)


def test_real_frames_give_the_identity_to_expect(data: PersonDataset) -> None:
    yaw = np.abs(head_yaw(data.motion)[data.test_frames])
    turned = torch.tensor([[0.0, 0.26, 0.0]]).repeat(data.num_frames, 1)
    turned[data.test_start] = 0
    stub: Any = SimpleNamespace(motion=data.motion.map(head_rotation=turned), test_frames=data.test_frames,
                                image=data.image)  # fmt: skip
    found = views.real_identity(stub, Tools(tracker=NoTracker(), recogniser=Recogniser()))
    assert found is not None and list(found) == ["azimuth_15"] and found["azimuth_15"] == pytest.approx(1, abs=1e-3)
    assert views.real_identity(data, Tools(tracker=NoTracker())) is None and len(yaw)


def test_tables_and_pictures_show_it(full: ViewMeasurement) -> None:
    truth = {"front": {"psnr": 27.8, "intervals": {}, "aligned": {"psnr": 29.0}}, "yaw_30": {"psnr": 16.8}}
    held_out = {
        "share": 0.1, "yaw": [-12.0, 13.0, 0.5], "turned": {"frames": 20, "psnr_face": 26.0, "intervals": {}},
        "frontal": {"frames": 10, "psnr_face": 28.0, "intervals": {"psnr_face": [27.5, 28.5]}},
        "difference": {"psnr_face": -2.0, "intervals": {"psnr_face": [-2.6, -1.4]}},
    }  # fmt: skip
    result = full.result | {
        "held_out_yaw": held_out, "truth": {"frames": [1], "focal": 1087.0, "true_focal": 1024.0, "groups": truth}
    }  # fmt: skip
    console = Console(record=True, width=80, file=io.StringIO())
    for table in view_tables.in_terminal(result, 80):
        console.print(table)
    shown = console.export_text()
    assert "…" not in shown, shown  # nothing is cut off in a terminal of usual width
    words = " ".join(shown.split())
    assert all(w in words for w in ("holes", "torn edges", "±30", "27.80", "29.00", "-2.00 ±0.60", "turned - frontal"))
    page = view_tables.in_html(result)
    assert "azimuth ±30" in page and "<small>-2.60 to -1.40</small>" in page and "16.80" in page
    sheet, geometry = view_sheets.view_sheet(full), view_sheets.geometry_sheet(full)
    assert geometry is not None
    tile = view_sheets.TILE
    assert sheet.shape[1] == geometry.shape[1] == len(ALL) * tile and sheet.shape[0] >= 3 * tile
    assert geometry.shape[0] >= 5 * tile and sheet.std() > 10
    few = [row[0] for row in quick_rows(result)]
    assert "islands" not in few and "holes" in few


def quick_rows(result: dict[str, Any]) -> list[list[str]]:
    table = view_tables.in_terminal(result | {"quick": True}, 80)[0]
    return [[str(cell)] for cell in table.columns[0].cells]


def test_differences_are_red_behind_and_blue_before() -> None:
    image = view_sheets.difference_image(np.array([[3.0, 0.0, -3.0, np.nan]]))
    red, white, blue, nothing = image[0].astype(int)
    assert red[0] > 200 > 60 > red[2] and blue[2] > 200 > 60 > blue[0]
    assert white.min() == 255 and np.ptp(nothing) == 0 and nothing[0] < 60


def test_views_have_names() -> None:
    assert [v.title for v in (FRONTAL, View(azimuth=-30.0), View(elevation=15.0), View(head_yaw=25.0))] == [
        "frontal", "azimuth -30", "elevation +15", "head +25",
    ]  # fmt: skip
    assert view_tables.group_title(View(azimuth=-30.0).group) == "azimuth ±30"
    assert view_tables.group_title("head_yaw_25") == "head yaw ±25"


def test_truth_needs_views() -> None:
    check = functools.partial(EvalOptions, truth=Path("subject"))
    with pytest.raises(AvatarError, match="--truth is measured with --views only"):
        check().check()
