"""A training that is resumed goes on with the person that it began with, prepared as they were then."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from avatar.checks import Record
from avatar.data.person import PersonInfo
from avatar.data.run import CHECKPOINT, PERSON
from avatar.errors import AvatarError
from avatar.io.checkpoint import load_tensors
from avatar.motion import Motion

if TYPE_CHECKING:
    from avatar.data import PersonDataset

# Of person.json: what steps are computed from. Audio and its delay are read after them, all else is for people.
_OF_STEPS = ("width", "height", "fps", "num_frames", "test_start", "segments", "camera", "crop", "photo")


def motion_hash(motion: Motion) -> str:
    """SHA-256 of a track: another face, or another preparation of the same one, has another."""
    digest = hashlib.sha256()
    for field in fields(motion):
        if isinstance(value := getattr(motion, field.name), Tensor):
            digest.update(value.numpy().tobytes())
    return digest.hexdigest()


def refuse_replaced_person(folder: Path, person: Path) -> None:
    """Refuse a RUN folder of somebody else than a PERSON folder holds, by what is known without a checkpoint.

    Raises:
        AvatarError: They differ; or a file is damaged.
    """
    if changed := _changed(folder, PersonInfo.read(person / PERSON)):
        raise AvatarError(
            f"{folder} was not trained on what {person} holds now.",
            why=f"It is another video, or was prepared by another version: the {changed[0]} differs. Nothing in "
            f"{folder} was changed.",
            fix="Choose another --out.",
        )  # fmt: skip


def refuse_other_person(folder: Path, data: PersonDataset) -> None:
    """Refuse to go on with what a RUN folder holds of somebody else. Where PERSON lies does not matter.

    A run without a checkpoint has learnt nothing yet. The checkpoint of an older version says nothing of the motion.

    Raises:
        AvatarError: The checkpoint is of another person, or of another preparation; or a file is damaged.
    """
    if not (folder / CHECKPOINT).is_file():
        return
    changed = _changed(folder, data.info)
    about = Record(load_tensors(folder / CHECKPOINT, only=())[1], folder / CHECKPOINT)
    if about.text("motion", "") not in ("", motion_hash(data.motion)):
        changed.append("motion")
    if changed:
        raise AvatarError(
            f"{folder} was not trained on {data.folder} as it is now.",
            why=f"It is another person, or was prepared anew: the {changed[0]} differs.",
            fix="Give the PERSON folder of its training, choose another --out, or replace the run with --overwrite.",
            see="resumed-with-another-person",
        )  # fmt: skip


def _changed(folder: Path, now: PersonInfo) -> list[str]:
    """What a RUN folder says otherwise of its person; nothing where it says nothing."""
    if not (folder / PERSON).is_file():
        return []
    then = PersonInfo.read(folder / PERSON)
    return [name for name in _OF_STEPS if getattr(then, name) != getattr(now, name)]
