"""Zoom: a head beside the middle of the frame stays where it is, and what is behind it grows with it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avatar.geometry.cameras import Camera
from avatar.infer.backdrop import Backdrop
from tests.player_world import run_player

# The head's crop of somebody at one third of the frame: the principal point lies beside the crop.
BESIDE = Camera.source(1200.0, 443.0, 250.0, 512, 512)
PIVOT = torch.tensor([-14.0, -1.5, 90.0])


def test_a_head_beside_the_middle_keeps_its_place() -> None:
    place = BESIDE.project(PIVOT)
    above = PIVOT + torch.tensor([0.0, -5.0, 0.0])
    for zoom in (0.5, 1.5, 3.0):
        for view in ((0, 0), (20, -10)):
            turned, zoomed = BESIDE.orbit(PIVOT, *view), BESIDE.orbit(PIVOT, *view, zoom)
            torch.testing.assert_close(zoomed.project(PIVOT), place, atol=0.01, rtol=0)
            grown = zoomed.project(above) - place
            torch.testing.assert_close(grown, zoom * (turned.project(above) - place), atol=0.02, rtol=0)
    assert BESIDE.orbit(PIVOT, 0, 0, 1.0).cx == BESIDE.cx


def test_a_camera_says_where_the_pixels_without_zoom_went() -> None:
    point = torch.tensor([-12.0, 3.0, 80.0])
    for turn in (lambda c: c, lambda c: c.resized(256, 256), lambda c: c.cropped(30, 20, 200, 300)):
        plain, zoomed = turn(BESIDE), turn(BESIDE.orbit(PIVOT, 0, 0, 1.5).orbit(PIVOT, 0, 0, 1.2))
        moved = zoomed.zoom * plain.project(point) + torch.tensor(zoomed.shift)
        torch.testing.assert_close(zoomed.project(point), moved, atol=0.02, rtol=0)


def test_the_player_zooms_as_render_does() -> None:
    camera = {"width": 512, "height": 512, "focal": BESIDE.focal, "cx": BESIDE.cx, "cy": BESIDE.cy, "eps2d": 0.3}
    limits = {"left": 30, "right": 30, "up": 30, "down": 30}
    found = run_player(f"""
        const view = new View({{ camera: {camera}, pivot: {PIVOT.tolist()}, limits: {limits} }});
        view.set(10, 5, 2);
        const at = view.at(256, 256);
        tell([at.focal, at.cx, at.cy]);""")
    expected = BESIDE.orbit(PIVOT, 10, 5, 2.0).resized(256, 256)
    assert found == pytest.approx([expected.focal, expected.cx, expected.cy], abs=0.01)


def test_a_background_grows_with_the_person() -> None:
    own = torch.zeros(64, 64, 3)
    own[20:24, 40:44] = 1.0
    backdrop = Backdrop(SimpleNamespace(background_at=lambda camera: own))  # type: ignore[arg-type]
    camera = Camera.source(100.0, 10.0, 30.0, 64, 64)
    given = (own * 255).to(torch.uint8)
    assert backdrop(camera, None) is None and backdrop(camera, given) is given
    assert backdrop(camera.zoomed((44.0, 24.0), 0.5), given) is given  # it does not go on beyond its edge
    zoomed = camera.zoomed((44.0, 24.0), 2.0)
    for shown in (backdrop(zoomed, None), backdrop(zoomed, given), backdrop(zoomed, _half(given))):
        assert shown is not None and shown.shape == (64, 64, 3)
        rows, columns = np.nonzero(shown[..., 0].numpy() > 127)
        assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (16, 24, 36, 44)
    assert backdrop(zoomed, None) is backdrop(zoomed, None)


def test_a_larger_background_is_averaged() -> None:
    """Stripes of a pixel, of which a pixel of the image holds sixteen, are grey at any zoom."""
    backdrop = Backdrop(SimpleNamespace())  # type: ignore[arg-type]
    stripes = torch.zeros(1024, 1024, 3, dtype=torch.uint8)
    stripes[:, ::2] = 200
    shown = backdrop(Camera.source(100.0, 32.0, 32.0, 64, 64).zoomed((32.0, 32.0), 1.1), stripes)
    assert shown is not None and shown.shape == (64, 64, 3)
    assert (shown.float() - 100).abs().max() < 12


def _half(image: torch.Tensor) -> torch.Tensor:
    return image[::2, ::2].contiguous()
