"""Devices and threads: ``--device auto|cpu|cuda``, and how threads wait. Importing this does not import torch."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from avatar.errors import AvatarError

if TYPE_CHECKING:
    import torch

# How threads of OpenMP wait, in GNU's, LLVM's and Intel's library.
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

T = TypeVar("T")
_SETTING = threading.Lock()  # of how many threads torch uses

DeviceName = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]  # of the deformation network at playback


def wait_passively() -> None:
    """Let threads of OpenMP sleep while they wait, unless the environment says how they shall wait.

    Nor are there more of them than may run at once (`cpu_quota`), unless it says how many: as `OMP_NUM_THREADS`.

    Torch's threads wait for each other many times in a training step. By default they spin meanwhile, and so take the
    cores from the native kernels, which have threads of their own, and from other programs. OpenMP reads the
    environment when torch is loaded, so this has no effect after that: ``import avatar`` calls it, and has to come
    before ``import torch``.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if (quota := cpu_quota()) is not None and quota < cores:
        os.environ.setdefault("OMP_NUM_THREADS", str(quota))  # torch asks for the cores alone


def cpu_quota(root: Path = Path("/")) -> int | None:
    """CPUs that the control group of this process may use at once, rounded up; None without a limit.

    Containers set one (``docker run --cpus=2``). What uses more threads than that stands still for most of the time.

    Args:
        root: Of the file system.
    """
    try:
        shares = [share for group in _cpu_groups(root) if (share := _cpu_share(group)) is not None]
    except (OSError, ValueError):
        return None  # not Linux
    return max(1, math.ceil(min(shares))) if shares else None


def _cpu_groups(root: Path) -> list[Path]:
    """Folders of the control groups that this process is in: the limits of all of them hold."""
    found: list[Path] = []
    for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)  # version 2 names no controllers
        if not controllers or "cpu" in controllers.split(","):
            mount = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            own = mount / path.lstrip("/")  # in a container it may not be there: then its own group is the mount
            folders = [own, *own.parents]
            found += folders[: folders.index(mount) + 1]
    return found


def _cpu_share(group: Path) -> float | None:
    """Seconds of processor time per second that a control group may take, in either version's files."""
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None  # "max" is no number


def choose_device(name: str) -> torch.device:
    """The device for ``--device``.

    Args:
        name: ``cpu``; ``cuda``; or ``auto``, a GPU where both torch and the CUDA library can use one, else the CPU.
            Where the library is there and cannot run, a warning says why.

    Raises:
        AvatarError: ``cuda`` and there is no GPU or no CUDA library that runs, or the name is unknown.
    """
    import torch

    from avatar.native.cuda import CANNOT_RUN, cuda_library, cuda_status

    if name not in ("auto", "cpu", "cuda"):
        raise AvatarError(f'--device "{name}" is not understood.', fix="Give auto, cpu or cuda.")
    if name == "cpu":
        return torch.device("cpu")
    gpu = torch.cuda.is_available()
    library = cuda_library()
    if name == "auto" and not (gpu and library):
        return torch.device("cpu")
    if not gpu:
        cause = "torch sees no GPU."
        if torch.version.cuda is None:
            cause = "the torch that is installed is a CPU build."
        fix = "Leave it out to run on the CPU; see `avatar doctor`."
        raise AvatarError("--device cuda is not available:", why=cause, fix=fix, see="no-gpu-is-used")
    reference = os.environ.get("AVATAR_NATIVE", "") == "reference"
    if library is None and not reference:
        raise AvatarError(
            "--device cuda needs the CUDA library,", why=f"which is {cuda_status()}",
            fix="With nvcc on PATH run `AVATAR_CUDA=1 pip install .` in the sources, or leave --device out.",
            see="no-gpu-is-used",
        )  # fmt: skip
    index = torch.cuda.current_device()
    if library is not None and not reference and (problem := library.problem(index)):
        if name == "auto":
            _warn_of_gpu(problem, CANNOT_RUN)
            return torch.device("cpu")
        what = "--device cuda is not available, because the CUDA library does not run on this GPU:"
        raise AvatarError(what, why=problem, fix=CANNOT_RUN, see="no-gpu-is-used")
    return torch.device("cuda", index)


@cache
def _warn_of_gpu(problem: str, fix: str) -> None:
    """Warn, once: a command chooses a device several times."""
    from avatar import log

    log.warn(f"the GPU is not used, because the CUDA library does not run on it: {problem} {fix}")


def use_threads(count: int, new: int | None = None) -> None:
    """Let torch and the native kernels use so many CPU threads in the thread that calls.

    With ``torch.set_num_threads`` alone, every thread whose first operation comes later would use as many, for good.

    Args:
        count: How many.
        new: How many threads use that are new to torch; None: as many as so far.
    """
    import torch

    with _SETTING:
        if new is None:
            if torch.get_num_threads() == count:
                return
            new = _in_new_thread(torch.get_num_threads)
        torch.set_num_threads(count)
        _in_new_thread(lambda: torch.set_num_threads(new))


def _in_new_thread(work: Callable[[], T]) -> T:
    """The result of some work in a thread that is new to torch: what torch begins with shows in no other."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(work()), name="avatar-threads")
    thread.start()
    thread.join()
    return found[0]


def threads_as_here() -> Callable[[], None]:
    """A function by which a thread that is started here gets as many CPU threads as this one has."""
    import torch

    return partial(use_threads, torch.get_num_threads())


@contextmanager
def cpu_threads(count: int | None, new_too: bool = False) -> Generator[None]:
    """Torch and the native kernels use this many CPU threads inside, in the thread that calls.

    Args:
        count: How many; None: nothing changes.
        new_too: Threads that are new to torch inside use as many, for as long as they run.
    """
    import torch

    if count is None:
        yield
        return
    before = torch.get_num_threads()
    new = _in_new_thread(torch.get_num_threads) if new_too else None
    use_threads(count, count if new_too else None)
    try:
        yield
    finally:
        use_threads(before, new)


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
    try:
        with cpu_threads(max(1, threads // 2), new_too=True):
            yield
    finally:
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
        self._lock = threading.Lock()  # several listeners may draw one avatar, each in a thread of its own
        self._copies: dict[int, tuple[Any, Any]] = {}  # by id; the thing is kept too, so that its id stays its own

    def __call__(self, thing: Any) -> Any:
        with self._lock:
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
