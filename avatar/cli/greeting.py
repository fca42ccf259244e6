"""What `avatar` says without a command: a greeting, and what to do next with what lies in the current folder.

Only names, sizes and a few short files are read, and no more entries than `MOST_ENTRIES`; nothing heavy is imported.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from avatar.checks import parse_json, read_text, read_toml
from avatar.errors import AvatarError
from avatar.provenance.source_type import COMPOSITE, TRAINED, read_source_type

# As in `avatar.data`, whose modules take longer to load than all of this; a test compares them.
PERSON, PERSON_FORMAT, PERSON_SUFFIX, PHOTO = "person.json", "avatar-person-4", ".person", "photo"
MARKER, MARKER_FORMAT = "prepare.json", "avatar-prepare-1"
CONFIG, RUN_FORMAT, TRAINING = "config.toml", "avatar-run-2", "training.json"
BUNDLE, RENDERED = ".avatar", ".mp4"

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
AUDIO = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus")
MOST_ENTRIES = 2000  # of a folder that are looked at
MOST_INSIDE = 200  # of each folder in it
MOST_FOLDERS = 100  # that are looked into
MOST_VIDEOS = 50  # that are opened
MOST_SHOWN = 6  # things with a suggestion
_MOST_BYTES = 1 << 20  # of a file that is read


@dataclass
class Found:
    """What lies in a folder and the folders in it, the newest first.

    Attributes:
        videos: Filmed ones, of the folder itself.
        audio: Audio files, of the folder itself.
        bundles: Avatars in one file.
        runs: RUN folders, with what their config.toml says.
        persons: PERSON folders, with what their person.json or their mark says.
        more: Whether there was more than was looked at.
        places: Where the folders really are; a link may lead to one that was seen.
    """

    videos: list[Path] = field(default_factory=list)
    audio: list[Path] = field(default_factory=list)
    bundles: list[Path] = field(default_factory=list)
    runs: dict[Path, dict[str, Any]] = field(default_factory=dict)
    persons: dict[Path, dict[str, Any]] = field(default_factory=dict)
    more: bool = False
    places: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Suggestion:
    """A thing that was found, and commands for it."""

    what: str
    commands: tuple[str, ...]


def greeting(folder: Path = Path()) -> str:
    """The text: what this is, what to do next here, and where there is more."""
    from avatar import __version__

    lines = [f"avatar {__version__}: talking avatars of one person, from a video.", ""]
    found = look(folder)
    suggested = suggestions(found)
    if suggested:
        lines.append("Here you can go on with:")
        for one in suggested[:MOST_SHOWN]:
            lines += [f"  {one.what}", *(f"    {command}" for command in one.commands)]
        if len(suggested) > MOST_SHOWN or found.more:
            lines.append("  There is more in this folder.")
    else:
        lines += [
            "No video and no avatar lies in this folder. Begin with one of these:",
            "    avatar demo --out demo              a synthetic person; needs no video",
            "    avatar create VIDEO --out runs/me   your own video of one person talking",
        ]
    lines += ["", "avatar --help lists all commands. avatar doctor checks the installation."]
    return "\n".join(lines)


def look(folder: Path) -> Found:
    """See what lies in a folder, and in the folders in it. What cannot be read is passed over."""
    found = Found()
    entries = list(islice(_entries(folder), MOST_ENTRIES + 1))
    found.more = len(entries) > MOST_ENTRIES
    looked = 0
    for entry in entries[:MOST_ENTRIES]:
        path = folder / entry.name
        try:
            is_folder = entry.is_dir()
        except OSError:
            continue
        if not is_folder:
            _sort_file(found, path)
        elif not _sort_folder(found, path) and looked < MOST_FOLDERS:
            looked += 1
            for inner in islice(_entries(path), MOST_INSIDE):
                inside = path / inner.name
                if inner.name.lower().endswith(BUNDLE):
                    _sort_file(found, inside)
                else:
                    _sort_folder(found, inside)
    for files in (found.videos, found.audio, found.bundles):
        files.sort(key=_age)
    found.runs = {path: found.runs[path] for path in sorted(found.runs, key=_age)}
    found.persons = {path: found.persons[path] for path in sorted(found.persons, key=_age)}
    return found


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Entries that are not hidden and whose name a terminal can show."""
    try:
        with os.scandir(folder) as entries:
            yield from (e for e in entries if not e.name.startswith(".") and e.name.isprintable())
    except OSError:
        return


def _age(path: Path) -> tuple[float, str]:
    try:
        return -path.stat().st_mtime, str(path)
    except OSError:
        return 0.0, str(path)


def _sort_file(found: Found, path: Path) -> None:
    kinds = {VIDEOS: found.videos, AUDIO: found.audio, (BUNDLE,): found.bundles}
    files = next((files for endings, files in kinds.items() if path.name.lower().endswith(endings)), None)
    try:
        if files is not None and path.is_file() and path.stat().st_size:
            files.append(path)
    except OSError:
        pass


