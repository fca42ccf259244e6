"""The viewer stops at the view limits, says where it is, and goes beyond them only where the page asks for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import matrix_to_quat
from avatar.infer.view_cone import AZIMUTHS, ELEVATIONS, HeadLimits, Limits, ViewCone, view_of
from avatar.motion import Motion
from avatar.viewer.server import METRES
from tests.page import DrawnAvatar, Page, viewing, wait_for


class Limited(DrawnAvatar):
    """Good up to 20 degrees to the sides and 10 up and down; notes what it draws."""

    def __init__(self) -> None:
        across, along = np.array(AZIMUTHS) / 20, np.array(ELEVATIONS)[:, None] / 10
        self.cone = ViewCone(  # type: ignore[misc]
            azimuths=AZIMUTHS, elevations=ELEVATIONS, grid=np.clip(1 - 0.5 * np.hypot(across, along), 0, 1),
            head_translation=(0.0, 0.0, 57.0), head=HeadLimits(Limits(20, 20, 10, 10), 10),
        )  # fmt: skip
        self.views: list[tuple[float, float]] = []
        self.heads: list[float] = []

    def render(self, camera: Camera, motion: Motion, index: int, background=None) -> torch.Tensor:
        self.views.append(view_of(camera, self.pivot))
        self.heads.append(float(self.cone.directions(motion)[index, 0]))
        return super().render(camera, motion, index, background)


def look(page: Page, azimuth: float, elevation: float = 0.0) -> None:
    """Look at the head from a view, as the page's own controls would."""
    camera = DrawnAvatar.camera.orbit(DrawnAvatar.pivot, azimuth, elevation)
    position = tuple(float(v) * METRES for v in camera.position)
    page.look(position, wxyz=tuple(matrix_to_quat(camera.viewmat[:3, :3].T).tolist()))  # type: ignore[arg-type]


def test_a_page_is_stopped_softly_and_may_go_beyond() -> None:
    avatar = Limited()
    with viewing(avatar=avatar) as viewer:
        page = Page(viewer)
        visitor = page.enter()
        wait_for(viewer.step)

        def shown(azimuth: float, elevation: float = 0.0) -> tuple[float, float]:
            while viewer.step():  # what was asked for before
                pass
            drawn = len(avatar.views)
            look(page, azimuth, elevation)
            wait_for(lambda: viewer.step() and len(avatar.views) > drawn)
            return avatar.views[-1]

        assert shown(10, 3) == pytest.approx((10, 3), abs=0.1)
        assert 15 < shown(18)[0] < 18  # it slows down
        azimuth, elevation = shown(-70, -8)
        assert -20.1 < azimuth < -19 and elevation == pytest.approx(azimuth * 8 / 70, abs=0.1)
        page.told("at the view limit")
        held = visitor.client.camera.position / METRES  # the page's own camera is where dragging back acts at once
        towards = torch.tensor(held, dtype=torch.float32) - avatar.pivot
        assert float(torch.atan2(towards[0], -towards[2]).rad2deg()) == pytest.approx(-25, abs=1)
        page.set("Beyond what was filmed", True)
        wait_for(lambda: visitor.beyond)
        assert shown(-70, -8) == pytest.approx((-70, -8), abs=0.1)
        page.told("beyond what was filmed")
        page.set("Beyond what was filmed", False)
        wait_for(lambda: not visitor.beyond)
        assert shown(50)[0] == pytest.approx(20, abs=0.1)


def test_the_head_is_stopped_as_well() -> None:
    avatar = Limited()
    with viewing(avatar=avatar) as viewer:
        viewer.rest = Motion.zeros(1, 25.0).map(head_translation=torch.tensor([[0.0, 0.0, 57.0]]))
        page = Page(viewer)
        visitor = page.enter()
        page.set("Yaw (degrees)", 30.0)
        wait_for(lambda: visitor.sliders.yaw == 30)
        wait_for(viewer.step)
        assert abs(avatar.heads[-1]) == pytest.approx(20, abs=0.2)
        page.set("Beyond what was filmed", True)
        wait_for(lambda: visitor.beyond)
        wait_for(viewer.step)
        assert abs(avatar.heads[-1]) > 27
