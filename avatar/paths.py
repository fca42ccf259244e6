"""Where things live on disk, and the write-then-rename helpers that make every file either whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avatar.checks import parse_json, read_text
from avatar.errors import AvatarError


def cache_dir() -> Path:
    """Per-user cache: ``$AVATAR_CACHE``, else ``$XDG_CACHE_HOME/avatar``, else ``~/.cache/avatar``."""
    if explicit := os.environ.get("AVATAR_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avatar"


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it onto ``path`` when the block ends without an error.

    Raises:
        AvatarError: The disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Like :func:`atomic_file` for a folder; an existing folder at ``path`` is replaced."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(error, path) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def disk_error(error: OSError, path: Path) -> AvatarError:
    """Turn an operating-system error on ``path`` into a sentence."""
    import errno

    if error.errno == errno.ENOSPC:
        return AvatarError(
            f"The disk is full while writing {path}.",
            "",
            "Free some space and run the same command again: finished parts are kept.",
        )
    return AvatarError(f"Cannot write {path}:", f"{error.strerror or error}.", "Choose another output folder.")


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


def read_json(path: Path) -> Any:
    """Read JSON; a missing or broken file is an :class:`AvatarError` that names it."""
    fix = "Delete it and run the command that made it."
    return parse_json(read_text(path, "JSON", fix), path, fix)
