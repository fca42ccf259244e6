"""A trained run as the teacher of another method: its images take the place of the filmed ones."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avatar import log
from avatar.checks import Record
from avatar.data import PersonDataset, yaw
from avatar.data.run import (
    CHECKPOINT,
    HEADMOTION,
    MODEL,
    PERSONAL,
    SHARED,
    STREAMING,
    TEACHER,
    TRACKING,
    TRAINING,
    RunInfo,
    require_run,
)
from avatar.data.yaw import HeldOutYaw
from avatar.errors import AvatarError
from avatar.io.images import write_png
from avatar.paths import file_sha256, read_json, write_json
from avatar.writing import atomic_file

if TYPE_CHECKING:
    from avatar.infer.avatar import Avatar

IMAGES = "teacher"  # folder in the RUN folder of the student; gone when its training is over
_QUICK = 1  # of PNG, 0 to 9: images are read a few times and thrown away
_HANDED_OVER = (PERSONAL, SHARED, STREAMING, HEADMOTION)  # what speaks and moves for a person needs no training again


@dataclass(frozen=True)
class Teacher:
    """A finished run that another method learns from.

    Attributes:
        run: Its folder.
        avatar: Draws its images.
        sha256: Of its model file.
    """

    run: Path
    avatar: Avatar
    sha256: str

    @staticmethod
    def load(run: Path, method: str, device: str) -> Teacher:
        """Open a run.

        Args:
            run: The RUN folder of the teacher.
            method: What learns from it.
            device: Where it draws.

        Raises:
            AvatarError: It is no finished run, is of the same method, or learned from a teacher itself.
        """
        from avatar.infer.avatar import Avatar

        require_run(run)
        info = RunInfo.read(run)
        if info.teacher is not None:
            raise AvatarError(f"{run} learned from {info.teacher} itself.", why="Copies of copies get worse.",
                              fix=f"Bake that run: avatar bake {log.word(info.teacher)} --out RUN")  # fmt: skip
        if (run / MODEL).is_file() and not info.finished:
            raise AvatarError(f"The training of {run} has not finished.", fix="Go on with it: avatar train --resume")
        avatar = Avatar.load(run, device=device)
        if avatar.model.name == method:
            raise AvatarError(f"{run} is a run of the method {method} already.", why="There is nothing to bake.",
                              fix="Give a run of another method (avatar train --method).")  # fmt: skip
        return Teacher(run, avatar, file_sha256(run / MODEL))

    def person(self, folder: Path, student: Path) -> TaughtPerson:
        """The person as the teacher shows them.

        Args:
            folder: PERSON folder of the teacher's training.
            student: RUN folder of the student, which keeps the images while it is trained.

        Raises:
            AvatarError: The teacher was trained on another person or size, or the folder cannot be read.
        """
        if self.avatar.person != PersonDataset(folder).info:
            raise AvatarError(f"{self.run} was not trained on {folder} as it is now.", why="Its person.json differs.",
                              fix="Give the PERSON folder of its training.")  # fmt: skip
        data = TaughtPerson(folder, self, student / IMAGES)
        if (held_out := self.held_out(data)) is not None:
            data.left_out = held_out.frames
        return data

    def held_out(self, data: PersonDataset) -> HeldOutYaw | None:
        """The frames that the teacher's training left out for their head yaw."""
        kept = RunInfo.read(self.run).training().get(yaw.KEY)
        return None if kept is None else HeldOutYaw.parse(Record(kept, f"{self.run / TRAINING}: {yaw.KEY}"),
                                                          data.test_start)  # fmt: skip

    def about(self) -> dict[str, Any]:
        """What the student's run says about it."""
        return {"run": str(self.run), "method": self.avatar.model.name, "sha256": self.sha256}

    def hand_over(self, student: Path) -> None:
        """Copy what speaks and moves for the person to the student."""
        for name in _HANDED_OVER:
            if (self.run / name).is_file():
                with atomic_file(student / name) as temporary:
                    shutil.copyfile(self.run / name, temporary)


class TaughtPerson(PersonDataset):
    """A person whose frames are images of a teacher, at the head poses that its training corrected.

    Args:
        folder: PERSON folder.
        teacher: Draws the images.
        images: Folder that keeps them; each is drawn once.
    """

    def __init__(self, folder: Path, teacher: Teacher, images: Path) -> None:
        super().__init__(folder, teacher.run / TRACKING)
        self.teacher, self.images = teacher, images

    def image(self, index: int) -> np.ndarray:
        """Frame ``index`` as the teacher shows it, uint8 RGB [H, W, 3]."""
        path = self.images / f"{index:06d}.png"
        if not path.is_file():
            behind = torch.from_numpy(self.background(index))
            image = self.teacher.avatar.render(self.camera, self.motion, index, behind)
            path.parent.mkdir(exist_ok=True)
            with atomic_file(path) as temporary:
                write_png(temporary, image.cpu().numpy(), _QUICK)
        return self._sized(path)

    def draw(self, frames: Iterable[int]) -> None:
        """Draw the images of frames that are not there yet."""
        wanted = sorted(index for index in set(frames) if not (self.images / f"{index:06d}.png").is_file())
        for index in log.track(wanted, "drawing the teacher's images", len(wanted)):
            self.image(index)


def check_same(folder: Path, teacher: Teacher | None) -> None:
    """Refuse to go on with what learned from another teacher.

    Raises:
        AvatarError: A training that goes on learned from another teacher, from another state of it, or from none.
    """
    earlier = _earlier(folder)
    if not _is_same(earlier, teacher) and (folder / CHECKPOINT).is_file():
        whom = "the filmed frames" if earlier is None else f"{earlier.text('run')} as it was then"
        raise AvatarError(f"{folder} learns from {whom}.", why="A resumed training must keep its teacher.",
                          fix="Replace the run with --overwrite, or choose another --out.")  # fmt: skip


def remember(folder: Path, teacher: Teacher) -> None:
    """Write into a RUN folder whom it learns from, and throw away images of another teacher."""
    if not _is_same(_earlier(folder), teacher):
        shutil.rmtree(folder / IMAGES, ignore_errors=True)
    write_json(folder / TEACHER, teacher.about())


def _earlier(folder: Path) -> Record | None:
    path = folder / TEACHER
    return Record(read_json(path), path) if path.is_file() else None


def _is_same(earlier: Record | None, teacher: Teacher | None) -> bool:
    return (None if earlier is None else earlier.text("sha256")) == (None if teacher is None else teacher.sha256)
