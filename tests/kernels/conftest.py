"""Kernel tests need the native library; the references are tested by what they agree with."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from avatar import native
from avatar.native import cuda
from avatar.native.library import Library, library
from tests.kernels.cuda_backends import Backend, build_emulation

GUARD, KEPT = 1 << 16, 16  # bytes behind a workspace; workspaces that are looked at again at the end of a test
UNTOUCHED = 0xAB


@pytest.fixture(autouse=True)
def nothing_is_written_behind_a_workspace(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every kernel keeps to the memory that the library asks for."""
    made: deque[tuple[str, tuple[int, ...], torch.Tensor]] = deque()

    def check() -> None:
        name, sizes, behind = made.popleft()
        written = (behind != UNTOUCHED).nonzero()
        assert not len(written), f"{name}{list(sizes)}: {int(written[-1]) + 1} bytes are written behind it"

    def guarded(kind: type) -> None:
        plain = kind.workspace  # type: ignore[attr-defined]

        def workspace(self: Any, name: str, like: torch.Tensor, *sizes: int) -> torch.Tensor:
            asked = plain(self, name, like, *sizes)
            whole = torch.full((len(asked) + GUARD,), UNTOUCHED, dtype=torch.uint8, device=asked.device)
            made.append((name, sizes, whole[len(asked) :]))
            if len(made) > KEPT:
                check()
            return whole[: len(asked)]

        monkeypatch.setattr(kind, "workspace", workspace)

    guarded(Library)
    guarded(cuda.CudaLibrary)
    yield
    while made:
        check()


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
