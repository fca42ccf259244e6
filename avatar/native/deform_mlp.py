"""The deformation network as torch operators: all layers of a block of points in one pass, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.checks import float_tensor
from avatar.native.library import multiplies_bfloat16, runs_native
from avatar.native.operators import Kernels, operator


def deform_mlp(
    features: Tensor,
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    condition: Tensor,
    middle_weight: Tensor,
    middle_bias: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    scale: Tensor,
) -> Tensor:
    """Features of points to what a condition does to them; see :class:`avatar.fields.deformation.DeformationField`.

    With [base, gate] = features @ spatial_weight.T + spatial_bias and attention = 2 sigmoid(gate):
    hidden = relu(base + attention * condition), out = (relu(hidden @ middle_weight.T + middle_bias) @ head_weight.T +
    head_bias) * scale.

    Args:
        features: [N, I]; I, U and O are 1 to 1024.
        spatial_weight: [2 U, I]; the rows of base, then those of gate.
        spatial_bias: [2 U].
        condition: [U], one for all points.
        middle_weight: [U, U].
        middle_bias: [U].
        head_weight: [O, U].
        head_bias: [O].
        scale: [O], not differentiated.

    Returns:
        [N, O]. Differentiable in everything but ``scale``; gradients are the same bits for any number of threads. NaN
        in an argument reaches all outputs that depend on it.

    Raises:
        AvatarError: Wrong shapes or dtypes.
    """
    features = float_tensor("features", features, ("N", "I"))
    hidden = float_tensor("middle_weight", middle_weight, ("U", "U"), like=features).shape[0]
    spatial_weight = float_tensor("spatial_weight", spatial_weight, (2 * hidden, features.shape[1]), like=features)
    spatial_bias = float_tensor("spatial_bias", spatial_bias, (2 * hidden,), like=features)
    layers = _layers(features, hidden, condition, middle_weight, middle_bias, head_weight, head_bias, scale)
    if not runs_native(features):
        return reference.deform_mlp(features, spatial_weight, spatial_bias, *layers)
    return _deform(features, spatial_weight, spatial_bias, *layers)


def deform_code(
    code: Tensor,
    condition: Tensor,
    middle_weight: Tensor,
    middle_bias: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    scale: Tensor,
) -> Tensor:
    """The layers of :func:`deform_mlp` after the first, for inference: code [N, 2 U] is [base, attention].

    The code may also be bfloat16. Where the processor multiplies that (:func:`multiplies_bfloat16`), float32 weights
    and all activations are then rounded to it too, though no sum is, in less than half the time. Elsewhere the code is
    converted, and nothing is gained.

    Raises:
        AvatarError: Wrong shapes or dtypes, or a gradient is asked for.
    """
    hidden = float_tensor("middle_weight", middle_weight, ("U", "U")).shape[0]
    code = float_tensor("code", code, ("N", 2 * hidden), like=middle_weight, also=torch.bfloat16)
    layers = _layers(middle_weight, hidden, condition, middle_weight, middle_bias, head_weight, head_bias, scale)
    if torch.is_grad_enabled() and any(x.requires_grad for x in (code, *layers)):
        raise AvatarError("deform_code has no gradient;", why="an argument requires one.", fix="Use deform_mlp.")
    if not runs_native(code):
        return reference.deform_code(code, *layers)
    return _deform_code(code, *layers)


def _layers(
    like: Tensor,
    hidden: int,
    condition: Tensor,
    middle_weight: Tensor,
    middle_bias: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    scale: Tensor,
) -> tuple[Tensor, ...]:
    head_weight = float_tensor("head_weight", head_weight, ("O", hidden), like=like)
    outputs = len(head_weight)
    return (
        float_tensor("condition", condition, (hidden,), like=like),
        float_tensor("middle_weight", middle_weight, (hidden, hidden), like=like),
        float_tensor("middle_bias", middle_bias, (hidden,), like=like),
        head_weight,
        float_tensor("head_bias", head_bias, (outputs,), like=like),
        float_tensor("scale", scale, (outputs,), like=like),
    )


# ---- the whole network ---------------------------------------------------------------------------------------------


def _changes(
    features: Tensor,
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    condition: Tensor,
    middle_weight: Tensor,
    middle_bias: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    scale: Tensor,
) -> Tensor:
    return features.new_empty(features.shape[0], head_weight.shape[0])


def _compute(native: Kernels, *inputs: Tensor) -> Tensor:
    features, spatial_weight, spatial_bias, *layers = inputs
    if native.cuda:  # the first layer, the wide one, by cuBLAS
        base, gate = F.linear(features, spatial_weight, spatial_bias).chunk(2, dim=1)
        return _compute_code(native, torch.cat([base, 2 * torch.sigmoid(gate)], dim=1), *layers)
    out, sizes = _changes(*inputs), _sizes(features, layers)
    native.call(
        *("deform_mlp", features, features, None, len(features), *sizes, spatial_weight, spatial_bias, *layers, out),
        native.workspace("deform_mlp_workspace", features, *native.threads, *sizes),
    )
    return out


def _sizes(first: Tensor, layers: Sequence[Tensor]) -> tuple[int, int, int]:
    """Inputs, hidden units and outputs."""
    outputs, hidden = layers[3].shape
    return first.shape[1], hidden, outputs


def _gradients(
    v_out: Tensor,
    features: Tensor,
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    condition: Tensor,
    middle_weight: Tensor,
    middle_bias: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    scale: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = torch.empty_like
    return (
        *(like(features), like(spatial_weight), like(spatial_bias), like(condition)),
        *(like(middle_weight), like(middle_bias), like(head_weight), like(head_bias)),
    )


def _compute_gradients(native: Kernels, *inputs: Tensor) -> tuple[Tensor, ...]:
    if native.cuda:
        return _gradients_by_cublas(*inputs)
    v_out, features, *leaves, scale = inputs
    gradients, sizes = _gradients(*inputs), _sizes(features, [*leaves[2:], scale])
    native.call(
        *("deform_mlp_backward", features, features, len(features), *sizes, *leaves, scale, v_out, *gradients),
        native.workspace("deform_mlp_workspace", features, *native.threads, *sizes),
    )
    return gradients


def _gradients_by_cublas(v_out: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    """From the inputs: nothing is kept from forward."""
    features, spatial_weight, spatial_bias, condition, middle_weight, middle_bias, head_weight, _, scale = inputs
    base, gate = F.linear(features, spatial_weight, spatial_bias).chunk(2, dim=1)
    attention = 2 * torch.sigmoid(gate)
    first = F.relu(torch.addcmul(base, attention, condition))
    second = F.relu(F.linear(first, middle_weight, middle_bias))
    v_head = v_out * scale
    v_second = (v_head @ head_weight) * (second > 0)
    v_first = (v_second @ middle_weight) * (first > 0)
    v_gate = v_first * condition * attention * (1 - 0.5 * attention)
    v_spatial = torch.cat([v_first, v_gate], dim=1)
    return (
        *(v_spatial @ spatial_weight, v_spatial.T @ features, v_spatial.sum(0), (v_first * attention).sum(0)),
        *(v_second.T @ first, v_second.sum(0), v_head.T @ second, v_head.sum(0)),
    )


_deform_backward = operator("deform_mlp_backward", _gradients, _compute_gradients)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _vjp(ctx: Any, v_out: Tensor) -> tuple[Tensor | None, ...]:
    return *_deform_backward(v_out.contiguous(), *ctx.saved_tensors), None


_deform = operator("deform_mlp", _changes, _compute, _vjp, _setup)


# ---- after the first layer -----------------------------------------------------------------------------------------


def _changes_of_code(
    code: Tensor,
    condition: Tensor,
    middle_weight: Tensor,
    middle_bias: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    scale: Tensor,
) -> Tensor:
    return condition.new_empty(code.shape[0], head_weight.shape[0])


def _compute_code(native: Kernels, code: Tensor, *layers: Tensor) -> Tensor:
    condition, out = layers[0], _changes_of_code(code, *layers)
    if native.cuda:
        return _code_on_cuda(native, code.to(out.dtype), out, *layers)
    if code.dtype == torch.bfloat16 and out.dtype == torch.float32 and multiplies_bfloat16():
        _, hidden, outputs = _sizes(code, layers)
        native.call(
            *("deform_code_bf16", condition, code, len(code), hidden, outputs, *layers, out),
            native.workspace("deform_code_bf16_workspace", condition, *native.threads, hidden, outputs),
        )
        return out
    code = code.to(out.dtype)
    _, *sizes = _sizes(code, layers)
    native.call(
        *("deform_mlp", code, None, code, len(code), 1, *sizes, None, None, *layers, out),
        native.workspace("deform_mlp_workspace", code, *native.threads, 1, *sizes),
    )
    return out


def _code_on_cuda(native: Kernels, code: Tensor, out: Tensor, *layers: Tensor) -> Tensor:
    """The kernel is float32 for 64 hidden channels and up to 16 outputs; other networks go by cuBLAS."""
    _, hidden, outputs = _sizes(code, layers)
    if hidden == 64 and 1 <= outputs <= 16 and code.dtype == torch.float32:
        native.call("deform_code", code, code, *layers, len(code), hidden, outputs, out)
        return out
    condition, middle_weight, middle_bias, head_weight, head_bias, scale = layers
    base, attention = code.chunk(2, dim=1)
    active = F.relu(torch.addcmul(base, attention, condition))
    return F.linear(F.relu(F.linear(active, middle_weight, middle_bias)), head_weight, head_bias) * scale


_deform_code = operator("deform_code", _changes_of_code, _compute_code)
