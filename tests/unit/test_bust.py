"""The head and shoulders that a model starts on: their shape, what fits them, and what keeps Gaussians there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from avatar.data import PersonDataset
from avatar.data.results import FrameView
from avatar.fields.gaussians import REGIONS, Seeds
from avatar.fields.skinning import Skinning
from avatar.geometry.se3 import quat_to_matrix
from avatar.methods.gaussian import coverage, losses, surroundings
from avatar.methods.gaussian.config import GaussianConfig
from avatar.methods.gaussian.method import GaussianAvatar
from avatar.methods.gaussian.reference import Reference, reference_frame
from avatar.preprocess import bust
from avatar.preprocess import sweep as sweep_module
from avatar.preprocess.bust import ROWS, fit_bust
from avatar.preprocess.parallax import measure_depth
from avatar.preprocess.sweep import Sweep
from tests.person import make_person
from tests.turning import DEPTH, turning_head


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return PersonDataset(make_person(tmp_path_factory.mktemp("person")))


@pytest.fixture(scope="module")
def model(data):
    return GaussianAvatar.from_person(data, GaussianConfig(initial_gaussians=6000, max_gaussians=6000), 0).eval()


def ball(power: float = 2.0) -> Sweep:
    y = np.linspace(-9.9, 9.9, 100)
    round_ = np.sqrt(100 - y**2)
    return Sweep(y, round_, round_, 0 * y, 0 * y + 4, round_, round_, power)


def test_a_sweep_of_circles_is_a_ball():
    sweep, rng = ball(), np.random.default_rng(0)
    y, angle = rng.uniform(-8, 8, 200), rng.uniform(-3, 3, 200)
    points, normals = sweep.points(y, angle), sweep.normals(y, angle)
    outward = (points - [0, 0, 4]) / 10
    np.testing.assert_allclose(np.linalg.norm(outward, axis=1), 1, atol=0.01)
    assert (normals * outward).sum(1).min() > 0.99
    front = np.abs(angle) < 1.4
    np.testing.assert_allclose(sweep.front_depth(points[front, 0], y[front]), points[front, 2], atol=0.1)
    np.testing.assert_allclose(sweep.angle(points[front, 0], y[front]), angle[front], atol=0.02)


def test_samples_lie_evenly_on_what_is_asked_for():
    y, angle, points, area = ball().sample(2000, np.random.default_rng(0), lambda y, a, p, n: (p[:, 2] > 4) * 1.0)
    assert len(y) == len(angle) == 2000 and (points[:, 2] >= 4).all()
    assert area * 2000 == pytest.approx(2 * np.pi * 100 * 0.99, rel=0.05)
    counts = np.histogram(points[:, 1], 4, (-9, 9))[0]  # belts of a ball of equal height have equal areas
    assert counts.min() > 0.85 * counts.max()
    apart = KDTree(points).query(points, k=2)[0][:, 1]  # of random ones, a tenth are nearer than 0.18
    assert np.quantile(apart, 0.1) > 0.4 * np.sqrt(area)


def test_an_ear_ends_behind_the_outline_and_the_front_stays():
    plain = ball()
    eared = dataclasses.replace(plain, tuck=np.stack([np.full(100, 1.5), np.zeros(100)]))
    y, angle = np.zeros(400), np.linspace(-3.1, 3.1, 400)
    points = eared.points(y, angle)
    change = np.linalg.norm(points - plain.points(y, angle), axis=1)
    root = 10 - 1.5 - sweep_module.EAR_ROOT
    flap = (points[:, 0] > root) & (angle < np.pi / 2)
    assert change[(angle < np.pi / 2) & ~flap].max() == 0  # the front, and the other side
    slopes = np.diff(points[flap, 2]) / np.diff(points[flap, 0])
    assert slopes.min() > 0 and np.ptp(slopes) < 0.01 * slopes.max()  # an ear is straight
    np.testing.assert_allclose(eared.front_depth(points[flap, 0], y[flap]), points[flap, 2], atol=1e-6)
    behind = angle > np.pi / 2 + sweep_module.EAR_TURN
    np.testing.assert_allclose(change[behind], 1.5 * np.sin(angle[behind]), atol=1e-9)
    assert np.abs(np.diff(change)).max() < 0.2  # without a gap


def test_ears_are_where_skin_stands_off_the_head():
    wide = np.full((2, len(ROWS)), bust.SKULL_WIDTH + 0.2)
    wide[:, (ROWS > -2) & (ROWS < 3)] += 1.5
    outline = lambda skin: bust._Outline(0.0, wide[0], wide[1], -13.0, np.full((2, len(ROWS)), skin))  # noqa: E731
    ears = bust._ears([outline(1.0)] * 5, ROWS, wide)
    assert ears[:, (ROWS > -1) & (ROWS < 2)].min() > 1.3
    assert ears[:, (bust.EAR[0] - 2 > ROWS) | (bust.EAR[1] + 2 < ROWS)].max() < 0.02
    assert bust._ears([outline(0.0)] * 5, ROWS, wide).max() == 0  # hair is as wide behind as it looks


def test_a_bent_front_falls_away_sooner():
    oval = ball()
    bent = dataclasses.replace(oval, bend=np.linspace(1.0, 2.0, len(oval.y)))
    y, x = np.array([-9.8, 0.0, 9.8]), np.array([0.5, 5.0, 0.5])  # of a parabola, in between, of an oval
    np.testing.assert_allclose(bent.front_depth(0 * x, y), oval.front_depth(0 * x, y))
    deeper = bent.front_depth(x, y) - oval.front_depth(x, y)
    assert deeper[0] > 0.03 and deeper[1] > 0.3 and deeper[2] == pytest.approx(0, abs=1e-3)
    points = bent.points(y, bent.angle(x, y))
    np.testing.assert_allclose(points, np.stack([x, y, bent.front_depth(x, y)], -1), atol=1e-6)


def test_shoulders_fall_away_beside_the_collarbones(data):
    torso = fit_bust(data, reference_frame(data)).torso
    assert torso.bend[0] == bust.COLLARBONES and torso.bend[-1] > 1.5 and (np.diff(torso.bend) >= 0).all()


def test_a_chest_begins_at_the_neckline():
    chin = 8.0
    assert bust._notch(np.linspace(9, 18, 50), chin) == pytest.approx(17.8, abs=0.1)
    assert bust._notch(np.linspace(9, 30, 50), chin) == chin + bust.NOTCH + 3  # deep necklines show the chest
    assert bust._notch(np.zeros(0), chin) == bust._notch(np.linspace(8, 10, 50), chin) == chin + bust.NOTCH


def test_a_neck_leans_with_the_head_over_the_body():
    x, y = np.meshgrid(np.arange(-12, 12, 0.2), np.arange(0, 20, 0.2))
    heights = np.arange(5.0, 16.0, bust.STEP)
    found = bust._lean(x, y, np.abs(x - 0.2 * (y - 11)) < 5, heights, 7.0)
    np.testing.assert_allclose(found, 0.2 * (heights - 11), atol=0.1)
    assert (bust._lean(x, y, y < 0, heights, 7.0) == 0).all()


def test_a_neck_is_as_wide_as_beside_the_chin():
    x, below = np.meshgrid(np.arange(-12, 12, 0.2), np.arange(-4, 9, 0.2))
    neck = (np.abs(x) < np.where(below < 1, 6, 10)) & (below > -3)  # below are shoulders
    assert bust._neck_radius(x, below, neck) == pytest.approx(6, abs=0.15)
    assert bust._neck_radius(x, below, neck & (below > 1.5)) == 8.0  # hair hides the rest; no neck is wider
    assert bust._neck_radius(x, below, neck & (below > 99)) == 0.9 * bust.NECK_RADIUS


def test_a_collar_may_rise_beside_the_jaw():
    tops = np.linspace(-2, 6, 200) + 8.0
    assert bust._collar(tops, 8.0) == pytest.approx(6.16, abs=0.05)
    assert bust._collar(tops - 6, 8.0) == 8.0 + bust.HIGHEST  # hair or a hood


def test_a_shoulder_that_the_image_cuts_goes_on_and_rounds_off():
    height = np.arange(0, 20, bust.STEP)
    outline = 7 + 2.0 * height  # broad, and cut at 17 cm
    cut, nothing = outline > 17, np.full(len(height), np.nan)
    width = np.where(cut, np.nan, outline)
    whole = bust._rounded_off(width, cut, nothing)
    assert (whole[~cut] == outline[~cut]).all() and np.isfinite(whole).all() and (np.diff(whole) >= 0).all()
    last = np.flatnonzero(~cut)[-1]
    assert whole[last + 1] - whole[last] == pytest.approx(2.0 * bust.STEP, rel=0.15)  # as steep as it left the image
    assert whole[-1] == pytest.approx(17 + 2.0 * bust.ROUNDS, abs=0.1) and whole[-1] > bust.SHOULDERS
    early = np.where(outline > 13, np.nan, outline)  # a close-up
    assert bust._rounded_off(early, outline > 13, nothing)[-1] == pytest.approx(bust.SHOULDERS, abs=0.3)
    assert np.allclose(bust._rounded_off(np.where(cut, np.nan, 17.0), cut, nothing), 17)  # it hangs down already
    rounded = np.minimum(outline, 18.0) - 1  # the other side shows all of it
    assert np.allclose(bust._rounded_off(width, cut, rounded), np.minimum(outline, 18.0))
    for unknown in (width, nothing):
        uncut = np.zeros(len(height), bool)
        assert np.array_equal(bust._rounded_off(unknown, uncut, nothing), unknown, equal_nan=True)


def test_surfaces_follow_the_person_s_silhouettes(data):
    bust = fit_bust(data, reference_frame(data))
    border = data.shape[:468]
    at_eyes = np.abs(bust.head.y - border[33, 1]).argmin()
    width = 1.18 * np.ptp(border[:, 0]) / 2  # as the drawn hair is
    assert bust.head.left[at_eyes] == pytest.approx(width, rel=0.12)
    assert bust.head.right[at_eyes] == pytest.approx(width, rel=0.12)
    assert bust.head.points(np.array([0.0]), np.array([np.pi]))[0, 2] > 11  # there is a back of the head
    assert bust.torso.left[-1] > 15  # and shoulders wider than the picture


def test_from_the_side_there_is_a_head_and_no_hole(data, model):
    """At 45 degrees the silhouette is closed, and as deep as a head is."""
    frame = reference_frame(data)
    for azimuth in (-45.0, 0.0, 45.0):
        camera = data.camera.resized(192, 192).orbit(model.pivot, azimuth, 0.0)
        with torch.no_grad():
            alpha = model(data.motion, frame, camera, background=torch.zeros(192, 192, 3)).alpha[..., 0].numpy()
        rows = alpha[60:110] > 0.5
        first, last = rows.argmax(1), 191 - rows[:, ::-1].argmax(1)
        inside = np.concatenate([row[a + 2 : b - 1] for row, a, b in zip(alpha[60:110], first, last, strict=True)])
        assert (inside < 0.5).mean() < 0.03, azimuth
        assert (last - first).mean() / 192 > 0.18, azimuth


def test_the_back_of_the_head_has_the_color_of_hair_not_of_skin(model):
    gaussians = model.gaussians
    at = model.skinning.to_head(gaussians.means.detach())
    hair, color = gaussians.region == REGIONS.index("hair"), gaussians.colors.detach()
    front = color[hair & (at[:, 2] < 2) & (at[:, 1] < -6)].mean(0)
    back = color[hair & (at[:, 2] > 7) & (at[:, 1] < 3)]
    assert len(back) > 50 and (back - front).norm(dim=-1).median() < 0.1
    assert (back.mean(0) - front).norm() < 0.1
    assert (color[gaussians.region == REGIONS.index("face")].mean(0) - front).norm() > 0.4


def test_hidden_surfaces_lie_inside_the_outline_but_not_behind_it(data, model):
    """Only what a filmed pose could show as a rim has to lie further inside."""
    gaussians, head = model.gaussians, fit_bust(data, reference_frame(data)).head
    at = model.skinning.to_head(gaussians.means.detach()).numpy().astype(float)
    at = at[((gaussians.region == REGIONS.index("hair")) & (gaussians.opacities[:, 0].sigmoid() > 0.95)).numpy()]
    left, right, middle, back = (
        np.interp(at[:, 1], head.y, getattr(head, n)) for n in ("left", "right", "middle", "back")
    )
    across, deep = at[:, 0] / np.where(at[:, 0] > 0, left, right), (at[:, 2] - middle) / back
    angle = np.arctan2(np.abs(across), -deep)
    reach = np.hypot(across, deep)
    behind = (angle > 2.4) & (angle < 2.9) & (np.abs(at[:, 1] + 4) < 3)  # above the ears
    assert behind.sum() > 10
    assert np.median(np.abs(reach[behind] - 1)) < 0.01


def test_nothing_lies_beyond_an_edge_inside_of_the_whole_frame(data, monkeypatch):
    """Below the trained part rendering shows a desk: clothes there would float on it, and no training removes them."""
    frame, drawn = reference_frame(data), data.masks

    def masks(index, size=None):
        found = {name: mask.copy() for name, mask in drawn(index, size).items()}
        height, width = found["clothes"].shape
        for name, mask in found.items():
            mask[int(0.89 * height) :, width // 10 : -width // 10] = name == "clothes"
        return found

    monkeypatch.setattr(data, "masks", masks)
    monkeypatch.setattr(surroundings, "_measured", lambda reference, _: np.zeros(reference.image.shape[:2]))
    below, beside = [], []
    for view in (
        None,
        FrameView(width=96, height=140, x=0, y=0, scale=1),
        FrameView(width=180, height=96, x=30, y=0, scale=1),
    ):
        monkeypatch.setattr(data, "info", dataclasses.replace(data.info, view=view))
        torso = torch.from_numpy(data.torso_pivot), torch.from_numpy(data.warp_box)
        skinning = Skinning(data.motion.head_rotation[frame], data.motion.head_translation[frame], *torso)
        reference = Reference.of(data, skinning, frame)
        seeds = Seeds.cat(surroundings.surroundings(reference, 3000, np.random.default_rng(0)))
        x, y = reference.pixels(seeds.means.numpy()).T
        below.append((y > 99).sum())  # with a centimetre by which collars fall behind their ridge
        beside.append(((x < -3) | (x > 99)).sum())
    assert below[0] > 200 and below[1] == 0 and below[2] > 200
    assert beside[0] > 50 and beside[2] == 0


def test_behind_the_neck_that_is_seen_lies_another_one(model):
    """Gaps between Gaussians that the front does not show would be holes from the side."""
    gaussians = model.gaussians
    means, solid = gaussians.means.detach().numpy(), gaussians.opacities[:, 0].detach().sigmoid() > 0.95
    front = (gaussians.region == REGIONS.index("neck")) & (gaussians.normal[:, 2] < -0.85)
    seen, hidden = means[(front & ~solid).numpy()], means[(front & solid).numpy()]
    away, nearest = KDTree(seen[:, :2]).query(hidden[:, :2])
    deeper = (hidden[:, 2] - seen[nearest, 2])[away < 0.5]
    assert len(deeper) > 4
    assert np.median(deeper) == pytest.approx(surroundings._BACKING, abs=0.35) and deeper.min() > 0.2


def test_behind_the_sides_of_the_neck_lies_another_one(model):
    """Where the head tilts, the first shows beside the real neck in a few frames, and training takes it away."""
    gaussians = model.gaussians
    means, solid = gaussians.means.detach().numpy(), gaussians.opacities[:, 0].detach().sigmoid() > 0.95
    for side in (-1, 1):
        aside = (gaussians.region == REGIONS.index("neck")) & (side * gaussians.normal[:, 0] > 0.9) & solid
        at = means[aside.numpy()]
        outside = side * at[:, 0] > np.median(side * at[:, 0])
        away, nearest = KDTree(at[outside][:, 1:]).query(at[~outside][:, 1:])
        deeper = side * (at[outside][nearest, 0] - at[~outside][:, 0])[away < 0.3]
        assert len(deeper) > 4 and np.median(deeper) == pytest.approx(surroundings._BACKING, abs=0.3)


def test_behind_the_skin_lies_skin(data, model):
    """The face has gaps from the side, and through them shines what is behind: not the back of the head, but skin."""
    gaussians = model.gaussians
    face = (gaussians.region == REGIONS.index("face")).numpy()
    at = model.skinning.to_head(gaussians.means.detach()).numpy()
    behind = face & (gaussians.opacities[:, 0].detach().sigmoid() > 0.97).numpy()
    before = face & ~behind
    cheeks = behind & (np.abs(at[:, 0]) > 4) & (np.abs(at[:, 1] - 2) < 3)
    away, nearest = KDTree(at[before]).query(at[cheeks])
    assert cheeks.sum() > 10 and 0.1 < np.median(away) < 0.5 and away.max() < 1.0
    colors = gaussians.colors.detach().numpy()
    assert np.abs(colors[cheeks] - colors[before][nearest]).mean() < 0.1
    lips = np.linalg.norm(at[behind] - data.shape[13], axis=1)
    assert lips.min() > 0.3  # it would look out where they open


def test_a_raised_collar_falls_behind_its_ridge():
    """Where it showed above it, training would take it away: a gap between front and back from the side."""
    world = np.array([[3.0, 12, 68], [3, 12, 90], [3, 12, 68], [3, 12, 66], [3, 12, 60]])
    fallen = surroundings._fallen_behind(world, 66.0, np.array([-1.0, -1, 9, -1, -1]))
    assert fallen[0, 1] / fallen[0, 2] == pytest.approx(12 / 66)  # in line with the ridge, from the camera
    assert fallen[1, 1] == 12 + surroundings._FALL
    np.testing.assert_array_equal(fallen[2:], world[2:])  # far below the chin, on the ridge, and before it
    np.testing.assert_array_equal(fallen[:, [0, 2]], world[:, [0, 2]])


def test_earrings_do_not_color_the_head_behind_them():
    hair = np.zeros((64, 64), np.float32)
    hair[4:20, 10:50] = 1
    earring = (slice(40, 44), slice(8, 12))
    hair[earring] = 1
    worn = surroundings._worn(hair)
    assert worn[earring].all() and worn.sum() == 16
    assert surroundings._worn(np.zeros((8, 8), np.float32)).sum() == 0


def test_ears_are_thin():
    tuck = np.zeros((2, 100))
    tuck[0, 40:60] = 1.5
    eared = dataclasses.replace(ball(), tuck=tuck).narrowed(0.5, 0.1)
    less = np.stack([ball().left - eared.left, ball().right - eared.right])
    np.testing.assert_allclose(less[:, 10:90], np.where(tuck > 0, 0.1, 0.5)[:, 10:90])


def test_an_inset_is_measured_across_a_level_outline():
    height = ball().y + 10
    sloping = dataclasses.replace(ball(), left=height, right=5 * height)
    narrow = sloping.narrowed(0.5, 0.1, slopes=True)
    np.testing.assert_allclose((sloping.left - narrow.left)[10:], 0.5 * np.sqrt(2))
    np.testing.assert_allclose((sloping.right - narrow.right)[10:], 0.5 * sweep_module.LEVEL)  # not without end
    plain = sloping.narrowed(0.5, 0.1)
    np.testing.assert_allclose((sloping.right - plain.right)[10:], 0.5)


def test_no_throat_lies_behind_lips_that_open(data, model):
    gaussians = model.gaussians
    at, neck = model.skinning.to_head(gaussians.means.detach()), gaussians.region == REGIONS.index("neck")
    mouth, chin = data.shape[13, 1], data.shape[152, 1]
    inside = (at[:, 2] > -2.5) & (at[:, 2] < 3) & (gaussians.region >= REGIONS.index("hair"))
    assert (inside & neck & (at[:, 1] < chin)).any()  # it goes on behind the jaw, ...
    above = inside & (at[:, 1] < mouth + 1.5) & (at[:, 1] > mouth - 3)
    assert not (above & neck).any()  # ... belongs to the head above that, ...
    assert not (above & (at[:, 0].abs() < 2.4)).any()  # ... and ends beside the mouth
    assert (above & (at[:, 0].abs() < 6)).any()  # a cheek has something behind it


def test_gaussians_are_flat_along_their_surface(model):
    gaussians = model.gaussians
    on = gaussians.normal.norm(dim=-1) > 0.5
    assert on.float().mean() > 0.85
    thin = quat_to_matrix(gaussians.quats)[on, :, 2]
    assert (thin * gaussians.normal[on]).sum(-1).abs().min() > 0.999
    assert (gaussians.scales[on, 2] < gaussians.scales[on, 0] - 1).all()


def test_leaving_the_surface_costs_and_so_does_moving_far_along_it(model):
    gaussians = GaussianAvatar.blank(GaussianConfig(), count=4, width=8, height=8).gaussians
    gaussians.normal[:] = torch.tensor([0.0, 0, -1])
    held, torso = torch.tensor([losses.HELD, losses.ALONG]), losses.HELD[REGIONS.index("torso")]
    gaussians.region[:] = REGIONS.index("torso")
    with torch.no_grad():
        gaussians.means[:, 0] += 0.45
        assert losses.surface_distance(gaussians, held, 0.1) == 0
        gaussians.means[:, 0] += 0.55
        far = losses.surface_distance(gaussians, held, 0.1)
        assert far == pytest.approx(torso * 0.25, rel=0.01)
        gaussians.means[:, 0] -= 0.55
        gaussians.means[0, 2] += 0.6
        one = losses.surface_distance(gaussians, held, 0.1)
        gaussians.region[:] = REGIONS.index("mouth_upper")
        assert one == pytest.approx(torso * 0.25 / 4, rel=0.01) and losses.surface_distance(gaussians, held, 0.1) == 0
        gaussians.scales[:] = torch.tensor([0.0, 0.0, -5.0]).exp().log()
        assert losses.thickness(gaussians, 0.08) == 0
        gaussians.quats[:] = torch.tensor([0.5**0.5, 0.5**0.5, 0, 0])  # on edge
        assert losses.thickness(gaussians, 0.08) == pytest.approx(0.92**2, rel=0.01)


def test_lids_and_eyes_are_held_closer_than_the_face_around_them():
    gaussians = GaussianAvatar.blank(GaussianConfig(), count=1, width=8, height=8).gaussians
    held, cost = torch.tensor([losses.HELD, losses.ALONG]), {}
    with torch.no_grad():
        gaussians.means[:, 0] += 0.3  # centimetres along the surface
        gaussians.normal[:] = torch.tensor([0.0, 0, -1])
        for name in ("face", "lid", "eye"):
            gaussians.region[:] = REGIONS.index(name)
            cost[name] = float(losses.surface_distance(gaussians, held, 0.1))
    assert cost["face"] == 0 < cost["lid"] < cost["eye"]


def test_what_no_frame_shows_is_known_and_put_back(data, model):
    motion = data.motion[data.train_frames]
    pose = lambda index: model.splats(motion, index)  # noqa: E731
    visible = coverage.measure(pose, motion.head_rotation, data.camera, "native")
    depth = model.skinning.to_head(model.gaussians.means)[:, 2]
    hair = model.gaussians.region == REGIONS.index("hair")
    assert visible[hair & (depth > 9)].median() < 0.05  # the back of the head
    assert visible[hair & (depth < 2)].median() > 0.1
    gaussians = model.gaussians
    learned = ("means", "colors", "opacities", "skinning_weight")
    before = {name: getattr(gaussians, name).detach().clone() for name in learned}
    with torch.no_grad():
        gaussians.means += 0.3 * gaussians.normal
        gaussians.colors += 0.2
        gaussians.opacities -= 6
        gaussians.skinning_weight += 6
    visible[visible < 0.05] = 0
    regions, torso = gaussians.region.clone(), torch.arange(len(gaussians)) % 2 == 0
    gaussians.region[torso] = REGIONS.index("torso")  # the frame has none
    coverage.settle(gaussians, visible)
    gaussians.region.copy_(regions)
    back = (visible == 0) & (gaussians.normal.norm(dim=-1) > 0.5)
    assert 0 < back.sum() < len(back)
    assert (gaussians.means - before["means"])[back].abs().max() < 1e-4
    assert torch.equal(gaussians.colors[back], before["colors"][back])
    assert torch.sigmoid(gaussians.opacities[back]).min() > 0.89
    change = gaussians.colors - before["colors"]
    assert change[visible > 0.25].min() > 0.19  # what was seen stays as it was learnt ...
    rim = change[(visible > 0) & (visible < 0.1)]
    assert len(rim) > 10 and 0.03 <= rim.min() < rim.max() < 0.16  # ... and what was hardly seen nearly as it began
    follows = torch.sigmoid(gaussians.skinning_weight)[:, 0]
    assert follows[~torso | (visible > 0.25)].min() > 0.5 and follows[torso & (visible < 0.05)].max() < 0.081
    with torch.no_grad():
        for name, value in before.items():
            getattr(gaussians, name).copy_(value)


def test_the_model_says_how_much_of_a_view_was_seen(data, model):
    model.finish(data.motion[data.train_frames], data.camera)
    frame = reference_frame(data)
    shares = []
    for azimuth in (0.0, 60.0):
        camera = data.camera.orbit(model.pivot, azimuth, 0.0)
        with torch.no_grad():
            seen = model.seen(data.motion, frame, camera)
            alpha = model(data.motion, frame, camera).alpha[..., 0]
        assert seen.shape == (96, 96) and seen.min() >= 0 and seen.max() <= 1.001
        shares.append(float(seen[alpha > 0.5].mean()))
    assert shares[0] > 0.8 and shares[1] < shares[0] - 0.15
    assert torch.equal(model.gaussians.seen, model.checkpoint()[0]["gaussians.seen"])


def test_parallax_finds_how_deep_hair_lies(tmp_path):
    """A textured bump beside the face, guessed as flat, is found from how it moves when the head turns."""
    data, guess, truth = turning_head(tmp_path)
    known, flat = np.isfinite(guess), np.abs(truth - guess) < 0.02 * DEPTH
    found = measure_depth(data, 0, guess, flat)
    inner = known & (np.abs(truth - guess) > 0.5 * DEPTH)
    before, after = (np.abs(depth - truth)[inner].mean() for depth in (guess, guess + found))
    assert after < 0.4 * before
    assert (found[~known] == 0).all()
    # Poses that slide to the side with the yaw look like a whole head that is deeper: what is known tells them apart.
    slid = data.motion.head_translation.clone()
    slid[:, 0] -= 1.5 * torch.sin(data.motion.head_rotation[:, 1] - data.motion.head_rotation[0, 1])
    data.motion = data.motion.map(head_translation=slid)
    trusting, knowing = (measure_depth(data, 0, guess, right)[inner] for right in (flat & False, flat))
    assert np.median(np.abs(trusting - found[inner])) > 0.6
    assert np.median(np.abs(knowing - found[inner])) < 0.25
