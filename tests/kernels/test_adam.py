from __future__ import annotations

import pytest
import torch

from avatar import native
from avatar.errors import AvatarError
from avatar.native import reference


@pytest.mark.parametrize("backend", [native, reference], ids=["native", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(0,), (1,), (1000, 3), (70_001,)])
def test_equals_torch(backend, dtype, shape):
    g = torch.Generator().manual_seed(0)
    param = torch.randn(shape, generator=g, dtype=dtype)
    theirs = param.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=1e-2, betas=(0.9, 0.99), eps=1e-12)
    exp_avg, exp_avg_sq = torch.zeros_like(param), torch.zeros_like(param)
    for step in range(1, 12):
        grad = torch.randn(shape, generator=g, dtype=dtype)
        theirs.grad = grad.clone()
        optimizer.step()
        backend.adam_step(param, grad, exp_avg, exp_avg_sq, 1e-2, 0.9, 0.99, 1e-12, step)
    tolerance = 2e-6 if dtype == torch.float32 else 1e-14
    torch.testing.assert_close(param, theirs.detach(), rtol=0, atol=tolerance)


def test_wrong_arguments_are_named():
    x = torch.zeros(4)
    with pytest.raises(AvatarError, match=r"exp_avg has shape \[3\]; expected \[4\]"):
        native.adam_step(x, x, torch.zeros(3), x, 1e-3, 0.9, 0.99, 1e-8, 1)
    with pytest.raises(AvatarError, match="step is 0"):
        native.adam_step(x, x, x, x, 1e-3, 0.9, 0.99, 1e-8, 0)


@pytest.mark.usefixtures("needs_native")
def test_a_view_cannot_be_updated():
    x = torch.zeros(4, 2)
    with pytest.raises(AvatarError, match="param is not contiguous"):
        native.adam_step(x[:, 0], x[:, 1], torch.zeros(4), torch.zeros(4), 1e-3, 0.9, 0.99, 1e-8, 1)
