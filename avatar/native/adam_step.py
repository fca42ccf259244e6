"""The fused Adam step."""

from __future__ import annotations

import math
from numbers import Integral

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import cuda, operators, reference
from avatar.native.checks import check_float_tensor, number
from avatar.native.library import runs_native


def adam_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """One Adam step in place (Kingma and Ba 2015), the arithmetic of ``torch.optim.Adam`` in one pass over memory.

    Args:
        param: Any shape, float32 or float64, contiguous; changed in place.
        grad: Shape of ``param``.
        exp_avg: First moment, shape of ``param``, contiguous; changed in place.
        exp_avg_sq: Second moment, likewise.
        lr: Learning rate.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Added to the root of the second moment.
        step: Number of this step, from 1.

    NaN and infinity in a gradient reach the parameter and its moments, as in torch.

    Raises:
        AvatarError: Shapes or dtypes differ, a tensor to change is not contiguous, or ``step`` is below 1.
    """
    shape = tuple(param.shape) if isinstance(param, Tensor) else ()
    for name, tensor in (("param", param), ("grad", grad), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
        check_float_tensor(name, tensor, shape, like=param)
    for name, value, high in (("lr", lr, math.inf), ("beta1", beta1, 1), ("beta2", beta2, 1), ("eps", eps, math.inf)):
        number(name, value, 0, high)
    if not isinstance(step, Integral) or step < 1:
        raise AvatarError(f"step is {step};", why="steps are whole numbers from 1.")
    with torch.no_grad():
        if (param.is_cuda and cuda.cuda_library() is None) or not runs_native(param):
            reference.adam_step(param, grad, exp_avg, exp_avg_sq, lr, beta1, beta2, eps, step)
            return
        for name, tensor in (("param", param), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
            if not tensor.is_contiguous():
                raise AvatarError(
                    f"{name} is not contiguous;", why="it is changed in place.", fix="Use .contiguous() once."
                )
        operators.kernels(param.device).call(
            *("adam_step", param, param, grad.contiguous(), exp_avg, exp_avg_sq, param.numel()),
            *(lr, beta1, beta2, eps, step),
        )
