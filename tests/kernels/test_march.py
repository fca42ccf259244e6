from __future__ import annotations

import pytest
import torch
from torch import Tensor

from avatar import native
from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.march_rays import _march
from tests.kernels.compare import assert_same, values_and_gradients
from tests.kernels.scenes import packed_rays

COUNTS = [0, 5, 64, 0, 65, 300, 1, 128, 3, 0]


def _run(module, offsets: Tensor, starts: Tensor, ends: Tensor):
    return lambda densities, colors: module.march_rays(offsets, starts, ends, densities, colors)


def _compare(offsets: Tensor, samples: list[Tensor], tolerance: float) -> None:
    starts, ends, *inputs = samples
    assert_same(_run(native, offsets, starts, ends), _run(reference, offsets, starts, ends), inputs, tolerance)


def test_reference_gradients_are_right():
    offsets, (starts, ends, *inputs) = packed_rays([0, 3, 4, 0], 2)
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(_run(reference, offsets, starts, ends), leaves)


@pytest.mark.usefixtures("needs_native")
def test_native_gradients_are_right():
    offsets, (starts, ends, *inputs) = packed_rays([2, 0, 5], 3)
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(_run(native, offsets, starts, ends), leaves)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("channels", [1, 3, 5, 32])
@pytest.mark.parametrize(
    "counts", [COUNTS, [0], [], [7], [1] * 200], ids=["many", "empty ray", "no ray", "one", "short"]
)
def test_double_is_the_reference(counts, channels):
    offsets, samples = packed_rays(counts, channels)
    samples[2] += 0.01  # the depth of next to nothing is ill-conditioned
    _compare(offsets, samples, 1e-10)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("dtype,tolerance", [(torch.float64, 1e-10), (torch.float32, 2e-5)])
@pytest.mark.parametrize("density", [0.0, 1e-6, 0.4, 5.0, 1e3, 1e30])
def test_thin_air_and_walls(density, dtype, tolerance):
    offsets, samples = packed_rays([1, 70, 130], 3, dtype)
    samples[2] = samples[2] * density
    _compare(offsets, samples, tolerance)


@pytest.mark.usefixtures("needs_native")
def test_float_is_close_to_the_reference():
    offsets, samples = packed_rays(COUNTS, 3, torch.float32)
    _, exact = packed_rays(COUNTS, 3)
    got = values_and_gradients(_run(native, offsets, *samples[:2]), samples[2:])
    expected = values_and_gradients(_run(reference, offsets, *exact[:2]), exact[2:])
    for x, y in zip(got, expected, strict=True):
        torch.testing.assert_close(x.double(), y, rtol=0, atol=2e-5 * y.abs().max().item())


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("tau", [1e-30, 1e-7, 1e-3, 0.1, 0.4999, 0.5, 0.5001, 1.0, 10.0, 100.0])
def test_opacity_of_one_sample_keeps_its_digits(tau):
    """1 - exp(-tau), relative to itself, in lanes of float."""
    starts, ends, colors = torch.zeros(1), torch.ones(1), torch.ones(1, 1)
    _, opacity, _ = native.march_rays(
        torch.tensor([0, 1], dtype=torch.int32), starts, ends, torch.tensor([tau]), colors
    )
    assert opacity.item() == pytest.approx(-torch.expm1(torch.tensor(-tau, dtype=torch.float64)).item(), rel=1e-5)


@pytest.mark.usefixtures("needs_native")
def test_opaque_matter_hides_what_is_behind():
    offsets = torch.tensor([0, 2], dtype=torch.int32)
    color, opacity, depth = native.march_rays(
        offsets, torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]), torch.full((2,), float("inf")), torch.eye(2)
    )
    assert color.tolist() == [[1.0, 0.0]] and opacity.tolist() == [1.0] and depth.tolist() == [1.5]


def test_a_wall_in_two_samples():
    """Density 2 from 1 to 3, in front of nothing."""
    offsets = torch.tensor([0, 2, 2], dtype=torch.int32)
    color, opacity, depth = native.march_rays(
        offsets, torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0]), torch.tensor([2.0, 2.0]), torch.eye(2)
    )
    first = 1 - torch.exp(torch.tensor(-2.0))
    second = first * torch.exp(torch.tensor(-2.0))
    torch.testing.assert_close(color, torch.stack([torch.stack([first, second]), torch.zeros(2)]))
    torch.testing.assert_close(opacity, torch.stack([first + second, torch.tensor(0.0)]))
    torch.testing.assert_close(depth[0], (1.5 * first + 2.5 * second) / (first + second))
    with pytest.raises(AvatarError, match=r"offsets is torch.int64 \[3\]"):
        native.march_rays(offsets.long(), torch.ones(2), torch.ones(2), torch.ones(2), torch.eye(2))


@pytest.mark.usefixtures("needs_native")
def test_same_bits_for_any_thread_count(any_threads):
    offsets, (starts, ends, *inputs) = packed_rays([k % 70 for k in range(300)], 3, torch.float32)
    results = []
    for threads in (1, 2, 7):
        any_threads(threads)
        results.append(values_and_gradients(_run(native, offsets, starts, ends), inputs))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("needs_native")
def test_views_are_taken():
    offsets, samples = packed_rays(COUNTS, 3, torch.float32)
    spread = [x.repeat_interleave(2, dim=0)[::2] for x in samples]
    assert not spread[3].is_contiguous()
    for got, expected in zip(native.march_rays(offsets, *spread), native.march_rays(offsets, *samples), strict=True):
        assert torch.equal(got, expected)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("counts", [[3, 0, 2], []])
def test_operator_contract(counts):
    offsets, (starts, ends, densities, colors) = packed_rays(counts, 3)
    torch.library.opcheck(_march, (offsets, starts, ends, densities.requires_grad_(), colors.requires_grad_()))
