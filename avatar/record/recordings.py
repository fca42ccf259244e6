"""Where the recording of a face and a voice lies for the seconds in which its numbers are made, and how it goes.

All lie in one folder of the user, in working folders that their maker holds a lock on (`avatar.writing`). So the next
start, with whatever options, finds what a killed one left.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from avatar.paths import cache_dir
from avatar.writing import WORKING, NewFile, disk_error, settle


def place() -> Path:
    """The folder, which only its owner can read.

    Raises:
        AvatarError: It cannot be made.
    """
    folder = cache_dir() / "recordings"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise disk_error(error, folder) from error
    return folder


@contextmanager
def kept_for_now(data: bytes, suffix: str) -> Generator[Path]:
    """A file with a recording, which is deleted at the end of the block, however it ends.

    Raises:
        AvatarError: The disk is full or cannot be written.
    """
    new = NewFile(place() / f"take{suffix}")
    try:
        new.path.write_bytes(data)
        yield new.path
    except OSError as error:
        raise disk_error(error, new.path) from error
    finally:
        new.drop()


def delete_leftovers() -> tuple[int, list[Path]]:
    """Delete the recordings that killed processes left.

    Returns:
        How many were deleted; and those that are still there, because another process records, or because they cannot
        be deleted.

    Raises:
        AvatarError: Their folder cannot be made.
    """
    folder = place()
    before = _recordings(folder)
    settle(folder)
    left = _recordings(folder)
    return len(before) - len(left), left


def _recordings(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{WORKING}*/*") if path.is_file())
