from __future__ import annotations

import pytest
import torch

from avatar import native
from avatar.geometry.se3 import axis_angle_to_matrix, axis_angle_to_quat, quat_multiply
from avatar.native import reference
from avatar.native.skin_gaussians import _skin
from tests.kernels.compare import assert_same, values_and_gradients
from tests.kernels.scenes import skinned


def _run(module):
    return lambda *inputs: module.skin_gaussians(*inputs)


@pytest.mark.parametrize("module", [native, reference], ids=["native", "reference"])
def test_gradients_are_right(module):
    assert torch.autograd.gradcheck(_run(module), [x.requires_grad_() for x in skinned(3)])


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 2500])
def test_double_is_the_reference(n):
    assert_same(_run(native), _run(reference), skinned(n), 1e-10)


@pytest.mark.usefixtures("needs_native")
def test_float_is_close_to_the_reference():
    got = values_and_gradients(_run(native), skinned(3000, torch.float32))
    for x, y in zip(got, values_and_gradients(_run(reference), skinned(3000)), strict=True):
        torch.testing.assert_close(x.double(), y, rtol=0, atol=2e-6 * y.abs().max().item())


@pytest.mark.parametrize("module", [native, reference], ids=["native", "reference"])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_whole_weights_are_rigid_motions(module, weight):
    means, quats, _, offsets, *_ = skinned(50)
    rotations, translations = torch.tensor([[0.3, -0.2, 0.5], [-0.1, 0.7, 0.2]]).double(), torch.rand(2, 3).double()
    transforms = torch.cat([axis_angle_to_matrix(rotations), translations[:, :, None]], dim=2)
    transform_quats = axis_angle_to_quat(rotations)
    weights = torch.full((50,), weight, dtype=torch.float64)
    posed, turned = module.skin_gaussians(means, quats, weights, offsets, transforms, transform_quats)
    first = 0 if weight == 1 else 1
    start = means + (1 - weight) * offsets
    expected = start @ axis_angle_to_matrix(rotations[first]).T + translations[first]
    torch.testing.assert_close(posed, expected)
    torch.testing.assert_close(turned, quat_multiply(transform_quats[first].expand(50, 4), quats))


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("wanted", [(0,), (2, 3), (4,), (5,), (0, 1, 2, 4, 5)])
def test_only_wanted_gradients(wanted):
    full = values_and_gradients(_run(reference), skinned(40))[2:]
    leaves = [x.requires_grad_(i in wanted) for i, x in enumerate(skinned(40))]
    outputs = native.skin_gaussians(*leaves)
    g = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(x.shape, generator=g, dtype=torch.float64) for x in outputs]
    gradients = torch.autograd.grad(outputs, [leaves[i] for i in wanted], cotangents)
    for i, gradient in zip(wanted, gradients, strict=True):
        torch.testing.assert_close(gradient, full[i])


@pytest.mark.usefixtures("needs_native")
def test_same_bits_for_any_thread_count(any_threads):
    results = []
    for threads in (1, 2, 5):
        any_threads(threads)
        results.append(values_and_gradients(_run(native), skinned(5000, torch.float32)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("need_transforms", [False, True])
def test_operator_contract(need_transforms):
    leaves = [x.requires_grad_(i < 4 or need_transforms) for i, x in enumerate(skinned(9))]
    torch.library.opcheck(_skin, leaves)
