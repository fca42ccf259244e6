from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from avatar import native
from avatar.errors import AvatarError
from avatar.native import _abi, reference
from avatar.native.bin_gaussians import bin_gaussians, tile_lists
from avatar.native.library import require_library
from avatar.native.rasterize import _blend
from tests.kernels.compare import assert_same, values_and_gradients
from tests.kernels.scenes import random_scene


def _projected(n: int, dtype: torch.dtype = torch.float64, **options) -> tuple[list[Tensor], tuple]:
    """Differentiable inputs (means2d, conics, colors, opacities) and the rest (depths, radii, width, height)."""
    s = random_scene(n, **options)
    radii, means2d, depths, conics = reference.project_gaussians(
        s.means, s.quats, s.scales, s.viewmat, s.K, s.width, s.height
    )
    inputs = [x.to(dtype) for x in (means2d, conics, s.colors, s.opacities)]
    return inputs, (depths.to(dtype), radii, s.width, s.height)


def _run(backend, rest, with_background: bool = False):
    def run(means2d, conics, colors, opacities, *background):
        return backend.rasterize(means2d, conics, colors, opacities, *rest, *background)

    return run


def test_reference_gradients_are_right():
    inputs, rest = _projected(5, width=9, height=7, size=0.6)
    leaves = [x.clone().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(_run(reference, rest), leaves)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("channels", [1, 3, 4, 7])
@pytest.mark.parametrize("background", ["none", "color", "picture"])
def test_double_is_the_reference(channels, background):
    inputs, rest = _projected(80, channels=channels)
    if background != "none":
        shape = (channels,) if background == "color" else (rest[3], rest[2], channels)
        inputs.append(torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)))
    assert_same(_run(native, rest), _run(reference, rest), inputs, 1e-10)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("case", ["none", "one", "behind each other", "huge", "thin", "opaque wall", "tiny picture"])
def test_edge_cases_in_double(case):
    options = {"none": 0, "one": 1, "opaque wall": 400}
    inputs, rest = _projected(
        options.get(case, 60),
        size=40.0 if case == "huge" else 1.0,
        **({"width": 3, "height": 2} if case == "tiny picture" else {}),
    )
    means2d, conics, colors, opacities = inputs
    if case == "behind each other":
        means2d = means2d.mean(dim=0, keepdim=True).expand_as(means2d).clone()
        rest = (torch.ones_like(rest[0]), *rest[1:])  # equal depths: the order is that of the index
    if case == "thin":
        conics = torch.stack([conics[:, 0] + 3, 1.7 + 0 * conics[:, 1], 1 + 0 * conics[:, 2]], dim=-1)
    if case == "opaque wall":
        opacities = torch.ones_like(opacities)  # clamped to 0.999, and blending stops early
    assert_same(_run(native, rest), _run(reference, rest), [means2d, conics, colors, opacities], 1e-10)


@pytest.mark.usefixtures("needs_native")
def test_float_is_close_to_the_reference():
    """Pixels near the 1/255 and 1e-4 thresholds may fall on the other side: a thin band differs, by little."""
    inputs, rest = _projected(700, width=120, height=90)
    single, single_rest = _projected(700, dtype=torch.float32, width=120, height=90)
    image, alpha = _run(native, single_rest)(*single)
    expected, expected_alpha = _run(reference, rest)(*inputs)
    for got, want in ((image, expected), (alpha, expected_alpha)):
        error = (got.double() - want).abs().amax(dim=-1)
        assert error.max() < 2 / 255
        assert (error > 1e-4).float().mean() < 0.01
    gradients = values_and_gradients(_run(native, single_rest), single)[2:]
    expected_gradients = values_and_gradients(_run(reference, rest), inputs)[2:]
    for got, want in zip(gradients, expected_gradients, strict=True):
        assert (got.double() - want).norm() < 1e-2 * want.norm()


@pytest.mark.usefixtures("needs_native")
def test_empty_scene_shows_the_background():
    empty = [torch.zeros(0, k) for k in (2, 3, 3)]
    background = torch.rand(20, 33, 3)
    image, alpha = native.rasterize(
        *empty, torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.int32), 33, 20, background
    )
    assert torch.equal(image, background)
    assert not alpha.any()


@pytest.mark.usefixtures("needs_native")
def test_order_is_by_depth_not_by_index():
    means2d, conics = torch.full((2, 2), 8.0), torch.tensor([[0.01, 0, 0.01]]).expand(2, 3)
    colors, opacities = torch.eye(2), torch.full((2,), 0.9)
    radii = torch.full((2,), 30, dtype=torch.int32)
    near_second = native.rasterize(means2d, conics, colors, opacities, torch.tensor([2.0, 1.0]), radii, 16, 16)[0]
    near_first = native.rasterize(means2d, conics, colors, opacities, torch.tensor([1.0, 2.0]), radii, 16, 16)[0]
    assert near_second[8, 8, 1] > 5 * near_second[8, 8, 0]
    assert near_first[8, 8, 0] > 5 * near_first[8, 8, 1]


