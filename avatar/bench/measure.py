"""Stopwatches and memory gauges for the CPU and for CUDA."""

from __future__ import annotations

import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import NamedTuple

import torch

from avatar.environment import peak_memory

WARM_BELOW_MS = 1000.0  # a first run slower than this is counted, not thrown away


class Timing(NamedTuple):
    """Median milliseconds, how many runs it is of, and the bytes that one run took beyond what was there before."""

    ms: float
    runs: int
    extra_bytes: int


def interleaved(
    tasks: dict[str, Callable[[], object]], device: torch.device, repeats: int, seconds: float
) -> dict[str, Timing]:
    """Time tasks in turns, one run each, so that whatever else the machine does falls on all alike.

    Args:
        tasks: Name to what is timed.
        device: Where it runs.
        repeats: Timed runs of each.
        seconds: A task that has taken this long in all gets no further run; each gets at least one.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    extra: dict[str, int] = {}
    for name, task in tasks.items():
        before = start_memory(device)
        first = stopwatch(task, device)
        extra[name] = max(0, most_memory(device) - before)
        if first >= WARM_BELOW_MS or repeats == 1:
            times[name].append(first)
    for _ in range(repeats):
        for name, task in tasks.items():
            spent = sum(times[name])
            if len(times[name]) < repeats and (not times[name] or spent + spent / len(times[name]) < 1e3 * seconds):
                times[name].append(stopwatch(task, device))
    return {name: Timing(statistics.median(taken), len(taken), extra[name]) for name, taken in times.items()}


def stopwatch(task: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one run; on a GPU between two events in its stream."""
    if device.type == "cuda":
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        begin.record()
        task()
        end.record()
        torch.cuda.synchronize(device)
        return begin.elapsed_time(end)
    begin = time.perf_counter()
    task()
    return 1e3 * (time.perf_counter() - begin)


@contextmanager
def quick_collections() -> Generator[None]:
    """Keep what exists now out of garbage collections, of which each memory gauge begins with one."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def start_memory(device: torch.device) -> int:
    """Forget the largest memory so far; returns the bytes in use now."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError, AttributeError):  # glibc only: freed memory goes back, so that using it again shows
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # Linux: resets the peak
    return _status("VmRSS") or peak_memory()


def most_memory(device: torch.device) -> int:
    """The most bytes in use since :func:`start_memory`: resident in this process, or allocated on the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM") or peak_memory()


def _status(field: str) -> int:
    """A size from Linux's account of this process, in bytes; 0 elsewhere."""
    with suppress(OSError), open("/proc/self/status") as file:
        for line in file:
            if line.startswith(field + ":"):
                return 1024 * int(line.split()[1])
    return 0
