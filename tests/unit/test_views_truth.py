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
