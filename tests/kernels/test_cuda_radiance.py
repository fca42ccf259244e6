"""The CUDA kernels of the radiance field against the references and the CPU kernels, as in test_cuda.py."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from avatar import native
from avatar.errors import AvatarError
from avatar.native import RaySamples, reference
from avatar.native.sample_rays import _points
from tests.kernels.compare import Function
from tests.kernels.cuda_backends import assert_close, compare, same_in_every_order
from tests.kernels.scenes import radiance_network, rays_at_a_head

pytestmark = pytest.mark.usefixtures("needs_native")  # the CPU kernels are what is compared with

DRAFT, STANDARD, OTHER = (36, 16, 3, 32, 15, 32), (36, 16, 3, 64, 31, 64), (11, 9, 2, 20, 7, 13)


def _network(module) -> Function:
    return lambda *inputs: module.radiance_mlp(*inputs)


@pytest.mark.parametrize("sizes", [DRAFT, OTHER], ids=["kernel", "cuBLAS"])
@pytest.mark.parametrize("n", [0, 1, 150])
def test_network_in_double_is_the_reference(emulation, n, sizes):
    compare(emulation, _network(native), _network(reference), radiance_network(n, *sizes), 1e-10)


@pytest.mark.parametrize("sizes", [DRAFT, STANDARD, OTHER], ids=["draft", "standard", "cuBLAS"])
def test_network_is_the_cpus(backend, sizes):
    compare(backend, _network(native), _network(native), radiance_network(200, *sizes, torch.float32), 1e-4)


def test_network_in_parts_of_the_samples(emulation, monkeypatch):
    monkeypatch.setattr(sys.modules["avatar.native.radiance_mlp"], "SAMPLES_AT_ONCE", 64)
    compare(emulation, _network(native), _network(reference), radiance_network(150, *DRAFT), 1e-10)


def test_network_in_every_order(emulation):
    same_in_every_order(emulation, _network(native), radiance_network(140, *DRAFT, torch.float32))


def test_the_kernel_refuses_another_network(emulation):
    features, *parameters = radiance_network(4, *OTHER, torch.float32)
    flat = torch.cat([x.flatten() for x in parameters])
    with pytest.raises(AvatarError, match=r"are 11, 9, 2, 20, 8, 13; the kernel is for 36, 16, 3, 32, 16, 32"):
        emulation.library.call("radiance_mlp", flat, features, 4, 11, 9, 2, 20, 8, 13, flat, flat, flat, flat)


STEP = 0.31
CASES = {"plain": {}, "jitter": {"jitter": 0.3}, "window": {"limits": [24.0, 33.0]}, "budget": {"budget": 150}}


def _samples(case: str, max_samples: int = 12) -> Function:
    """Samples of rays as tensors: positions, starts, ends, offsets, number of complete rays."""

    def run(origins: Tensor, directions: Tensor) -> tuple[Tensor, ...]:
        rays, like = len(origins), origins.detach()
        _, _, box, occupancy = rays_at_a_head(1)
        given = {name: x if name == "budget" else like.new_tensor(x) for name, x in CASES[case].items()}
        given = {name: x.expand(rays, *x.shape) if isinstance(x, Tensor) else x for name, x in given.items()}
        s: RaySamples = native.sample_rays(
            origins, directions, box, occupancy.to(like.device), STEP, max_samples, **given
        )
        return (*s[:4], torch.tensor(s.rays))

    return run


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rays", [0, 1, 60])
def test_samples_in_double_are_the_cpus(emulation, rays, case):
    inputs = list(rays_at_a_head(rays)[:2])
    for got, expected in zip(emulation.run(_samples(case), inputs), _samples(case)(*inputs), strict=True):
        assert got.shape == expected.shape
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


def test_rays_of_many_intervals(emulation):
    """More than a warp looks up at once, with and without a bound that is met on the way."""
    inputs = list(rays_at_a_head(20)[:2])
    for most in (40, 4096):
        got, expected = emulation.run(_samples("plain", most), inputs), _samples("plain", most)(*inputs)
        assert int(expected[3].diff().max()) > 35 and torch.equal(got[3], expected[3])
        assert_close(got[:3], list(expected[:3]), 1e-12)


def test_samples_in_float_are_the_cpus(backend):
    inputs = [x.float() for x in rays_at_a_head(300)[:2]]
    got, expected = backend.run(_samples("jitter"), inputs), _samples("jitter")(*inputs)
    counts = got[3].diff(), expected[3].diff()
    # A middle within rounding of a cell's border may be kept in one and not in the other.
    assert (counts[0] != counts[1]).double().mean() < 0.02 and (counts[0] - counts[1]).abs().max() <= 2
    radius = got[0].norm(dim=1)
    assert len(radius) > 1000 and radius.max() < 9.5


def test_positions_and_their_gradients(backend):
    origins, directions, box, occupancy = rays_at_a_head(50, torch.float32)
    s = native.sample_rays(origins, directions, box, occupancy, STEP, 40)

    def run(o: Tensor, d: Tensor) -> tuple[Tensor, ...]:
        return (_points(*(x.to(o.device) for x in (s.offsets, s.starts, s.ends)), o, d),)

    compare(backend, run, run, [origins, directions], 1e-5)


def test_samples_in_every_order(emulation):
    rays, results = list(rays_at_a_head(40, torch.float32)[:2]), []
    for order in (0, 1, 2, 3, 7):
        with emulation.order(order):
            results.append(emulation.run(_samples("budget"), rays))
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))
    same_in_every_order(emulation, lambda o, d: _samples("plain")(o, d)[:1], rays)


def test_broken_rays_have_no_samples(backend):
    origins, directions = rays_at_a_head(6, torch.float32)[:2]
    origins[1, 1] = directions[2, 2] = float("nan")
    counts = backend.run(_samples("plain"), [origins, directions])[3].diff()
    assert counts[1] == counts[2] == 0 and counts.sum() > 20
