"""gsplat behind our functions: against its own torch code where it is installed, against stand-ins elsewhere."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

from avatar import backends, native
from avatar.backends import gsplat
from avatar.errors import AvatarError
from avatar.infer.avatar import Avatar
from avatar.native import reference
from tests.kernels.compare import assert_same
from tests.kernels.scenes import Scene, random_scene
from tests.person import make_person, small_config, train

needs_gsplat = pytest.mark.skipif(importlib.util.find_spec("gsplat") is None, reason="gsplat is not installed")
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def project(module: Any, scene: Scene, *geometry: Tensor) -> tuple[Tensor, ...]:
    given = geometry or (scene.means, scene.quats, scene.scales)
    return module.project_gaussians(*given, scene.viewmat, scene.K, scene.width, scene.height)


def draw(module: Any, scene: Scene, background: Tensor | None = None, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The whole way from Gaussians to a picture."""
    means, quats, scales, colors, opacities = inputs or scene_inputs(scene)
    radii, means2d, depths, conics = project(module, scene, means, quats, scales)
    return module.rasterize(
        means2d, conics, colors, opacities, depths, radii, scene.width, scene.height, background=background
    )


def scene_inputs(scene: Scene) -> tuple[Tensor, ...]:
    return scene.means, scene.quats, scene.scales, scene.colors, scene.opacities


