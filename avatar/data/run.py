"""The RUN folder that `avatar train` writes: names of its files, and the person that it was trained from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from avatar.checks import read_toml
from avatar.data import person as person_folder
from avatar.errors import AvatarError

if TYPE_CHECKING:
    from avatar.data.dataset import PersonDataset

CONFIG = "config.toml"
PERSON = person_folder.FILE
MODEL = "model.safetensors"
TRACKING = "tracking.safetensors"  # motion of the whole video, head poses as training corrected them
MOTION = "motion.safetensors"  # its training part, as a camera at rest would see it
BAKED = "baked.safetensors"
FILES = frozenset(
    (
        CONFIG, PERSON, "environment.json", "command.txt", MODEL, TRACKING, MOTION, "personal.safetensors",
        "shared.safetensors", "streaming.safetensors", "headmotion.safetensors", BAKED, "training.json",
    )
)  # fmt: skip


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
    remembered = read_toml(run / CONFIG).get("person") if (run / CONFIG).is_file() else None
    if isinstance(remembered, str):
        candidates = [Path(remembered), run.parent / Path(remembered).name, *candidates]
    for candidate in candidates:
        if (candidate / PERSON).is_file():
            return PersonDataset(candidate, motion)
    raise AvatarError(
        f"The person that {run} was trained from is not at {candidates[0]} any more.", fix="Give --person PERSON."
    )