@pytest.mark.usefixtures("needs_native")
def test_nan_touches_nothing_else():
    inputs, rest = _projected(40, dtype=torch.float32)
    broken = [x.clone() for x in inputs]
    broken[0][7] = float("nan")
    broken[1][8] = float("nan")
    broken[3][9] = float("nan")
    kept = torch.tensor([k for k in range(40) if k not in (7, 8, 9)])
    got = _run(native, rest)(*broken)
    expected = native.rasterize(*(x[kept] for x in inputs), rest[0][kept], rest[1][kept], *rest[2:])
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.usefixtures("needs_native")
def test_radius_zero_leaves_a_gaussian_out():
    inputs, (depths, radii, *size) = _projected(30, dtype=torch.float32)
    radii[:15] = 0
    got = native.rasterize(*inputs, depths, radii, *size)
    expected = native.rasterize(*(x[15:] for x in inputs), depths[15:], radii[15:], *size)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


@pytest.mark.usefixtures("needs_native")
def test_same_bits_for_any_thread_count(any_threads):
    inputs, rest = _projected(2000, dtype=torch.float32, width=200, height=150)
    results = []
    for threads in (1, 2, 7):
        any_threads(threads)
        results.append(values_and_gradients(_run(native, rest), inputs))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("needs_native")
def test_means2d_gradient_can_be_retained():
    s = random_scene(20, dtype=torch.float32)
    means = s.means.clone().requires_grad_()
    radii, means2d, depths, conics = native.project_gaussians(
        means, s.quats, s.scales, s.viewmat, s.K, s.width, s.height
    )
    means2d.retain_grad()
    image, _ = native.rasterize(means2d, conics, s.colors, s.opacities, depths, radii, s.width, s.height)
    image.square().sum().backward()
    assert means2d.grad is not None and means2d.grad.abs().sum() > 0
    assert means.grad is not None and means.grad.abs().sum() > 0


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("width,height", [(50, 37), (16, 16), (1, 1), (300, 5)])
def test_every_pair_is_listed_once_and_in_order(width, height):
    (means2d, conics, _, opacities), (depths, radii, *_) = _projected(300, width=width, height=height)
    _, tile_offsets, ids, slots, slot_offsets = bin_gaussians(means2d, conics, opacities, depths, radii, width, height)
    assert tile_offsets[-1] == len(ids) == slot_offsets[-1]
    assert torch.equal(slots.sort().values, torch.arange(len(ids), dtype=torch.int32))
    owner = torch.bucketize(slots, slot_offsets[1:], right=True)
    assert torch.equal(owner, ids.long())
    for start, end in zip(tile_offsets[:-1].tolist(), tile_offsets[1:].tolist(), strict=True):
        assert (depths[ids[start:end].long()].diff() >= 0).all()


# Conics (but for the middle), opacity and column of Gaussians that are many tiles high. An edge of each is where
# rounding decides about the next tile: of the first with any instructions, of the second in the baseline.
ON_AN_EDGE = [
    (0.039003122597932816, 0.0008774638990871608, 0.7924609780311584, -2.4461880437920414e-11),
    (0.03857257589697838, 0.0008677777368575335, 0.7473564147949219, 1.607931995016576e-12),
]


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("isa", [_abi.ISA_BASELINE, _abi.ISA_AVX2, _abi.ISA_AVX512])
def test_a_gaussian_over_many_tiles_is_counted_as_it_is_dealt(isa, dtype):
    loaded = require_library()
    if loaded.handle.avatar_best_isa() < isa:
        pytest.skip("this machine lacks the instruction set")
    a, c, opacities, x = torch.tensor(ON_AN_EDGE, dtype=dtype).unbind(1)
    means2d, conics = torch.stack([x, torch.full_like(x, 128.5)], 1), torch.stack([a, 0 * a, c], 1)
    _, tile_offsets, ids, slots, slot_offsets = tile_lists(
        replace(loaded, isa=isa), means2d, conics, opacities, torch.ones_like(x), torch.ones(2, dtype=torch.int32),
        256, 256,
    )  # fmt: skip
    assert tile_offsets[-1] == len(ids) == slot_offsets[-1]
    assert torch.equal(slots.sort().values, torch.arange(len(ids), dtype=torch.int32))


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("with_background", [False, True])
def test_operator_contract(with_background):
    (means2d, conics, colors, opacities), (depths, radii, width, height) = _projected(20)
    tiles = bin_gaussians(means2d, conics, opacities, depths, radii, width, height)
    torch.library.opcheck(bin_gaussians, (means2d, conics, opacities, depths, radii, width, height))
    background = torch.rand(3, dtype=torch.float64, requires_grad=True) if with_background else None
    leaves = [x.clone().requires_grad_() for x in (means2d, conics, colors, opacities)]
    torch.library.opcheck(_blend, (*leaves, background, *tiles, width, height))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conics": torch.zeros(2, 3)}, r"conics has shape \[2, 3\]; expected \[3, 3\]"),
        ({"colors": torch.zeros(3, 33)}, "C from 1 to 32"),
        ({"colors": torch.zeros(3, 0)}, "C from 1 to 32"),
        ({"radii": torch.ones(3)}, "radii is torch.float32"),
        ({"background": torch.zeros(4)}, r"background has shape \[4\]; expected \[3\]"),
        ({"background": torch.zeros(8, 8, 4)}, r"background has shape \[8, 8, 4\]; expected \[8, 8, 3\]"),
        ({"width": -1}, "width -1"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {
        "means2d": torch.zeros(3, 2),
        "conics": torch.ones(3, 3),
        "colors": torch.ones(3, 3),
        "opacities": torch.ones(3),
        "depths": torch.ones(3),
        "radii": torch.ones(3, dtype=torch.int32),
        "width": 8,
        "height": 8,
    }
    with pytest.raises(AvatarError, match=message):
        native.rasterize(**{**arguments, **change})
