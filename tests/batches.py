"""Runs and tables for batches, rendered by faces that are drawn at once; also in processes of their own."""

from __future__ import annotations

import csv
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch

from avatar.batch.task import Loading
from avatar.geometry.cameras import Camera
from avatar.motion import Motion
from tests.fake_avatar import FPS, FakeAvatar, LoudnessSpeech
from tests.person import person_info

DIARY = "diary"  # file beside the runs: a line for each avatar that is loaded, and each video that is begun


def make_run(folder: Path) -> Path:
    """A RUN folder that a batch takes for one; its avatar is drawn by :class:`DrawnLoading`."""
    folder.mkdir()
    Motion.zeros(60, FPS).save(folder / "motion.safetensors")
    (folder / "model.safetensors").write_bytes(folder.name.encode())
    person_info().write(folder / "person.json")
    return folder


def make_sound(path: Path, seconds: float = 0.4) -> Path:
    """A tone."""
    soundfile.write(path, (0.5 * np.sin(np.arange(round(16000 * seconds)) / 8)).astype(np.float32), 16000)
    return path


def make_table(path: Path, *rows: Sequence[object], columns: str = "run,audio,out") -> Path:
    """A CSV of jobs."""
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *rows])
    return path


class DiaryAvatar(FakeAvatar):
    """Writes down when it is loaded and when a video begins; kills its process where a file "kill" says at which.

    A file "broken" in its run lets it fail, as a bug would.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(run)
        self._diary = run.parent / DIARY
        self._write(f"load {run.name}")

    def coverage(self, motion: Motion, index: int) -> float:  # once for each video
        self._write(f"video {self.run.name}")
        if (self.run / "broken").exists():
            raise ZeroDivisionError("a bug")
        return 1.0

    def render(self, camera: Camera, motion: Motion, index: int, background=None) -> torch.Tensor:
        kill = self.run.parent / "kill"
        if index == 5 and kill.exists() and self._diary.read_text().count("video") == int(kill.read_text()):
            kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().render(camera, motion, index, background)

    def _write(self, line: str) -> None:
        with open(self._diary, "a") as file:
            file.write(line + "\n")


class DrawnLoading(Loading):
    """Loads avatars that are drawn at once, in any process."""

    def load(self, run: Path) -> DiaryAvatar:  # type: ignore[override]
        from avatar.infer import planner

        planner.load_speech = lambda *_: LoudnessSpeech()  # type: ignore[assignment]
        return DiaryAvatar(run)


def main() -> None:
    """Run `avatar` with such avatars."""
    import avatar.infer.avatar
    from avatar.cli.main import main

    avatar.infer.avatar.Avatar.load = staticmethod(lambda run, *_, **__: DrawnLoading().load(run))  # type: ignore
    sys.exit(main())


if __name__ == "__main__":
    main()
