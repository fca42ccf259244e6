"""What the files of a folder say about themselves: of a web page, of the images of a video, of a batch."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from avatar.errors import AvatarError
from avatar.log import one_line
from avatar.provenance import credentials
from avatar.provenance.credentials import Claims
from avatar.provenance.source_type import PAGES, read_said

_MOST_FILES = 100_000


def signable(name: str) -> bool:
    """Whether a file of this name can hold content credentials."""
    return name.lower().endswith(credentials.SUFFIXES)


def read_folder(folder: Path) -> dict[str, Claims]:
    """Read and check the files of a folder that can hold content credentials, and pages that say what they are.

    Args:
        folder: With all folders in it; what links lead to is left out.

    Returns:
        By name relative to the folder, in order. Of pages and JSON files that say where they come from,
        ``metadata_source_type`` is set alone. A file or folder that cannot be read is "invalid", and its fault says
        why.

    Raises:
        AvatarError: There are too many files.
    """
    closed: dict[Path, OSError] = {}
    files = [
        Path(where, name)
        for where, _, names in os.walk(folder, onerror=lambda error: closed.update({Path(error.filename): error}))
        for name in names
    ]
    if len(files) > _MOST_FILES:
        raise AvatarError(f"{folder} holds {len(files)} files.", fix=f"Name a folder of at most {_MOST_FILES}.")
    found: dict[str, Claims] = {}
    for path in sorted([*files, *closed]):
        name = path.relative_to(folder).as_posix()
        try:  # one bad file must not hide what the others say
            if path in closed:
                raise closed[path]
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            if signable(name):
                found[name] = credentials.read(path)
            elif name.lower().endswith(PAGES) and (said := read_said(path)) is not None:
                found[name] = Claims(state="none", metadata_source_type=one_line(said))
        except AvatarError as error:
            found[name] = Claims(state="invalid", faults=[one_line(error.why or error.what)])
        except OSError as error:
            found[name] = Claims(state="invalid", faults=[f"{error.strerror}."])
    return found
