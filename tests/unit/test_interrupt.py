"""Ctrl-C while training: the step is finished and saved, so what goes on from there repeats every bit."""

from __future__ import annotations

import copy
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from avatar.data import PersonDataset
from avatar.data.run import CHECKPOINT
from avatar.io.checkpoint import load_tensors
from avatar.methods.base import Method
from avatar.methods.gaussian import densify
from avatar.train.config import TrainConfig
from avatar.train.interrupt import Interrupt
from avatar.train.run import describe, open_run, stopped
from avatar.train.trainer import Trainer
from tests.nerf import nerf_config, untrained
from tests.person import QuickTrainer, make_person, new_trainer, small_config


@pytest.fixture(autouse=True)
def usual_signals() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests run in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_person(tmp_path_factory.mktemp("made") / "person", frames=20)


@pytest.fixture(scope="module")
def field(person: Path) -> Method:
    return untrained(person)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def begun(config: TrainConfig, model: Method | None = None) -> Trainer:
    folder = open_run(config)
    trainer = new_trainer(config) if model is None else QuickTrainer(PersonDataset(config.person), config, model)
    describe(folder, config, trainer.data)
    return trainer


def resumed(config: TrainConfig, model: Method | None = None) -> Trainer:
    trainer = new_trainer(config) if model is None else QuickTrainer(PersonDataset(config.person), config, model)
    trainer.resume(config.out)
    return trainer


def assert_same(whole: Trainer, other: Trainer) -> None:
    expected, got = whole.state(), other.state()
    assert expected.keys() == got.keys()
    assert not [name for name in expected if not torch.equal(expected[name], got[name])]


def pressed_in_the_loss(trainer: Trainer, step: int, times: int = 1) -> None:
    loss = trainer._loss

    def computed(*arguments):
        if trainer.step == step:
            for _ in range(times):
                press()
        return loss(*arguments)

    trainer._loss = computed


def test_ctrl_c_within_a_step_of_rays(person: Path, field: Method, tmp_path: Path) -> None:
    whole = begun(nerf_config(person, tmp_path / "whole", 5), copy.deepcopy(field))
    whole.run(whole.config.out)
    config = nerf_config(person, tmp_path / "parts", 5)
    first = begun(config, copy.deepcopy(field))
    pressed_in_the_loss(first, 2)  # the rays are drawn, the step is not made
    with pytest.raises(KeyboardInterrupt):
        first.run(config.out)
    second = resumed(config, copy.deepcopy(field))
    assert second.step == 3 and stopped(first) == "Stopped at step 3 and saved."
    second.run(config.out)
    assert_same(whole, second)


def test_ctrl_c_while_the_set_of_gaussians_changes(person: Path, tmp_path: Path, monkeypatch) -> None:
    whole = begun(small_config(person, tmp_path / "whole", steps=7))
    whole.run(whole.config.out)
    rebuild = densify.rebuild

    def rebuilt(*arguments):
        if first.step == 4:
            press()
        rebuild(*arguments)

    config = small_config(person, tmp_path / "parts", steps=7)
    first = begun(config)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(densify, "rebuild", rebuilt)
        first.run(config.out)
    second = resumed(config)
    assert second.step == 4
    second.run(config.out)
    assert_same(whole, second)


def test_a_second_ctrl_c_saves_nothing(person: Path, tmp_path: Path) -> None:
    whole = begun(small_config(person, tmp_path / "whole", steps=5))
    whole.run(whole.config.out)
    config = replace(small_config(person, tmp_path / "parts", steps=5), save_every=2)
    first = begun(config)
    pressed_in_the_loss(first, 3, times=2)
    with pytest.raises(KeyboardInterrupt):
        first.run(config.out)
    assert load_tensors(config.out / CHECKPOINT)[1]["step"] == 2
    assert stopped(first) == "Stopped at step 3. The last checkpoint is of step 2."
    second = resumed(config)
    second.run(config.out)
    assert_same(whole, second)


def test_ctrl_c_before_anything_is_saved(person: Path, tmp_path: Path) -> None:
    config = small_config(person, tmp_path / "run", steps=5)
    trainer = begun(config)
    pressed_in_the_loss(trainer, 1, times=2)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(config.out)
    assert stopped(trainer) == "Stopped at step 1, before the first checkpoint."
    assert not (config.out / CHECKPOINT).exists()
    assert open_run(replace(config, resume=True)) == config.out  # begins anew


def test_ctrl_c_while_the_method_looks_back(person: Path, tmp_path: Path) -> None:
    whole = begun(small_config(person, tmp_path / "whole", steps=3))
    whole.run(whole.config.out)
    config = small_config(person, tmp_path / "parts", steps=3)
    first = begun(config)
    finish = first.model.finish

    def finishing(*arguments):
        press()
        finish(*arguments)

    first.model.finish = finishing  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(KeyboardInterrupt):
        first.run(config.out)
    assert stopped(first) == "Stopped at step 3 and saved." and (config.out / CHECKPOINT).is_file()
    second = resumed(config)
    assert second.step == 3 and not second.finished
    second.run(config.out)
    assert second.finished
    assert_same(whole, second)


def test_what_ctrl_c_meant_before_it_means_after() -> None:
    with Interrupt() as interrupt:
        press()
        assert interrupt.pressed == 1
        with pytest.raises(KeyboardInterrupt):
            press()
    with pytest.raises(KeyboardInterrupt):
        press()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a command in the background
    with Interrupt() as interrupt:
        press()
        assert interrupt.pressed == 0 and signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_in_other_threads_signals_stay_as_they_are() -> None:
    found: list[object] = []

    def elsewhere() -> None:
        with Interrupt():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
