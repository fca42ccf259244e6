from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from avatar import native
from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.ssim import _ssim
from tests.kernels.compare import assert_same, values_and_gradients


def _pictures(height: int = 33, width: int = 47, channels: int = 3, dtype: torch.dtype = torch.float64):
    g = torch.Generator().manual_seed(0)
    a = torch.rand(height, width, channels, generator=g, dtype=torch.float64)
    b = 0.7 * a + 0.3 * torch.rand(height, width, channels, generator=g, dtype=torch.float64)
    return [a.to(dtype), b.to(dtype)]


def _run(backend):
    return lambda a, b: (backend.ssim(a, b),)


def test_reference_gradients_are_right():
    leaves = [x.requires_grad_() for x in _pictures(6, 5, 2)]
    assert torch.autograd.gradcheck(_run(reference), leaves)


def test_inner_part_agrees_with_scikit_image():
    """scikit-image pads by reflection, so a picture with a wide zero frame has the same value with zero padding."""
    a, b = (torch.nn.functional.pad(x, (0, 0, 12, 12, 12, 12)) for x in _pictures())
    expected = structural_similarity(
        a.numpy(),
        b.numpy(),
        channel_axis=2,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )[1]
    assert abs(native.ssim(a, b).item() - np.mean(expected)) < 1e-6


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("shape", [(33, 47, 3), (1, 1, 1), (4, 3, 3), (11, 64, 1), (70, 16, 4)])
def test_double_is_the_reference(shape):
    assert_same(_run(native), _run(reference), _pictures(*shape), 1e-10)


@pytest.mark.usefixtures("needs_native")
def test_float_is_close_to_the_reference():
    single = values_and_gradients(_run(native), _pictures(dtype=torch.float32))
    double = values_and_gradients(_run(reference), _pictures())
    for got, want in zip(single, double, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4 * want.abs().max().item())


@pytest.mark.usefixtures("needs_native")
def test_equal_pictures_have_similarity_one():
    a = _pictures(dtype=torch.float32)[0]
    assert native.ssim(a, a).item() == pytest.approx(1.0, abs=1e-6)
    assert native.ssim(a, 1 - a).item() < 0.2


@pytest.mark.usefixtures("needs_native")
def test_same_bits_for_any_thread_count(any_threads):
    results = []
    for threads in (1, 2, 7):
        any_threads(threads)
        results.append(values_and_gradients(_run(native), _pictures(dtype=torch.float32)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("needs", [(True, False), (False, True), (False, False)])
def test_operator_contract(needs):
    a, b = (x.requires_grad_(need) for x, need in zip(_pictures(12, 13), needs, strict=True))
    torch.library.opcheck(_ssim, (a, b, *needs))


def test_wrong_arguments_are_named():
    a, b = _pictures()
    with pytest.raises(AvatarError, match=r"b has shape \[32, 47, 3\]; expected \[33, 47, 3\]"):
        native.ssim(a, b[1:])
    with pytest.raises(AvatarError, match="a has shape"):
        native.ssim(a[0], b[0])