class StandIn:
    """gsplat's functions by their documentation, made of our references: per-axis radii, garbage where culled."""

    def fully_fused_projection(
        self, means, covars, quats, scales, viewmats, Ks, width, height, eps2d=0.3, near_plane=0.01
    ):
        assert covars is None and viewmats.shape == (1, 4, 4) and Ks.shape == (1, 3, 3)
        radii, means2d, depths, conics = reference.project_gaussians(
            *(means, quats, scales, viewmats[0], Ks[0], width, height, eps2d, near_plane)
        )
        # Of those that ours culls it keeps every second one, well outside; the others are what was in memory: some of
        # an earlier frame, some no numbers.
        culled = (radii == 0)[:, None]
        which = torch.arange(len(radii))[:, None] % 4
        kept, stale = culled & (which % 2 == 0), culled & (which == 1)
        means2d = torch.where(kept, -50.0, torch.where(culled, torch.nan, means2d))
        means2d = torch.where(stale, 25.0, means2d)
        conics = torch.where(kept | stale, torch.tensor([1.0, 0.0, 1.0]), torch.where(culled, torch.nan, conics))
        radii = torch.where(kept[:, 0], 4, radii)
        return radii[None, :, None].expand(-1, -1, 2), means2d[None], depths[None], conics[None], None

    def isect_tiles(self, means2d, radii, depths, tile_size, tile_width, tile_height):
        assert radii.dtype == torch.int32 and radii.shape == means2d.shape
        low = ((means2d - radii) / tile_size).floor()
        high = ((means2d + radii) / tile_size).ceil()
        touched = (high > 0).all(-1) & (low < torch.tensor([tile_width, tile_height])).all(-1) & (radii > 0).all(-1)
        self.kept, self.depths = touched[0], depths[0]
        return None, torch.zeros(1), touched.nonzero()

    def isect_offset_encode(self, ids, images, tile_width, tile_height):
        return torch.zeros(images, tile_height, tile_width, dtype=torch.int32)

    def rasterize_to_pixels(self, means2d, conics, colors, opacities, width, height, tile_size, offsets, ids):
        assert offsets.shape == (1, -(-height // 16), -(-width // 16)) and tile_size == 16
        image, alpha = reference.rasterize(
            *(means2d[0], conics[0], colors[0], opacities[0], self.depths, self.kept.int(), width, height)
        )
        return image[None], alpha[None]


@pytest.fixture
def stand_in(install, monkeypatch) -> None:
    fake = StandIn()
    names = ("fully_fused_projection", "isect_tiles", "isect_offset_encode", "rasterize_to_pixels")
    install("gsplat", **{name: getattr(fake, name) for name in names})
    monkeypatch.setattr(gsplat, "_DEVICE", torch.device("cpu"))


def test_projection_has_our_radii_and_zeros_where_culled(stand_in):
    scene = random_scene(300, dtype=torch.float32)
    ours = project(reference, scene)
    theirs = project(backends.renderer("gsplat"), scene)
    assert (ours[0] == 0).any() and (ours[0] > 0).any()
    assert theirs[0].dtype == torch.int32
    different = ours[0] != theirs[0]
    assert different.float().mean() < 0.01  # a rounding of the radius
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(a[~different], b[~different], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [None, "colour", "picture"])
def test_pictures_and_gradients_agree(stand_in, kind):
    scene = random_scene(60, width=50, height=37, channels=4, dtype=torch.float32)
    g = torch.Generator().manual_seed(5)
    shape = {"colour": (4,), "picture": (37, 50, 4)}.get(kind or "")
    background = None if shape is None else torch.rand(shape, generator=g)
    module = backends.renderer("gsplat")
    assert_same(
        lambda *x: draw(module, scene, background, *x), lambda *x: draw(native, scene, background, *x),
        scene_inputs(scene), 2e-4,
    )  # fmt: skip


def test_a_model_trains_and_renders_with_the_renderer_it_was_told(stand_in, tmp_path):
    person = make_person(tmp_path / "person", frames=12)
    ours = train(small_config(person, tmp_path / "ours", steps=2))
    theirs = train(small_config(person, tmp_path / "theirs", steps=2, renderer="gsplat"))
    assert 'renderer = "gsplat"' in (tmp_path / "theirs" / "config.toml").read_text()
    (densification,) = theirs.callbacks
    assert (densification.gradient > 0).any()  # it sees gradients through the copies
    with torch.no_grad():
        images = [t.model.eval()(t.data.motion, 3, t.data.camera).rgb for t in (ours, theirs)]
    torch.testing.assert_close(*images, rtol=0, atol=2e-2)
    calls: list[str] = []
    fake = importlib.import_module("gsplat")
    original = fake.rasterize_to_pixels
    fake.rasterize_to_pixels = lambda *a: calls.append("drawn") or original(*a)
    for renderer, drawn in (("native", 0), ("gsplat", 1)):
        avatar = Avatar.load(tmp_path / "theirs", renderer=renderer)
        calls.clear()  # loading looks whether there is anything to see
        avatar.render(avatar.camera, theirs.data.motion, 3)
        assert len(calls) == drawn


def test_nothing_to_draw_is_the_background(stand_in):
    module = backends.renderer("gsplat")
    for scene in (random_scene(0, dtype=torch.float32), random_scene(5, dtype=torch.float32)):
        scene = scene._replace(means=scene.means + torch.tensor([0, 0, -1000.0]))
        inputs = [x.clone().requires_grad_() for x in scene_inputs(scene)]
        image, alpha = draw(module, scene, torch.tensor([0.1, 0.2, 0.3]), *inputs)
        assert image.shape == (37, 50, 3) and float(alpha.detach().abs().max()) == 0
        torch.testing.assert_close(image[5, 5].detach(), torch.tensor([0.1, 0.2, 0.3]))
        if len(scene.means):
            assert all(
                (x == 0).all() for x in torch.autograd.grad(image.sum(), inputs, allow_unused=True) if x is not None
            )


def test_double_precision_is_refused(stand_in):
    with pytest.raises(AvatarError, match=r"means is torch\.float64; gsplat computes in torch\.float32"):
        project(backends.renderer("gsplat"), random_scene(5))


def test_the_box_holds_every_pixel_that_shows_the_gaussian():
    scene = random_scene(200, dtype=torch.float32)
    radii, means2d, _, conics = project(reference, scene)
    reach = gsplat._reach(conics, scene.opacities, radii)
    ys, xs = torch.meshgrid(torch.arange(37) + 0.5, torch.arange(50) + 0.5, indexing="ij")
    dx, dy = xs[..., None] - means2d[:, 0], ys[..., None] - means2d[:, 1]
    a, b, c = conics.unbind(-1)
    alpha = scene.opacities * torch.exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
    outside = (dx.abs() > reach[:, 0]) | (dy.abs() > reach[:, 1])
    assert not ((alpha >= 1 / 255) & outside & (radii > 0)).any()
    assert ((reach == 0).all(-1) == (radii == 0)).all()


@needs_gsplat
def test_projection_agrees_with_gsplats_torch_code(monkeypatch):
    """gsplat's own torch projection, which runs without a GPU, through our adapter and on its own."""
    module = importlib.import_module("gsplat")
    torch_code = importlib.import_module("gsplat.cuda._torch_impl")

    def fully_fused(means, covars, quats, scales, viewmats, Ks, width, height, eps2d, near_plane):
        covars, _ = torch_code._quat_scale_to_covar_preci(quats, scales, compute_preci=False)
        return torch_code._fully_fused_projection(means, covars, viewmats, Ks, width, height, eps2d, near_plane)

    monkeypatch.setattr(module, "fully_fused_projection", fully_fused)
    monkeypatch.setattr(gsplat, "_DEVICE", torch.device("cpu"))
    scene = random_scene(400, width=90, height=64, dtype=torch.float32)
    ours, theirs = project(reference, scene), project(gsplat, scene)
    both = (ours[0] > 0) & (theirs[0] > 0)
    assert both.sum() > 200
    # What one culls and the other does not cannot be seen: gsplat's tighter box does not reach the picture.
    assert (theirs[0] > ours[0])[~both].sum() == 0
    assert (ours[0] - theirs[0])[both].abs().max() <= 1
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(a[both], b[both], rtol=1e-3, atol=1e-3)
    assert_same(
        lambda *x: tuple(t[both] for t in project(gsplat, scene, *x)[1:]),
        lambda *x: tuple(t[both] for t in project(reference, scene, *x)[1:]),
        (scene.means, scene.quats, scene.scales), 1e-3,
    )  # fmt: skip


@needs_gsplat
def test_gsplats_tile_lists_hold_all_that_shows(monkeypatch):
    """gsplat's torch code bins what our adapter hands it; blending its lists tile by tile gives our picture."""
    module = importlib.import_module("gsplat")
    torch_code = importlib.import_module("gsplat.cuda._torch_impl")

    def blend(means2d, conics, colors, opacities, width, height, tile_size, offsets, ids):
        image, alpha = torch.zeros(1, height, width, 3), torch.zeros(1, height, width, 1)
        ends = [*offsets.flatten().tolist()[1:], len(ids)]
        columns = offsets.shape[2]
        for tile, (begin, end) in enumerate(zip(offsets.flatten().tolist(), ends, strict=True)):
            top, left = tile // columns * tile_size, tile % columns * tile_size
            ys, xs = torch.arange(top, min(top + 16, height)), torch.arange(left, min(left + 16, width))
            pixels = torch.stack(torch.meshgrid(xs + 0.5, ys + 0.5, indexing="xy"), -1).reshape(-1, 2)
            own = ids[begin:end].long()
            color, through = reference._blend(
                pixels, means2d[0, own], conics[0, own], colors[0, own], opacities[0, own]
            )
            part = (0, slice(top, top + 16), slice(left, left + 16))
            image[part] = color.reshape(len(ys), len(xs), 3)
            alpha[part] = (1 - through).reshape(len(ys), len(xs), 1)
        return image, alpha

    monkeypatch.setattr(module, "isect_tiles", torch_code._isect_tiles)
    monkeypatch.setattr(module, "isect_offset_encode", torch_code._isect_offset_encode)
    monkeypatch.setattr(module, "rasterize_to_pixels", blend)
    monkeypatch.setattr(gsplat, "_DEVICE", torch.device("cpu"))
    scene = random_scene(80, dtype=torch.float32)
    radii, means2d, depths, conics = project(reference, scene)
    inputs = (means2d, conics, scene.colors, scene.opacities, depths, radii, scene.width, scene.height)
    for ours, theirs in zip(reference.rasterize(*inputs), gsplat.rasterize(*inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@needs_gsplat
@needs_cuda
def test_gsplat_draws_the_same_picture():
    scene = random_scene(2000, width=200, height=150, dtype=torch.float32)
    module = backends.renderer("gsplat")
    ours, theirs = draw(native, scene), draw(module, scene)
    for a, b in zip(ours, theirs, strict=True):
        # A pixel at a threshold may fall to either side of it.
        assert ((a - b).abs() > 2e-3).float().mean() < 1e-3
    small = random_scene(60, dtype=torch.float32)
    assert_same(
        lambda *x: draw(module, small, None, *x), lambda *x: draw(native, small, None, *x), scene_inputs(small), 5e-3
    )
