"""The radiance network as a torch operator: gates, density and color of samples in one pass, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import operators, reference
from avatar.native.checks import float_tensor
from avatar.native.library import multiplies_bfloat16, runs_native
from avatar.native.operators import Kernels, operator

# Networks that the CUDA kernels are compiled for, the second in float32 only: inputs, attention, gates, hidden,
# outputs, color.
DRAFT, STANDARD = (36, 16, 3, 32, 16, 32), (36, 16, 3, 64, 32, 64)
SAMPLES_AT_ONCE = 2**17  # whose layers are in a GPU's memory while their gradients are computed


def radiance_mlp(
    features: Tensor,
    attention_weight: Tensor,
    attention_bias: Tensor,
    gate_weight: Tensor,
    gate_bias: Tensor,
    base_weight: Tensor,
    base_bias: Tensor,
    conditions: Tensor,
    density_weight: Tensor,
    density_bias: Tensor,
    color_weight: Tensor,
    color_bias: Tensor,
    rgb_weight: Tensor,
    rgb_bias: Tensor,
    *,
    bfloat16: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Density and color of samples from their features, for one condition; the network of ER-NeRF (Li et al. 2023).

    Region attention decides where each of G groups of the condition acts:

    - gates = sigmoid(relu(features @ attention_weight.T + attention_bias) @ gate_weight.T + gate_bias)
    - hidden = relu(features @ base_weight.T + base_bias + gates @ conditions)
    - [logit, geometry] = hidden @ density_weight.T + density_bias
    - density = exp(min(logit, 11)), colors = sigmoid(relu(geometry @ color_weight.T + color_bias) @ rgb_weight.T +
      rgb_bias)

    The condition of a frame is the same for all samples, so it enters as vectors that the caller computes:
    ``conditions`` before the density, and ``color_bias`` for what changes color alone (head direction, exposure).
    As in torch-ngp's ``trunc_exp``, the gradient of the density does not vanish where the logit is cut.

    Args:
        features: [N, I].
        attention_weight, attention_bias: [A, I] and [A].
        gate_weight, gate_bias: [G, A] and [G]; G is 1 to 16.
        base_weight, base_bias: [H, I] and [H].
        conditions: [G, H], one vector per group.
        density_weight: [1 + K, H]; the row of the logit, then those of geometry features.
        density_bias: [1 + K].
        color_weight: [C, K].
        color_bias: [C].
        rgb_weight, rgb_bias: [3, C] and [3].
        bfloat16: For inference: round features, weights and activations, though no sum, to bfloat16 where the
            processor multiplies that (AVX512_BF16); elsewhere nothing changes.

    Returns:
        densities [N], per centimetre; colors [N, 3], 0 to 1; gates [N, G], 0 to 1. Differentiable in everything.

    Raises:
        AvatarError: Wrong shapes or dtypes, or a gradient is asked for in bfloat16.
    """
    attention = (attention_weight, attention_bias, gate_weight, gate_bias)
    density = (density_weight, density_bias, color_weight, color_bias, rgb_weight, rgb_bias)
    return _run(features, *attention, base_weight, base_bias, conditions, *density, bfloat16)


