"""Argument checks shared by the kernels: one sentence that names the tensor, its shape and what was expected."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from avatar.errors import AvatarError


def float_tensor(name: str, tensor: Tensor, shape: Sequence[int | str], like: Tensor | None = None) -> Tensor:
    """Check a tensor and return it contiguous.

    Args:
        name: Argument name for the message.
        tensor: The argument.
        shape: Expected sizes; a string names a size that may be anything.
        like: Tensor whose dtype and device must be shared.

    Raises:
        AvatarError: Not a CPU or CUDA tensor of float32 or float64 in the expected shape.
    """
    if not isinstance(tensor, Tensor):
        raise AvatarError(f"{name} is a {type(tensor).__name__}, not a torch tensor.")
    expected = "[" + ", ".join(str(size) for size in shape) + "]"
    if tensor.dim() != len(shape) or any(
        isinstance(size, int) and actual != size for actual, size in zip(tensor.shape, shape, strict=True)
    ):
        raise AvatarError(f"{name} has shape {list(tensor.shape)};", f"expected {expected}.")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise AvatarError(f"{name} is {tensor.dtype};", "expected torch.float32 (or float64).")
    if like is not None and tensor.dtype != like.dtype:
        raise AvatarError(f"{name} is {tensor.dtype};", f"the other arguments are {like.dtype}.")
    if tensor.device.type not in ("cpu", "cuda"):
        raise AvatarError(f"{name} is on {tensor.device};", "the native kernels run on CPU and CUDA.", "Use .cpu().")
    if like is not None and tensor.device != like.device:
        raise AvatarError(f"{name} is on {tensor.device};", f"the other arguments are on {like.device}.")
    return tensor.contiguous()


def picture_size(width: int, height: int) -> None:
    """Check a picture size in pixels.

    Raises:
        AvatarError: Not 1 to 16384.
    """
    if not (1 <= width <= 16384 and 1 <= height <= 16384):
        raise AvatarError(f"width {width}, height {height}:", "a picture has 1 to 16384 pixels on each side.")
