"""The CUDA kernels against the references and the CPU kernels: emulated on the CPU, and on a GPU where there is one."""

from __future__ import annotations

import ctypes
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from avatar import native
from avatar.errors import AvatarError
from avatar.native import CanonicalGaussians, FrameMotion, _abi_cuda, cuda, reference
from avatar.native.bin_gaussians import bin_gaussians
from avatar.native.library import runs_native
from avatar.native.march_rays import _march as march_operator
from avatar.native.rasterize import _blend
from tests.kernels.compare import Function, values_and_gradients
from tests.kernels.cuda_backends import CUDA_EXT, assert_close, compare, same_in_every_order
from tests.kernels.scenes import animated, packed_rays, random_scene, skinned

pytestmark = pytest.mark.usefixtures("needs_native")  # the CPU kernels are what is compared with

RESOLUTIONS = [1, 4, 9, 40, 200]  # with 128 rows, the last two are hashed


# ---- projection ----------------------------------------------------------------------------------------------------


def _project(module, s):
    return lambda m, q, sc, v: module.project_gaussians(m, q, sc, v, s.K.to(m.device), s.width, s.height)


@pytest.mark.parametrize("n", [0, 1, 128, 300])
def test_projection_in_double_is_the_reference(emulation, n):
    s = random_scene(n)
    inputs = [s.means, s.quats, s.scales, s.viewmat]
    radii = emulation.run(_project(native, s), inputs)[0]
    assert torch.equal(radii, _project(reference, s)(*inputs)[0])
    compare(emulation, _project(native, s), _project(reference, s), inputs, 1e-10)


def test_projection_is_the_cpus(backend):
    s = random_scene(500, dtype=torch.float32)
    inputs = [s.means, s.quats, s.scales, s.viewmat]
    radii, expected = backend.run(_project(native, s), inputs)[0], _project(native, s)(*inputs)[0]
    assert ((radii > 0) == (expected > 0)).all() and (radii - expected).abs().max() <= 1
    compare(backend, _project(native, s), _project(native, s), inputs, 2e-4)


def test_culled_gaussians_get_zeros(backend):
    s = random_scene(20, dtype=torch.float32)
    means, quats = s.means.clone(), s.quats.clone()
    means[3], quats[5] = float("nan"), 0.0
    means[4, 2] = -1000.0
    results = backend.values_and_gradients(_project(native, s), [means, quats, s.scales, s.viewmat])
    for x in results[:-1]:
        assert not x[3:6].any() and x.isfinite().all()
    assert results[-1].isfinite().all()


def test_projection_in_every_order(emulation):
    s = random_scene(300, dtype=torch.float32)
    same_in_every_order(emulation, _project(native, s), [s.means, s.quats, s.scales, s.viewmat])


# ---- skinning ------------------------------------------------------------------------------------------------------


def _skin(module) -> Function:
    return lambda *inputs: module.skin_gaussians(*inputs)


@pytest.mark.parametrize("n", [0, 1, 128, 300])
def test_skinning_in_double_is_the_reference(emulation, n):
    compare(emulation, _skin(native), _skin(reference), skinned(n), 1e-10)


def test_skinning_is_the_cpus(backend):
    compare(backend, _skin(native), _skin(native), skinned(500, torch.float32), 2e-5)


def test_skinning_in_every_order(emulation):
    same_in_every_order(emulation, _skin(native), skinned(300, torch.float32))


