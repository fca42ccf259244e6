"""Make a release of a clean checkout: changelog, version, commit and tag. Nothing is sent anywhere.

``python -m pipelines.release --version 0.2.0 --dry-run`` says what would happen. Without ``--dry-run`` the fragments of
``changelog/`` become a version of ``CHANGELOG.md``, the version is written where it stands, and both are committed and
tagged ``v0.2.0``. ``git push --follow-tags`` is left to you, and so are packages (``pipelines/packages.py``).
"""

from __future__ import annotations

import datetime
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tyro

from avatar.errors import AvatarError
from avatar.writing import atomic_file
from pipelines import changelog

VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:(a|b|rc)(\d+))?")
_UNRELEASED = " Nothing is released yet."
# Where the version stands: a file, and what surrounds it.
_PLACES = (
    ("avatar/__init__.py", r'(?m)^(__version__ = ")[^"]*(")$'),
    ("CITATION.cff", r"(?m)^(version: )\S+()$"),
    ("README.md", r"(?m)^(  version = \{)[^}]*(\},)$"),
)
_DATE = r"(?m)^date-released: \S+\n"
_YEAR = r"(?m)^(  year += \{)\d{4}(\},)$"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Write a version, commit it and tag it."""

    version: str
    """Version to release, such as 0.2.0 or 0.3.0rc1."""
    date: str | None = None
    """Date of the release, YYYY-MM-DD; default: today."""
    dry_run: bool = False
    """Check everything, say what would be done, and change nothing."""
    tag: bool = True
    """Tag the commit. Without it, the release is a commit that can be looked at first."""
    root: Path = changelog.ROOT
    """A checkout of the project."""


def order(version: str) -> tuple[int, ...]:
    """A version as numbers in the order of releases: 0.2.0a1, 0.2.0rc1, 0.2.0, 0.2.1.

    Raises:
        AvatarError: It is no version.
    """
    match = VERSION.fullmatch(version)
    if match is None:
        raise AvatarError(f"--version {version} is no version.", fix="Give three numbers, such as 0.2.0.")
    numbers = tuple(int(match[i]) for i in (1, 2, 3))
    stage = ("a", "b", "rc", None).index(match[4])
    return (*numbers, stage, int(match[5] or 0))


def git(root: Path, *arguments: str) -> str:
    """What git says.

    Raises:
        AvatarError: It fails.
    """
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    if done.returncode:
        raise AvatarError(f"git {arguments[0]} failed in {root}:", why=f"{(done.stderr or done.stdout).strip()}.")
    return done.stdout.strip()


def current(root: Path) -> str:
    """The version of the checkout; all places say the same.

    Raises:
        AvatarError: A place is missing, or they differ.
    """
    found: dict[str, str] = {}
    for name, pattern in _PLACES:
        text = (root / name).read_text(encoding="utf-8")
        match = re.search(pattern, text)
        if match is None:
            raise AvatarError(f"{name} does not say its version.", fix="Restore it from the last release.")
        found[name] = match[0].removeprefix(match[1]).removesuffix(match[2])
    if len(set(found.values())) > 1:
        raise AvatarError(f"Versions differ: {', '.join(f'{name} {value}' for name, value in found.items())}.",
                          fix="Make them the same.")  # fmt: skip
    return found[_PLACES[0][0]]


def check(config: Config) -> str:
    """Refuse a release that cannot be made; return the version before it.

    Raises:
        AvatarError: The tree is not clean, the version is not newer, or the tag is there.
    """
    if changed := git(config.root, "status", "--porcelain"):
        raise AvatarError(f"The checkout has changes: {', '.join(line[3:] for line in changed.splitlines()[:5])}.",
                          fix="Commit or remove them.")  # fmt: skip
    before = current(config.root)
    if order(config.version) <= order(before):
        raise AvatarError(f"--version {config.version} is not newer than {before}.", fix="Choose a later one.")
    if git(config.root, "tag", "--list", f"v{config.version}"):
        raise AvatarError(f"There is a tag v{config.version} already.", fix="Choose another --version.")
    return before


def edit(path: Path, change: Callable[[str], str]) -> None:
    """Change the text of a file."""
    text = change(path.read_text(encoding="utf-8"))
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_version(root: Path, version: str, date: str) -> None:
    """Write the version, and its date, where they stand."""
    for name, pattern in _PLACES:
        edit(root / name, lambda text, pattern=pattern: re.sub(pattern, rf"\g<1>{version}\g<2>", text))
    dated = f"version: {version}\ndate-released: {date}\n"
    edit(root / "CITATION.cff", lambda text: re.sub(_DATE, "", text).replace(f"version: {version}\n", dated, 1))
    edit(root / "README.md", lambda text: re.sub(_YEAR, rf"\g<1>{date[:4]}\g<2>", text))
    edit(root / "CHANGELOG.md", lambda text: text.replace(_UNRELEASED, "", 1))


def commit(config: Config, date: str) -> None:
    """Write the release and commit it; where that fails, the checkout is as it was.

    Raises:
        AvatarError: git refuses, for example because it knows no author, or a hook does.
    """
    try:
        changelog.main(changelog.Config(version=config.version, date=date, root=config.root))
        write_version(config.root, config.version, date)
        git(config.root, "add", "--all", "CHANGELOG.md", "changelog", *(name for name, _ in _PLACES))
        git(config.root, "commit", "--quiet", "--message", f"Release {config.version}")
    except BaseException:
        git(config.root, "reset", "--quiet", "--hard")  # `check` saw that there was nothing to lose
        raise


def main(config: Config) -> None:
    """Make the release, or say what it would be.

    Raises:
        AvatarError: Something is not as it should be. Then nothing was changed, unless it says so.
    """
    before, date = check(config), config.date or datetime.date.today().isoformat()
    notes = changelog.Config(date=date, root=config.root)
    _, entries, found = changelog.released(notes, config.version)
    name = f"v{config.version}"
    if config.dry_run:
        print(f"{before} would become {config.version} of {date}, with {len(found)} fragments of the changelog:\n")
        print(changelog.written(entries))
        print(f"Commit: Release {config.version}" + (f"\nTag: {name}" if config.tag else ""))
        return
    commit(config, date)
    tag = ("tag", "--annotate", name, "--message", f"Version {config.version}")
    by_hand = f"git {shlex.join(tag)}"
    if not config.tag:
        print(f"Version {config.version} is committed. Look at it with git show, and tag it with: {by_hand}")
        return
    try:
        git(config.root, *tag)
    except AvatarError as error:
        raise AvatarError(f"Version {config.version} is committed, but has no tag.", why=str(error),
                          fix=f"Mend that, then run: {by_hand}") from error  # fmt: skip
    print(f"Version {config.version}. Look at it with git show, and send it with: git push --follow-tags")


if __name__ == "__main__":
    from avatar.cli.errors import command_code

    sys.exit(command_code("release", lambda: main(tyro.cli(Config))))
