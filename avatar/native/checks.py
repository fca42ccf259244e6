"""Argument checks shared by the kernels: one sentence that names the tensor, its shape and what was expected.

They look at shapes and types only, and before a view is made dense: an absurd size costs no memory. What NaN and
infinity do is said at each function.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

from avatar.errors import AvatarError

MAX_COUNT = 2**24  # lists of Gaussians carry their indices in float lanes
INT32_MAX = 2**31 - 1
MAX_SIDE = 16384
# Smallest and largest value of a size, by its name in an expected shape.
SIZES = {
    "N": (0, MAX_COUNT),  # Gaussians or points
    "R+1": (1, MAX_COUNT + 1),  # rays, as offsets
    "S": (0, INT32_MAX),  # samples along all rays
    "H": (1, MAX_SIDE),  # image, pixels
    "W": (1, MAX_SIDE),
    "C": (1, 32),  # channels
    "V": (1, MAX_COUNT),  # vertices of a mesh
    "G": (2, 1024),  # nodes of a grid
    "L": (1, 64),  # levels, rows and features of a hash grid
    "T": (4, INT32_MAX),
    "F": (1, 16),
    "I": (1, 1024),  # inputs, hidden units and outputs of a network
    "U": (1, 1024),
    "O": (1, 1024),
    "1+K": (2, 1024),  # density and geometry features
    "B": (1, 1024),  # cells or bytes along a side of an occupancy grid
}


def float_tensor(
    name: str,
    tensor: Tensor,
    shape: Sequence[int | str],
    like: Tensor | None = None,
    also: torch.dtype | None = None,
) -> Tensor:
    """Check a tensor as :func:`check_float_tensor` does, and return it contiguous."""
    check_float_tensor(name, tensor, shape, like, also)
    return tensor.contiguous()


def check_float_tensor(
    name: str,
    tensor: Tensor,
    shape: Sequence[int | str],
    like: Tensor | None = None,
    also: torch.dtype | None = None,
) -> None:
    """Check a tensor of numbers.

    Args:
        name: Argument name for the message.
        tensor: The argument.
        shape: Expected sizes; a name stands for any size within the limits of ``SIZES``.
        like: Tensor whose dtype and device must be shared.
        also: Another dtype that it may have.

    Raises:
        AvatarError: Not a dense CPU or CUDA tensor of float32 or float64 in the expected shape.
    """
    check_tensor(name, tensor, shape)
    if tensor.dtype not in (torch.float32, torch.float64, also):
        raise AvatarError(f"{name} is {tensor.dtype};", why="expected torch.float32 (or float64).")
    if like is not None and tensor.dtype not in (like.dtype, also):
        raise AvatarError(f"{name} is {tensor.dtype};", why=f"the other arguments are {like.dtype}.")
    if tensor.device.type not in ("cpu", "cuda"):
        raise AvatarError(
            f"{name} is on {tensor.device};", why="the native kernels run on CPU and CUDA.", fix="Use .cpu()."
        )
    if like is not None and tensor.device != like.device:
        raise AvatarError(f"{name} is on {tensor.device};", why=f"the other arguments are on {like.device}.")


def check_tensor(name: str, tensor: Tensor, shape: Sequence[int | str]) -> None:
    """Check that an argument is a dense tensor of the expected shape, whatever its type and device.

    Raises:
        AvatarError: It is not.
    """
    if not isinstance(tensor, Tensor):
        raise AvatarError(f"{name} is a {type(tensor).__name__}, not a torch tensor.")
    if tensor.layout != torch.strided:
        raise AvatarError(
            f"{name} is {tensor.layout};", why="the native kernels read dense tensors.", fix="Use .to_dense()."
        )
    found, expected = f"{name} has shape {list(tensor.shape)};", "[" + ", ".join(str(size) for size in shape) + "]"
    if tensor.dim() != len(shape):
        raise AvatarError(found, why=f"expected {expected}.")
    for size, actual in zip(shape, tensor.shape, strict=True):
        if isinstance(size, str):
            low, high = SIZES[size]
            if not low <= actual <= high:
                raise AvatarError(found, why=f"expected {expected} with {size} from {low} to {high}.")
        elif actual != size:
            raise AvatarError(found, why=f"expected {expected}.")


def image_size(width: int, height: int) -> None:
    """Check an image size in pixels.

    Raises:
        AvatarError: Not whole numbers from 1 to 16384.
    """
    whole = isinstance(width, Integral) and isinstance(height, Integral)
    if not (whole and 1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise AvatarError(f"width {width}, height {height}:", why=f"an image has 1 to {MAX_SIDE} pixels on each side.")


def number(name: str, value: float, low: float, high: float = math.inf) -> None:
    """Check a finite number.

    Raises:
        AvatarError: Not a number from ``low`` to ``high``.
    """
    if not (isinstance(value, Real) and math.isfinite(value) and low <= value <= high):
        most = "" if high == math.inf else f" to {high:g}"
        raise AvatarError(f"{name} is {value};", why=f"expected a finite number from {low:g}{most}.")
