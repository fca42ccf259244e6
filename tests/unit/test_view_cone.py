"""View limits: the soft stop, what a cone is measured from, its file, and the head that turns with it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.infer.avatar import Avatar
from avatar.infer.camera_path import CameraPath
from avatar.infer.controls import Controls
from avatar.infer.jobs import limited_path
from avatar.infer.planner import plan_motion
from avatar.infer.view_cone import (
    AZIMUTHS,
    BETWEEN,
    ELEVATIONS,
    GOOD,
    ROOM,
    SMALLEST_LIMIT,
    SOFTNESS,
    HeadLimits,
    Limits,
    ViewCone,
    turned,
    view_angles,
    view_of,
)
from avatar.infer.view_measure import head_limits, measure_cone
from avatar.methods.base import PIVOT as cone_pivot
from avatar.methods.base import Method, RenderOutput
from avatar.methods.options import MethodConfig
from avatar.motion import Motion
from avatar.viewer.controls import apply_controls
from tests.fake_avatar import FPS, FakeAvatar

LIMITS = Limits(left=30, right=20, down=15, up=10)
HEAD = HeadLimits(Limits(left=24, right=16, down=12, up=10), roll=12)
PIVOT = torch.tensor([4.0, -3.0, 80.0])


def cone_of(limits: Limits = LIMITS, **about) -> ViewCone:
    """A cone with the confidence falling evenly to 0.5 at the limits."""
    across = np.array([a / (limits.right if a > 0 else limits.left) for a in AZIMUTHS])
    along = np.array([e / (limits.up if e > 0 else limits.down) for e in ELEVATIONS])
    grid = np.clip(1 - 0.5 * np.hypot(across, along[:, None]), 0, 1)
    return ViewCone(azimuths=AZIMUTHS, elevations=ELEVATIONS, grid=grid, **about)


# -- the soft stop ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("softness", [0.0, 0.1, SOFTNESS])
@pytest.mark.parametrize("angle", range(0, 360, 60))
def test_a_view_stops_softly_on_its_ray(softness: float, angle: int) -> None:
    ray = np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle))])
    border = 1 / LIMITS.ratio(*ray)
    asked = np.linspace(0, 3 * border, 601)
    given = np.array([LIMITS.clamped(*(r * ray), softness) for r in asked])
    reached = given @ ray
    assert np.allclose(given, reached[:, None] * ray, atol=1e-9)  # on the straight line from the centre
    assert reached.max() <= border * (1 + 1e-9) and reached[-1] == pytest.approx(border)
    inside = asked <= (1 - softness) * border
    assert np.allclose(reached[inside], asked[inside], atol=1e-9)
    steps = np.diff(reached) / (asked[1] - asked[0])
    assert steps.min() >= -1e-9 and steps.max() <= 1 + 1e-6  # never back, never faster than asked
    if softness:
        assert np.abs(np.diff(steps)).max() < 0.03  # and nothing jerks


def test_limits_are_where_the_confidence_falls() -> None:
    cone = cone_of()
    assert cone.limits() == pytest.approx(LIMITS, abs=0.01)
    assert cone.contains(19, 0) and cone.contains(-29, 0) and not cone.contains(21, 0)
    assert not cone.contains(18, 8)  # a corner: the border is an ellipse
    assert cone.confidence(0, 0) == 1 and cone.confidence(10, 0) == pytest.approx(0.75, abs=0.01)
    assert cone.confidence(-15, -7.5) == pytest.approx(1 - 0.5 * math.hypot(0.5, 0.5), abs=0.05)
    assert cone.confidence(61, 0) == 0 and cone.confidence(0, -31) == 0
    cone.grid[:, AZIMUTHS.index(7.5)] = 0.2  # what comes after a gap does not count
    assert 3 < cone.limits().right < 7.5 and cone.limits().left == pytest.approx(30, abs=0.01)
    cone.grid[:] = 0
    assert cone.limits() == (SMALLEST_LIMIT,) * 4
    cone.grid[:] = 1
    assert cone.limits() == (60, 60, 30, 30)


def test_no_view_between_the_axes_is_bad() -> None:
    cone = cone_of()
    right, up = np.meshgrid(np.array(AZIMUTHS) > 5, np.array(ELEVATIONS) > 5)
    cone.grid[right & up] *= 0.6  # good to the right and up, but not both at once
    views = [(azimuth, elevation) for azimuth in range(-40, 41) for elevation in range(-20, 21)]
    assert all(cone.confidence(*view) > GOOD - BETWEEN for view in views if cone.contains(*view))
    limits = cone.limits()
    assert limits.left == pytest.approx(30, abs=0.01) and limits.down == pytest.approx(15, abs=0.01)
    assert limits.right / 20 == pytest.approx(limits.up / 10) and 5 < limits.up < 9
    assert cone.clamped(90, 90, softness=0)[1] < limits.up


def test_a_view_is_what_orbit_makes_of_it() -> None:
    source = Camera.source(500.0, 100, 100, 200, 200)
    for view in ((0, 0), (25, 0), (-40, 12), (10, -30), (170, 60)):
        camera = source.orbit(PIVOT, *view)
        assert view_of(camera, PIVOT) == pytest.approx(view, abs=1e-3)
        moved = turned(camera, PIVOT, (-12, 7))
        assert view_of(moved, PIVOT) == pytest.approx((-12, 7), abs=1e-3)
        torch.testing.assert_close(moved.viewmat, source.orbit(PIVOT, -12, 7).viewmat, atol=1e-3, rtol=0)
        torch.testing.assert_close(moved.project(PIVOT[None]), camera.project(PIVOT[None]), atol=1e-2, rtol=0)
    assert view_angles(PIVOT, -PIVOT[None]).abs().max() < 1e-4


# -- the file --------------------------------------------------------------------------------------------------------


def test_a_cone_is_kept_in_the_run(tmp_path: Path) -> None:
    nothing = ViewCone.of_run(tmp_path)
    assert not nothing.measured and nothing.limits() == pytest.approx((20, 20, 10, 10), abs=0.01)
    cone = cone_of(head_rotation=(0.1, 0.2, 0.3), head_translation=(1, 2, 90), head=HeadLimits(Limits(9, 8, 7, 6), 5))
    cone.write(tmp_path / "view_cone.json")
    again = ViewCone.of_run(tmp_path)
    assert again.measured and again.limits() == pytest.approx(cone.limits(), abs=0.1)
    assert (again.head, again.head_rotation, again.head_translation) == (cone.head, (0.1, 0.2, 0.3), (1, 2, 90))


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        ({"format": "avatar-view-cone-0"}, "another version"),
        ({"confidence": [[1.0]]}, "rows of"),
        ({"confidence": None}, "not a list"),
        ({"azimuths": [0, 1, 1]}, "increasing"),
        ({"azimuths": [1, 2, 3]}, "around 0"),
        ({"head_translation": [1, 2]}, "2 numbers, not 3"),
        ({"head": {"left": 10}}, "lacks right"),
        ({"head_rotation": [0, 0, "x"]}, "not a number"),
        ({"elevations": [-30, 0, 1e9]}, "not a number"),
        (None, "JSON"),
    ],
)
def test_a_damaged_cone_is_one_sentence(tmp_path: Path, damage: dict | None, word: str) -> None:
    path = tmp_path / "view_cone.json"
    cone_of(head=HEAD).write(path)
    whole = path.read_text()
    path.write_text(whole[:-20] if damage is None else json.dumps(json.loads(whole) | damage))
    with pytest.raises(AvatarError, match=word) as caught:
        ViewCone.of_run(tmp_path)
    assert str(path) in str(caught.value)


# -- the head --------------------------------------------------------------------------------------------------------


def turning(yaw: float, pitch: float = 0.0, frames: int = 61) -> Motion:
    """A head that turns from one side to the other, and up and down by ``pitch``, degrees."""
    still = Motion.zeros(1, FPS).map(head_translation=PIVOT[None])
    sweep = np.linspace(-1, 1, frames)
    return Motion.cat([apply_controls(still, yaw=yaw * s, pitch=pitch * math.sin(3 * s)) for s in sweep])


def test_directions_of_a_turning_head() -> None:
    cone = cone_of(head_translation=tuple(PIVOT.tolist()))
    views = cone.directions(turning(25))
    assert views[30].abs().max() < 1e-3
    # Turned to the person's left, the image's right, the camera sees more of the other side.
    assert float(views[0, 0]) == pytest.approx(25, abs=1) and float(views[-1, 0]) == pytest.approx(-25, abs=1)
    still = turning(0, frames=1)
    assert cone.directions(apply_controls(still, pitch=12))[0].tolist() == pytest.approx([0, -12, 0], abs=0.6)
    assert cone.directions(apply_controls(still, roll=9))[0].abs().tolist() == pytest.approx([0, 0, 9], abs=0.6)


def test_a_head_stops_where_it_was_not_filmed() -> None:
    cone = cone_of(head_translation=tuple(PIVOT.tolist()), head=HEAD)
    calm = turning(8, 3)
    assert cone.limit_head(calm) == (calm, 0.0)  # untouched, bit for bit
    wild = apply_controls(turning(60, 20), roll=25)
    limited, change = cone.limit_head(wild)
    views, asked = cone.directions(limited), cone.directions(wild)
    assert change > 25 and float(asked[:, 0].max()) > 50 and float(asked[:, 2].abs().max()) > 20
    wanted = torch.tensor([HEAD.clamped(*view) for view in asked.tolist()])
    torch.testing.assert_close(views, wanted, atol=0.05, rtol=0)
    assert max(HEAD.views.ratio(*view) for view in views[:, :2].tolist()) < 1.01
    assert (limited.head_rotation.diff(dim=0).norm(dim=-1) < 0.06).all()  # no jump
    assert torch.equal(limited.head_translation, wild.head_translation)
    unknown, none = ViewCone.unknown().limit_head(wild)
    assert unknown is wild and none == 0


def test_camera_and_head_do_not_add_up_beyond_the_limits() -> None:
    cone = cone_of(head_translation=tuple(PIVOT.tolist()), head=HEAD)
    source, wild = Camera.source(500.0, 100, 100, 200, 200), turning(40, 10)
    reference, pivot = cone._reference
    beside = Limits(*(limit + ROOM for limit in LIMITS))
    for view in ((20, 0), (-25, 5), (10, -10)):
        camera = source.orbit(pivot, *view).position
        limited, _ = cone.limit_head(wild, camera.expand(len(wild), 3))
        turn = axis_angle_to_matrix(limited.head_rotation)
        towards = camera - (torch.tensor(cone_pivot) @ turn.mT + limited.head_translation)
        seen = view_angles(pivot, (towards[:, None] @ turn)[:, 0] @ reference.T)
        assert max(beside.ratio(*both) for both in seen.tolist()) < 1.06
        assert (limited.head_rotation.diff(dim=0).norm(dim=-1) < 0.06).all()  # no jump
        back = [both[0] - view[0] for both in seen.tolist()]
        assert (min(back) if view[0] > 0 else -max(back)) < -8  # towards the front it turns freely
    assert torch.equal(cone.limit_head(wild, torch.zeros(len(wild), 3))[0].head_rotation,
                       cone.limit_head(wild)[0].head_rotation)  # fmt: skip


def test_a_head_does_not_jump_where_a_camera_begins_to_move() -> None:
    narrow = Limits(left=10, right=10, down=8, up=8)
    cone = cone_of(narrow, head_translation=tuple(PIVOT.tolist()), head=HeadLimits(Limits(24, 24, 12, 12), 12))
    source, wild = Camera.source(500.0, 100, 100, 200, 200), apply_controls(turning(0, 0), yaw=22)[:1]
    seen = []
    for degrees in np.arange(0, 12, 0.25):
        camera = source.orbit(cone._reference[1], -float(degrees), 0).position
        seen.append(-float(cone.directions(cone.limit_head(wild, camera[None])[0])[0, 0]))
    assert seen[0] - seen[-1] > 6 and np.abs(np.diff(seen)).max() < 1.2


def test_a_camera_beyond_the_limits_leaves_turns_that_lead_back() -> None:
    assert LIMITS.share((40, 0), (10, 0)) == 0 and LIMITS.share((40, 0), (-10, 0)) == 1
    assert LIMITS.share((5, 0), (2, 0)) == 1 and 0 < LIMITS.share((15, 0), (20, 0)) < 0.5


@pytest.mark.parametrize(("own", "asked"), [(True, {}), (False, {"pose_scale": ("2",)})])
def test_the_person_s_own_motion_is_left_to_a_turned_camera(tmp_path: Path, own: bool, asked: dict[str, Any]) -> None:
    turning(10, 2, frames=100).save(tmp_path / "motion.safetensors")
    cone_of(head_translation=tuple(PIVOT.tolist()), head=HEAD).write(tmp_path / "view_cone.json")
    position = Camera.source(500.0, 100, 100, 200, 200).orbit(PIVOT, -29, 0).position

    def planned(**options: Any) -> Tensor:
        plan = plan_motion(FakeAvatar(tmp_path), Controls(idle=8.0, **asked), frames=0, **options)
        return Motion.cat(list(plan.stream([]))).head_rotation

    assert torch.equal(planned(camera=lambda _: position), planned()) == own


def test_what_was_filmed_is_never_slowed_down() -> None:
    reference = cone_of(head_translation=tuple(PIVOT.tolist()))
    for own in (turning(34, 1), turning(3, 9), apply_controls(turning(5), roll=20)):
        limits = head_limits(reference.directions(own), LIMITS)
        cone = replace(reference, head=limits)
        assert cone.limit_head(own)[0] is own
    assert limits.views.left < LIMITS.left  # and a head that was hardly turned does not turn as far as the camera may


def test_only_head_motion_beyond_the_limits_is_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    turning(6, 2, frames=100).save(tmp_path / "motion.safetensors")
    turning(60, 2, frames=40).save(tmp_path / "wild.safetensors")
    cone = cone_of(head_translation=tuple(PIVOT.tolist()), head=HEAD)
    cone.write(tmp_path / "view_cone.json")

    def planned(**controls) -> Motion:
        plan = plan_motion(FakeAvatar(tmp_path), Controls(**controls), frames=0)
        return Motion.cat(list(plan.stream([])))

    wild = Motion.load(tmp_path / "wild.safetensors")
    limited = planned(motion=tmp_path / "wild.safetensors")
    assert cone.directions(wild)[:, 0].abs().max() > 50
    assert float(cone.directions(limited)[:, 0].max()) == pytest.approx(HEAD.views.right, abs=0.1)
    assert sum("--beyond" in record.message for record in caplog.records) == 1
    caplog.clear()
    free = planned(motion=tmp_path / "wild.safetensors", beyond=True)
    torch.testing.assert_close(free.head_rotation, wild.head_rotation)
    own, same = planned(idle=2.0), planned(idle=2.0, beyond=True)
    assert torch.equal(own.head_rotation, same.head_rotation) and not caplog.records


# -- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class BallConfig(MethodConfig):
    halo: float = 0.0
    depth: bool = True
    blurred: bool = False
    torn: bool = False


class Ball(Method):
    """A head that is a ball of one colour on a block, drawn exactly; and a cloud that hides behind its left half."""

    Config = BallConfig
    name = "ball"

    @classmethod
    def from_person(cls, data, config, seed):
        raise NotImplementedError

    @classmethod
    def from_checkpoint(cls, checkpoint):
        raise NotImplementedError

    def param_groups(self):
        return []

    def reference_motion(self, fps: float) -> Motion:
        return Motion.zeros(1, fps).map(head_translation=torch.tensor([[0.0, 0.0, 60.0]]))

    def forward(self, motion, index, camera, *, noise=None, background=None, with_depth=False, part=None):
        y, x = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
        origin, rays = camera.rays(torch.stack([x, y], -1))
        centre = motion.head_translation[index] + torch.tensor([0.0, 0.0, 3.0])
        near, far = torch.full(x.shape, torch.inf), torch.zeros(x.shape, dtype=torch.bool)
        for middle, radius in ((centre, 9.0), (centre + torch.tensor([0.0, 30.0, 0.0]), 22.0)):
            near = torch.minimum(near, hit(origin, rays, middle, radius))
        cloud = hit(origin, rays, centre + torch.tensor([-4.0, 0.0, 9.0]), 7.0)
        solid, far = near.isfinite(), cloud.isfinite()
        alpha = torch.where(solid, 1.0, torch.where(far, self.config.halo, 0.0))[..., None]
        if self.config.blurred:  # a soft outline, that of the front alone
            near_front = abs(float(camera.position[0])) < 3
            soft = torch.nn.functional.avg_pool2d(alpha[None, ..., 0], 3, 1, 1)[0, ..., None]
            alpha = torch.lerp(alpha, soft, 0.25) if near_front else alpha
        if self.config.torn:  # a wedge that opens in the head from the side, with hard edges
            open_ = abs(float(camera.position[0])) / 60 * 9
            alpha = torch.where(((x - 48).abs() < open_)[..., None] & ((y - 48).abs() < 6)[..., None], 0.0, alpha)
        depth = torch.where(solid, near, torch.where(far, cloud, 0.0))[..., None]
        rgb = alpha * 0.7 + (1 - alpha) * (0.0 if background is None else background)
        return RenderOutput(rgb, alpha, depth if with_depth and self.config.depth else None)


def hit(origin: Tensor, rays: Tensor, centre: Tensor, radius: float) -> Tensor:
    """Depth at which rays meet a sphere, infinite where they do not."""
    to = centre - origin
    a, b = rays.square().sum(-1), (rays * to).sum(-1)
    root = b.square() - a * (to.square().sum() - radius**2)
    return torch.where(root > 0, (b - root.clamp_min(0).sqrt()) / a, torch.inf)


def measured(yaw: float = 4.0, **config) -> ViewCone:
    model = Ball(BallConfig(**config), torch.zeros(96, 96, 3))
    still = model.reference_motion(FPS)
    track = Motion.cat([apply_controls(still, yaw=float(v)) for v in np.linspace(-yaw, yaw, 21)])
    return measure_cone(model, Camera.source(160.0, 48, 48, 96, 96), track)


def test_a_cloud_behind_the_head_makes_the_cone_narrow_where_it_shows() -> None:
    clean, halo = measured(), measured(halo=0.5)
    assert clean.head is not None and clean.head.views[:2] == pytest.approx((8, 8), abs=0.5)  # filmed up to 4
    assert min(clean.limits()[:2]) > 28  # what nobody filmed is solid all the same
    # The cloud is to the left behind the ball: it shows first from the right-hand side of the camera's circle.
    assert halo.limits().left < 12 and halo.limits().right > 25
    for cone in (clean, halo):
        assert cone.confidence(0, 0) == 1 and cone.confidence(-60, 30) < 0.6


def test_no_view_is_good_that_is_far_from_what_was_filmed() -> None:
    for yaw in (2.0, 10.0):
        limits = measured(yaw=yaw).limits()
        assert all(yaw + 20 < side < yaw + 31 for side in limits[:2])


def test_a_hard_tear_makes_the_cone_narrow_and_a_soft_front_does_not_make_up_for_it() -> None:
    whole, torn, blurred = measured(), measured(torn=True), measured(torn=True, blurred=True)
    assert torn.limits().right < 20 < whole.limits().right
    assert blurred.limits().right < 24


def test_more_of_the_head_is_known_where_it_was_turned() -> None:
    little, much = measured(yaw=2), measured(yaw=20)
    assert all(much.confidence(side, 0) > little.confidence(side, 0) + 0.08 for side in (-37.5, 37.5))


def test_a_method_without_depth_has_a_cone_around_what_was_filmed() -> None:
    narrow, wide = measured(yaw=2, depth=False).limits(), measured(yaw=20, depth=False).limits()
    assert 10 < narrow.right < 35 and wide.right > narrow.right + 10


def test_views_of_an_avatar_are_limited_unless_asked_for(tmp_path: Path) -> None:
    avatar = FakeAvatar(tmp_path)
    for beyond, expected in ((False, 20), (True, 60)):
        camera = Avatar.view(avatar, 60, beyond=beyond)  # type: ignore[arg-type]
        assert view_of(camera, avatar.pivot)[0] == pytest.approx(expected, abs=0.01)


def test_nothing_zooms_out_unless_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    avatar: Avatar = FakeAvatar(tmp_path)  # type: ignore[assignment]
    keyframes = tmp_path / "path.json"
    keyframes.write_text('[{"time": 0}, {"time": 1, "zoom": 0.2}, {"time": 2, "zoom": 2}]')
    for asked, time in (("0,0,0.2", 0.0), (str(keyframes), 1.0)):
        path = CameraPath.parse(asked)
        assert limited_path(avatar, path, beyond=True, asked=asked).at(time)[2] == pytest.approx(0.2)
        assert limited_path(avatar, path, beyond=False, asked=asked).at(time)[2] == 1
        assert "edge of the frame" in caplog.records[-1].message
    for beyond, expected in ((False, 100), (True, 50)):
        assert Avatar.view(avatar, 0, zoom=0.5, beyond=beyond).focal == expected
    same = CameraPath.parse("5,0,1.5")
    assert same.within(avatar.cone) is same
