from __future__ import annotations

import pytest
import torch

from avatar import native
from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.triplane_encode import _encode
from tests.kernels.compare import assert_same, values_and_gradients

RESOLUTIONS = [1, 4, 9, 16, 40]  # with 128 rows, the last two are hashed


def _inputs(n: int = 70, features: int = 2, rows: int = 128, dtype: torch.dtype = torch.float64):
    g = torch.Generator().manual_seed(0)
    points = torch.rand(n, 3, generator=g, dtype=torch.float64) * 2.3 - 1.15  # some outside
    table = torch.randn(3, len(RESOLUTIONS), rows, features, generator=g, dtype=torch.float64)
    return [points.to(dtype), table.to(dtype)]


def _run(backend):
    return lambda points, table: (backend.triplane_encode(points, table, RESOLUTIONS),)


def test_reference_gradients_are_right():
    points, table = _inputs(6, 1, 32)
    leaves = [points.requires_grad_(), table.requires_grad_()]
    assert torch.autograd.gradcheck(_run(reference), leaves)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("features", [1, 2, 3])
@pytest.mark.parametrize("rows", [128, 100])
@pytest.mark.parametrize("n", [0, 1, 700])
def test_double_is_the_reference(n, features, rows):
    assert_same(_run(native), _run(reference), _inputs(n, features, rows), 1e-10)


@pytest.mark.usefixtures("needs_native")
def test_float_is_close_to_the_reference():
    single = values_and_gradients(_run(native), _inputs(500, dtype=torch.float32))
    double = values_and_gradients(_run(reference), _inputs(500))
    for got, want in zip(single, double, strict=True):
        # A point within rounding of a cell border may land in the next cell: its slope by the point then jumps.
        assert ((got.double() - want).abs() > 1e-4 * want.abs().max()).float().mean() < 2e-3


@pytest.mark.usefixtures("needs_native")
def test_layout_corners_and_clamping():
    """Vertex (x, y) of a dense level is row y * (R + 1) + x; features run over planes, then levels."""
    table = torch.arange(3 * 2 * 16, dtype=torch.float32).reshape(3, 2, 16, 1)
    low, high = torch.tensor([[-1.0, -1, -1]]), torch.tensor([[5.0, 5, 5]])
    assert native.triplane_encode(low, table, [2, 3])[0].tolist() == [0, 16, 32, 48, 64, 80]
    assert native.triplane_encode(high, table, [2, 3])[0].tolist() == [8, 31, 40, 63, 72, 95]
    corner = torch.tensor([[1.0, -1, -1]])  # along x: the second axis of no plane
    assert native.triplane_encode(corner, table, [2, 3])[0].tolist() == [2, 19, 32, 48, 66, 83]


@pytest.mark.usefixtures("needs_native")
def test_same_bits_for_any_thread_count(any_threads):
    results = []
    for threads in (1, 2, 7):
        any_threads(threads)
        results.append(values_and_gradients(_run(native), _inputs(3000, dtype=torch.float32)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("needs_native")
def test_only_wanted_gradients():
    points, table = _inputs()
    full = values_and_gradients(_run(native), [points, table])
    for index in (0, 1):
        leaves = [points.clone(), table.clone()]
        leaves[index].requires_grad_()
        (out,) = _run(native)(*leaves)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        (gradient,) = torch.autograd.grad(out, leaves[index], weight)
        assert torch.equal(gradient, full[1 + index])


@pytest.mark.usefixtures("needs_native")
def test_operator_contract():
    points, table = _inputs(8)
    torch.library.opcheck(_encode, (points.requires_grad_(), table.requires_grad_(), RESOLUTIONS))


def test_resolutions_may_be_a_tensor():
    points, table = _inputs(5)
    expected = native.triplane_encode(points, table, RESOLUTIONS)
    assert torch.equal(native.triplane_encode(points, table, torch.tensor(RESOLUTIONS)), expected)


@pytest.mark.parametrize(
    ("points", "table", "resolutions", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 1, 8, 1), [2], r"points has shape \[3, 2\]"),
        (torch.zeros(3, 3), torch.zeros(2, 1, 8, 1), [2], r"table has shape \[2, 1, 8, 1\]"),
        (torch.zeros(3, 3), torch.zeros(3, 1, 8, 1), [2, 3], "resolutions has 2 entries; table has 1"),
        (torch.zeros(3, 3), torch.zeros(3, 1, 8, 1), [0], "from 1 to 65535"),
        (torch.zeros(3, 3), torch.zeros(3, 1, 2, 1), [1], "T from 4"),
    ],
)
def test_wrong_arguments_are_named(points, table, resolutions, message):
    with pytest.raises(AvatarError, match=message):
        native.triplane_encode(points, table, resolutions)
