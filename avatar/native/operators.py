"""Defines each torch operator of this package once: signature, results and kernel, for every device.

An operator is two functions of the same arguments. The first is annotated and allocates the results: it is the
operator's signature, and with tensors that have shapes but no memory it is what ``torch.compile`` asks for. The second
has the loaded library as its first argument and fills the results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.library import CustomOpDef

from avatar.native.cuda import CudaLibrary, require_cuda_library
from avatar.native.library import Library, require_library

Kernels = Library | CudaLibrary


def kernels(device: torch.device) -> Kernels:
    """The library whose kernels run on a device.

    Raises:
        AvatarError: It is not there.
    """
    return require_cuda_library() if device.type == "cuda" else require_library()


def operator(name: str, allocate: Callable[..., Any], compute: Callable[..., Any]) -> CustomOpDef:
    """Define ``avatar::name`` for the CPU and CUDA.

    Args:
        name: Of the operator.
        allocate: Results of the right shapes from the operator's arguments; its annotations are the signature.
        compute: The results from the library (:data:`Kernels`) and the operator's arguments.

    Returns:
        The operator. It takes its arguments by position; what differentiates it is registered on it.
    """

    def run(*arguments: Any) -> Any:
        tensor = next(x for x in arguments if isinstance(x, Tensor))
        return compute(kernels(tensor.device), *arguments)

    schema = torch.library.infer_schema(allocate, mutates_args=())
    defined = torch.library.custom_op(
        f"avatar::{name}", run, mutates_args=(), device_types=("cpu", "cuda"), schema=schema
    )
    defined.register_fake(allocate)
    return defined


def wanted(tensor: Tensor, needed: bool) -> Tensor:
    """Memory like a tensor's for a result that may not be needed; then empty."""
    return torch.empty_like(tensor) if needed else tensor.new_empty(0)


def address(tensor: Tensor, needed: bool) -> Tensor | None:
    """A result of :func:`wanted` as the kernels take it."""
    return tensor if needed else None
