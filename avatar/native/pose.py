"""The rig as a torch operator: every Gaussian between two rigid motions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avatar.native import reference
from avatar.native.checks import float_tensor
from avatar.native.library import require_library, runs_native


def pose_gaussians(
    means: Tensor, quats: Tensor, weights: Tensor, shifts: Tensor, moves: Tensor, turns: Tensor
) -> tuple[Tensor, Tensor]:
    """Blend two rigid motions of Gaussians, by a weight for each (linear blend skinning with two bones).

    Args:
        means: [N, 3].
        quats: [N, 4] wxyz, of any length.
        weights: [N] share of the first motion, usually 0..1; the second has the rest.
        shifts: [N, 3] added to the means before the second motion.
        moves: [2, 3, 4] the motions of positions: rotation and translation side by side.
        turns: [2, 4] the motions of rotations, wxyz; opposite signs of the two are the caller's to avoid.

    Returns:
        Means [N, 3], ``w (A m + a) + (1 - w) (B (m + shift) + b)``, and quaternions [N, 4],
        ``(w turn_a + (1 - w) turn_b) quat``, not normalised. Differentiable in everything; gradients are the same bits
        for any number of threads. NaN and infinity reach the Gaussians that depend on them.

    Raises:
        AvatarError: Wrong shapes or dtypes.
    """
    means = float_tensor("means", means, ("N", 3))
    n = means.shape[0]
    arguments = (
        means,
        float_tensor("quats", quats, (n, 4), like=means),
        float_tensor("weights", weights, (n,), like=means),
        float_tensor("shifts", shifts, (n, 3), like=means),
        float_tensor("moves", moves, (2, 3, 4), like=means),
        float_tensor("turns", turns, (2, 4), like=means),
    )
    return _pose(*arguments) if runs_native(means) else reference.pose_gaussians(*arguments)


@torch.library.custom_op("avatar::pose_gaussians", mutates_args=(), device_types="cpu")
def _pose(
    means: Tensor, quats: Tensor, weights: Tensor, shifts: Tensor, moves: Tensor, turns: Tensor
) -> tuple[Tensor, Tensor]:
    posed_means, posed_quats = torch.empty_like(means), torch.empty_like(quats)
    require_library().call(
        *("avatar_pose", means.dtype, means, quats, weights, shifts, moves, turns),
        *(len(means), posed_means, posed_quats),
    )
    return posed_means, posed_quats


@_pose.register_fake
def _(
    means: Tensor, quats: Tensor, weights: Tensor, shifts: Tensor, moves: Tensor, turns: Tensor
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(means), torch.empty_like(quats)


@torch.library.custom_op("avatar::pose_gaussians_backward", mutates_args=(), device_types="cpu")
def _pose_backward(
    means: Tensor,
    quats: Tensor,
    weights: Tensor,
    shifts: Tensor,
    moves: Tensor,
    turns: Tensor,
    v_posed_means: Tensor,
    v_posed_quats: Tensor,
    need_rig: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    native, n = require_library(), len(means)
    gradients = [torch.empty_like(x) for x in (means, quats, weights, shifts)]
    v_moves, v_turns = _rig_gradients(moves, turns, need_rig)
    native.call(
        *("avatar_pose_backward", means.dtype, means, quats, weights, shifts, moves, turns, n),
        *(v_posed_means, v_posed_quats, *gradients, *((v_moves, v_turns) if need_rig else (None, None))),
        native.workspace("avatar_pose_workspace", means.dtype, n),
    )
    v_means, v_quats, v_weights, v_shifts = gradients
    return v_means, v_quats, v_weights, v_shifts, v_moves, v_turns


def _rig_gradients(moves: Tensor, turns: Tensor, needed: bool) -> tuple[Tensor, Tensor]:
    if needed:
        return torch.empty_like(moves), torch.empty_like(turns)
    return moves.new_empty(0), turns.new_empty(0)


@_pose_backward.register_fake
def _(
    means: Tensor,
    quats: Tensor,
    weights: Tensor,
    shifts: Tensor,
    moves: Tensor,
    turns: Tensor,
    v_posed_means: Tensor,
    v_posed_quats: Tensor,
    need_rig: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = torch.empty_like
    return like(means), like(quats), like(weights), like(shifts), *_rig_gradients(moves, turns, need_rig)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs)


def _vjp(ctx: Any, v_means: Tensor, v_quats: Tensor) -> tuple[Tensor | None, ...]:
    need_rig = ctx.needs_input_grad[4] or ctx.needs_input_grad[5]
    gradients = _pose_backward(*ctx.saved_tensors, v_means.contiguous(), v_quats.contiguous(), need_rig)
    return gradients if need_rig else (*gradients[:4], None, None)


_pose.register_autograd(_vjp, setup_context=_setup)
