from __future__ import annotations

import pytest
import torch

from avatar import native
from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.radiance_mlp import _radiance
from tests.kernels.compare import assert_same, values_and_gradients
from tests.kernels.scenes import radiance_network

# samples, inputs, attention, gates, hidden, geometry, color
DRAFT, STANDARD = (36, 16, 3, 32, 15, 32), (36, 16, 3, 64, 31, 64)
SHAPES = [
    (0, 4, 5, 3, 7, 4, 6), (1, 1, 1, 1, 1, 1, 1), (70, 11, 9, 3, 20, 7, 13), (1000, *DRAFT), (97, *STANDARD),
    (49, 33, 17, 16, 70, 16, 19),
]  # fmt: skip


def test_reference_gradients_are_right():
    leaves = radiance_network(5, 3, 4, 2, 5, 3, 4)
    assert torch.autograd.gradcheck(reference.radiance_mlp, [x.requires_grad_() for x in leaves])


@pytest.mark.usefixtures("needs_native")
def test_native_gradients_are_right():
    leaves = radiance_network(5, 3, 4, 2, 5, 3, 4)
    assert torch.autograd.gradcheck(native.radiance_mlp, [x.requires_grad_() for x in leaves])


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("shape", SHAPES)
def test_double_is_the_reference(shape):
    assert_same(native.radiance_mlp, reference.radiance_mlp, radiance_network(*shape), 1e-10)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("sizes", [DRAFT, STANDARD], ids=["draft", "standard"])
def test_float_is_close_to_the_reference(sizes):
    leaves = radiance_network(2000, *sizes)
    single = values_and_gradients(native.radiance_mlp, [x.float() for x in leaves])
    double = values_and_gradients(reference.radiance_mlp, leaves)
    for got, want in zip(single, double, strict=True):
        # A hidden unit within rounding of zero may be cut in one and not in the other.
        assert ((got.double() - want).abs() > 1e-4 * want.abs().max()).double().mean() < 1e-2


def test_a_network_by_hand():
    """One unit everywhere: gate 1/2, hidden 2 + 4/2, logit 4 + 1, geometry 8, color sigmoid(0)."""
    numbers = [
        [[2.0]], [[1.0]], [-3.0], [[1.0]], [0.0], [[1.0]], [0.0], [[4.0]], [[1.0], [2.0]], [1.0, 0.0],
        [[1.0]], [-8.0], [[1.0]] * 3, [0.0, 1.0, -1.0],
    ]  # fmt: skip
    densities, colors, gates = native.radiance_mlp(*(torch.tensor(x) for x in numbers))
    torch.testing.assert_close(gates, torch.tensor([[0.5]]), rtol=1e-5, atol=0)
    torch.testing.assert_close(densities, torch.tensor([5.0]).exp(), rtol=1e-5, atol=0)
    torch.testing.assert_close(colors, torch.sigmoid(torch.tensor([[0.0, 1.0, -1.0]])), rtol=1e-5, atol=0)


@pytest.mark.parametrize("module", [native, reference], ids=["native", "reference"])
def test_a_density_that_is_cut_still_has_a_gradient(module):
    """As torch-ngp's trunc_exp: otherwise a sample that overshot would stay there."""
    leaves = radiance_network(7, 3, 4, 2, 5, 3, 4, torch.float32)
    leaves[9][0] += 100
    leaves[0].requires_grad_()
    densities, _, _ = module.radiance_mlp(*leaves)
    torch.testing.assert_close(densities, torch.full((7,), 11.0).exp())
    (gradient,) = torch.autograd.grad(densities.sum(), leaves[0])
    assert gradient.isfinite().all() and gradient.abs().amax(1).min() > 100


@pytest.mark.usefixtures("needs_native")
def test_extreme_logits_stay_finite():
    for sign in (-1e4, 1e4):
        leaves = radiance_network(20, 3, 4, 2, 5, 3, 4, torch.float32)
        for bias in (4, 9, 13):
            leaves[bias] = torch.full_like(leaves[bias], sign)
        for got, want in zip(native.radiance_mlp(*leaves), reference.radiance_mlp(*leaves), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("needs_native")
def test_nan_stays_with_its_sample():
    leaves = radiance_network(60, *DRAFT, torch.float32)
    expected = native.radiance_mlp(*leaves)
    leaves[0][17, 5] = float("nan")
    for got, before in zip(native.radiance_mlp(*leaves), expected, strict=True):
        assert got[17].isnan().all()
        assert torch.equal(got[:17], before[:17]) and torch.equal(got[18:], before[18:])


@pytest.mark.usefixtures("needs_native")
def test_same_bits_for_any_thread_count(any_threads):
    leaves = radiance_network(3000, *DRAFT, torch.float32)
    results = []
    for threads in (1, 2, 7):
        any_threads(threads)
        results.append(values_and_gradients(native.radiance_mlp, leaves))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("needs_native")
def test_operator_contract():
    features, *parameters = radiance_network(20, 3, 4, 2, 5, 3, 4)
    flat = torch.cat([x.flatten() for x in parameters])
    torch.library.opcheck(_radiance, (features.requires_grad_(), flat.requires_grad_(), (3, 4, 2, 5, 4, 4)))


def test_bfloat16_refuses_gradients():
    features, *parameters = radiance_network(4, 3, 4, 2, 5, 3, 4, torch.float32)
    with pytest.raises(AvatarError, match="radiance_mlp has no gradient in bfloat16"):
        native.radiance_mlp(features.requires_grad_(), *parameters, bfloat16=True)
    with torch.no_grad():
        native.radiance_mlp(features, *parameters, bfloat16=True)
