"""Folders with one file per frame, and the frame rate of what is exported."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avatar.errors import AvatarError
from avatar.export.base import ExportSource
from avatar.motion import Motion
from avatar.paths import read_json, write_json
from avatar.writing import atomic_dir, contents, one_writer

FRAME_RATES = (1.0, 240.0)
INDEX = "sequence.json"
FORMAT = "avatar-sequence-1"


def check_rate(fps: float | None) -> None:
    """Refuse a frame rate that is out of range.

    Raises:
        AvatarError: It is.
    """
    low, high = FRAME_RATES
    if fps is not None and not low <= fps <= high:
        raise AvatarError(f"--fps {fps:g} is out of range.", fix=f"It goes from {low:g} to {high:g}.")


def at_rate(source: ExportSource, fps: float | None) -> Motion:
    """What the avatar does, at a frame rate; None: as it is.

    Raises:
        AvatarError: The motion has no frames, or numbers that are not finite.
    """
    assert source.motion is not None
    if len(source.motion) == 0:
        raise AvatarError("There is nothing to export:", why="the motion has no frames.")
    source.motion.check_finite()
    return source.motion if fps is None else source.motion.resample(fps)


@contextmanager
def sequence_folder(path: Path, overwrite: bool, facts: Mapping[str, Any]) -> Generator[Path]:
    """Yield a folder to fill, which becomes ``path`` when it is whole.

    Args:
        path: The folder; it must be free, or hold a sequence.
        overwrite: Replace a sequence that is there.
        facts: What is written to sequence.json.

    Raises:
        AvatarError: The folder is not free, or cannot be written.
    """
    with one_writer(path, inside=False):
        _check_free(path, overwrite)
        with atomic_dir(path) as folder:
            yield folder
            write_json(folder / INDEX, {"format": FORMAT, **facts})


def _check_free(path: Path, overwrite: bool) -> None:
    if path.is_file():
        raise AvatarError(f"--out {path} is a file.", fix="Name a folder.")
    if not contents(path):
        return
    if not _is_sequence(path):
        raise AvatarError(f"{path} holds files that `avatar export` did not write.", fix="Choose another --out.")
    if not overwrite:
        raise AvatarError(f"{path} already holds a sequence.", why="Nothing was changed.",
                          fix="Pass --overwrite, or choose another --out.")  # fmt: skip


def _is_sequence(path: Path) -> bool:
    if not (path / INDEX).is_file():
        return False
    try:
        found = read_json(path / INDEX)
    except AvatarError:
        return False
    return isinstance(found, dict) and found.get("format") == FORMAT