def _sort_folder(found: Found, path: Path) -> bool:
    """Note a RUN or PERSON folder; returns whether it is one, also if it is broken or of another version."""
    try:
        run, person, marker = ((path / name).is_file() for name in (CONFIG, PERSON, MARKER))
    except OSError:
        return False
    place = _place(path)
    if not (run or person or marker) or place in found.places:
        return run or person or marker
    found.places.add(place)
    if run and (said := _read(path / CONFIG)).get("format") == RUN_FORMAT:
        found.runs[path] = said
    elif person and not run and (said := _read(path / PERSON)).get("format") == PERSON_FORMAT:
        found.persons[path] = said | {"finished": True}
    elif marker and not person and (said := _read(path / MARKER)).get("format") == MARKER_FORMAT:
        found.persons[path] = said | {"finished": False}
    return True


def _read(path: Path) -> dict[str, Any]:
    """A small JSON or TOML file; nothing where it cannot be read."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return {}
        said = read_toml(path) if path.suffix == ".toml" else parse_json(read_text(path, "JSON"), path)
    except (AvatarError, OSError):
        return {}
    return said if isinstance(said, dict) else {}


def suggestions(found: Found) -> list[Suggestion]:
    """What to do next: with avatars first, then with people, then with videos that nothing was made of yet."""
    audio = _word(found.audio[0]) if found.audio else "SPEECH.wav"
    listed = [_of_run(path, said, audio) for path, said in found.runs.items()]
    listed += [
        Suggestion(f"{path} (an avatar in one file)", (
            f"avatar render {_word(path)} --audio {audio} --out {_word(_free(path.with_suffix(RENDERED)))}",
            f"avatar view {_word(path)}",
        )) for path in found.bundles
    ]  # fmt: skip
    trained = {_place(person) for said in found.runs.values() if (person := _said(said, "person"))}
    trained |= {_place(f"{path}{PERSON_SUFFIX}") for path in found.runs}
    listed += [_of_person(path, said) for path, said in found.persons.items() if _place(path) not in trained]
    used = {_place(source) for said in found.persons.values() if (source := _said(said, "source"))}
    for path in found.videos[:MOST_VIDEOS]:
        if _place(path) not in used and not _rendered(path):
            out = _free(Path("runs", path.stem))
            listed.append(Suggestion(f"{path} (a video)", (f"avatar create {_word(path)} --out {_word(out)}",)))
    return listed


def _of_run(path: Path, said: dict[str, Any], audio: str) -> Suggestion:
    run = _word(path)
    if (path / TRAINING).is_file():
        speech = _word(path / "speech.mp4")
        return Suggestion(f"{path} (an avatar)", (
            f"avatar render {run} --audio {audio} --out {speech}", f"avatar view {run}",
        ))  # fmt: skip
    person = _word(_person_of(path, said))
    # A resumed run must keep its options, and the file has all of them.
    command = f"avatar train {person} --out {run} --config {_word(path / CONFIG)} --resume"
    return Suggestion(f"{path} (an avatar whose training has not finished)", (command,))


def _person_of(run: Path, said: dict[str, Any]) -> str:
    """The PERSON folder of a run, where it is now: both may have moved, or be looked at from another folder."""
    kept = _said(said, "person")
    beside = [run.parent / Path(kept).name] if kept else []
    places = [*([Path(kept)] if kept else []), *beside, run.with_name(run.name + PERSON_SUFFIX)]
    found = next((place for place in places if (place / PERSON).is_file() and not (place / CONFIG).is_file()), None)
    return str(found) if found is not None else kept or "PERSON"


def _of_person(path: Path, said: dict[str, Any]) -> Suggestion:
    run = path.with_suffix("") if path.name.endswith(PERSON_SUFFIX) else path.with_name(f"{path.name}-run")
    if said["finished"]:
        quality = f" --quality {PHOTO}" if _said(said, "kind") == PHOTO else ""  # the only quality for photos
        return Suggestion(f"{path} (a prepared person)", (f"avatar train {_word(path)} --out {_word(run)}{quality}",))
    video = _word(_said(said, "source") or "VIDEO")
    made_by_create = path.name.endswith(PERSON_SUFFIX)
    command = f"avatar create {video} --out {_word(run)}"
    if not made_by_create:
        command = f"avatar prepare {video} --out {_word(path)}"
    return Suggestion(f"{path} (a person whose preparation has not finished)", (command,))


def _rendered(video: Path) -> bool:
    """Whether a video says that a model drew it."""
    try:
        return read_source_type(video) in (TRAINED, COMPOSITE)
    except (OSError, ValueError):
        return False


def _free(path: Path) -> Path:
    """The path, or one with a number after its name where something is there already, such as the person's video."""
    ending = path.suffix if path.suffix == RENDERED else ""
    stem = path.name.removesuffix(ending)
    names = (path, *(path.with_name(f"{stem}-{n}{ending}") for n in range(2, 100)))
    return next((name for name in names if not os.path.lexists(name)), path)


def _said(said: dict[str, Any], name: str) -> str:
    """A text of a file, where a terminal can show it; else an empty one."""
    value = said.get(name)
    return value if isinstance(value, str) and value.isprintable() else ""


def _place(path: Path | str) -> str:
    return os.path.realpath(path)


def _word(path: Path | str) -> str:
    """A path as one word of a command line; as `avatar.log.word`, which loads more."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)
