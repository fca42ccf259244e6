"""Render the jobs of a batch on a Ray cluster: one actor per worker keeps an avatar loaded."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avatar import log
from avatar.batch.report import Result
from avatar.batch.task import Loading, Task
from avatar.batch.worker import Worker
from avatar.cluster import LOCAL, THREADS, connected, processors_of
from avatar.errors import AvatarError

MOST_TRIES = 3  # of a job whose worker is killed, and of starting the first worker
WAIT_SECONDS = 60.0  # for a worker, before it is said that none has started
ANSWER_SECONDS = 10.0  # in which an idle worker says that it lives


class Waiting:
    """Jobs that wait, by RUN: a worker goes on with the avatar that it has loaded.

    Args:
        tasks: The jobs.
    """

    def __init__(self, tasks: list[Task]) -> None:
        self._left: defaultdict[Path, deque[Task]] = defaultdict(deque)
        for task in tasks:
            self._left[task.run].append(task)

    def __len__(self) -> int:
        return sum(map(len, self._left.values()))

    def take(self, loaded: Path | None, busy: set[Path]) -> Task | None:
        """Take a job, of the avatar that is loaded where there is one.

        Else it is one of an avatar that nobody works at, or of that with the most jobs.

        Args:
            loaded: RUN of the avatar that the worker has.
            busy: RUNs of the avatars that other workers have.
        """
        runs = [run for run, tasks in self._left.items() if tasks]
        if not runs:
            return None
        run = loaded if loaded in runs else max(runs, key=lambda run: (run not in busy, len(self._left[run])))
        return self._left[run].popleft()

    def put_back(self, task: Task) -> None:
        """Give a job back whose worker was killed; it is the next one."""
        self._left[task.run].appendleft(task)


def render_on_ray(
    tasks: list[Task], marks: dict[int, str], loading: Loading, address: str, workers: int | None = None
) -> Iterator[tuple[Task, Result]]:
    """Render jobs on a Ray cluster; results come as soon as they are there.

    A worker that dies is replaced, and its job is given to another one.

    Args:
        tasks: The jobs; the files that they name, and the current folder, are on all machines.
        marks: Their marks.
        loading: How avatars are loaded. ``device="cuda"`` gives each worker a GPU.
        address: Of the cluster; see `avatar.cluster.connected`.
        workers: How many; None: one per processor.

    Raises:
        AvatarError: Ray is not installed, no cluster is reachable, or no worker starts.
    """
    with connected(address, workers, dict.fromkeys(THREADS, "1")) as ray:
        count = min(len(tasks), workers or processors_of(ray))
        actor = ray.remote(num_cpus=1, num_gpus=1 if loading.device == "cuda" else 0)(Worker)
        log.info(f"{len(tasks)} jobs on {count} workers of {'this machine' if address == LOCAL else address}.")
        yield from _Workers(ray, actor, loading, marks, Waiting(tasks)).run(count)


class _Workers:
    """Actors and what each of them does."""

    def __init__(self, ray: Any, actor: Any, loading: Loading, marks: dict[int, str], waiting: Waiting) -> None:
        self._ray, self._actor, self._loading, self._marks, self._waiting = ray, actor, loading, marks, waiting
        self._doing: dict[Any, tuple[Any, Task | None]] = {}  # by the reference of a result; no task: it starts
        self._loaded: dict[Any, Path | None] = {}
        self._tries: defaultdict[int, int] = defaultdict(int)
        self._idle: list[Any] = []
        self._unborn = 0  # workers in a row that died before they were ready
        self._total = len(waiting)
        self._done = 0

    def run(self, count: int) -> Iterator[tuple[Task, Result]]:
        for _ in range(count):
            self._start()
        while len(self._waiting) or any(task is not None for _, task in self._doing.values()):
            ready, _ = self._ray.wait(list(self._doing), timeout=WAIT_SECONDS)
            if not ready and not any(task is not None for _, task in self._doing.values()):
                log.warn("No worker has started yet: the cluster has no processor or GPU free.")
            for reference in ready:
                yield from self._finish(reference)

    def _start(self) -> None:
        worker = self._actor.remote(self._loading, Path.cwd())
        self._loaded[worker] = None
        self._doing[worker.ready.remote()] = worker, None

    def _finish(self, reference: Any) -> Iterator[tuple[Task, Result]]:
        worker, task = self._doing.pop(reference)
        try:
            result = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # the worker or its machine is gone
            result = self._lose(worker, task, error)
        else:
            self._unborn = 0
            self._next(worker)
        if task is not None and result:
            self._done += 1
            for warning in result.warnings:
                log.warn(f"{task.name}: {warning}")
            if not result.error:
                log.info(
                    f"{self._done} of {self._total}: {task.name}: {result.frames} frames in {result.seconds:.1f} s"
                )
            yield task, result

    def _next(self, worker: Any) -> None:
        busy = {run for other, run in self._loaded.items() if other is not worker and run is not None}
        task = self._waiting.take(self._loaded[worker], busy)
        if task is None:
            self._idle.append(worker)
            return
        self._loaded[worker] = task.run
        self._doing[worker.render.remote(task, self._marks[task.line])] = worker, task

    def _lose(self, worker: Any, task: Task | None, error: Exception) -> Result | None:
        """Go on without a worker; a result where its job is given up."""
        del self._loaded[worker]
        given_up = None
        if task is None:
            self._unborn += 1
        else:
            self._tries[task.line] += 1
            if self._tries[task.line] < MOST_TRIES:
                log.warn(f"The worker of {task.name} was killed; another one renders it.")
                self._waiting.put_back(task)
            else:
                given_up = Result(error=f"Its worker was killed {MOST_TRIES} times, maybe because memory ran out.")
        if len(self._waiting):
            self._keep_living()
            if self._idle:  # it may hold the only processor that is left
                self._next(self._idle.pop())
            elif self._unborn < MOST_TRIES or (task is not None and not self._doing):
                self._start()
            elif not self._doing:  # else the others go on: one machine of many may lack something
                raise AvatarError(
                    "No worker starts on the Ray cluster:", why=f"{str(error).strip().splitlines()[-1]}.",
                    fix="The same avatar-toolkit must be installed on its machines, and the current folder be there.",
                ) from None  # fmt: skip
        return given_up

    def _keep_living(self) -> None:
        """Drop idle workers that do not answer: a job given to one that died with its machine would count as a try."""
        asked = {worker.ready.remote(): worker for worker in self._idle}
        self._idle = []
        answers = self._ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)[0] if asked else []
        for answer in answers:
            try:
                self._ray.get(answer)
            except self._ray.exceptions.RayError:
                continue
            self._idle.append(asked.pop(answer))
        for worker in asked.values():
            del self._loaded[worker]
