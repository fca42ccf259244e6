"""Work shared out among processes of this machine, or of a Ray cluster. Nothing heavy is imported before a process has
been told to keep to one thread."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from avatar.cluster import THREADS, connected, processors_of
from avatar.errors import AvatarError

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 4  # tasks per processor that Ray is given before results are waited for


def cores() -> int:
    """Processors that this process may use; its share of them where several were started on this machine together."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def check_workers(workers: int | None) -> None:
    """Refuse a number of processes below one; None is one per core.

    Raises:
        AvatarError: It is.
    """
    if workers is not None and workers < 1:
        raise AvatarError(f"--workers {workers} is too few.", fix="Give 1 or more.")


def spread(task: Callable[[T], R], items: Sequence[T], workers: int, ray: str | None = None) -> Iterator[R]:
    """Results of a task, in the order in which they are ready.

    Args:
        task: A function of a module, or a `functools.partial` of one.
        items: What it is called with.
        workers: Processes; 1: none but this one.
        ray: Address of a Ray cluster to use instead, or ``local`` for one with ``workers`` processors here.

    Raises:
        AvatarError: A process was killed, or Ray cannot be had. What the task raises comes through.
    """
    if ray is not None:
        return _on_ray(task, items, workers, ray)
    workers = min(workers, len(items))
    return map(task, items) if workers <= 1 else _in_processes(task, items, workers)


def _in_processes(task: Callable[[T], R], items: Sequence[T], workers: int) -> Iterator[R]:
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")  # threads and native libraries do not survive a fork
    pool = ProcessPoolExecutor(workers, context, initializer=_begin)
    try:
        for future in as_completed([pool.submit(task, item) for item in items]):
            yield future.result()
    except BrokenProcessPool:
        raise AvatarError(
            "A worker was killed,",
            why="most likely because memory ran out.",
            fix="Run the same command again with fewer --workers: what is done is kept.",
        ) from None
    except BaseException:  # do not wait for what was begun
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """In a new process: one thread each, leave interruption to the parent, and do not outlive it."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _on_ray(task: Callable[[T], R], items: Sequence[T], workers: int, address: str) -> Iterator[R]:
    with connected(address, workers, dict.fromkeys(THREADS, "1")) as ray:
        try:
            folder = os.getcwd()  # tasks begin in that of the cluster, where relative paths lead elsewhere

            def here(item: T) -> R:
                os.chdir(folder)
                return task(item)

            remote = ray.remote(num_cpus=1)(here)
            left = iter(items)
            ahead = _AHEAD * processors_of(ray)
            running = [remote.remote(item) for _, item in zip(range(ahead), left, strict=False)]
            while running:
                ready, running = ray.wait(running)
                running += [remote.remote(item) for _, item in zip(ready, left, strict=False)]
                yield from ray.get(ready)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None
        except ray.exceptions.RayError as error:
            raise AvatarError(
                "A worker on Ray was lost,", why=f"{type(error).__name__}; most likely because memory ran out.",
                fix="Run the same command again with fewer --workers: what is done is kept.",
            ) from error  # fmt: skip
