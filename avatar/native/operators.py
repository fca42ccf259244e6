"""Defines each torch operator of this package once: signature, results, kernel and gradient, for every device.

An operator is two functions of the same arguments. The first is annotated and allocates the results: it is the
operator's signature, and with tensors that have shapes but no memory it is what ``torch.compile`` asks for. The second
has the loaded library as its first argument and fills the results. Two more differentiate it.

This is ``torch.library.Library``, and not ``torch.library.custom_op``, because the kernel of a ``custom_op`` is wrapped
against ``torch.compile``: its first call imports the compiler (``torch._dynamo``, more than a second of processor
time), and each later one goes through the wrapper.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native.cuda import CudaLibrary, require_cuda_library
from avatar.native.library import Library, require_library

Kernels = Library | CudaLibrary
# An operator lives as long as the library that defines it. One that is defined again, as by a module that is reloaded,
# takes the place of the last.
_libraries: dict[str, torch.library.Library] = {}


def kernels(device: torch.device) -> Kernels:
    """The library whose kernels run on a device.

    Raises:
        AvatarError: It is not there.
    """
    return require_cuda_library() if device.type == "cuda" else require_library()


def operator(
    name: str,
    allocate: Callable[..., Any],
    compute: Callable[..., Any],
    backward: Callable[..., Any] | None = None,
    setup_context: Callable[..., None] | None = None,
) -> Callable[..., Any]:
    """Define ``avatar::name`` for the CPU and CUDA.

    Args:
        name: Of the operator.
        allocate: Results of the right shapes from the operator's arguments; its annotations are the signature.
        compute: The results from the library (:data:`Kernels`) and the operator's arguments.
        backward: Gradients of the arguments from ``ctx`` and those of the results, as of ``torch.autograd.Function``;
            None refuses to differentiate.
        setup_context: Keeps what ``backward`` needs, from ``ctx``, ``inputs`` and ``output``.

    Returns:
        The operator. It takes its arguments by position.
    """

    def run(*arguments: Any) -> Any:
        tensor = next(x for x in arguments if isinstance(x, Tensor))
        return compute(kernels(tensor.device), *arguments)

    def refuse(ctx: Any, *gradients: Any) -> Any:
        raise AvatarError(f"{name} has no gradient.")

    library = _libraries[name] = torch.library.Library("avatar", "FRAGMENT")
    schema = torch.library.infer_schema(allocate, mutates_args=())
    library.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
    for key in ("CPU", "CUDA"):
        library.impl(name, run, key)
    qualified = f"avatar::{name}"
    torch.library.register_fake(qualified, allocate, lib=library)
    torch.library.register_autograd(qualified, backward or refuse, setup_context=setup_context, lib=library)
    return getattr(torch.ops.avatar, name).default


def wanted(tensor: Tensor, needed: bool) -> Tensor:
    """Memory like a tensor's for a result that may not be needed; then empty."""
    return torch.empty_like(tensor) if needed else tensor.new_empty(0)


def address(tensor: Tensor, needed: bool) -> Tensor | None:
    """A result of :func:`wanted` as the kernels take it."""
    return tensor if needed else None
