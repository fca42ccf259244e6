"""Where the CUDA kernels run in tests: on a GPU with the real library, or emulated on the CPU, through the same loader.

The emulated library is the same sources, built by a C++ compiler against cuda_ext/tests/cuda_emulation/cuda_runtime.h.
Its operators take CPU tensors: while a test uses it, the CUDA implementations stand in for those of the CPU.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor

from avatar.native import cuda, operators
from tests.kernels.compare import Function, values_and_gradients

CUDA_EXT = Path(__file__).parents[2] / "cuda_ext"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other test process is in here: what it compiles need not be compiled again."""
    import fcntl  # not on Windows, nor is the emulation

    with open(folder / "emulation.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build_emulation(factory: pytest.TempPathFactory) -> Path:
    """Compile the emulated library once in a test run. Skips the test where it cannot be built."""
    if ready := os.environ.get("AVATAR_CUDA_EMULATED"):  # built by CMake with -DAVATAR_TESTS=ON
        return Path(ready)
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler: the emulated CUDA library is not built")
    base = factory.getbasetemp()
    folder = base.parent if base.name.startswith("popen-") else base  # which the processes of xdist share
    library = folder / "_native_cuda_emulated.so"
    with _alone(folder):
        if library.exists():
            return library
        unfinished = folder / "unfinished.so"
        emulation = CUDA_EXT / "tests" / "cuda_emulation"
        options = ["-std=c++17", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-Wno-unknown-pragmas"]
        options += ["-DAVATAR_CUDA_EMULATED", "-DAVATAR_CUDA_FLOAT64"]
        options += [f"-I{path}" for path in (emulation, CUDA_EXT / "include")]
        sources = [*sorted((CUDA_EXT / "src" / "cuda").glob("*.cu")), *sorted(emulation.glob("*.cpp"))]
        command = [compiler, *options, "-x", "c++", *map(str, sources), "-o", str(unfinished)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        unfinished.replace(library)
    return library


@contextmanager
def _uninitialised_memory_is_nan() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills what torch.empty makes
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class Backend:
    """The CUDA kernels on one kind of device."""

    def __init__(self, name: str, library: cuda.CudaLibrary) -> None:
        self.name, self.library = name, library
        self.device = torch.device("cuda" if name == "gpu" else "cpu")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Operators run the CUDA kernels for tensors on ``self.device``."""
        if self.name == "gpu":
            yield
            return
        with (
            mock.patch.object(cuda, "_load", lambda: (self.library, "")),
            mock.patch.object(operators, "kernels", lambda device: self.library),
            _uninitialised_memory_is_nan(),
        ):
            yield

    def run(self, function: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Outputs of a function of tensors on the device, as CPU tensors."""
        with self.active():
            return [x.cpu() for x in function(*(x.to(self.device) for x in inputs))]

    def values_and_gradients(self, function: Function, inputs: Sequence[Tensor]) -> list[Tensor]:
        """As :func:`tests.kernels.compare.values_and_gradients`, computed on the device."""

        def on_device(*leaves: Tensor) -> tuple[Tensor, ...]:
            return tuple(x.cpu() for x in function(*(x.to(self.device) for x in leaves)))

        with self.active():
            return values_and_gradients(on_device, inputs)

    @contextmanager
    def order(self, order: int) -> Iterator[None]:
        """Run threads and blocks in another order (emulation only)."""
        if self.name == "gpu":
            yield
            return
        set_order = self.library.handle.emulation_set_order
        set_order.argtypes, set_order.restype = [ctypes.c_int], None
        set_order(order)
        try:
            yield
        finally:
            set_order(0)


def assert_close(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Compare tensors, each relative to its largest value."""
    for x, y in zip(got, expected, strict=True):
        assert x.shape == y.shape
        scale = y.abs().max().item() if y.numel() else 1.0
        torch.testing.assert_close(x, y.to(x.dtype), rtol=0, atol=tolerance * max(scale, 1e-3))


def compare(backend: Backend, ours: Function, theirs: Function, inputs: list[Tensor], tolerance: float) -> None:
    """Outputs and gradients of ``ours`` on the backend next to those of ``theirs`` on the CPU."""
    assert_close(backend.values_and_gradients(ours, inputs), values_and_gradients(theirs, inputs), tolerance)


def same_in_every_order(backend: Backend, function: Function, inputs: list[Tensor]) -> None:
    """The bits do not depend on the order of threads and blocks, as they would if a barrier were missing."""
    results = []
    for order in (0, 1, 2, 3, 7):
        with backend.order(order):
            results.append(backend.values_and_gradients(function, inputs))
    for other in results[1:]:
        for x, y in zip(results[0], other, strict=True):
            assert torch.equal(x, y)
