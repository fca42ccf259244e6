"""The synthetic person from any camera: depth, regions, order, and the same image as the video from the front."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from avatar.geometry.cameras import Camera
from avatar.synth.subject import REGIONS
from tests.media import need_landmarker

SIZE = 96
CAMERA = Camera.source(2.0 * SIZE, SIZE / 2, SIZE / 2, SIZE, SIZE)
PIVOT = torch.tensor([0.0, -2.2, 89.0])


@pytest.fixture(scope="module")
def subject():
    need_landmarker()
    from avatar.synth.subject import Subject

    return Subject(0, np.array([0.0, -2.2, 86.0]), 0.25)


@pytest.fixture(scope="module")
def shot():
    from avatar.synth.shot import Shot

    return Shot(np.zeros(52), np.eye(3), np.array([0.0, -2.2, 86.0]), np.zeros(2), np.eye(3), np.zeros(3))


def _pixel(camera: Camera, point: np.ndarray) -> tuple[int, int, float]:
    at = torch.from_numpy(point).float()
    x, y = camera.project(at).tolist()
    return int(x), int(y), float((camera.viewmat[:3, :3] @ at + camera.viewmat[:3, 3])[2])


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (30, 0), (-45, 0), (0, 15), (0, -15)])
def test_depth_is_that_of_the_surface(subject, shot, azimuth, elevation):
    from avatar.synth.views import draw_view

    camera = CAMERA.orbit(PIVOT, azimuth, elevation)
    for landmark in (4, 9, 200):  # tip of the nose, between the brows, chin
        point = subject.shape[landmark] + shot.head_translation
        x, y, _ = _pixel(camera, point)
        near = camera.cropped(x - 2, y - 2, x + 2, y + 2).resized(64, 64)
        x, y, depth = _pixel(near, point)
        assert draw_view(subject, shot, near, supersample=1).depth[y, x] == pytest.approx(depth, abs=0.03)


def test_the_front_is_what_the_video_shows(subject, shot):
    from avatar.synth.views import draw_view

    view = draw_view(subject, shot, CAMERA)
    filmed = np.full((2 * SIZE, 2 * SIZE, 3), 0.5, np.float32)
    subject.draw(filmed, shot, 4.0 * SIZE, SIZE, SIZE)
    filmed = cv2.resize(filmed, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    assert -10 * np.log10(np.square(view.rgb - filmed).mean()) > 36


def test_what_shines_is_white_as_in_a_video(subject, shot, monkeypatch):
    from avatar.synth.views import draw_view

    light = type(subject).light
    monkeypatch.setattr(type(subject), "light", lambda *args: 3 * light(*args))
    rgb = draw_view(subject, shot, CAMERA).rgb
    assert (rgb == 1).mean() > 0.05 and rgb.max() == 1


def test_regions_lie_where_they_are(subject, shot):
    from avatar.synth.views import draw_view

    for azimuth in (0, 45):
        camera = CAMERA.orbit(PIVOT, azimuth, 0)
        view = draw_view(subject, shot, camera)
        for point, name in (
            (subject.shape[4], "face"), (subject.shape[13], "face"), (np.array([1.0, -12.5, 0.0]), "hair"),
            (np.array([0.0, 13.0, 0.0]), "neck"), (np.array([0.0, 20.5, -1.0]), "clothes"),
        ):  # fmt: skip
            x, y, _ = _pixel(camera, point + shot.head_translation)
            assert REGIONS[view.region[y, x]] == name
        assert (view.region[0] == 0).all() and (view.alpha[0] == 0).all() and (view.depth[0] == 0).all()
        assert np.allclose(view.rgb[0], 0.5)


def test_a_turned_view_hides_what_is_behind(subject, shot):
    """From the person's left the right eye is behind the nose, from behind there is only hair above the shirt."""
    from avatar.synth.views import draw_view

    back = draw_view(subject, shot, CAMERA.orbit(PIVOT, 180, 0))
    upper = back.region[: SIZE // 2]
    assert set(np.unique(upper)) == {0, REGIONS.index("hair")}
    side = CAMERA.orbit(PIVOT, 75, 0)
    view = draw_view(subject, shot, side)
    x, y, depth = _pixel(side, subject.body.eyes["Right"] + shot.head_translation)
    assert view.region[y, x] == 0 or view.depth[y, x] < depth - 2


@pytest.mark.parametrize(("azimuth", "elevation"), [(0, 0), (45, 0), (-45, 0), (30, 15), (-30, -15)])
def test_the_surface_is_closed(subject, shot, azimuth, elevation):
    """Nowhere does the background shine through head and neck, also with the mouth open."""
    from dataclasses import replace

    from avatar.motion.arkit import INDEX
    from avatar.synth.views import draw_view

    arkit = np.zeros(52)
    arkit[INDEX["jawOpen"]] = 0.8
    view = draw_view(subject, replace(shot, arkit=arkit), CAMERA.orbit(PIVOT, azimuth, elevation))
    outside = np.zeros((SIZE + 2, SIZE + 2), np.uint8)
    nobody = (view.alpha < 0.5).astype(np.uint8)
    cv2.floodFill(nobody, outside, (0, 0), 0)
    assert not nobody.any()


def test_skin_that_turns_away_from_the_light_is_dark(subject, shot):
    """Where a view sees the face's edge, its normals point backwards; turned to the camera they would shine."""
    from avatar.geometry.mesh import vertex_normals
    from avatar.synth.subject import _FILL, _KEY

    world = subject.posed(shot)
    normals = vertex_normals(world, subject.faces)
    away = (normals @ _KEY < -0.35) & (normals @ _FILL < -0.1)
    away[: subject.face_start] = False
    assert away.sum() > 50
    assert subject.light(world, np.array([30.0, 0, 20]))[away, 0].max() < 0.37


LOOKS = {
    "short": {"hair": "short"},
    "tied": {"hair": "tied", "glasses": True},
    "collar": {"hair": "long", "collar": True, "glasses": True},
}


@pytest.fixture(scope="module", params=LOOKS)
def dressed(request):
    need_landmarker()
    from avatar.synth.appearance import Appearance
    from avatar.synth.subject import Subject

    return Subject(0, np.array([0.0, -2.2, 86.0]), 0.25, Appearance(**LOOKS[request.param]))


def test_every_look_is_the_same_in_the_video_and_in_views(dressed, shot):
    """What sorted triangles show from the front is what is nearest in each pixel, also where layers touch."""
    from avatar.synth.views import draw_view

    view = draw_view(dressed, shot, CAMERA)
    filmed = np.full((2 * SIZE, 2 * SIZE, 3), 0.5, np.float32)
    dressed.draw(filmed, shot, 4.0 * SIZE, SIZE, SIZE)
    filmed = cv2.resize(filmed, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    assert -10 * np.log10(np.square(view.rgb - filmed).mean()) > 33


def test_every_look_has_a_closed_head(dressed, shot):
    """Hair hides the skull from behind, and the person's two halves are nearly as wide."""
    from avatar.synth.views import draw_view

    back = draw_view(dressed, shot, CAMERA.orbit(PIVOT, 180, 0))
    crown = back.region[SIZE // 6 : SIZE * 2 // 5]
    assert (crown[crown > 0] == REGIONS.index("hair")).mean() > 0.9
    left, right = (draw_view(dressed, shot, CAMERA.orbit(PIVOT, a, 0)).alpha for a in (60, -60))
    assert left.sum() == pytest.approx(right.sum(), rel=0.06)
    for view in (left, right):
        nobody = (view < 0.5).astype(np.uint8)
        cv2.floodFill(nobody, np.zeros((SIZE + 2, SIZE + 2), np.uint8), (0, 0), 0)
        assert nobody.sum() < 25  # through glasses that stand off the face


def test_ears_are_free_below_short_and_tied_hair(dressed, shot):
    from avatar.synth.views import draw_view

    side = CAMERA.orbit(PIVOT, 80, 0)
    x, y, _ = _pixel(side, np.array([8.0, -0.5, 4.2]) + shot.head_translation)
    seen = REGIONS[draw_view(dressed, shot, side).region[y, x]]
    assert seen == ("hair" if dressed.appearance.hair == "long" else "face")


def test_glasses_are_before_the_eyes_and_the_collar_around_the_neck(dressed, shot):
    from avatar.synth.views import draw_view

    view = draw_view(dressed, shot, CAMERA)
    x, y, _ = _pixel(CAMERA, dressed.body.eyes["Left"] + (0.0, 2.35, -1.0) + shot.head_translation)
    rim = view.rgb[y - 1 : y + 2, x].min()
    assert (rim < 0.22) == dressed.appearance.glasses
    x, y, _ = _pixel(CAMERA, np.array([4.0, 18.0, -0.5]) + shot.head_translation)
    assert (view.rgb[y, x].min() > 0.5) == dressed.appearance.collar


def test_the_truth_is_read_back_as_it_was_written(tmp_path, shot):
    need_landmarker()
    from avatar.errors import AvatarError
    from avatar.synth.appearance import Appearance
    from avatar.synth.make import make_subject
    from avatar.synth.truth import read_truth

    assert [Appearance.choose(seed, "auto").hair for seed in (0, 4, 5)] == ["long", "short", "tied"]
    look = Appearance(hair="tied", collar=True)
    made = make_subject(tmp_path, 0.2, 48, seed=0, voice="buzz", text="Ma.", supersample=1, appearance=look)
    truth = read_truth(tmp_path)
    assert truth.subject.appearance == look and np.array_equal(truth.subject.shape, made.shape)
    assert (truth.camera.focal, truth.camera.width) == (made.focal, made.width)
    assert np.allclose(truth.shot(3).arkit, made.truth.arkit[3])
    text = (tmp_path / "truth.json").read_text().replace('"hair"', '"beard"')
    (tmp_path / "truth.json").write_text(text)
    with pytest.raises(AvatarError, match="who was filmed"):
        read_truth(tmp_path)
