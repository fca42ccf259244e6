"""Measure records of avatars again, side by side: ``python -m pipelines.renew VIDEO... --out WORK``.

Of each video: the standard avatar, one without the largest head turns, and both methods compared at 256 pixels; of all
of them together, lips on blocks left out in turn. Of synthetic subjects: both methods, and free view against the exact
truth. Records go to WORK/records; look at them and at what they show before you copy them to `benchmarks/`. Every step
is a command in a process of its own with one thread, as many at once as there are cores, and what is finished is kept,
so that an interrupted run goes on where it was. All of it is measured at one commit: another one needs another WORK, so
run it from a clone that stays as it is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated

import tyro

from avatar.corpus.workers import cores
from avatar.data.run import CONFIG
from avatar.environment import commit
from avatar.errors import AvatarError
from avatar.log import info, on_terminal, warn
from pipelines import kept

SIZE = 512
SUBJECTS = {  # seeds that nothing was chosen by
    "21": ("--hair", "long"),
    "22": ("--hair", "short", "--glasses"),
    "23": ("--hair", "tied", "--collar"),
}
_SUBJECT_SECONDS = 24
_COMPARED_SECONDS = 48  # of the synthetic subject that both methods are trained on
_POLL = 0.5  # seconds


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure."""

    videos: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Each of a person who talks."""
    out: Path
    """Folder for persons, runs, logs and records."""
    only: str = "*"
    """Steps whose name matches, such as '*-standard', and those that they need."""
    at_once: int = cores()
    """Steps side by side, each with one thread."""
    list: bool = False
    """Only say which steps there are, and which are done."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: Of the step, and of its log.
        words: The command: what follows `python -m`.
        after: Steps that must be done before.
        run: RUN folder that it trains: once begun, it is resumed.
    """

    name: str
    words: tuple[str, ...]
    after: tuple[str, ...] = ()
    run: Path | None = None


def steps(videos: Sequence[Path], out: Path) -> list[Step]:
    """All steps, in the order in which they are begun."""
    found = [step for video in videos for step in _of_person(video, out)]
    found += [*_compared_subject(out)]
    found += [step for seed, look in SUBJECTS.items() for step in _of_subject(seed, look, out)]
    persons = [f"{video.stem}-prepare" for video in videos]
    if videos:
        folders = [str(out / f"{video.stem}.person") for video in videos]
        words = ("pipelines.lips_blocks", *folders, "--json", _record(out, "lips-blocks"))
        found.append(Step("lips-blocks", words, tuple(persons)))
    return found


def _record(out: Path, name: str) -> str:
    return str(out / "records" / f"{name}.json")


def _avatar(*words: object) -> tuple[str, ...]:
    return ("avatar.cli.main", *map(str, words))


def _trained(name: str, person: Path, after: str, options: Sequence[str], measured: Sequence[object]) -> list[Step]:
    """Train at standard, and measure."""
    run = person.parent / name
    train = Step(f"{name}-train", _avatar("train", person, "--out", run, *options), (after,), run)
    record = _record(person.parent, name)
    return [train, Step(name, _avatar("eval", run, "--views", *measured, "--json", record), (train.name,))]


def _of_person(video: Path, out: Path) -> list[Step]:
    name, person, small = video.stem, out / f"{video.stem}.person", out / f"{video.stem}-256.person"
    prepare = Step(f"{name}-prepare", _avatar("prepare", video, "--size", SIZE, "--out", person))
    prepare_small = Step(f"{name}-256-prepare", _avatar("prepare", video, "--size", 256, "--out", small))
    turned = _trained(f"{name}-yaw-held-out-standard", person, prepare.name, ("--hold-out-yaw", "0.1"), ())
    return [
        prepare,
        prepare_small,
        *_trained(f"{name}-standard", person, prepare.name, (), ()),
        _compared(name, small, prepare_small.name, ()),
        *turned,
    ]


def _compared(name: str, person: Path, after: str, options: Sequence[object]) -> Step:
    folder = person.parent / f"compare-{name}"
    words = ("pipelines.compare", str(person), "--out", str(folder), *map(str, options))
    return Step(f"compare-{name}-256-draft", words, (after,))


def _of_subject(seed: str, look: Sequence[str], out: Path) -> list[Step]:
    film, person = out / f"subject-{seed}", out / f"subject-{seed}.person"
    synth = _avatar("synth", "--out", film, "--seed", seed, "--seconds", _SUBJECT_SECONDS, *look)
    prepare = _avatar("prepare", film / "video.mp4", "--size", SIZE, "--out", person)
    return [
        Step(f"subject-{seed}-film", synth),
        Step(f"subject-{seed}-prepare", prepare, (f"subject-{seed}-film",)),
        *_trained(f"free-view-{seed}", person, f"subject-{seed}-prepare", (), ("--truth", film)),
    ]


def _compared_subject(out: Path) -> list[Step]:
    name, film, person = "synthetic_subject", out / "synthetic_subject", out / "synthetic_subject-256.person"
    synth = _avatar("synth", "--out", film, "--seconds", _COMPARED_SECONDS)
    prepare = _avatar("prepare", film / "video.mp4", "--size", 256, "--out", person)
    return [
        Step(f"{name}-film", synth),
        Step(f"{name}-prepare", prepare, (f"{name}-film",)),
        _compared(name, person, f"{name}-prepare", ("--truth", film)),
    ]


def chosen(all_steps: Sequence[Step], pattern: str) -> list[Step]:
    """Steps that match, and what they need, in their order.

    Raises:
        AvatarError: None matches.
    """
    by_name = {step.name: step for step in all_steps}
    needed: set[str] = set()
    waiting = [name for name in by_name if fnmatch(name, pattern)]
    if not waiting:
        raise AvatarError(f"No step matches --only {pattern}.", fix=f"There are {', '.join(by_name)}.")
    while waiting:
        name = waiting.pop()
        needed.add(name)
        waiting += [before for before in by_name[name].after if before not in needed]
    return [step for step in all_steps if step.name in needed]


def work(todo: Sequence[Step], out: Path, at_once: int) -> list[str]:
    """Run the steps that are not done, ``at_once`` side by side.

    Returns:
        Those that failed. What needs them is left.
    """
    for folder in ("done", "logs", "records"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    waiting = [step for step in todo if not is_done(step, out)]
    done = {step.name for step in todo} - {step.name for step in waiting}
    running: dict[str, tuple[Step, subprocess.Popen[bytes]]] = {}
    failed: list[str] = []
    try:
        while True:
            for step in [step for step in waiting if done.issuperset(step.after)]:
                if len(running) < at_once:
                    info(f"{step.name} begins")
                    running[step.name] = step, _begun(step, out)
                    waiting.remove(step)
            if not running:
                return failed
            time.sleep(_POLL)
            for name, (step, process) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                if process.returncode == 0:
                    _mark(step, out).touch()
                    done.add(name)
                    info(f"{name} is done")
                else:
                    failed.append(name)
                    warn(f"{name} failed; see {out / 'logs' / name}.txt")
    finally:
        for _, process in running.values():  # Ctrl-C: what runs is told, and resumed next time
            process.terminate()
        for _, process in running.values():
            process.wait()


def is_done(step: Step, out: Path) -> bool:
    """Whether a step came to its end."""
    return _mark(step, out).is_file()


def _mark(step: Step, out: Path) -> Path:
    return out / "done" / step.name


def _begun(step: Step, out: Path) -> subprocess.Popen[bytes]:
    resumed = ("--resume",) if step.run is not None and (step.run / CONFIG).is_file() else ()
    with (out / "logs" / f"{step.name}.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *step.words, *resumed],
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def main(config: Config) -> None:
    """Measure what is missing.

    Raises:
        AvatarError: WORK holds what was measured at another commit, or a step failed.
    """
    todo = chosen(steps(config.videos, config.out), config.only)
    if config.list:
        for step in todo:
            print(("done  " if is_done(step, config.out) else "      ") + step.name)
        return
    kept.require(config.out, {"commit": commit()})
    if failed := work(todo, config.out, config.at_once):
        raise AvatarError(f"{', '.join(failed)} failed.", fix="Mend it, and run this again.")
    info(f"Records are in {config.out / 'records'}, comparisons in {config.out}/compare-*/compare.json.")


if __name__ == "__main__":
    with on_terminal():
        main(tyro.cli(Config))
