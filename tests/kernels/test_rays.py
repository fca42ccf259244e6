from __future__ import annotations

import pytest
import torch

from avatar import native
from avatar.errors import AvatarError
from avatar.native import pack_occupancy, reference
from avatar.native.sample_rays import _points, _sample
from tests.kernels.scenes import rays_at_a_head

STEP = 0.31


def _options(case: str, rays: int, dtype: torch.dtype = torch.float64) -> dict[str, object]:
    g = torch.Generator().manual_seed(3)
    near = 20 + 8 * torch.rand(rays, 1, generator=g, dtype=torch.float64)
    limits, jitter = torch.cat([near, near + 9], 1).to(dtype), torch.rand(rays, generator=g, dtype=torch.float64)
    return {
        "plain": {},
        "jitter": {"jitter": jitter.to(dtype)},
        "window": {"limits": limits},
        "budget": {"budget": 500, "jitter": jitter.to(dtype)},
    }[case]


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("case", ["plain", "jitter", "window", "budget"])
@pytest.mark.parametrize("rays", [0, 1, 200])
def test_double_is_the_reference(rays, case):
    origins, directions, box, occupancy = rays_at_a_head(rays)
    options = _options(case, rays)
    got = native.sample_rays(origins, directions, box, occupancy, STEP, 12, **options)
    flat = [x for corner in box for x in corner]
    expected = reference.sample_rays(origins, directions, flat, occupancy, STEP, 12, **options)
    assert got.rays == expected[-1] and torch.equal(got.offsets, expected[3])
    for x, y in zip(got[:3], expected[:3], strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("needs_native")
def test_float_is_close_to_the_reference():
    origins, directions, box, occupancy = rays_at_a_head(500)
    exact = native.sample_rays(origins, directions, box, occupancy, STEP, 64)
    got = native.sample_rays(origins.float(), directions.float(), box, occupancy, STEP, 64)
    # An interval whose middle lies within rounding of a cell's border may be kept in one and not in the other.
    counts = got.offsets.diff(), exact.offsets.diff()
    assert (counts[0] != counts[1]).double().mean() < 0.02 and (counts[0] - counts[1]).abs().max() <= 2


def test_a_ray_by_hand():
    """Along x through cells of 1 cm: those from 2 to 3 and from 5 to 7 are set; the box begins 10 cm away."""
    occupied = torch.zeros(1, 1, 8, dtype=torch.bool)
    occupied[0, 0, [2, 5, 6]] = True
    origin, direction = torch.tensor([[-10.0, 0.5, 0.5]]), torch.tensor([[1.0, 0.0, 0.0]])
    arguments = (origin, direction, [[0, 0, 0], [8, 1, 1]], pack_occupancy(occupied), 0.5)
    s = native.sample_rays(*arguments, 16)
    torch.testing.assert_close(s.starts, torch.tensor([12.0, 12.5, 15.0, 15.5, 16.0, 16.5]))
    torch.testing.assert_close(s.ends, s.starts + 0.5)
    torch.testing.assert_close(s.positions[:, 0], s.starts - 9.75)
    assert s.offsets.tolist() == [0, 6] and s.rays == 1
    assert len(native.sample_rays(*arguments, 3).starts) == 3
    moved = native.sample_rays(*arguments, 16, jitter=torch.tensor([0.2]))
    torch.testing.assert_close(moved.starts, s.starts + 0.1)
    window = native.sample_rays(*arguments, 16, limits=torch.tensor([[12.3, 15.5]]))
    torch.testing.assert_close(window.starts, torch.tensor([12.3, 14.8]))


@pytest.mark.parametrize("module", [native, reference], ids=["native", "reference"])
def test_rays_that_do_not_fit_have_no_samples(module):
    """Three rays of 4 samples, one beside the box, another one: only so many as the budget takes whole."""
    occupancy = torch.full((2, 2, 1), 255, dtype=torch.uint8)
    box = [[0, 0, 0], [8, 2, 2]] if module is native else [0, 0, 0, 8, 2, 2]
    origins = torch.tensor([[-1.0, 1.5, 1.5]]).repeat(5, 1)
    origins[3, 1] = 7.0
    arguments = (origins, torch.tensor([[1.0, 0, 0]]).repeat(5, 1), box, occupancy, 2.0, 4)
    for budget, offsets, rays in (
        (None, [0, 4, 8, 12, 12, 16], 5), (16, [0, 4, 8, 12, 12, 16], 5), (15, [0, 4, 8, 12, 12, 12], 4),
        (11, [0, 4, 8, 8, 8, 8], 2), (3, [0] * 6, 0),
    ):  # fmt: skip
        positions, starts, _, got, complete = module.sample_rays(*arguments, budget=budget)
        assert got.tolist() == offsets and complete == rays
        assert len(positions) == len(starts) == offsets[-1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("module", [native, reference], ids=["native", "reference"])
def test_broken_rays_have_no_samples(module, dtype):
    occupancy = torch.full((2, 2, 1), 255, dtype=torch.uint8)
    box = [[0, 0, 0], [8, 2, 2]] if module is native else [0, 0, 0, 8, 2, 2]
    origins = torch.tensor([[-1.0, 0.5, 0.5]], dtype=dtype).repeat(8, 1)
    directions = torch.tensor([[1.0, 0.0, 0.0]], dtype=dtype).repeat(8, 1)
    limits, jitter = torch.tensor([[0.0, 100.0]], dtype=dtype).repeat(8, 1), torch.zeros(8, dtype=dtype)
    nan = float("nan")
    origins[1, 1] = directions[2, 2] = limits[3, 0] = limits[4, 1] = jitter[5] = nan
    directions[6], limits[7] = torch.tensor([-1.0, 0.0, 0.0]), torch.tensor([5.0, 2.0])
    offsets = module.sample_rays(origins, directions, box, occupancy, 1.0, 64, limits=limits, jitter=jitter)[3]
    assert offsets.diff().tolist() == [8, 0, 0, 0, 0, 0, 0, 0]


@pytest.mark.usefixtures("needs_native")
def test_the_samples_of_a_sphere_lie_in_it():
    """Independent of the reference: kept intervals are those whose middle is in a set cell of the sphere."""
    origins, directions, box, occupancy = rays_at_a_head(400)
    s = native.sample_rays(origins, directions, box, occupancy, STEP, 200)
    radius = s.positions.norm(dim=1)
    assert len(radius) > 2000 and radius.max() < 9.5
    length = torch.zeros(400, dtype=torch.float64).index_add(
        0, torch.repeat_interleave(torch.arange(400), s.offsets.diff().long()), s.ends - s.starts
    )
    beside = torch.linalg.cross(origins, directions).norm(dim=1)  # distance of each ray from the centre
    chord = 2 * (9.0**2 - beside**2).clamp_min(0).sqrt()
    assert (length - chord).abs().mean() < 0.5


@pytest.mark.usefixtures("needs_native")
def test_positions_are_differentiable_in_the_rays():
    origins, directions, box, occupancy = rays_at_a_head(20)
    leaves = [origins.requires_grad_(), directions.requires_grad_()]
    s = native.sample_rays(*leaves, box, occupancy, STEP, 5)
    fixed = (s.offsets, s.starts, s.ends)
    assert torch.autograd.gradcheck(lambda o, d: _points(*fixed, o, d), leaves)
    expected = reference.sample_rays(*leaves, [x for corner in box for x in corner], occupancy, STEP, 5)[0]
    weight = torch.rand(expected.shape, dtype=torch.float64)
    for got, want in zip(
        torch.autograd.grad(s.positions, leaves, weight), torch.autograd.grad(expected, leaves, weight), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("needs_native")
def test_same_bits_for_any_thread_count(any_threads):
    origins, directions, box, occupancy = rays_at_a_head(700, torch.float32)
    results = []
    for threads in (1, 2, 7):
        any_threads(threads)
        leaves = [origins.clone().requires_grad_(), directions.clone().requires_grad_()]
        s = native.sample_rays(*leaves, box, occupancy, STEP, 12, budget=4000)
        results.append([*s[:4], *torch.autograd.grad(s.positions.square().sum(), leaves)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("needs_native")
def test_operator_contract():
    origins, directions, box, occupancy = rays_at_a_head(6)
    flat = [x for corner in box for x in corner]
    torch.library.opcheck(_sample, (origins, directions, flat, occupancy, STEP, 5, None, None, None))
    starts, ends, offsets, _ = _sample(origins, directions, flat, occupancy, STEP, 5, None, None, 20)
    torch.library.opcheck(_points, (offsets, starts, ends, origins.requires_grad_(), directions.requires_grad_()))


def test_occupancy_is_packed_along_x():
    occupied = torch.zeros(2, 3, 16, dtype=torch.bool)
    occupied[1, 2, 11] = occupied[1, 2, 8] = occupied[0, 0, 7] = True
    packed = pack_occupancy(occupied)
    assert packed.shape == (2, 3, 2) and packed[1, 2].tolist() == [0, 9] and packed[0, 0].tolist() == [128, 0]
    for wrong in (occupied[:, :, :12], occupied.byte(), occupied[0]):
        with pytest.raises(AvatarError, match="occupied"):
            pack_occupancy(wrong)
