"""Assemble the fragments of ``changelog/`` into ``CHANGELOG.md``, in the form of Keep a Changelog.

A fragment is a small file ``NAME.KIND.md`` that a change brings along (``changelog/README.md``). Without ``--version``
what is unreleased is printed, and nothing is changed.
"""

from __future__ import annotations

import datetime
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from avatar.errors import AvatarError
from avatar.writing import atomic_file

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("added", "changed", "removed", "fixed", "security")
UNRELEASED = "## Unreleased"
_VERSION = re.compile(r"\d+\.\d+\.\d+((a|b|rc)\d+)?")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")  # newer Pythons read other forms as well
_NAME = re.compile(r"[a-z0-9-]+")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Print what is unreleased, or move it to a released version."""

    version: str | None = None
    """Version to release, such as 0.2.0; the fragments are removed."""
    date: str | None = None
    """Date of the release, YYYY-MM-DD; default: today."""
    root: Path = ROOT
    """A checkout of the project."""


def fragments(folder: Path) -> list[tuple[str, str, Path]]:
    """Kind, text and path of all fragments, by name.

    Raises:
        AvatarError: A file is none, or empty.
    """
    found = []
    for path in sorted(folder.glob("*")):
        if path.name == "README.md":
            continue
        name, _, kind = path.name.removesuffix(".md").rpartition(".")
        if path.suffix != ".md" or kind not in KINDS or not _NAME.fullmatch(name):
            raise AvatarError(
                f"{path} is not a fragment of the changelog.",
                fix=f"Name it NAME.KIND.md, KIND one of {', '.join(KINDS)}.",
            )
        text = path.read_text(encoding="utf-8").strip()
        if not text:
            raise AvatarError(f"{path} is empty.", fix="Write one sentence, or remove it.")
        found.append((kind, text, path))
    return found


def parse(section: str) -> dict[str, list[str]]:
    """Entries of a version by kind: what stands below its ``### Kind`` headings, a list item each.

    Raises:
        AvatarError: There is text outside of the list of a kind.
    """
    entries: dict[str, list[str]] = {kind: [] for kind in KINDS}
    kind = ""
    for line in section.strip().splitlines():
        if line.startswith("### "):
            kind = line[4:].strip().lower()
        elif kind in entries and line.startswith("- "):
            entries[kind].append(line[2:])
        elif kind in entries and line.startswith("  ") and entries[kind]:
            entries[kind][-1] += "\n" + line.strip()
        elif line.strip():
            kinds = ", ".join(KINDS)
            raise AvatarError(f"CHANGELOG.md: {line!r} is no entry of a kind.", fix=f"The kinds are {kinds}.")
    return entries


def written(entries: dict[str, list[str]]) -> str:
    """Markdown of the entries of a version."""
    parts = []
    for kind in KINDS:
        if entries[kind]:
            items = "\n".join("- " + text.replace("\n", "\n  ") for text in entries[kind])
            parts.append(f"### {kind.capitalize()}\n\n{items}\n")
    return "\n".join(parts)


def split(text: str) -> tuple[str, str, str]:
    """What stands before, in and after the section of what is unreleased.

    Raises:
        AvatarError: There is no such section.
    """
    before, found, rest = text.partition(f"{UNRELEASED}\n")
    if not found:
        raise AvatarError(f"CHANGELOG.md has no section '{UNRELEASED}'.", fix="Write one above the last version.")
    end = re.search(r"^## ", rest, re.MULTILINE)
    at = end.start() if end else len(rest)
    return before, rest[:at], rest[at:]


def unreleased(config: Config) -> tuple[str, dict[str, list[str]], str, list[Path]]:
    """What stands before the entries, the entries, what stands after them, and the fragments among them.

    Raises:
        AvatarError: The changelog or a fragment is not as it should be.
    """
    before, section, after = split((config.root / "CHANGELOG.md").read_text(encoding="utf-8"))
    entries, found = parse(section), fragments(config.root / "changelog")
    for kind, entry, _ in found:
        entries[kind].append(entry)
    return before, entries, after, [path for _, _, path in found]


def released(config: Config, version: str) -> tuple[str, dict[str, list[str]], list[Path]]:
    """The text of ``CHANGELOG.md`` with what is unreleased as a version, its entries, and the fragments to remove.

    Raises:
        AvatarError: The changelog, a fragment, the version or the date is not as it should be, or nothing is
            unreleased.
    """
    before, entries, after, found = unreleased(config)
    if not _VERSION.fullmatch(version):
        raise AvatarError(f"--version {version} is no version.", fix="Give three numbers, such as 0.2.0.")
    if re.search(rf"^## \[?{re.escape(version)}\]?( |$)", before + after, re.MULTILINE):
        raise AvatarError(f"CHANGELOG.md has version {version} already.", fix="Choose another --version.")
    if not any(entries.values()):
        raise AvatarError("Nothing is unreleased.", fix="Write a fragment for each change.")
    date = config.date or datetime.date.today().isoformat()
    if not _DATE.fullmatch(date):
        raise AvatarError(f"--date {date} is no date.", fix="Write it as YYYY-MM-DD.")
    try:
        datetime.date.fromisoformat(date)
    except ValueError as error:
        raise AvatarError(f"--date {date} is no date.", fix="Write it as YYYY-MM-DD.") from error
    section = f"## {version} - {date}\n\n{written(entries)}"
    return f"{before}{UNRELEASED}\n\n{section}{chr(10) + after if after else ''}", entries, found


def main(config: Config) -> None:
    """Print what is unreleased, or write it as a version and remove the fragments.

    Raises:
        AvatarError: The changelog, a fragment, the version or the date is not as it should be.
    """
    if config.version is None:
        print(written(unreleased(config)[1]))
        return
    text, entries, found = released(config, config.version)
    path = config.root / "CHANGELOG.md"
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    for fragment in found:
        fragment.unlink()
    print(f"{path}: {config.version}, {sum(map(len, entries.values()))} entries.")


if __name__ == "__main__":
    from avatar.cli.errors import command_code

    sys.exit(command_code("changelog", lambda: main(tyro.cli(Config))))
