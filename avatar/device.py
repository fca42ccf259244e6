"""Devices and threads: ``--device auto|cpu|cuda``, and how threads wait. Importing this does not import torch."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from avatar.errors import AvatarError

if TYPE_CHECKING:
    import torch

# How threads of OpenMP wait, in GNU's, LLVM's and Intel's library.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]  # of the deformation network at playback


def wait_passively() -> None:
    """Let threads of OpenMP sleep while they wait, unless the environment says how they shall wait.

    Torch's threads wait for each other many times in a training step. By default they spin meanwhile, and so take the
    cores from the native kernels, which have threads of their own, and from other programs. OpenMP reads the
    environment when torch is loaded, so this has no effect after that: ``import avatar`` calls it, and has to come
    before ``import torch``.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def choose_device(name: str) -> torch.device:
    """The device for ``--device``.

    Args:
        name: ``cpu``; ``cuda``; or ``auto``, a GPU where both torch and the CUDA library can use one, else the CPU.

    Raises:
        AvatarError: ``cuda`` and there is no GPU or no CUDA library, or the name is unknown.
    """
    import torch

    from avatar.native.cuda import cuda_library, cuda_status

    if name not in ("auto", "cpu", "cuda"):
        raise AvatarError(f'--device "{name}" is not understood.', fix="Give auto, cpu or cuda.")
    if name == "cpu":
        return torch.device("cpu")
    gpu = torch.cuda.is_available()
    library = cuda_library() is not None
    if name == "auto" and not (gpu and library):
        return torch.device("cpu")
    if not gpu:
        cause = "torch sees no GPU."
        if torch.version.cuda is None:
            cause = "the torch that is installed is a CPU build."
        fix = "Leave it out to run on the CPU; see `avatar doctor`."
        raise AvatarError("--device cuda is not available:", why=cause, fix=fix, see="no-gpu-is-used")
    if not library and os.environ.get("AVATAR_NATIVE", "") != "reference":
        raise AvatarError(
            "--device cuda needs the CUDA library,", why=f"which is {cuda_status()}",
            fix="With nvcc on PATH run `AVATAR_CUDA=1 pip install .` in the sources, or leave --device out.",
            see="no-gpu-is-used",
        )  # fmt: skip
    return torch.device("cuda", torch.cuda.current_device())


@contextmanager
def cpu_threads(count: int) -> Generator[None]:
    """Torch and the native kernels use this many CPU threads inside."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def training_threads() -> Generator[None]:
    """Give the native kernels all CPU threads inside, and torch's own operators half of them.

    Torch cuts each operator of a training step into one piece per thread and waits for the slowest. Its operators are
    short, so the pieces gain little on free cores, and the waits cost much beside other programs
    (docs/notes/kernels.md). Results do not depend on it.
    """
    import torch

    from avatar.native.library import set_num_threads

    threads = torch.get_num_threads()
    set_num_threads(threads)
    torch.set_num_threads(max(1, threads // 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        set_num_threads(None)


class OnDevice:
    """Keep copies on a device of the last few things asked for.

    What is used every frame is so copied once.

    Things have ``to(device)``, which returns the thing itself where it is there already. They are told apart by
    identity and must not be changed.

    Args:
        device: Where to.
        keep: How many copies are kept.
    """

    def __init__(self, device: torch.device, keep: int = 8) -> None:
        self.device, self._keep = device, keep
        self._copies: dict[int, tuple[Any, Any]] = {}  # by id; the thing is kept too, so that its id stays its own

    def __call__(self, thing: Any) -> Any:
        known = self._copies.pop(id(thing), None)
        if known is None:
            copy = thing.to(self.device)
            if copy is thing:
                return thing
            known = thing, copy
        self._copies[id(thing)] = known  # the most recent last
        if len(self._copies) > self._keep:
            del self._copies[next(iter(self._copies))]
        return known[1]