# ---- playback ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 128, 300])
def test_animation_in_double_is_the_reference(emulation, n):
    arguments = animated(n, n // 2)
    with emulation.active():
        got = native.animate_gaussians(*arguments)
    for x, y in zip(got, reference.animate_gaussians(*arguments), strict=True):
        torch.testing.assert_close(x, y.to(x.dtype), rtol=1e-9, atol=1e-9)


def test_animation_is_the_cpus(backend):
    gaussians, motion, view, K, width, height = animated(500, 300, torch.float32)
    inputs = [*gaussians, *motion, view, K]

    def run(*x: Tensor) -> tuple[Tensor, ...]:
        return native.animate_gaussians(CanonicalGaussians(*x[:8]), FrameMotion(*x[8:14]), *x[14:], width, height)

    got, expected = backend.run(run, inputs), run(*inputs)
    seen = (got[0] > 0) & (expected[0] > 0)
    assert (seen == (expected[0] > 0)).float().mean() > 0.99
    assert_close([x[seen] for x in got[1:]], [x[seen] for x in expected[1:]], 2e-4)


@pytest.mark.parametrize("case", ["some", "none", "odd size"])
def test_bytes_are_the_cpus(backend, case):
    inputs, (depths, radii), width, height = _projected(case, torch.float32)
    background = torch.tensor([0.2, 0.4, 1.7])

    def run(*x: Tensor) -> tuple[Tensor]:
        return (native.draw(*x[:6], width, height, x[6]),)

    tensors = [*inputs, depths, radii, background]
    (got,), (expected,) = backend.run(run, tensors), run(*tensors)
    assert (got.int() - expected.int()).abs().max() <= 1


# ---- tri-planes ----------------------------------------------------------------------------------------------------


def _planes(n: int, features: int, rows: int = 128, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    points = torch.rand(n, 3, generator=g, dtype=torch.float64) * 2.3 - 1.15  # some outside
    points[: n // 3] *= 0.02  # many in one cell
    table = torch.randn(3, len(RESOLUTIONS), rows, features, generator=g, dtype=torch.float64)
    return [points.to(dtype), table.to(dtype)]


def _encode(module):
    return lambda points, table: (module.triplane_encode(points, table, RESOLUTIONS),)


@pytest.mark.parametrize("features", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [0, 1, 150])
def test_triplane_in_double_is_the_reference(emulation, n, features):
    compare(emulation, _encode(native), _encode(reference), _planes(n, features, 100 + 28 * (n % 2)), 1e-10)


@pytest.mark.parametrize("features", [2, 3])
def test_triplane_is_the_cpus(backend, features):
    compare(backend, _encode(native), _encode(native), _planes(300, features, dtype=torch.float32), 1e-4)


def test_triplane_encoding_in_every_order(emulation):
    points, table = _planes(140, 2, dtype=torch.float32)
    same_in_every_order(emulation, lambda points: _encode(native)(points, table), [points])


@pytest.mark.parametrize("wanted", [0, 1])
def test_triplane_makes_only_wanted_gradients(backend, wanted):
    inputs = _planes(50, 2, dtype=torch.float32)
    with backend.active():
        leaves = [x.to(backend.device).requires_grad_(i == wanted) for i, x in enumerate(inputs)]
        (gradient,) = torch.autograd.grad(_encode(native)(*leaves)[0].square().sum(), leaves[wanted])
    leaves = [x.clone().requires_grad_() for x in inputs]
    expected = torch.autograd.grad(_encode(native)(*leaves)[0].square().sum(), leaves)[wanted]
    assert_close([gradient.cpu()], [expected], 1e-4)


# ---- tile lists ----------------------------------------------------------------------------------------------------

SCENES = {
    "some": {"n": 200},
    "none": {"n": 0},
    "one": {"n": 1},
    "huge": {"n": 20, "size": 40.0},
    "small picture": {"n": 30, "width": 3, "height": 2},
    "odd size": {"n": 150, "width": 131, "height": 17, "size": 2.0},
}


def _projected(case: str, dtype: torch.dtype, channels: int = 3) -> tuple[list[Tensor], list[Tensor], int, int]:
    """means2d, conics, colors, opacities; depths, radii; width, height."""
    s = random_scene(channels=channels, **SCENES[case])
    radii, means2d, depths, conics = reference.project_gaussians(
        s.means, s.quats, s.scales, s.viewmat, s.K, s.width, s.height
    )
    inputs = [x.to(dtype) for x in (means2d, conics, s.colors, s.opacities)]
    return inputs, [depths.to(dtype), radii], s.width, s.height


def _bin(width: int, height: int) -> Function:
    return lambda *tensors: bin_gaussians(*tensors, width, height)


@pytest.mark.parametrize("case", SCENES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tile_lists_are_the_cpus(backend, case, dtype):
    if backend.name == "gpu" and dtype == torch.float64:
        pytest.skip("float32 only")
    (means2d, conics, _, opacities), (depths, radii), width, height = _projected(case, dtype)
    if case == "some":  # off screen, broken, without opacity, thin, and equal depths
        means2d[3], means2d[4] = 1e6, float("nan")
        opacities[5], conics[6, 0] = 1e-4, float("nan")
        conics[7:20] = torch.tensor([4.0, 1.9999, 1.0])
        depths[50:90] = 30.0
        radii[3:20] = 5
    inputs = [means2d, conics, opacities, depths, radii]
    for got, expected in zip(backend.run(_bin(width, height), inputs), _bin(width, height)(*inputs), strict=True):
        assert torch.equal(got, expected)


def test_negative_depths_are_sorted(backend):
    means2d, conics = torch.full((6, 2), 8.0), torch.tensor([[0.01, 0, 0.01]]).repeat(6, 1)
    depths = torch.tensor([3.0, -1.0, 0.0, -7.5, 1e-3, -1e-3])
    inputs = [means2d, conics, torch.full((6,), 0.9), depths, torch.full((6,), 30, dtype=torch.int32)]
    assert backend.run(_bin(16, 16), inputs)[2].tolist() == [3, 1, 5, 2, 4, 0]


@pytest.mark.parametrize("spare", [0, 1, 1000])
def test_a_fixed_capacity_gives_the_same_lists(backend, spare):
    (means2d, conics, _, opacities), (depths, radii), width, height = _projected("odd size", torch.float32)
    inputs = [means2d, conics, opacities, depths, radii]
    expected = _bin(width, height)(*inputs)
    pairs = len(expected[2])
    with native.pair_capacity(pairs + spare) as capacity:
        got = backend.run(_bin(width, height), inputs)
        assert not capacity.overflowed()
    for x, y in zip(got, expected, strict=True):
        assert torch.equal(x[: len(y)], y)
    assert len(got[2]) == pairs + spare


@pytest.mark.parametrize("capacity", [1, 33, 100])
def test_too_many_pairs_are_flagged_and_left_out(backend, capacity):
    inputs, rest, width, height = _projected("some", torch.float32)
    with native.pair_capacity(capacity) as fixed:
        results = backend.values_and_gradients(_rasterize(native, rest, width, height), inputs)
        assert fixed.overflowed()
    assert all(x.isfinite().all() for x in results)
    with native.pair_capacity(100_000) as fixed:
        results = backend.values_and_gradients(_rasterize(native, rest, width, height), inputs)
        assert not fixed.overflowed()
    assert_close(results, values_and_gradients(_rasterize(native, rest, width, height), inputs), 1e-4)


def test_a_capacity_is_a_number_of_pairs():
    with pytest.raises(AvatarError, match=r"pair_capacity\(0\)"):
        native.pair_capacity(0)


# ---- blending ------------------------------------------------------------------------------------------------------


def _rasterize(module, rest: list[Tensor], width: int, height: int) -> Function:
    def run(means2d, conics, colors, opacities, *background):
        depths, radii = (x.to(means2d.device) for x in rest)
        return module.rasterize(means2d, conics, colors, opacities, depths, radii, width, height, *background)

    return run


def _background(kind: str, channels: int, width: int, height: int, dtype: torch.dtype) -> list[Tensor]:
    if kind == "none":
        return []
    shape = (channels,) if kind == "color" else (height, width, channels)
    return [torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).to(dtype)]


@pytest.mark.parametrize("background", ["none", "color", "picture"])
@pytest.mark.parametrize("channels", [1, 3, 4, 7, 9])
def test_blending_in_double_is_the_reference(emulation, channels, background):
    inputs, rest, width, height = _projected("some", torch.float64, channels)
    inputs += _background(background, channels, width, height, torch.float64)
    run = [_rasterize(module, rest, width, height) for module in (native, reference)]
    compare(emulation, *run, inputs, 1e-9)


@pytest.mark.parametrize("case", ["none", "one", "huge", "small picture", "odd size", "one place", "thin", "wall"])
def test_blending_edge_cases_in_double(emulation, case):
    inputs, rest, width, height = _projected(case if case in SCENES else "some", torch.float64)
    means2d, conics, colors, opacities = inputs
    if case == "one place":  # equal depths: the order is that of the index
        means2d = means2d.mean(dim=0, keepdim=True).expand_as(means2d).clone()
        rest = [torch.ones_like(rest[0]), rest[1]]
    if case == "thin":
        conics = torch.stack([conics[:, 0] + 3, 1.7 + 0 * conics[:, 1], 1 + 0 * conics[:, 2]], dim=-1)
    if case == "wall":
        opacities = torch.ones_like(opacities)  # clamped to 0.999, and blending stops early
    run = [_rasterize(module, rest, width, height) for module in (native, reference)]
    compare(emulation, *run, [means2d, conics, colors, opacities], 1e-9)


def _long_lists(channels: int) -> tuple[list[Tensor], list[Tensor], int, int]:
    """As _projected: more Gaussians in a tile than a block loads at once, faint enough to blend all of them."""
    g = torch.Generator().manual_seed(3)
    n, width, height = 700, 20, 18
    means2d = torch.rand(n, 2, generator=g, dtype=torch.float64) * torch.tensor([20.0, 18.0])
    conics = torch.tensor([[0.05, 0.01, 0.07]], dtype=torch.float64).repeat(n, 1)
    opacities = 0.006 + 0.03 * torch.rand(n, generator=g, dtype=torch.float64)
    colors = torch.rand(n, channels, generator=g, dtype=torch.float64)
    rest = [torch.rand(n, generator=g, dtype=torch.float64), torch.full((n,), 9, dtype=torch.int32)]
    return [means2d, conics, colors, opacities], rest, width, height


@pytest.mark.parametrize("channels", [3, 4, 12])
def test_long_lists(backend, channels):
    inputs, rest, width, height = _long_lists(channels)
    if backend.name == "emulated":
        run = [_rasterize(module, rest, width, height) for module in (native, reference)]
        compare(backend, *run, inputs, 1e-9)
    run = _rasterize(native, [rest[0].float(), rest[1]], width, height)
    compare(backend, run, run, [x.float() for x in inputs], 2e-4)


@pytest.mark.parametrize("case", ["some", "odd size", "huge"])
@pytest.mark.parametrize("background", ["none", "picture"])
def test_blending_is_the_cpus(backend, case, background):
    """Pixels near the 1/255 and 1e-4 thresholds may fall on the other side."""
    inputs, rest, width, height = _projected(case, torch.float32)
    inputs += _background(background, 3, width, height, torch.float32)
    run = _rasterize(native, rest, width, height)
    got, expected = backend.values_and_gradients(run, inputs), values_and_gradients(run, inputs)
    for x, y in zip(got[:2], expected[:2], strict=True):
        error = (x - y).abs()
        assert error.max() < 2 / 255
        assert (error > 1e-4).float().mean() < 0.01
    for x, y in zip(got[2:], expected[2:], strict=True):
        assert (x - y).norm() <= 1e-2 * y.norm()


def test_nan_touches_nothing_else(backend):
    inputs, rest, width, height = _projected("some", torch.float32)
    broken = [x.clone() for x in inputs]
    broken[0][7] = broken[1][8] = broken[3][9] = float("nan")
    left_out = rest[1].clone()
    left_out[7:10] = 0
    got = backend.run(_rasterize(native, rest, width, height), broken)
    expected = backend.run(_rasterize(native, [rest[0], left_out], width, height), inputs)
    assert_close(got, expected, 1e-6)


@pytest.mark.parametrize("case", ["odd size", "long lists"])
def test_blending_in_every_order(emulation, case):
    inputs, rest, width, height = _long_lists(3) if case == "long lists" else _projected(case, torch.float64)
    run = _rasterize(native, [rest[0].float(), rest[1]], width, height)
    same_in_every_order(emulation, run, [x.float() for x in inputs])


# ---- similarity ----------------------------------------------------------------------------------------------------


def _pictures(height: int, width: int, channels: int, dtype: torch.dtype) -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    a = torch.rand(height, width, channels, generator=g, dtype=torch.float64)
    b = 0.7 * a + 0.3 * torch.rand(height, width, channels, generator=g, dtype=torch.float64)
    return [a.to(dtype), b.to(dtype)]


def _ssim(module) -> Function:
    return lambda a, b: (module.ssim(a, b),)


@pytest.mark.parametrize("shape", [(33, 47, 3), (1, 1, 1), (4, 3, 3), (11, 64, 1), (40, 16, 4)])
def test_ssim_in_double_is_the_reference(emulation, shape):
    compare(emulation, _ssim(native), _ssim(reference), _pictures(*shape, torch.float64), 1e-10)


def test_ssim_is_the_cpus(backend):
    compare(backend, _ssim(native), _ssim(native), _pictures(33, 47, 3, torch.float32), 1e-4)


def test_ssim_in_every_order(emulation):
    same_in_every_order(emulation, _ssim(native), _pictures(20, 19, 2, torch.float32))


@pytest.mark.parametrize("ssim_weight", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(("shape", "weighted"), [((33, 21, 3), True), ((5, 4, 1), False)])
def test_picture_loss(backend, shape, weighted, ssim_weight):
    dtype = torch.float64 if backend.name == "emulated" else torch.float32
    a, b = _pictures(*shape, dtype)
    b[0, 0] = a[0, 0]  # no slope where the pictures are equal
    weight = torch.rand(*shape[:2], 1, dtype=dtype) if weighted else None
    a.requires_grad_()
    difference, similarity = ((a - b).abs() * (1 if weight is None else weight)).mean(), reference.ssim(a, b)
    loss = (1 - ssim_weight) * difference + ssim_weight * (1 - similarity)
    loss.backward()
    assert a.grad is not None
    expected = torch.stack([loss, difference, similarity, (a - b).square().mean()]).detach()

    def ours(a: Tensor, b: Tensor, *weight: Tensor) -> tuple[Tensor, ...]:
        return native.l1_ssim(a, b, ssim_weight, *weight)

    def on_device(a: Tensor) -> tuple[Tensor, ...]:
        return ours(a, *(x.to(a) for x in inputs[1:]))[:1]

    inputs = [a.detach(), b] if weight is None else [a.detach(), b, weight]
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    assert_close([torch.stack(backend.run(ours, inputs))], [expected], tolerance)
    _, gradient = backend.values_and_gradients(on_device, inputs[:1])
    (weighting,) = torch.randn((), generator=torch.Generator().manual_seed(1), dtype=torch.float64).reshape(1)
    assert_close([gradient], [a.grad * weighting.to(dtype)], tolerance)


# ---- Adam, deformation ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 5000])
def test_adam_is_the_reference(backend, n):
    g = torch.Generator().manual_seed(0)
    param = torch.randn(n, generator=g)
    ours = [param.to(backend.device, copy=True), *(torch.zeros(n, device=backend.device) for _ in range(2))]
    theirs = [param.clone(), torch.zeros(n), torch.zeros(n)]
    for step in range(1, 6):
        grad = torch.randn(n, generator=g)
        with backend.active():
            native.adam_step(ours[0], grad.to(backend.device), *ours[1:], 1e-2, 0.9, 0.99, 1e-12, step)
        reference.adam_step(theirs[0], grad, *theirs[1:], 1e-2, 0.9, 0.99, 1e-12, step)
    assert_close([x.cpu() for x in ours], theirs, 2e-6)


def _network(n: int, hidden: int, outputs: int) -> list[Tensor]:
    """code, condition, then weight and bias of the middle and of the last layer, scale."""
    g = torch.Generator().manual_seed(0)
    shapes = [(n, 2 * hidden), (hidden,), (hidden, hidden), (hidden,), (outputs, hidden), (outputs,), (outputs,)]
    return [torch.randn(shape, generator=g) for shape in shapes]


@pytest.mark.parametrize("hidden", [64, 20])
def test_training_the_deformation_network(backend, hidden):
    """The wide layers are cuBLAS's: forward in the kernel's float, gradients against autograd of the reference."""
    dtype = torch.float64 if backend.name == "emulated" else torch.float32
    g = torch.Generator().manual_seed(2)
    shapes = [(40, 24), (2 * hidden, 24), (2 * hidden,), (hidden,), (hidden, hidden), (hidden,), (10, hidden), (10,)]
    inputs = [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]
    scale = torch.rand(10, generator=g, dtype=torch.float64).to(dtype)

    def run(module) -> Function:
        return lambda *x: (module.deform_mlp(*x, scale.to(x[0])),)

    compare(backend, run(native), run(reference), inputs, 1e-10 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize(
    ("n", "hidden", "outputs"),
    [(0, 64, 10), (1, 64, 10), (300, 64, 10), (131, 64, 16), (64, 64, 1), (40, 64, 12), (9, 32, 10), (9, 64, 17)],
)
def test_deformation_network(backend, n, hidden, outputs):
    inputs = _network(n, hidden, outputs)
    code, condition, w1, b1, w2, b2, scale = inputs
    active = F.relu(code[:, :hidden] + code[:, hidden:] * condition)
    expected = F.linear(F.relu(F.linear(active, w1, b1)), w2, b2) * scale
    assert_close(backend.run(lambda *x: (native.deform_code(*x),), inputs), [expected], 1e-5)


def test_a_bfloat16_code_is_converted(backend):
    code, *layers = _network(40, 64, 10)
    half = backend.run(lambda code, *x: (native.deform_code(code.bfloat16(), *x),), [code, *layers])
    assert_close(half, backend.run(lambda *x: (native.deform_code(*x),), [code.bfloat16().float(), *layers]), 0)


def test_deformation_in_every_order(emulation):
    results = []
    for order in (0, 1, 2, 3):
        with emulation.order(order):
            results += emulation.run(lambda *x: (native.deform_code(*x),), _network(200, 64, 10))
    assert all(torch.equal(results[0], x) for x in results[1:])


def test_the_kernel_refuses_another_width(emulation):
    tensors = _network(4, 32, 10)
    with pytest.raises(AvatarError, match="64 hidden channels"):
        emulation.library.call("deform_code", tensors[0], *tensors, 4, 32, 10, torch.zeros(4, 10))


# ---- rays ----------------------------------------------------------------------------------------------------------


def _march(module, offsets: Tensor, starts: Tensor, ends: Tensor) -> Function:
    return lambda densities, colors: module.march_rays(
        *(x.to(colors.device) for x in (offsets, starts, ends)), densities, colors
    )


COUNTS = [0, 5, 32, 0, 33, 100, 1, 64, 3, 0]


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("counts", [COUNTS, [0], [], [7]], ids=["many", "empty ray", "no ray", "one"])
def test_marching_in_double_is_the_reference(emulation, counts, channels):
    offsets, (starts, ends, *inputs) = packed_rays(counts, channels, torch.float64)
    run = [_march(module, offsets, starts, ends) for module in (native, reference)]
    compare(emulation, *run, inputs, 1e-10)


def test_marching_in_float(backend):
    offsets, (starts, ends, *inputs) = packed_rays(COUNTS, 3, torch.float32)
    run = [_march(module, offsets, starts, ends) for module in (native, reference)]
    compare(backend, *run, inputs, 1e-4)


# ---- library -------------------------------------------------------------------------------------------------------


def _script(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, CUDA_EXT / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bindings_match_the_header():
    module = _script("generate_abi")
    assert Path(_abi_cuda.__file__).read_text() == module.generate_cuda(module.CUDA_HEADER.read_text())


def test_operator_contracts(emulation):
    (means2d, conics, colors, opacities), (depths, radii), width, height = _projected("one", torch.float64)
    offsets, (starts, ends, densities, rgb) = packed_rays([3, 0, 2], 3, torch.float64)
    with emulation.active():
        tiles = bin_gaussians(means2d, conics, opacities, depths, radii, width, height)
        leaves = [x.clone().requires_grad_() for x in (means2d, conics, colors, opacities)]
        torch.library.opcheck(_blend, (*leaves, None, *tiles, width, height))
        samples = (densities.requires_grad_(), rgb.requires_grad_())
        torch.library.opcheck(march_operator, (offsets, starts, ends, *samples))


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="c++filt tells the names of kernels")
@pytest.mark.parametrize(
    ("registers", "spilled", "problem"),
    [(40, 0, None), (48, 0, None), (49, 0, "takes 49 registers on sm_86, was 40"), (40, 8, "spills 8 bytes on sm_86")],
)
def test_register_report(tmp_path, monkeypatch, capsys, registers, spilled, problem):
    module = _script("registers")
    monkeypatch.setattr(module, "TABLE", tmp_path / "registers.txt")
    log = (
        "ptxas info    : Compiling entry function '_ZN6avatar4cuda12_GLOBAL__N_111some_kernelIfEEvPT_' for 'sm_86'\n"
        "    0 bytes stack frame, {} bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used {} registers, used 1 barriers\n"
    )
    (tmp_path / "log").write_text(log.format(0, 40))
    assert module.main([str(tmp_path / "log"), "--update"]) == 0
    (tmp_path / "log").write_text(log.format(spilled, registers))
    assert module.main([str(tmp_path / "log")]) == (1 if problem else 0)
    assert (problem or "") in capsys.readouterr().err


def test_refusals_become_errors(emulation):
    x = torch.zeros(4)
    with emulation.active():
        with pytest.raises(AvatarError, match="n, step are 4, 0"):
            emulation.library.call("adam_step", x, x, x, x, x, 4, 0.1, 0.9, 0.9, 1e-8, 0)
        with pytest.raises(AvatarError, match="float16 is not supported"):
            emulation.library.call("adam_step", x.half(), x, x, x, x, 4, 0.1, 0.9, 0.9, 1e-8, 1)


def test_without_the_library_the_error_says_how_to_build_it(monkeypatch):
    monkeypatch.setattr(cuda, "_load", cuda._load.__wrapped__)
    monkeypatch.setenv("AVATAR_NATIVE_CUDA", "/nowhere/cuda.so")
    assert "not built" in native.cuda_status() and "/nowhere/cuda.so" in native.cuda_status()
    elsewhere = torch.empty(1, device="meta")  # stands for a GPU's tensor
    with pytest.raises(AvatarError, match=r"/nowhere/cuda.so.*nvcc.*AVATAR_CUDA=1"):
        runs_native(elsewhere)
    with pytest.raises(AvatarError, match="on meta"):
        native.ssim(torch.empty(4, 4, 3, device="meta"), torch.empty(4, 4, 3, device="meta"))
    monkeypatch.setenv("AVATAR_NATIVE", "reference")
    assert not runs_native(elsewhere)


def test_a_file_that_is_no_library_says_so(tmp_path):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    assert "does not load" in str(cuda.open_library(broken))


@pytest.mark.parametrize(("which", "message"), [(0, "barrier"), (1, "warp function"), (2, "not in the mask")])
def test_the_emulation_finds_misuse(emulation, which, message):
    fault = emulation.library.handle.emulation_run_fault
    fault.restype = ctypes.c_char_p
    assert message in fault(which, None).decode()


def test_the_emulation_shows_missing_barriers(emulation):
    fault, results = emulation.library.handle.emulation_run_fault, []
    fault.restype = ctypes.c_char_p
    for order in (0, 1):
        out = (ctypes.c_int * 64)()
        with emulation.order(order):
            assert fault(3, out) is None
        results.append(list(out))
    assert results[0] != results[1]
