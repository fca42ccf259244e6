"""The two operators of playback: canonical Gaussians to projected ones, and blending to bytes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from avatar import native
from avatar.errors import AvatarError
from avatar.native import CanonicalGaussians, FrameMotion, reference
from avatar.native.animate_gaussians import _animate
from avatar.native.rasterize import _draw, _with_whole_radii
from tests.kernels.scenes import animated, random_scene

pytestmark = pytest.mark.usefixtures("needs_native")


def _projected(dtype: torch.dtype, channels: int = 3) -> tuple[Tensor, ...]:
    """Arguments of `draw` without a background."""
    s = random_scene(300, channels=channels, dtype=torch.float64)
    radii, means2d, depths, conics = reference.project_gaussians(*s[:5], s.width, s.height)
    tensors = (means2d, conics, s.colors, s.opacities, depths)
    return *(x.to(dtype) for x in tensors), radii, s.width, s.height


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 2500])
@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_animation_in_double_is_the_reference(n, share):
    arguments = animated(n, int(n * share))
    for got, expected in zip(
        native.animate_gaussians(*arguments), reference.animate_gaussians(*arguments), strict=True
    ):
        assert got.shape == expected.shape
        torch.testing.assert_close(got, expected.to(got.dtype), rtol=1e-9, atol=1e-9)


def test_animation_in_float_is_close_to_the_reference():
    got = native.animate_gaussians(*animated(3000, 2000, torch.float32))
    expected = reference.animate_gaussians(*animated(3000, 2000))
    seen = (got[0] > 0) & (expected[0] > 0)
    assert (seen == (expected[0] > 0)).float().mean() > 0.999
    for x, y in zip(got[1:], expected[1:], strict=True):
        torch.testing.assert_close(x.double()[seen], y[seen], rtol=2e-4, atol=2e-5 * y.abs().max().item())


def test_animation_has_the_same_bits_for_any_thread_count(any_threads):
    results = []
    for threads in (1, 2, 5):
        any_threads(threads)
        results.append(native.animate_gaussians(*animated(5000, 5000, torch.float32)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_broken_gaussians_are_culled_and_wrong_indices_read_nothing_else():
    gaussians, *rest = animated(40, 40, torch.float32)
    broken = {name: getattr(gaussians, name).clone() for name in ("means", "quats", "scales", "bind_index")}
    broken["means"][3], broken["quats"][4], broken["scales"][5] = float("nan"), float("nan"), float("nan")
    broken["bind_index"][6], broken["bind_index"][7] = -1, 2**31 - 1
    radii, *others = native.animate_gaussians(gaussians._replace(**broken), *rest)
    assert not radii[3:6].any()
    assert all(x[:3].isfinite().all() and x[6:].isfinite().all() for x in others)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quats": torch.zeros(5, 3)}, r"quats has shape \[5, 3\]; expected \[5, 4\]"),
        ({"bind_index": torch.zeros(5, 3, dtype=torch.int64)}, "bind_index is torch.int64"),
        ({"weights": torch.zeros(5, 1, dtype=torch.float64)}, "weights is torch.float64"),
        ({"changes": torch.zeros(6, 10)}, r"changes has shape \[6, 10\]; there are 5 Gaussians"),
        ({"vertices": torch.zeros(0, 3)}, "vertices has shape.*V from 1"),
        ({"warp": torch.zeros(1, 4, 2)}, "warp has shape.*G from 2 to 1024"),
        ({"means": torch.zeros(5, 3, requires_grad=True)}, "has no gradient"),
    ],
)
def test_bad_animations_are_refused(change, message):
    gaussians, motion, *camera = animated(5, 5, torch.float32)
    gaussians = gaussians._replace(**{k: v for k, v in change.items() if k in CanonicalGaussians._fields})
    motion = motion._replace(**{k: v for k, v in change.items() if k in FrameMotion._fields})
    with pytest.raises(AvatarError, match=message):
        native.animate_gaussians(gaussians, motion, *camera)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("behind", ["nothing", "color", "picture"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_are_the_blended_picture(channels, behind, dtype):
    arguments = _projected(dtype, channels)
    width, height = arguments[-2:]
    color = torch.linspace(-0.2, 1.3, channels).to(dtype)
    background = {"nothing": None, "color": color, "picture": color.expand(height, width, channels)}[behind]
    image = native.rasterize(*arguments, background=background)[0]
    got = native.draw(*arguments, background=background)
    assert got.dtype == torch.uint8 and got.shape == image.shape
    assert ((image.clamp(0, 1) * 255) - got.to(dtype)).abs().max() <= 0.5 + 1e-3
    expected = reference.draw(*arguments, background)
    assert (got.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("threads", [1, 2])
def test_bytes_behind_many_opaque_gaussians_are_the_blended_picture(threads):
    """Far more than it takes to fill every pixel: nothing behind the last one counted may show."""
    n, g = 600, torch.Generator().manual_seed(5)
    means2d, conics = 24 * torch.rand(n, 2, generator=g), torch.tensor([0.01, 0.0, 0.01]).repeat(n, 1)
    colors, opacities = torch.rand(n, 3, generator=g), 0.2 + 0.79 * torch.rand(n, generator=g)
    arguments = means2d, conics, colors, opacities, torch.rand(n, generator=g), torch.full((n,), 30), 24, 24
    background = torch.tensor([0.0, 1.0, 0.5])
    try:
        native.set_num_threads(threads)
        got = native.draw(*arguments, background).double()
        image, alpha = native.rasterize(*arguments, background)
    finally:
        native.set_num_threads(None)
    assert alpha.min() > 0.999
    assert (image.double() * 255 - got).abs().max() <= 0.5 + 1e-3


def test_bytes_of_no_gaussians_are_the_background():
    nothing = [torch.zeros(0, *shape) for shape in ((2,), (3,), (3,), (), ())]
    background = torch.tensor([0.0, 0.5, float("nan")])
    image = native.draw(*nothing, torch.zeros(0, dtype=torch.int32), 5, 4, background)
    assert image.unique(dim=0).tolist() == [[[0, 128, 0]] * 5]


def test_operator_contracts():
    gaussians, motion, *camera = animated(9, 4)
    torch.library.opcheck(_animate, (*gaussians, *motion, *camera, 0.3))
    torch.library.opcheck(_draw, _with_whole_radii(*_projected(torch.float64), None))
