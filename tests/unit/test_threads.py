"""Threads that share an avatar, and how many CPU threads torch uses in each of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avatar.device import OnDevice, cpu_threads, training_threads
from avatar.infer.pipeline import in_order, prefetch
from avatar.train import run
from tests.person import make_person, small_config


@pytest.fixture(autouse=True)
def three() -> Iterator[None]:
    """Three CPU threads, also on a machine with one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def elsewhere(work: Callable[[], Any] = torch.get_num_threads) -> Any:
    """What some work gives in a thread that is new to torch."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_fewer_threads_for_frames_are_not_those_of_a_listener_who_comes_meanwhile():
    came, over = threading.Event(), threading.Event()

    def listen() -> tuple[int, int]:
        first = torch.get_num_threads()
        came.set()
        over.wait(10)
        return first, torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        with cpu_threads(1):
            listener = pool.submit(listen)
            came.wait(10)
            assert torch.get_num_threads() == 1
        over.set()
        assert listener.result() == (3, 3)
    assert torch.get_num_threads() == elsewhere() == 3


def test_two_renderings_at_once_leave_the_threads_as_they_were():
    began, over = threading.Event(), threading.Event()

    def render() -> int:
        with cpu_threads(1):
            began.set()
            over.wait(10)
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        with cpu_threads(1):
            other = pool.submit(render)
            began.wait(10)
        over.set()  # it ends last
        assert other.result() == 3
    assert torch.get_num_threads() == elsewhere() == 3


def test_threads_of_a_rendering_use_as_many_as_it_does():
    def count(_: object) -> int:
        return torch.get_num_threads()

    with cpu_threads(1):
        assert list(in_order(count, range(4), 2)) == [1] * 4
        assert list(prefetch(map(count, range(2)))) == [1] * 2
    with cpu_threads(None):
        assert list(in_order(count, range(4), 2)) == [3] * 4
    assert elsewhere() == 3


def test_training_gives_its_own_threads_as_many_and_leaves_nothing_behind():
    with pytest.raises(ZeroDivisionError), cpu_threads(5, new_too=True):
        assert elsewhere() == 5
        with training_threads():
            assert torch.get_num_threads() == elsewhere() == 2
        assert torch.get_num_threads() == elsewhere() == 5
        raise ZeroDivisionError
    assert torch.get_num_threads() == elsewhere() == 3


def test_the_threads_of_a_training_are_not_those_of_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counts: list[int] = []

    def begin(*_: object) -> None:
        counts.extend((torch.get_num_threads(), elsewhere()))
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "load_prior", lambda _: None)
    monkeypatch.setattr(run, "leave_out", begin)
    config = small_config(make_person(tmp_path / "person", frames=4), tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run.train(replace(config, threads=5))
    assert counts == [5, 5] and torch.get_num_threads() == elsewhere() == 3


def test_one_avatar_on_a_gpu_is_drawn_by_several_threads():
    class Thing:
        def to(self, _: torch.device) -> Thing:
            return Thing()

    class Slow(dict[int, Any]):
        """Lets the others have their turn where the oldest copy is looked for."""

        def __iter__(self) -> Iterator[int]:
            for key in super().__iter__():
                time.sleep(1e-3)
                yield key

    place = OnDevice(torch.device("cuda"), keep=2)
    place._copies = Slow()

    def draw(_: int) -> None:
        for thing in [Thing() for _ in range(10)]:
            assert isinstance(place(thing), Thing)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(draw, range(8)))
    assert len(place._copies) == 2
