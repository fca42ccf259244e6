"""Where things live on disk, hashes, and JSON files. Writing itself is in :mod:`avatar.writing`."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from avatar.checks import parse_json, read_text
from avatar.errors import AvatarError
from avatar.writing import atomic_file


def cache_dir() -> Path:
    """Per-user cache: ``$AVATAR_CACHE``, else ``$XDG_CACHE_HOME/avatar``, else ``~/.cache/avatar``.

    Raises:
        AvatarError: Without a variable that says so, this user has no home.
    """
    return _own("AVATAR_CACHE", "XDG_CACHE_HOME", ".cache")


def config_dir() -> Path:
    """Per-user settings: ``$AVATAR_CONFIG``, else ``$XDG_CONFIG_HOME/avatar``, else ``~/.config/avatar``.

    Raises:
        AvatarError: Without a variable that says so, this user has no home.
    """
    return _own("AVATAR_CONFIG", "XDG_CONFIG_HOME", ".config")


def _own(variable: str, shared: str, usual: str) -> Path:
    """A folder of this user: named by a variable, below that of all programs, or below the usual one in the home."""
    if explicit := os.environ.get(variable):
        return Path(explicit)
    try:
        return Path(os.environ.get(shared) or Path.home() / usual) / "avatar"
    except RuntimeError:  # a container may run as a user whom nobody knows
        raise AvatarError("This user has no home folder.", fix=f"Set {variable} to a folder.") from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal; the file is never held in memory as a whole."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_json(path: Path, data: Any) -> None:
    """Write ``data`` as indented JSON, atomically."""
    with atomic_file(Path(path)) as temporary:
        temporary.write_text(json.dumps(data, indent=2) + "\n")


def read_json(path: Path, fix: str = "Delete it and run the command that made it.") -> Any:
    """Read JSON; a missing or broken file is an :class:`AvatarError` that names it, and says what to do (``fix``)."""
    return parse_json(read_text(path, "JSON", fix), path, fix)
