"""The RUN folder that `avatar train` writes: names of its files, and what they say about the run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from avatar.checks import Record, read_toml
from avatar.data import person as person_folder
from avatar.errors import AvatarError
from avatar.paths import read_json

if TYPE_CHECKING:
    from avatar.data.dataset import PersonDataset

CONFIG = "config.toml"  # the first that is written, and the last that --overwrite removes
PERSON = person_folder.FILE
ENVIRONMENT = "environment.json"
COMMAND = "command.txt"
MODEL = "model.safetensors"
TRACKING = "tracking.safetensors"  # motion of the whole video, head poses as training corrected them
MOTION = "motion.safetensors"  # its training part, as a camera at rest would see it
PERSONAL = "personal.safetensors"
SHARED = "shared.safetensors"
STREAMING = "streaming.safetensors"
HEADMOTION = "headmotion.safetensors"
BAKED = "baked.safetensors"
TRAINING = "training.json"  # the last that is written: the run is finished
FILES = frozenset(
    (
        CONFIG, PERSON, ENVIRONMENT, COMMAND, MODEL, TRACKING, MOTION, PERSONAL, SHARED, STREAMING, HEADMOTION, BAKED,
        TRAINING,
    )
)  # fmt: skip
_MOST_STEPS = 10**9


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What the files of a RUN folder say about the run; None where they do not say.

    Attributes:
        folder: The RUN folder.
        person: PERSON folder that the run was trained from, as it was given.
        method: Name of the method.
        quality: Preset that the options started from.
        steps: Training steps asked for.
        finished: Whether training went to its end.
        seconds: Training time, of a finished run.
        commit: Commit of the toolkit that trained it.
        device: Type of the device that trained it: cpu or cuda.
    """

    folder: Path
    person: Path | None = None
    method: str | None = None
    quality: str | None = None
    steps: int | None = None
    finished: bool = False
    seconds: float | None = None
    commit: str | None = None
    device: str | None = None

    @staticmethod
    def read(folder: Path) -> RunInfo:
        """Read what a RUN folder says about itself; files that are not there say nothing.

        Raises:
            AvatarError: A file is damaged, or a field is of another type or out of range.
        """
        folder = Path(folder)
        config = _config(folder)
        schedule = config.record("schedule", {})
        training, place = (_record(folder / name) for name in (TRAINING, ENVIRONMENT))
        person = _text(config, "person")
        return RunInfo(
            folder=folder,
            person=None if person is None else Path(person),
            method=_text(config, "method"),
            quality=_text(config, "quality"),
            steps=schedule.whole("steps", 0, _MOST_STEPS) if "steps" in schedule.data else None,
            finished=(folder / TRAINING).is_file(),
            seconds=training.number("seconds", 0, 1e9) if "seconds" in training.data else None,
            commit=_text(place, "commit"),
            device=_text(place, "device"),
        )


def require_run(run: Path) -> None:
    """Refuse a folder that is not there, before anything slow happens.

    Raises:
        AvatarError: It is not.
    """
    if not run.is_dir():
        raise AvatarError(f"There is no run folder {run}.", fix=f"Make one: avatar create VIDEO --out {run}")


def open_person(run: Path, person: Path | None = None) -> PersonDataset:
    """Open the person that a run was trained from, with the head poses that training corrected.

    Args:
        run: The RUN folder.
        person: Its PERSON folder; by default where the run remembers it, or beside the run.

    Raises:
        AvatarError: It is not found, or cannot be read.
    """
    from avatar.data.dataset import PersonDataset

    run = Path(os.path.abspath(run))
    tracking = run / TRACKING
    motion = tracking if tracking.is_file() else None
    if person is not None:
        return PersonDataset(person, motion)
    candidates = [run.with_name(run.name + ".person")]
    if (remembered := _text(_config(run), "person")) is not None:
        candidates = [Path(remembered), run.parent / Path(remembered).name, *candidates]
    for candidate in candidates:
        if (candidate / PERSON).is_file():
            return PersonDataset(candidate, motion)
    raise AvatarError(
        f"The person that {run} was trained from is not at {candidates[0]} any more.", fix="Give --person PERSON."
    )


def _config(folder: Path) -> Record:
    path = folder / CONFIG
    return Record(read_toml(path) if path.is_file() else {}, path)


def _record(path: Path) -> Record:
    return Record(read_json(path) if path.is_file() else {}, path)


def _text(data: Record, name: str) -> str | None:
    return None if data.value(name, None) is None else data.text(name)
