"""Kernel tests need the native library; the references are tested by what they agree with."""

from __future__ import annotations

import sys

import pytest
import torch

from avatar import native
from avatar.native import cuda
from avatar.native.library import library
from tests.kernels.cuda_backends import Backend, build_emulation


@pytest.fixture
def needs_native() -> None:
    if library() is None:
        pytest.skip(native.library_status())


@pytest.fixture
def any_threads():
    """Restore the thread count after a test that changes it."""
    yield native.set_num_threads
    native.set_num_threads(None)


@pytest.fixture(scope="session")
def emulation(tmp_path_factory) -> Backend:
    if sys.platform != "linux":
        pytest.skip("the emulation of CUDA runs on Linux only")
    loaded = cuda.open_library(build_emulation(tmp_path_factory))
    assert isinstance(loaded, cuda.CudaLibrary), loaded
    return Backend("emulated", loaded)


@pytest.fixture(params=["emulated", "gpu"])
def backend(request) -> Backend:
    if request.param == "emulated":
        return request.getfixturevalue("emulation")
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    loaded = cuda.cuda_library()
    if loaded is None:
        pytest.skip(f"CUDA library {cuda.cuda_status()}")
    return Backend("gpu", loaded)
