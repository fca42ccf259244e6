"""Video or photo in, avatar out: prepare, train and eval, each where it is not done yet."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from avatar import log
from avatar.data.run import CHECKPOINT, CONFIG, PERSON_SUFFIX, RunInfo
from avatar.device import choose_device
from avatar.errors import AvatarError
from avatar.writing import one_writer

if TYPE_CHECKING:
    from avatar.data.consent import Consent
    from avatar.eval.options import EvalOptions
    from avatar.preprocess.config import PrepareConfig
    from avatar.train.config import TrainConfig

PARTS = ("prepare", "train", "eval")


def create(
    video: Path, prepare: PrepareConfig, train: TrainConfig, evaluate: EvalOptions | None,
    consent: Consent | None = None,
) -> None:  # fmt: skip
    """Make an avatar from a video, or from one photo; finished parts are kept when it is called again.

    Args:
        video: The video, or the photo; of that, ``train`` is of quality "photo" and there is nothing to measure on.
        prepare: Options of the preprocessing.
        train: Options of the training; its ``person`` and ``out`` are where everything goes.
        evaluate: What to measure at the end; None: nothing.
        consent: Record of consent; None: that beside the video, or the one that is there.

    Raises:
        AvatarError: The video or an option is unsuitable, or one of the folders is in use.
    """
    from avatar.data.consent import hand_on
    from avatar.preprocess import pipeline
    from avatar.preprocess.config import check
    from avatar.train import run as training
    from avatar.train.same_person import refuse_replaced_person

    run, person = Path(train.out), Path(train.person)
    check(prepare)
    _check(train)
    times = [time.perf_counter()]
    with log.part_of("create"), one_writer(run), one_writer(person):
        refuse_other_avatar(video, prepare, train)
        pipeline.prepare(video, person, prepare, consent=consent)
        if RunInfo.read(run).finished or (run / CHECKPOINT).is_file():  # before it gets anybody's consent
            refuse_replaced_person(run, person)
        if consent is not None and (run / CONFIG).is_file():  # before it trains on: what was stated of RUN itself stays
            consent.write(run)
        times.append(time.perf_counter())
        if RunInfo.read(run).finished:
            log.info(f"{run} is already trained.")
            hand_on(person, run)
        else:
            training.train(replace(train, resume=(run / CONFIG).is_file()))
        times.append(time.perf_counter())
        if evaluate is not None:
            measure(run, evaluate)
            times.append(time.perf_counter())
    spent = [f"{name} {after - before:.0f} s" for name, (before, after) in zip(PARTS, pairwise(times), strict=False)]
    log.info(f"{', '.join(spent).capitalize()}: {(times[-1] - times[0]) / 60:.1f} minutes in all.")


def person_folder(run: Path) -> Path:
    """PERSON folder of a run made by `create`: beside it, so that the run stays small enough to share.

    Raises:
        AvatarError: ``run`` has no folder beside it.
    """
    run = Path(os.path.abspath(run))
    if not run.name:
        raise AvatarError(f"{run} cannot be a run.", fix="Name a folder in it for --out.")
    return run.with_name(run.name + PERSON_SUFFIX)


def _check(train: TrainConfig) -> None:
    """Refuse what training would refuse, before the hours that may go into preparing."""
    from avatar.train.run import refuse_other_files
    from avatar.train.speech import load_prior

    RunInfo.read(Path(train.out))
    train.model.require()
    choose_device(train.device)
    if train.prior is not None:
        load_prior(train.prior)
    refuse_other_files(Path(train.out))


def refuse_other_avatar(video: Path, prepare: PrepareConfig, train: TrainConfig) -> None:
    """Refuse a run that was begun from something else or in another way, before PERSON is changed.

    Raises:
        AvatarError: RUN was trained from another PERSON folder or with other options, or PERSON was prepared with
            others.
    """
    from avatar.preprocess import pipeline
    from avatar.train.config import changes_text, from_file, settings

    run, person = Path(train.out), Path(train.person)
    finished = RunInfo.read(run).finished
    if not (run / CONFIG).is_file() or not (finished or (run / CHECKPOINT).is_file()):
        return  # nothing is trained that could be lost
    kept = from_file(run / CONFIG, person=person, out=run)
    whose = {"why": "Nothing was changed.", "fix": "Choose another --out, or remove that folder."}
    if kept.person.name != person.name:  # wherever both lie now
        raise AvatarError(f"{run} was trained from {kept.person}, not by `avatar create`.", **whose)
    earlier, now = settings(kept), settings(train)
    if finished:  # it can be drawn by any renderer, and speaks by the prior that it was given
        for options, config in ((earlier, kept), (now, train)):
            options["model"].pop("renderer", None)
            options |= {} if config.prior is None else {"prior": str(config.prior)}
    if earlier != now:
        raise AvatarError(f"{run} was trained with other options{changes_text(earlier, now)}.", **whose)
    if pipeline.would_change(video, person, prepare):
        resume = f"avatar train {log.word(person)} --out {log.word(run)} --config {log.word(run / CONFIG)} --resume"
        goes_on = f"avatar eval {log.word(run)}" if finished else resume
        raise AvatarError(
            f"{run} was trained from what was prepared with other options, or before an update.",
            why="Nothing was changed.", fix=f"As it is, it goes on with `{goes_on}`. Or choose another --out.",
        )  # fmt: skip


def measure(run: Path, options: EvalOptions) -> None:
    """Measure an avatar and show the numbers in the terminal."""
    from avatar.eval import report
    from avatar.eval.run import evaluate

    report.show(*evaluate(run, options))
