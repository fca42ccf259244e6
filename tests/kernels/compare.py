"""Outputs and gradients of a native kernel next to those of its reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]


def values_and_gradients(function: Function, inputs: Sequence[Tensor], seed: int = 1) -> list[Tensor]:
    """Outputs of ``function(*inputs)`` followed by the gradients of a random weighting of them."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    outputs = [x for x in function(*leaves) if x.dtype.is_floating_point]
    g = torch.Generator().manual_seed(seed)
    weights = [torch.randn(x.shape, generator=g, dtype=torch.float64).to(x.dtype) for x in outputs]
    gradients = torch.autograd.grad(outputs, leaves, weights)
    return [x.detach() for x in (*outputs, *gradients)]


def assert_same(native: Function, reference: Function, inputs: Sequence[Tensor], tolerance: float) -> None:
    """Compare outputs and gradients, each relative to its largest value."""
    for got, expected in zip(
        values_and_gradients(native, inputs), values_and_gradients(reference, inputs), strict=True
    ):
        assert got.shape == expected.shape
        scale = expected.abs().max().item() if expected.numel() else 1.0
        torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * max(scale, 1e-3))
