from __future__ import annotations

import pytest
import torch

from avatar import native
from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.deform_mlp import _deform, _deform_code
from avatar.native.library import multiplies_bfloat16
from tests.kernels.compare import assert_same, values_and_gradients

NAMES = (
    *("features", "spatial_weight", "spatial_bias", "condition"),
    *("middle_weight", "middle_bias", "head_weight", "head_bias", "scale"),
)


def _inputs(n: int = 70, inputs: int = 11, hidden: int = 20, outputs: int = 7, dtype: torch.dtype = torch.float64):
    g = torch.Generator().manual_seed(0)
    shapes = [
        *((n, inputs), (2 * hidden, inputs), (2 * hidden,), (hidden,)),
        *((hidden, hidden), (hidden,), (outputs, hidden), (outputs,), (outputs,)),
    ]
    return [0.4 * torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


def _run(backend, scale):
    return lambda *leaves: (backend.deform_mlp(*leaves, scale),)


def test_reference_gradients_are_right():
    *leaves, scale = _inputs(5, 3, 4, 2)
    assert torch.autograd.gradcheck(_run(reference, scale), [x.requires_grad_() for x in leaves])


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize(
    "shape", [(0, 3, 4, 2), (1, 1, 1, 1), (70, 11, 20, 7), (1000, 48, 64, 10), (97, 33, 70, 19), (49, 16, 16, 16)]
)
def test_double_is_the_reference(shape):
    *leaves, scale = _inputs(*shape)
    assert_same(_run(native, scale), _run(reference, scale), leaves, 1e-10)


@pytest.mark.usefixtures("needs_native")
def test_float_is_close_to_the_reference():
    *leaves, scale = _inputs(2000, 48, 64, 10)
    single = values_and_gradients(_run(native, scale.float()), [x.float() for x in leaves])
    double = values_and_gradients(_run(reference, scale), leaves)
    for got, want in zip(single, double, strict=True):
        # A hidden unit within rounding of zero may be cut in one and not in the other.
        assert ((got.double() - want).abs() > 1e-4 * want.abs().max()).double().mean() < 1e-2


@pytest.mark.usefixtures("needs_native")
def test_code_of_the_widest_network_is_taken():
    """Base and attention side by side are twice as wide as a layer may be."""
    code, wide = torch.rand(3, 2048), torch.full((1024, 1024), 1e-3)
    layers = (torch.rand(1024), wide, torch.rand(1024), torch.full((2, 1024), 1e-3), torch.rand(2), torch.rand(2))
    assert native.deform_code(code, *layers).isfinite().all()


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("n", [0, 1, 300])
@pytest.mark.parametrize("dtype,tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_code_gives_the_same_as_features(dtype, tolerance, n):
    features, weight, bias, *layers = _inputs(n, dtype=dtype)
    base, gate = torch.nn.functional.linear(features, weight, bias).chunk(2, dim=1)
    code = torch.cat([base, 2 * torch.sigmoid(gate)], dim=1)
    expected = native.deform_mlp(features, weight, bias, *layers)
    torch.testing.assert_close(native.deform_code(code, *layers), expected, rtol=tolerance, atol=tolerance)


def _code(n: int, hidden: int, outputs: int):
    """A bfloat16 code and float32 layers."""
    _, _, _, *layers = _inputs(n, 1, hidden, outputs, torch.float32)
    g = torch.Generator().manual_seed(1)
    return torch.randn(n, 2 * hidden, generator=g).bfloat16(), layers


def _in_bfloat16(code: torch.Tensor, condition, middle_weight, middle_bias, head_weight, head_bias, scale):
    """The network as AVX512_BF16 computes it: factors rounded, sums not."""
    rounded = [x.bfloat16().double() for x in (middle_weight, head_weight)]
    base, attention = code.double().chunk(2, 1)
    first = torch.relu(base + attention * condition.double()).bfloat16().double()
    second = torch.relu(first @ rounded[0].T + middle_bias.double()).bfloat16().double()
    return (second @ rounded[1].T + head_bias.double()) * scale.double()


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("shape", [(0, 4, 2), (1, 1, 1), (12, 64, 10), (193, 64, 10), (1000, 33, 17), (97, 70, 33)])
def test_bfloat16_rounds_factors_and_nothing_else(shape):
    code, layers = _code(*shape)
    got = native.deform_code(code, *layers)
    assert got.dtype == torch.float32
    if not multiplies_bfloat16():
        assert torch.equal(got, native.deform_code(code.float(), *layers))
        return
    expected = _in_bfloat16(code, *layers)
    error = (got.double() - expected).abs()
    # A sum within rounding of the middle between two bfloat16 may be rounded to the other.
    size = expected.abs().max().item() if got.numel() else 1.0
    assert (error > 1e-5 * size).double().sum() <= 0.2 * error.numel() and (error < 4e-3 * size).all()


@pytest.mark.usefixtures("needs_native")
def test_bfloat16_is_close_to_float():
    code, layers = _code(2000, 64, 10)
    exact = native.deform_code(code.float(), *layers)
    error = native.deform_code(code, *layers) - exact
    assert error.norm() < 1e-2 * exact.norm() and error.abs().max() < 3e-2 * exact.abs().max()


@pytest.mark.usefixtures("needs_native")
def test_nan_in_a_bfloat16_code_stays_with_its_point():
    code, layers = _code(50, 40, 10)
    expected = native.deform_code(code, *layers)
    code[17, 5] = float("nan")
    got = native.deform_code(code, *layers)
    assert got[17].isnan().all()
    assert torch.equal(torch.cat([got[:17], got[18:]]), torch.cat([expected[:17], expected[18:]]))
    layers[1][0, 0] = float("nan")
    assert native.deform_code(code, *layers).isnan().all()


@pytest.mark.usefixtures("needs_native")
def test_a_bfloat16_code_gives_the_same_bits_for_any_thread_count(any_threads):
    code, layers = _code(1000, 64, 10)
    results = []
    for threads in (1, 2, 7):
        any_threads(threads)
        results.append(native.deform_code(code, *layers))
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])


