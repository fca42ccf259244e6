"""Run a command of the toolkit in a forked child, with training cut short, and kill it at a chosen moment.

Import this before anything is computed: a fork inherits neither threads nor their locks.
"""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from avatar import writing

Task = Callable[[], object]
CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}  # audit events that a child may be killed before
LIMIT_SECONDS = 300.0  # for one run; longer is a hang


class Moment(NamedTuple):
    """When a child is killed.

    Attributes:
        seconds: After its start; None: not by the clock.
        change: Before which change of a folder, counted from 1; 0: not by changes.
        exchange: Whether its system can exchange two folders.
    """

    seconds: float | None = None
    change: int = 0
    exchange: bool = True


class Ended(NamedTuple):
    """How a child ended: exit code (negative: the signal that killed it), seconds, and changes of folders."""

    code: int
    seconds: float
    changes: int


CALM = Moment()


def run(task: Task, output: Path, moment: Moment = CALM) -> Ended:
    """Run a task in a child process, which may be killed.

    Args:
        task: What to do; an integer that it returns is the exit code.
        output: File that takes what it prints; its number of changes goes beside it.
        moment: When to kill it.
    """
    counted = output.with_suffix(".changes")
    counted.unlink(missing_ok=True)
    began = time.perf_counter()
    if (child := os.fork()) == 0:
        _be_child(task, output, counted, moment)
    limit = LIMIT_SECONDS if moment.seconds is None else moment.seconds
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.perf_counter() - began > limit:
            os.kill(child, signal.SIGKILL)
            ended = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    code = os.waitstatus_to_exitcode(ended[1])
    # The file is empty where the child was killed just before it wrote.
    changes = int(counted.read_text() or 0) if counted.is_file() else 0
    return Ended(code, time.perf_counter() - began, changes)


def _be_child(task: Task, output: Path, counted: Path, moment: Moment) -> None:
    code = 1
    try:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        changes = itertools.count(1)

        def change() -> None:
            if next(changes) == moment.change:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(lambda event, _: change() if event in CHANGES else None)
        os.fsync = _before(change, os.fsync)
        writing.exchange = _before(change, writing.exchange) if moment.exchange else lambda one, other: False
        result = task()
        counted.write_text(str(next(changes)))
        code = result if isinstance(result, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _before(change: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def changing(*arguments: Any) -> Any:
        change()
        return function(*arguments)

    return changing


def command(arguments: list[str]) -> Task:
    """A task: one command of the toolkit, with training cut short."""

    def task() -> int:
        import torch

        from avatar.cli.main import main

        torch.set_num_threads(1)
        cut_short()
        sys.argv = ["avatar", *arguments]
        return main(arguments)

    return task


def follow_advice(resume: Task, first: Task, run: Path) -> Task:
    """A task: resume, or begin where a kill came before anything was written and the command says so."""
    return lambda: resume() if run.is_dir() and writing.contents(run) else first()


def cut_short() -> None:
    """Make few masks, a draft of a few steps, and a speech network and a generator that learn next to nothing."""
    from avatar.audio2motion import personal_training
    from avatar.headmotion.generator import MotionGenerator
    from avatar.methods.gaussian import presets
    from avatar.methods.gaussian.config import DensifyConfig, GaussianConfig
    from avatar.methods.options import LossConfig, Schedule, TrainPreset
    from avatar.preprocess import parse
    from avatar.train.config import TrainConfig

    def draft() -> TrainPreset:
        return TrainPreset(
            model=GaussianConfig(
                initial_gaussians=300,
                max_gaussians=400,
                levels=2,
                finest=24,
                hidden=16,
                densify=DensifyConfig(refine_every=3, refine_start=0.0, refine_stop=0.9),
            ),
            loss=LossConfig(lpips=0.0),
            schedule=Schedule(steps=12, half_until=0.0, align_passes=1),
        )

    presets.PRESETS["draft"] = draft
    personal_training.train_personal = functools.partial(personal_training.train_personal, steps=4)
    MotionGenerator.fit = functools.partial(MotionGenerator.fit, steps=3)
    (TrainConfig.__init__.__kwdefaults__ or {}).update(save_every=4, preview_every=6)
    parse.KEYFRAMES, parse.LONGEST_STRIDE = 5, 1.0
