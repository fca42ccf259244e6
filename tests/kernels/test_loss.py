from __future__ import annotations

import pytest
import torch

from avatar import native
from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.l1_ssim import _l1_ssim
from tests.kernels.compare import assert_same, values_and_gradients


def _pictures(height: int = 33, width: int = 47, channels: int = 3, dtype: torch.dtype = torch.float64):
    g = torch.Generator().manual_seed(0)
    image = torch.rand(height, width, channels, generator=g, dtype=torch.float64)
    target = 0.7 * image + 0.3 * torch.rand(height, width, channels, generator=g, dtype=torch.float64)
    weight = torch.rand(height, width, 1, generator=g, dtype=torch.float64) * 3
    return image.to(dtype), target.to(dtype), weight.to(dtype)


def _run(backend, target, weight, ssim_weight=0.2):
    """The loss alone: its parts have no gradient."""
    return lambda image: (backend.l1_ssim(image, target, ssim_weight, weight)[0],)


def test_reference_gradients_are_right():
    image, target, weight = _pictures(6, 5, 2)
    assert torch.autograd.gradcheck(_run(reference, target, weight), [image.requires_grad_()])


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(
    "shape", [(33, 47, 3), (1, 1, 1), (4, 3, 3), (11, 64, 1), (70, 16, 4), (64, 9, 3), (150, 21, 3)]
)
def test_double_is_the_reference(shape, weighted):
    image, target, weight = _pictures(*shape)
    weight = weight if weighted else None
    assert_same(_run(native, target, weight), _run(reference, target, weight), [image], 1e-10)
    got, expected = (b.l1_ssim(image, target, 0.2, weight) for b in (native, reference))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("ssim_weight", [0.0, 0.2, 1.0])
def test_float_is_close_to_the_reference(ssim_weight):
    image, target, weight = _pictures()
    single = [x.float() for x in (image, target, weight)]
    got = values_and_gradients(_run(native, *single[1:], ssim_weight), single[:1])
    expected = values_and_gradients(_run(reference, target, weight, ssim_weight), [image])
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


@pytest.mark.usefixtures("needs_native")
def test_parts_are_what_they_are_called():
    image, target, weight = _pictures(dtype=torch.float32)
    out = native.l1_ssim(image, target, 0.3, weight)
    assert out.l1.item() == pytest.approx(((image - target).abs() * weight).mean().item(), rel=1e-5)
    assert out.ssim.item() == pytest.approx(native.ssim(image, target).item(), rel=1e-5)
    assert out.mse.item() == pytest.approx((image - target).square().mean().item(), rel=1e-5)
    assert out.loss.item() == pytest.approx(0.7 * out.l1.item() + 0.3 * (1 - out.ssim.item()), rel=1e-5)


@pytest.mark.usefixtures("needs_native")
def test_equal_pixels_have_no_l1_gradient():
    image, _, weight = _pictures(dtype=torch.float32)
    leaf = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(native.l1_ssim(leaf, image, 0.0, weight).loss, leaf)
    assert not gradient.any()


@pytest.mark.usefixtures("needs_native")
def test_not_a_number_reaches_the_loss():
    """The trainer looks at the loss to notice a broken step."""
    image, target, weight = _pictures(dtype=torch.float32)
    image[20, 20, 1] = float("nan")
    assert native.l1_ssim(image, target, 0.2, weight).loss.isnan()


@pytest.mark.usefixtures("needs_native")
def test_same_bits_for_any_thread_count(any_threads):
    image, target, weight = _pictures(200, 40, dtype=torch.float32)
    results = []
    for threads in (1, 2, 7):
        any_threads(threads)
        results.append(values_and_gradients(_run(native, target, weight), [image]))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("need", [True, False])
def test_operator_contract(need, weighted):
    image, target, weight = _pictures(12, 13)
    torch.library.opcheck(_l1_ssim, (image.requires_grad_(need), target, weight if weighted else None, 0.2, need))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": torch.zeros(4, 5)}, r"image has shape \[4, 5\]; expected \[H, W, C\]"),
        ({"image": torch.zeros(4, 5, 33), "target": torch.zeros(4, 5, 33)}, "C from 1 to 32"),
        ({"target": torch.zeros(5, 4, 3)}, r"target has shape \[5, 4, 3\]; expected \[4, 5, 3\]"),
        ({"target": torch.zeros(4, 5, 3).double()}, "target is torch.float64; the other arguments are torch.float32"),
        ({"image": torch.zeros(4, 5, 3).half()}, "image is torch.float16"),
        ({"image": torch.zeros(4, 5, 3, device="meta")}, "image is on meta"),
        ({"weight": torch.zeros(4, 5)}, r"weight has shape \[4, 5\]; expected \[4, 5, 1\]"),
        ({"weight": torch.zeros(4, 5, 1, requires_grad=True)}, "weight requires a gradient"),
        ({"target": torch.zeros(4, 5, 3, requires_grad=True)}, "target requires a gradient"),
        ({"ssim_weight": 1.5}, "ssim_weight is 1.5; expected a finite number from 0 to 1"),
        ({"ssim_weight": float("nan")}, "ssim_weight is nan"),
        ({"image": torch.zeros(0, 5, 3), "target": torch.zeros(0, 5, 3)}, "H from 1 to 16384"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {"image": torch.zeros(4, 5, 3), "target": torch.zeros(4, 5, 3), "ssim_weight": 0.2}
    with pytest.raises(AvatarError, match=message):
        native.l1_ssim(**{**arguments, **change})
