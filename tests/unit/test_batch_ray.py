"""Jobs of a batch on a Ray cluster whose machines are lost, without Ray."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avatar.batch import on_ray
from avatar.batch.on_ray import Waiting
from avatar.batch.report import Result
from avatar.errors import AvatarError


class Lost(Exception):
    """Ray's error for a worker that is gone."""


class FakeRay:
    """Calls are done when somebody waits for them, the oldest first, those of slow workers last.

    A call of a worker that is gone is an error.
    """

    exceptions = SimpleNamespace(RayError=Lost)

    def __init__(self, render: Callable[[FakeWorker, Any], Result]) -> None:
        self.render, self.workers = render, list[FakeWorker]()
        self.actor = SimpleNamespace(remote=lambda *_: FakeWorker(self))

    def wait(self, calls: list[Call], num_returns: int = 1, timeout: float = 0) -> tuple[list[Call], list[Call]]:
        alive = [call for call in calls if not call.worker.mute]
        answered = sorted(alive, key=lambda call: call.worker.slow)[:num_returns]
        assert answered or timeout < on_ray.WAIT_SECONDS, "whoever is waited for never answers"
        return answered, [call for call in calls if call not in answered]

    def get(self, call: Call) -> Any:
        if call.worker.gone:
            raise Lost("its machine is gone")
        return call.work()


class Call:
    def __init__(self, worker: FakeWorker, work: Callable[[], Any]) -> None:
        self.worker, self.work = worker, work


class FakeWorker:
    """An actor; `gone` with its machine, or `mute` where nobody knows yet that it is."""

    def __init__(self, ray: FakeRay) -> None:
        self.gone = self.mute = self.slow = False
        self.ready = SimpleNamespace(remote=lambda: Call(self, lambda: True))
        self.render = SimpleNamespace(remote=lambda task, _: Call(self, lambda: ray.render(self, task)))
        ray.workers.append(self)


def rendered(ray: FakeRay, jobs: int, workers: int) -> dict[str, str]:
    """What went wrong with each job."""
    tasks: list[Any] = [SimpleNamespace(run=Path("run"), name=f"{i}.mp4", line=i) for i in range(jobs)]
    marks, loading = dict.fromkeys(range(jobs), ""), Any
    crew = on_ray._Workers(ray, ray.actor, loading, marks, Waiting(tasks))  # type: ignore[arg-type]
    return {task.name: result.error for task, result in crew.run(workers)}


@pytest.mark.parametrize("sign", ["gone", "mute"])
def test_a_job_has_as_many_tries_as_it_was_begun(sign: str):
    tries: list[str] = []

    def render(worker: FakeWorker, task: Any) -> Result:
        tries.append(task.name)
        if tries.count("3.mp4") == 1:  # the machine of all four goes, when three of them are done and idle
            for other in ray.workers:
                setattr(other, "gone" if other is worker else sign, True)
            raise Lost("its machine is gone")
        return Result(seconds=1.0, frames=1)

    ray = FakeRay(render)
    assert rendered(ray, jobs=4, workers=4) == dict.fromkeys(("0.mp4", "1.mp4", "2.mp4", "3.mp4"), "")
    assert tries.count("3.mp4") == 2 and len(ray.workers) == 5


def test_an_idle_worker_that_lives_takes_the_job_over():
    def render(worker: FakeWorker, task: Any) -> Result:
        if task.name == "1.mp4" and worker is ray.workers[1]:
            worker.gone = True
            raise Lost("killed")
        return Result(seconds=1.0, frames=1)

    ray = FakeRay(render)
    assert rendered(ray, jobs=2, workers=2) == {"0.mp4": "", "1.mp4": ""} and len(ray.workers) == 2


def test_a_job_that_kills_its_worker_is_given_up():
    def render(worker: FakeWorker, _: Any) -> Result:
        worker.gone = True
        raise Lost("out of memory")

    ray = FakeRay(render)
    assert "killed 3 times" in rendered(ray, jobs=1, workers=1)["0.mp4"] and len(ray.workers) == 3


@pytest.mark.parametrize("alive", [1, 0])
def test_a_machine_on_which_no_worker_starts_does_not_end_the_batch(alive: int):
    def start(*_: object) -> FakeWorker:
        worker = FakeWorker(ray)
        worker.gone, worker.slow = len(ray.workers) > alive, len(ray.workers) <= alive
        return worker

    ray = FakeRay(lambda *_: Result(seconds=1.0, frames=1))
    ray.actor = SimpleNamespace(remote=start)
    if alive:
        assert rendered(ray, jobs=3, workers=2) == {"0.mp4": "", "1.mp4": "", "2.mp4": ""}
    else:
        with pytest.raises(AvatarError, match="No worker starts"):
            rendered(ray, jobs=3, workers=2)
    assert len(ray.workers) == 4
