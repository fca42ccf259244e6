"""Which recordings are there in a folder: videos, face coefficients with their audio, and tracks that were given."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avatar import log
from avatar.corpus import tracks
from avatar.errors import AvatarError
from avatar.motion import facegood

VIDEO = {
    ".3gp", ".asf", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv",
    ".ts", ".vob", ".webm", ".wmv",
}  # fmt: skip
SOUND = {".aac", ".aif", ".aiff", ".flac", ".m4a", ".mka", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"}
_HEAD = 4096  # bytes of a table that name its channels


@dataclass(frozen=True)
class Item:
    """One recording.

    Attributes:
        name: Path below the folder, with slashes.
        speaker: Folder below the folder, or the name itself where there is none: whose way of moving it is.
        files: The video; or coefficients or tracks, and what belongs to them.
        audio: The file with its audio, None where there is none.
        video: Whether it has images, or else numbers.
    """

    name: str
    speaker: str
    files: tuple[Path, ...]
    audio: Path | None
    video: bool

    @property
    def tracks(self) -> bool:
        """Whether it holds tracks that somebody gave (`avatar.corpus.tracks`)."""
        return self.files[0].name.endswith(tracks.SUFFIX)


def find(folder: Path) -> list[Item]:
    """All recordings in a folder and the folders in it, in the order of their names.

    A video is known by the ending of its name. Coefficients are FACEGOOD's NAME.bs.npy, and tables NAME.csv or
    NAME.json of ARKit's; their audio is a file with the same NAME. Tracks are what `avatar prior record` writes.

    Raises:
        AvatarError: There is no such folder, or nothing in it.
    """
    folder = Path(folder)
    if not folder.exists():
        raise AvatarError(f"The folder {folder} does not exist.", fix="Check the path for a typing mistake.")
    if not folder.is_dir():
        raise AvatarError(f"{folder} is not a folder.", fix="Name the folder that the recordings are in.")
    items = [item for files in _folders(folder) for item in _items(folder, files)]
    if not items:
        raise AvatarError(
            f"There is no recording in {folder}.",
            fix=f"Put videos there, or {facegood.SUFFIX[1:]}, .csv or .json of face coefficients with their audio.",
        )
    return sorted(items, key=lambda item: item.name)


def videos(paths: Sequence[Path]) -> list[Item]:
    """Videos by themselves, each once; folders are part of their names where they tell two apart.

    Raises:
        AvatarError: One of them does not exist.
    """
    places = {_place(Path(path)): path for path in paths}
    folders = 1
    while len({_name(place, folders) for place in places}) < len(places):
        folders += 1
    return [video(path, folders) for path in places.values()]


def video(path: Path, folders: int = 1) -> Item:
    """One video by itself, named by its file and so many of the folders that it is in.

    Raises:
        AvatarError: There is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise AvatarError(f"The video {path} does not exist." if not path.exists() else f"{path} is not a file.")
    name = _name(_place(path), folders)
    return Item(name, name, (path,), path, video=True)


def _place(path: Path) -> Path:
    return path.parent.resolve() / path.name


def _name(place: Path, folders: int) -> str:
    return Path(*place.parts[-folders - 1 :]).as_posix()


def _folders(folder: Path) -> Iterator[list[Path]]:
    """The files of each folder; links are followed, but no folder is entered twice."""
    entered = set()

    def unread(error: OSError) -> None:
        log.warn(f"{error.filename} cannot be read and is left out: {error.strerror}.")

    for root, folders, names in os.walk(folder, onerror=unread, followlinks=True):
        place = os.path.realpath(root)
        if place in entered:
            folders.clear()
            continue
        entered.add(place)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield [Path(root) / name for name in names if not name.startswith(".")]


def _items(folder: Path, files: list[Path]) -> Iterator[Item]:
    heard = [path for kind in (VIDEO, SOUND) for path in sorted(files) if path.suffix.lower() in kind]
    found = {path.stem: path for path in heard}  # an audio file rather than a video
    for path in files:
        suffix = path.suffix.lower()
        if suffix in VIDEO:
            yield _item(folder, (path,), path, video=True)
        elif path.name.endswith(facegood.SUFFIX):
            names = path.with_name(facegood.NAMES_FILE)
            audio = found.get(path.name.removesuffix(facegood.SUFFIX))
            yield _item(folder, (path, names), audio, video=False)
        elif path.name.endswith(tracks.SUFFIX):
            beside = [path.with_name(name) for name in (tracks.ABOUT, tracks.BASIS)]
            yield _item(folder, (path, *(file for file in beside if file.is_file())), None, video=False)
        elif suffix in (".csv", ".json") and _names_arkit(path):
            yield _item(folder, (path,), found.get(path.stem), video=False)


def _item(folder: Path, files: tuple[Path, ...], audio: Path | None, video: bool) -> Item:
    below = files[0].relative_to(folder)
    name = below.as_posix()
    alone = name if not name.endswith(tracks.SUFFIX) else folder.resolve().name  # a folder of tracks is one person
    speaker = below.parent.as_posix() if len(below.parts) > 1 else alone
    return Item(name, speaker, files if video or audio is None else (*files, audio), audio, video)


def _names_arkit(path: Path) -> bool:
    """Whether a table is one of face coefficients, and not of anything else."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD).replace(b"\0", b"")  # of UTF-16, as spreadsheets write it
            return b"jawopen" in head.lower()
    except OSError:
        return False
