"""Finds, checks and calls the CUDA library.

Everything runs on ``torch.cuda.current_stream()``; memory comes from torch. Only :func:`avatar.native.rasterize` waits
for the device; see :class:`avatar.native.pair_capacity`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import _abi, _abi_cuda

NAME = "_native_cuda"
FIX = (
    "With nvcc on PATH run `AVATAR_CUDA=1 pip install .` in the sources; until then move the tensors with .cpu(), "
    "or set AVATAR_NATIVE=reference for plain torch, which is slow."
)
CANNOT_RUN = (  # what to do where kernels cannot be launched
    "Update the NVIDIA driver, or build the library again here: `AVATAR_CUDA=1 pip install .` in the sources. "
    "A GPU needs compute capability 7.5 or newer."
)
_DTYPES = {torch.float32: _abi.FLOAT32, torch.float64: _abi.FLOAT64}


@dataclass(frozen=True)
class CudaLibrary:
    """A loaded CUDA library."""

    handle: ctypes.CDLL
    path: Path

    cuda = True
    threads = ()  # scratch memory does not depend on their number

    def problem(self, index: int) -> str:
        """Why nothing of the library runs on a GPU, in the words of CUDA; empty where it does. Tried once for each."""
        return _first_launch(self, index)

    def call(self, name: str, like: Tensor, *arguments: Any) -> None:
        """Launch on the current stream of the device of ``like``, in its number type; tensors are passed by address.

        Raises:
            AvatarError: The library refused the arguments, or the launch failed; the sentence is the library's.
        """
        if like.dtype not in _DTYPES:
            raise AvatarError(f"{name}: {like.dtype} is not supported.")
        call = _abi.Call(dtype=_DTYPES[like.dtype], num_threads=1)
        addresses = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
        with _on(like):
            stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else None
            status = getattr(self.handle, f"avatar_cuda_{name}")(ctypes.byref(call), *addresses, stream)
        if status != _abi.OK:
            raise AvatarError(f"cuda_{name}: {call.message.decode()}.")

    def workspace(self, name: str, like: Tensor, *sizes: int) -> Tensor:
        """Scratch memory for one call, as the library asks for it."""
        with _on(like):
            size = getattr(self.handle, f"avatar_cuda_{name}")(_DTYPES[like.dtype], *sizes)
        if size < 0:
            raise AvatarError(f"cuda_{name}: sizes {list(sizes)} are refused.")
        return torch.empty(size, dtype=torch.uint8, device=like.device)


def _on(like: Tensor) -> contextlib.AbstractContextManager[object]:
    """Make the device of a tensor the current one, which is another in each thread: the library asks CUDA about it."""
    return torch.cuda.device(like.device) if like.is_cuda else contextlib.nullcontext()


@functools.cache
def _first_launch(library: CudaLibrary, index: int) -> str:
    """An older driver, or a GPU that the library has no code for, shows at the first launch, and not before."""
    with torch.cuda.device(index):
        call = _abi.Call(dtype=_abi.FLOAT32, num_threads=1)
        stream = torch.cuda.current_stream(index).cuda_stream
        status = library.handle.avatar_cuda_probe(ctypes.byref(call), stream)
    return "" if status == _abi.OK else f"{call.message.decode()}."


def open_library(path: Path) -> CudaLibrary | str:
    """The library with its signatures set, or why it cannot be used."""
    try:
        handle = ctypes.CDLL(str(path))
        version = handle.avatar_cuda_abi_version()
        if version != _abi_cuda.ABI_VERSION:
            return f"{path} has ABI version {version}, not {_abi_cuda.ABI_VERSION}; run `pip install` again."
        for name, (result, arguments) in _abi_cuda.FUNCTIONS.items():
            function = getattr(handle, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        return f"{path} does not load: {error}."
    return CudaLibrary(handle, path)


@functools.cache
def _load() -> tuple[CudaLibrary | None, str]:
    choice = os.environ.get("AVATAR_NATIVE_CUDA", "")
    beside = [
        Path(__file__).parent / f"{NAME}.so",
        Path(sysconfig.get_path("platlib"), "avatar", "native", f"{NAME}.so"),
    ]
    reason = f"there is no {choice or f'{NAME}.so in {beside[0].parent}'}."
    for path in filter(Path.is_file, [Path(choice)] if choice else beside):
        loaded = open_library(path)
        if isinstance(loaded, CudaLibrary):
            return loaded, ""
        reason = loaded
    return None, reason


def cuda_library() -> CudaLibrary | None:
    """The CUDA library, or None (see :func:`cuda_status`)."""
    return _load()[0]


def require_cuda_library() -> CudaLibrary:
    """The CUDA library.

    Raises:
        AvatarError: It is not there; the sentence says how to build it.
    """
    loaded, reason = _load()
    if loaded is None:
        raise AvatarError("CUDA tensors need the CUDA library:", why=reason, fix=FIX)
    return loaded


def cuda_status() -> str:
    """One line: which CUDA library is there, or why none."""
    loaded, reason = _load()
    return f"not built: {reason}" if loaded is None else str(loaded.path)
