"""The deformation network as torch operators: all layers of a block of points in one pass, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.checks import float_tensor
from avatar.native.library import multiplies_bfloat16, num_threads, require_library, runs_native


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


def _call(name: str, points: Tensor, hidden: int, outputs: int, *arguments: Tensor | int | None) -> None:
    native, dtype, inputs = require_library(), points.dtype, points.shape[1]
    work = native.workspace("avatar_deform_mlp_workspace", dtype, num_threads(), inputs, hidden, outputs)
    native.call(name, dtype, *arguments, work)


@torch.library.custom_op("avatar::deform_mlp", mutates_args=(), device_types="cpu")
def _deform(
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
    (n, inputs), (outputs, hidden) = features.shape, head_weight.shape
    out = features.new_empty(n, outputs)
    _call(
        "avatar_deform_mlp",
        *(features, hidden, outputs, features, None, n, inputs, hidden, outputs, spatial_weight, spatial_bias),
        *(condition, middle_weight, middle_bias, head_weight, head_bias, scale, out),
    )
    return out


@_deform.register_fake
def _(
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


@torch.library.custom_op("avatar::deform_mlp_backward", mutates_args=(), device_types="cpu")
def _deform_backward(
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
    (n, inputs), (outputs, hidden) = features.shape, head_weight.shape
    leaves = (features, spatial_weight, spatial_bias, condition, middle_weight, middle_bias, head_weight, head_bias)
    gradients = [torch.empty_like(x) for x in leaves]
    _call(
        "avatar_deform_mlp_backward",
        *(features, hidden, outputs, features, n, inputs, hidden, outputs, *leaves[1:], scale, v_out, *gradients),
    )
    a, b, c, d, e, f, g, h = gradients
    return a, b, c, d, e, f, g, h


@_deform_backward.register_fake
def _(
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


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _vjp(ctx: Any, v_out: Tensor) -> tuple[Tensor | None, ...]:
    return *_deform_backward(v_out.contiguous(), *ctx.saved_tensors), None


_deform.register_autograd(_vjp, setup_context=_setup)


@torch.library.custom_op("avatar::deform_code", mutates_args=(), device_types="cpu")
def _deform_code(
    code: Tensor,
    condition: Tensor,
    middle_weight: Tensor,
    middle_bias: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    scale: Tensor,
) -> Tensor:
    n, (outputs, hidden) = len(code), head_weight.shape
    out = condition.new_empty(n, outputs)
    if code.dtype == torch.bfloat16 and out.dtype == torch.float32 and multiplies_bfloat16():
        native = require_library()
        native.call(
            "avatar_deform_code_bf16",
            *(out.dtype, code, n, hidden, outputs),
            *(condition, middle_weight, middle_bias, head_weight, head_bias, scale),
            *(out, native.workspace("avatar_deform_code_bf16_workspace", out.dtype, num_threads(), hidden, outputs)),
        )
        return out
    code = code.to(out.dtype)
    _call(
        "avatar_deform_mlp",
        *(code, hidden, outputs, None, code, n, 1, hidden, outputs, None, None),
        *(condition, middle_weight, middle_bias, head_weight, head_bias, scale, out),
    )
    return out


@_deform_code.register_fake
def _(
    code: Tensor,
    condition: Tensor,
    middle_weight: Tensor,
    middle_bias: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    scale: Tensor,
) -> Tensor:
    return condition.new_empty(code.shape[0], head_weight.shape[0])