def _run(
    features: Tensor, attention_weight: Tensor, attention_bias: Tensor, gate_weight: Tensor, gate_bias: Tensor,
    base_weight: Tensor, base_bias: Tensor, conditions: Tensor, density_weight: Tensor, density_bias: Tensor,
    color_weight: Tensor, color_bias: Tensor, rgb_weight: Tensor, rgb_bias: Tensor, bfloat16: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    features = float_tensor("features", features, ("N", "I"))
    layers = (attention_weight, attention_bias, gate_weight, gate_bias, base_weight, base_bias, conditions)
    parameters, sizes = checked_network(
        features, (*layers, density_weight, density_bias, color_weight, color_bias, rgb_weight, rgb_bias)
    )
    if bfloat16 and torch.is_grad_enabled() and any(x.requires_grad for x in (features, *parameters)):
        raise AvatarError("radiance_mlp has no gradient in bfloat16;", why="an argument requires one.")
    if not runs_native(features) or not _has_kernel(features, sizes):
        return reference.radiance_mlp(features, *parameters)
    flat = torch.cat([x.flatten() for x in parameters])
    if bfloat16 and features.device.type == "cpu" and features.dtype == torch.float32 and multiplies_bfloat16():
        return _radiance_bfloat16(features, flat, sizes)
    return _radiance(features, flat, sizes)


def checked_network(features: Tensor, layers: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """Check all of a network.

    Args:
        features: [N, I] that it is for.
        layers: What :func:`radiance_mlp` takes after them.

    Returns:
        The layers; and inputs, attention, gates, hidden units, outputs and color units.
    """
    inputs = features.shape[1]

    def layer(name: str, weight: Tensor, bias: Tensor, rows: int | str, columns: int) -> tuple[Tensor, Tensor]:
        weight = float_tensor(f"{name}_weight", weight, (rows, columns), like=features)
        return weight, float_tensor(f"{name}_bias", bias, (len(weight),), like=features)

    attention = layer("attention", layers[0], layers[1], "U", inputs)
    gate = layer("gate", layers[2], layers[3], "F", len(attention[0]))
    base = layer("base", layers[4], layers[5], "U", inputs)
    hidden = len(base[0])
    conditions = float_tensor("conditions", layers[6], (len(gate[0]), hidden), like=features)
    density = layer("density", layers[7], layers[8], "1+K", hidden)
    color = layer("color", layers[9], layers[10], "U", len(density[0]) - 1)
    rgb = layer("rgb", layers[11], layers[12], 3, len(color[0]))
    sizes = (inputs, *(len(weight) for weight, _ in (attention, gate, base, density, color)))
    return (*attention, *gate, *base, conditions, *density, *color, *rgb), sizes


def _has_kernel(features: Tensor, sizes: Sequence[int]) -> bool:
    """Whether the library is compiled for this network; on a GPU, others go by cuBLAS."""
    if not operators.kernels(features.device).cuda:
        return True
    return sizes == DRAFT or (sizes == STANDARD and features.dtype == torch.float32)


def _samples(features: Tensor, parameters: Tensor, sizes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """densities [N], colors [N, 3], gates [N, G]; sizes: inputs, attention, gates, hidden, outputs, color."""
    n = features.shape[0]
    return features.new_empty(n), features.new_empty(n, 3), features.new_empty(n, sizes[2])


def _compute(native: Kernels, features: Tensor, parameters: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    results = _samples(features, parameters, sizes)
    work = () if native.cuda else (native.workspace("radiance_mlp_workspace", features, *native.threads, *sizes),)
    native.call("radiance_mlp", features, features, len(features), *sizes, parameters, *results, *work)
    return results


def _compute_bfloat16(
    native: Kernels, features: Tensor, parameters: Tensor, sizes: Sequence[int]
) -> tuple[Tensor, ...]:
    results = _samples(features, parameters, sizes)
    work = native.workspace("radiance_mlp_bf16_workspace", features, *native.threads, *sizes)
    native.call("radiance_mlp_bf16", features, features, len(features), *sizes, parameters, *results, work)
    return results


def _gradients(
    v_densities: Tensor, v_colors: Tensor, v_gates: Tensor, features: Tensor, parameters: Tensor, sizes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(features), torch.empty_like(parameters)


def _compute_gradients(
    native: Kernels, v_densities: Tensor, v_colors: Tensor, v_gates: Tensor, features: Tensor, parameters: Tensor,
    sizes: Sequence[int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    cotangents = (v_densities, v_colors, v_gates)
    if native.cuda:
        return _gradients_by_cublas(native, cotangents, features, parameters, sizes)
    v_features, v_parameters = _gradients(*cotangents, features, parameters, sizes)
    work = native.workspace("radiance_mlp_workspace", features, *native.threads, *sizes)
    native.call(
        *("radiance_mlp_backward", features, features, len(features), *sizes, parameters, *cotangents),
        *(v_features, v_parameters, work),
    )
    return v_features, v_parameters


def _gradients_by_cublas(
    native: Kernels, cotangents: tuple[Tensor, ...], features: Tensor, parameters: Tensor, sizes: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """A kernel computes the layers and their cotangents again; the rest is products of them over the samples."""
    inputs, attention, gates, hidden, outputs, color = sizes
    names = [attention, hidden, gates, outputs, color]
    attention_weight = parameters[: attention * inputs].view(attention, inputs)
    base_at = attention * (inputs + 1) + gates * (attention + 1)
    base_weight = parameters[base_at : base_at + hidden * inputs].view(hidden, inputs)
    v_features, v_parameters = torch.empty_like(features), torch.zeros_like(parameters)
    for part in range(0, len(features), SAMPLES_AT_ONCE):
        at = slice(part, part + SAMPLES_AT_ONCE)
        chunk = features[at]
        layers, v_layers = (features.new_empty(sum(names) + more, len(chunk)) for more in (0, 3))
        native.call(
            *("radiance_mlp_backward", features, chunk, len(chunk), *sizes, parameters),
            *(*(x[at] for x in cotangents), layers, v_layers),
        )
        units, v_units = layers.split(names), v_layers.split([*names, 3])
        v_first = v_layers[: attention + hidden]
        torch.mm(v_first.T, torch.cat([attention_weight, base_weight]), out=v_features[at])
        v_weight, v_bias = v_first @ chunk, v_layers.sum(1).split([*names, 3])
        gradients = [
            *(v_weight[:attention], v_bias[0], v_units[2] @ units[0].T, v_bias[2], v_weight[attention:], v_bias[1]),
            *(units[2] @ v_units[1].T, v_units[3] @ units[1].T, v_bias[3], v_units[4] @ units[3][1:].T, v_bias[4]),
            *(v_units[5] @ units[4].T, v_bias[5]),
        ]
        v_parameters += torch.cat([x.flatten() for x in gradients])
    return v_features, v_parameters


_radiance_bfloat16 = operator("radiance_mlp_bfloat16", _samples, _compute_bfloat16)
_radiance_backward = operator("radiance_mlp_backward", _gradients, _compute_gradients)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    features, parameters, ctx.sizes = inputs
    ctx.save_for_backward(features, parameters)


def _vjp(ctx: Any, v_densities: Tensor, v_colors: Tensor, v_gates: Tensor) -> tuple[Tensor | None, ...]:
    cotangents = (v_densities.contiguous(), v_colors.contiguous(), v_gates.contiguous())
    return *_radiance_backward(*cotangents, *ctx.saved_tensors, ctx.sizes), None


_radiance = operator("radiance_mlp", _samples, _compute, _vjp, _setup)
