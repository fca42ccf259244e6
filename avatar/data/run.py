"""The RUN folder that `avatar train` writes: names of its files, and what they say about the run."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar.checks import Record, number, read_toml
from avatar.data.consent import FILE as CONSENT
from avatar.data.person import FILE as PERSON
from avatar.data.person import PersonInfo
from avatar.errors import AvatarError
from avatar.paths import read_json

if TYPE_CHECKING:
    from avatar.data.dataset import PersonDataset

CONFIG = "config.toml"  # the first that is written, and the last that --overwrite removes
ENVIRONMENT = "environment.json"
COMMAND = "command.txt"
MODEL = "model.safetensors"
BACKGROUND = "background.png"  # of the whole frame, where rendering shows more of it than is trained
TRACKING = "tracking.safetensors"  # motion of the whole video, head poses as training corrected them
MOTION = "motion.safetensors"  # its training part, as a camera at rest would see it
PERSONAL = "personal.safetensors"
SHARED = "shared.safetensors"
STREAMING = "streaming.safetensors"
HEADMOTION = "headmotion.safetensors"
BAKED = "baked.safetensors"
VIEW_CONE = "view_cone.json"  # from where it looks right
TEACHER = "teacher.json"  # the run whose images it was trained on, if that was one
TRAINING = "training.json"  # the last that is written: the run is finished
FILES = frozenset(
    (
        CONFIG, PERSON, CONSENT, ENVIRONMENT, COMMAND, MODEL, BACKGROUND, TRACKING, MOTION, PERSONAL, SHARED, STREAMING,
        HEADMOTION, BAKED, VIEW_CONE, TEACHER, TRAINING,
    )
)  # fmt: skip
PERSON_SUFFIX = ".person"  # of the PERSON folder beside a RUN folder that `avatar create` makes
CHECKPOINT = Path("checkpoints", "last", "state.safetensors")  # what a resumed training goes on from
FORMAT = "avatar-run-2"  # of config.toml
_SAID = ("person", "method", "quality", "teacher")  # in config.toml


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What the files of a RUN folder say about the run.

    Attributes:
        folder: The RUN folder.
        person: PERSON folder that the run was trained from, as it was given; None where the run does not say.
        finished: Whether training went to its end.
        method: Name of the method that it is trained by; None where the run does not say.
        quality: Preset of its training; None where the run does not say.
        teacher: RUN folder whose images it was trained on, as it was given; None: on the filmed ones.
    """

    folder: Path
    person: Path | None = None
    finished: bool = False
    method: str | None = None
    quality: str | None = None
    teacher: Path | None = None

    @staticmethod
    def read(folder: Path) -> RunInfo:
        """Read what a RUN folder says about itself; files that are not there say nothing.

        Raises:
            AvatarError: config.toml is damaged or of another version, or a field is of another type.
        """
        folder = Path(folder)
        path = folder / CONFIG
        config = Record(read_toml(path) if path.is_file() else {}, path)
        if config.data and config.value("format", None) != FORMAT:
            raise AvatarError(
                f"{folder} was written by another version of the toolkit; the format of its {CONFIG} is not {FORMAT}.",
                fix=f"Train the avatar again: avatar train PERSON --out {folder} --overwrite",
                see="written-by-another-version",
            )
        said = {name: None if config.value(name, None) is None else config.text(name) for name in _SAID}
        person, teacher = (None if (path := said[name]) is None else Path(path) for name in ("person", "teacher"))
        finished = (folder / TRAINING).is_file()
        return RunInfo(folder=folder, person=person, finished=finished, method=said["method"],
                       quality=said["quality"], teacher=teacher)  # fmt: skip

    def training(self) -> dict[str, Any]:
        """What the training came to, and when, where and from which commit; ``earlier`` are parts before a resume.

        Raises:
            AvatarError: A file is damaged, or a number is out of range.
        """
        kept = (self.folder / TRAINING, self.folder / ENVIRONMENT)
        result, place = (Record(read_json(path), path).data if path.is_file() else {} for path in kept)
        for name, value in result.items():  # they go into the JSON of the evaluation and its report
            if isinstance(value, int | float) and not isinstance(value, bool):
                number(value, f"{kept[0]}: {name}", -1e12, 1e12)
        return result | {name: place[name] for name in ("date", "commit", "hardware", "earlier") if name in place}


def require_run(run: Path) -> None:
    """Refuse a folder that is not there, or that is a PERSON folder, before anything slow happens.

    Raises:
        AvatarError: It is not there, or is no RUN folder.
    """
    if not run.is_dir():
        raise AvatarError(f"There is no run folder {run}.", fix=f"Make one: avatar create VIDEO --out {run}")
    if (run / PERSON).is_file() and not any((run / name).is_file() for name in (CONFIG, MODEL)):
        PersonInfo.read(run / PERSON)  # one of another version says so
        raise AvatarError(
            f"{run} is a PERSON folder, not a RUN folder.", fix=f"Train an avatar from it: avatar train {run} --out RUN"
        )


def photo_hash(run: Path) -> str | None:
    """SHA-256 of the photo that a run was made from; None: it was made from a video.

    Raises:
        AvatarError: Its person.json is damaged.
    """
    path = run / PERSON
    photo = PersonInfo.read(path).photo if path.is_file() else None
    return None if photo is None else photo.sha256


def require_video(run: Path, doing: str) -> None:
    """Refuse a run of one photo where only a video serves.

    Args:
        run: RUN folder.
        doing: What needs a video, for people: "Measuring".

    Raises:
        AvatarError: It was made from a photo.
    """
    if photo_hash(run) is not None:
        raise AvatarError(f"{doing} needs a video of the person; {run} was made from one photo.")


def open_person(run: Path, person: Path | None = None) -> PersonDataset:
    """Open the person that a run was trained from, with the head poses that training corrected.

    Args:
        run: The RUN folder.
        person: Its PERSON folder; by default where the run remembers it, or beside the run.

    Raises:
        AvatarError: It is not found, it cannot be read, or the run is of another version.
    """
    from avatar.data.dataset import PersonDataset

    tracking = Path(run) / TRACKING
    return PersonDataset(find_person(run, person), tracking if tracking.is_file() else None)


def find_person(run: Path, person: Path | None = None) -> Path:
    """The PERSON folder that a run was trained from; arguments as for :func:`open_person`.

    Raises:
        AvatarError: It is not found, or the run is of another version.
    """
    run = Path(os.path.abspath(run))
    if person is not None:
        return person
    candidates = [run.with_name(run.name + PERSON_SUFFIX)]
    if (remembered := RunInfo.read(run).person) is not None:
        candidates = [remembered, run.parent / remembered.name, *candidates]
    # A run has a file of this name as well.
    there = [one for one in candidates if (one / PERSON).is_file() and not (one / CONFIG).is_file()]
    if there:  # a place that is kept as seen from another folder may hold another project's person
        return next((one for one in there if _same_person(run, one)), there[0])
    raise AvatarError(
        f"The person that {run} was trained from is not at {candidates[0]} any more.", fix="Give --person PERSON."
    )


def _same_person(run: Path, person: Path) -> bool:
    """Whether a PERSON folder is the one that a run was trained from, by what both say of the video."""
    if not (run / PERSON).is_file():
        return False
    with suppress(AvatarError):
        then, now = PersonInfo.read(run / PERSON), PersonInfo.read(person / PERSON)
        return all(getattr(then, name) == getattr(now, name) for name in ("source", "width", "height", "num_frames"))
    return False
