"""A bundle: a whole avatar in one file, which every command opens like a RUN folder.

It is a zip of files of a RUN folder, each named in `HEADER` with its size and SHA-256. Nothing of the training video is
in it, nor where it lay. Opening reads only files whose names a RUN folder knows, no more bytes than the header says,
and only what has the right hash; they are kept in the cache, under the hash of the bundle.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from avatar import __version__
from avatar.checks import Record, parse_json, read_toml
from avatar.data import run as files
from avatar.data.consent import FILE as CONSENT
from avatar.data.packed import packed, unpacked
from avatar.data.person import FILE as PERSON
from avatar.data.photo import KIND
from avatar.errors import AvatarError
from avatar.paths import cache_dir, file_sha256, read_json
from avatar.writing import atomic_dir, atomic_file

SUFFIX = ".avatar"
FORMAT = "avatar-bundle-1"
HEADER = "bundle.json"  # the first entry
NEEDED = frozenset((files.CONFIG, PERSON, files.MODEL, files.MOTION, files.TRAINING))
TAKEN = NEEDED | {
    files.BACKGROUND, files.PERSONAL, files.SHARED, files.STREAMING, files.HEADMOTION, files.BAKED, files.VIEW_CONE,
    CONSENT,
}  # fmt: skip
_LARGEST = 1 << 30  # bytes of a bundle, and of all that is in it
_MOST_TIMES = 100  # as many bytes as the bundle has itself: numbers of a model hardly shrink
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of the others, a piece of any size is unpacked at once
_HEADER_BYTES = 1 << 16
_END = struct.Struct("<4s4H2LH")  # of a zip: its last record, which has no comment here
_PLACES = ("person", "teacher", "prior", "torso")  # options that name folders of the machine that trained
_FIX = "Get it again from where it came from."


def write_bundle(run: Path, path: Path, *, compact: bool = False) -> None:
    """Write a RUN folder as one file.

    Args:
        run: The RUN folder.
        path: The bundle.
        compact: Round numbers to 8 and 16 bits, see `avatar.data.packed`, and leave out the baked form, which belongs
            to the exact model.

    Raises:
        AvatarError: A file of the RUN folder is missing or damaged, or the bundle cannot be written.
    """
    names = sorted(name for name in TAKEN if (run / name).is_file() and not (compact and name == files.BAKED))
    if missing := NEEDED - set(names):
        raise AvatarError(f"{run} lacks {min(missing)}.", fix="Train it to its end: avatar train --resume")
    contents = {name: _content(run / name, compact) for name in names}
    entries = {n: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for n, data in contents.items()}
    label = {} if files.photo_hash(run) is None else {"kind": KIND}
    header = {"format": FORMAT, "toolkit": __version__, "compact": compact, **label, "files": entries}
    with atomic_file(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {HEADER: json.dumps(header, indent=2).encode(), **contents}.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)


def run_folder(run: Path) -> Path:
    """The RUN folder that a path means: itself, or what is in a bundle.

    Raises:
        AvatarError: It is a file, but no bundle, or a damaged one.
    """
    run = Path(run)
    if not run.is_file():
        return run
    with _opened(run) as archive:
        header = _header(archive, run)
        name = run.stem.strip(".") or "avatar"  # "...avatar" would lead out of the folder
        folder = cache_dir() / "bundles" / file_sha256(run)[:32] / name
        if not folder.is_dir():
            _make(folder.parent, run)
            with atomic_dir(folder) as new:
                for name, size, digest in header:
                    data = _entry(archive, name, size, run)
                    if hashlib.sha256(data).hexdigest() != digest:
                        raise AvatarError(f"{run} is damaged: {name} has another hash.", fix=_FIX)
                    (new / name).write_bytes(_plain(data, name, run))
    return folder


def _make(folder: Path, bundle: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # no fault of the bundle
        raise AvatarError(
            f"{bundle} cannot be opened: {folder} cannot be written.", why=f"{error.strerror}.",
            fix="Let AVATAR_CACHE name another folder.",
        ) from error  # fmt: skip


def _content(path: Path, compact: bool) -> bytes:
    """What goes into a bundle of a file: without the paths of this machine."""
    if path.name == files.CONFIG:
        config = {name: value for name, value in read_toml(path).items() if name not in _PLACES}
        if isinstance(model := config.get("model"), dict):
            config["model"] = {name: value for name, value in model.items() if name not in _PLACES}
        return tomli_w.dumps(config).encode()
    if path.name == files.TRAINING:
        training = read_json(path)
        if isinstance(teacher := training.get("teacher"), dict):
            training["teacher"] = {name: value for name, value in teacher.items() if name != "run"}
        return json.dumps(training, indent=2).encode()
    if path.name == PERSON:
        return json.dumps(read_json(path) | {"source": ""}, indent=2).encode()
    data = path.read_bytes()
    return packed(data) if compact and path.suffix == ".safetensors" else data


def _plain(data: bytes, name: str, bundle: Path) -> bytes:
    if not name.endswith(".safetensors"):
        return data
    try:
        return unpacked(data)
    except Exception as error:  # of the library that reads it: whatever is in the file, it is damaged
        raise AvatarError(f"{bundle} is damaged: {name} holds no tensors.", fix=_FIX) from error


@contextmanager
def _opened(path: Path) -> Generator[zipfile.ZipFile]:
    """Open a zip whose directory is small and plain: the standard library reads all of it before anything is known."""
    most = len(TAKEN) + 1
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _END.size))
            end = file.read()
            known = len(end) == _END.size and size <= _LARGEST
            mark, disk, _, here, entries, directory, start, comment = _END.unpack(end) if known else (b"",) + (0,) * 7
            if mark != b"PK\5\6" or disk or comment or here != entries or start + directory + _END.size != size:
                raise AvatarError(f"{path} is no avatar: neither a RUN folder nor a bundle.")
            if not 0 < entries <= most or directory > 1024 * most:
                raise AvatarError(f"{path} is no bundle of this toolkit.", fix=_FIX)
            with zipfile.ZipFile(file) as archive:
                if any(info.compress_type not in _METHODS for info in archive.infolist()):
                    raise AvatarError(f"{path} is no bundle of this toolkit: it is packed in another way.", fix=_FIX)
                yield archive
    except (zipfile.BadZipFile, struct.error, UnicodeError) as error:
        raise AvatarError(f"{path} is damaged.", fix=_FIX) from error
    except OSError as error:
        raise AvatarError(f"{path} cannot be read.", why=f"{error.strerror or error}.") from error


def _header(archive: zipfile.ZipFile, path: Path) -> list[tuple[str, int, str]]:
    """Name, bytes and hash of each file.

    Raises:
        AvatarError: The header is missing, damaged or of another version, or names something that is no part of a RUN.
    """
    data = Record(parse_json(_entry(archive, HEADER, None, path).decode("utf-8", "replace"), path, _FIX), path)
    if data.value("format", None) != FORMAT:
        raise AvatarError(f"{path} was written by another version of the toolkit.", why=f"It is no {FORMAT}.", fix=_FIX)
    listed = data.record("files")
    names: dict[str, Any] = listed.data
    if unknown := sorted(set(names) - TAKEN):
        raise AvatarError(f"{path} holds {unknown[0]!r}, which is no part of an avatar.", fix=_FIX)
    if missing := sorted(NEEDED - set(names)):
        raise AvatarError(f"{path} lacks {missing[0]}.", fix=_FIX)
    inside = sorted(info.filename for info in archive.infolist())
    if inside != sorted([HEADER, *names]):
        raise AvatarError(f"{path} holds other files than it says.", fix=_FIX)
    found = [(n, listed.record(n).whole("bytes", 0, _LARGEST), listed.record(n).text("sha256")) for n in sorted(names)]
    total = sum(size for _, size, _ in found)
    if total > _LARGEST:
        raise AvatarError(f"{path} says that it holds more than {_LARGEST >> 30} GiB.", fix=_FIX)
    if total > _MOST_TIMES * path.stat().st_size:
        raise AvatarError(f"{path} says that it holds more than {_MOST_TIMES} times its own bytes.", fix=_FIX)
    return found


def _entry(archive: zipfile.ZipFile, name: str, size: int | None, path: Path) -> bytes:
    """Read one entry, never more than its size and a byte; without a size, what a header may have."""
    try:
        with archive.open(name) as file:
            data = file.read(1 + (_HEADER_BYTES if size is None else size))
    except KeyError:
        raise AvatarError(f"{path} is no bundle of this toolkit: it lacks {name}.", fix=_FIX) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise AvatarError(f"{path} is damaged: {name} cannot be read.", fix=_FIX) from error
    if len(data) > _HEADER_BYTES if size is None else len(data) != size:
        raise AvatarError(f"{path} is damaged: {name} has another size than it says.", fix=_FIX)
    return data


def refuse_bundle(run: Path, doing: str) -> None:
    """Refuse a bundle where only a RUN folder serves.

    Args:
        run: What was given.
        doing: What needs more than a bundle holds, for people: "Measuring".

    Raises:
        AvatarError: It is a bundle.
    """
    if run.is_file():
        raise AvatarError(f"{doing} needs the RUN folder that {run} was made from.")