def test_only_the_code_may_be_bfloat16():
    code, layers = _code(6, 4, 2)
    with pytest.raises(AvatarError, match=r"condition is torch\.bfloat16"):
        native.deform_code(code, layers[0].bfloat16(), *layers[1:])
    with pytest.raises(AvatarError, match=r"code is torch\.float16"):
        native.deform_code(code.half(), *layers)
    with pytest.raises(AvatarError, match="code is on meta"):
        native.deform_code(code.to("meta"), *layers)


@pytest.mark.usefixtures("needs_native")
def test_extreme_gates_stay_finite():
    features, weight, bias, *layers = _inputs(dtype=torch.float32)
    for sign in (-1e4, 1e4):
        expected = reference.deform_mlp(features, weight, torch.full_like(bias, sign), *layers)
        got = native.deform_mlp(features, weight, torch.full_like(bias, sign), *layers)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.usefixtures("needs_native")
def test_same_bits_for_any_thread_count(any_threads):
    *leaves, scale = _inputs(3000, dtype=torch.float32)
    results = []
    for threads in (1, 2, 7):
        any_threads(threads)
        results.append(values_and_gradients(_run(native, scale), leaves))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("needs_native")
def test_operator_contract():
    *leaves, scale = _inputs(20)
    torch.library.opcheck(_deform, (*(x.requires_grad_() for x in leaves), scale))
    _, _, _, *layers = (x.detach() for x in leaves)
    torch.library.opcheck(_deform_code, (torch.rand(20, 40, dtype=torch.float64), *layers, scale))
    code, layers = _code(20, 40, 10)
    torch.library.opcheck(_deform_code, (code, *layers))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(3)}, r"features has shape \[3\]; expected \[N, I\]"),
        ({"spatial_weight": torch.zeros(8, 4)}, r"spatial_weight has shape \[8, 4\]; expected \[8, 3\]"),
        ({"spatial_bias": torch.zeros(4)}, r"spatial_bias has shape \[4\]; expected \[8\]"),
        ({"condition": torch.zeros(1, 4)}, r"condition has shape \[1, 4\]; expected \[4\]"),
        ({"middle_weight": torch.zeros(4, 5)}, r"middle_weight has shape \[4, 5\]; expected \[4, 4\]"),
        ({"middle_bias": torch.zeros(5)}, r"middle_bias has shape \[5\]; expected \[4\]"),
        ({"head_weight": torch.zeros(2, 5)}, r"head_weight has shape \[2, 5\]; expected \[O, 4\]"),
        ({"head_bias": torch.zeros(3)}, r"head_bias has shape \[3\]; expected \[2\]"),
        ({"scale": torch.zeros(2).double()}, "scale is torch.float64; the other arguments are torch.float32"),
        ({"features": torch.zeros(6, 3).int()}, "features is torch.int32"),
        ({"condition": torch.zeros(4, device="meta")}, "condition is on meta"),
        ({"features": torch.zeros(6, 2000), "spatial_weight": torch.zeros(8, 2000)}, "I from 1 to 1024"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = dict(zip(NAMES, _inputs(6, 3, 4, 2, torch.float32), strict=True))
    with pytest.raises(AvatarError, match=message):
        native.deform_mlp(**{**arguments, **change})


def test_code_refuses_gradients():
    layers = _inputs(6, 3, 4, 2)[3:]
    with pytest.raises(AvatarError, match="deform_code has no gradient"):
        native.deform_code(torch.zeros(6, 8, dtype=torch.float64, requires_grad=True), *layers)
    with pytest.raises(AvatarError, match=r"code has shape \[6, 7\]; expected \[N, 8\]"):
        native.deform_code(torch.zeros(6, 7, dtype=torch.float64), *layers)
