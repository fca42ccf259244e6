"""Finds, checks and calls the native library. Nothing is loaded before the first use."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native import _abi

NAME = "_native_cpu"
_ISA_NAMES = {
    _abi.ISA_BASELINE: "baseline",
    _abi.ISA_AVX2: "avx2",
    _abi.ISA_AVX512: "avx512",
    _abi.ISA_AVX512_BF16: "avx512_bf16",
}
_DTYPES = {torch.float32: _abi.FLOAT32, torch.float64: _abi.FLOAT64}
_threads: int | None = None


@dataclass(frozen=True)
class Library:
    """A loaded native library, the instruction set its kernels run with, and the number of their threads.

    The number is taken when the library is asked for, once for each operator. It is the one for which scratch memory
    is made, and another thread may set another at any time.
    """

    handle: ctypes.CDLL
    path: Path
    isa: int
    threads: tuple[int, ...] = ()

    cuda = False

    @property
    def instruction_set(self) -> str:
        """Name of the instruction set, such as ``avx2``."""
        return _ISA_NAMES[self.isa]

    def call(self, name: str, like: Tensor, *arguments: Any) -> None:
        """Call a kernel in the number type of ``like``; tensors are passed by address.

        Raises:
            AvatarError: The kernel refused its arguments; the sentence is the kernel's.
        """
        call = _abi.Call(dtype=_DTYPES[like.dtype], num_threads=self.threads[0], isa=self.isa)
        status = getattr(self.handle, f"avatar_{name}")(ctypes.byref(call), *(_address(a) for a in arguments))
        if status != _abi.OK:
            raise AvatarError(f"{name}: {call.message.decode()}.")

    def workspace(self, name: str, like: Tensor, *sizes: int) -> Tensor:
        """Scratch memory for one call, as the library asks for it."""
        size = getattr(self.handle, f"avatar_{name}")(_DTYPES[like.dtype], *sizes)
        if size < 0:
            raise AvatarError(f"{name}: sizes {list(sizes)} are refused.")
        return torch.empty(size, dtype=torch.uint8)


def _address(argument: Any) -> Any:
    return argument.data_ptr() if isinstance(argument, Tensor) else argument


def num_threads() -> int:
    """Threads that the native kernels use: :func:`set_num_threads`, else ``torch.get_num_threads()``."""
    return torch.get_num_threads() if _threads is None else _threads


def set_num_threads(count: int | None) -> None:
    """Set the threads of the native kernels; ``None`` follows torch again. Results do not depend on the number.

    Raises:
        AvatarError: ``count`` is no whole number from 1.
    """
    global _threads
    if count is not None and not (isinstance(count, int) and 1 <= count < 2**31):
        raise AvatarError(f"set_num_threads({count}):", why="at least one thread is needed.")
    _threads = count


def library() -> Library | None:
    """The native library, or None when the torch reference has to do (see :func:`library_status`)."""
    loaded, reason = _load()
    if loaded is None:
        _warn_of_environment(reason)
    return loaded and _with_threads(loaded)


def runs_native(tensor: Tensor) -> bool:
    """Whether a kernel takes this tensor; otherwise the torch reference does.

    Raises:
        AvatarError: A CUDA tensor without the CUDA library.
    """
    if tensor.device.type == "cpu":
        return library() is not None
    from avatar.native.cuda import require_cuda_library

    return os.environ.get("AVATAR_NATIVE", "") != "reference" and require_cuda_library() is not None


def require_library() -> Library:
    """The native library, for code that only runs when there is one."""
    loaded, reason = _load()
    if loaded is None:
        raise AvatarError("The native library is not loaded:", why=reason, see="the-native-library-is-not-loaded")
    return _with_threads(loaded)


def _with_threads(loaded: Library) -> Library:
    return Library(loaded.handle, loaded.path, loaded.isa, (num_threads(),))


def multiplies_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 (AVX512_BF16), and so does :func:`avatar.native.deform_code`."""
    loaded = library()
    return loaded is not None and loaded.isa >= _abi.ISA_AVX512_BF16


def library_status() -> str:
    """One line: which library is loaded with which instruction set, or why the torch reference is used instead."""
    loaded, reason = _load()
    if loaded is None:
        return f"torch reference (slow): {reason}"
    return f"native, {loaded.instruction_set}, {num_threads()} threads, {loaded.path}"


def _candidates() -> list[Path]:
    """Places the library can be: beside this file, or in site-packages for an editable installation."""
    found = [Path(__file__).parent / f"{NAME}.so"]
    spec = importlib.util.find_spec(f"avatar.native.{NAME}")
    if spec is not None and spec.origin:
        found.append(Path(spec.origin))
    found.append(Path(sysconfig.get_path("platlib")) / "avatar" / "native" / f"{NAME}.so")
    return found


def _open(path: Path) -> ctypes.CDLL | str:
    """The library with its signatures set, or why it cannot be used."""
    try:
        handle = ctypes.CDLL(str(path))
        version = handle.avatar_abi_version()
        if version != _abi.ABI_VERSION:
            return f"{path} has ABI version {version}, not {_abi.ABI_VERSION}; run `pip install` again."
        for name, (result, arguments) in _abi.FUNCTIONS.items():
            function = getattr(handle, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        return f"{path} does not load: {error}."
    return handle


@functools.cache
def _warn_of_environment(reason: str) -> None:
    """Warn, once, where the environment asks for a library or an instruction set that is not available."""
    from avatar import log

    choice = os.environ.get("AVATAR_NATIVE") or "reference"
    if choice != "reference" or os.environ.get("AVATAR_ISA"):
        log.warn(f"the slow torch reference is used instead of the native kernels: {reason}")


@functools.cache
def _load() -> tuple[Library | None, str]:
    choice = os.environ.get("AVATAR_NATIVE", "")
    if choice == "reference":
        return None, "AVATAR_NATIVE=reference asks for it."
    paths = [Path(choice)] if choice else _candidates()
    reason = f"no {NAME}.so in {paths[0].parent}; install a C++ compiler, then run `pip install` again."
    if choice:
        reason = f"AVATAR_NATIVE={choice} is no file; it names a library, or is `reference`."
    for path in filter(Path.is_file, paths):
        handle = _open(path)
        if isinstance(handle, str):
            reason = handle
            continue
        best = handle.avatar_best_isa()
        allowed = {name: isa for isa, name in _ISA_NAMES.items() if isa <= best}
        wanted = os.environ.get("AVATAR_ISA", "") or _ISA_NAMES[best]
        if wanted not in allowed:
            return None, f"AVATAR_ISA={wanted} is not one of {', '.join(allowed)}."
        return Library(handle, path, allowed[wanted]), ""
    return None, reason
