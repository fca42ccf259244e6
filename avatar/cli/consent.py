"""Show or state the consent of the person in a PERSON or a RUN folder."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from avatar.data import consent
from avatar.data.consent import Consent
from avatar.errors import AvatarError

ConsentOption = Annotated[str | None, tyro.conf.arg(metavar="self|FILE")]
_QUESTION = """Who is in this {}?
  s  I am, and I agree to all uses of my avatar
  p  a person who does not exist: it was drawn by a program
  Enter  I do not say now (what leaves this machine will need it)
For somebody who agreed, answer with the path of their record of consent.
> """


@dataclass(frozen=True, kw_only=True)
class Config:
    """Show or state the consent of a person."""

    folder: Annotated[Path, tyro.conf.Positional]
    """PERSON or RUN folder."""
    state: ConsentOption = None
    """State it: self if it is you, or a record of consent of somebody who agreed. See docs/provenance.md."""


def main(config: Config) -> None:
    """Write the record where one is given, and show it.

    Raises:
        AvatarError: The folder is no PERSON or RUN folder, or the record cannot be read.
    """
    from avatar.data.person import FILE as PERSON
    from avatar.data.person import MARKER
    from avatar.writing import one_writer

    if not any((config.folder / name).is_file() for name in (PERSON, MARKER)):  # one is there while it is prepared
        raise AvatarError(f"{config.folder} is no PERSON and no RUN folder.")
    if config.state is not None:
        stated = consent.chosen(config.state)
        with one_writer(config.folder):
            stated.write(config.folder)
    print(f"Consent: {consent.of_folder(config.folder).text}.")


def answered(option: str | None, video: Path, person: Path) -> Consent | None:
    """What an option says, or at a terminal the answer to a question; None: nothing.

    Args:
        option: Value of ``--consent``.
        video: The video.
        person: Its PERSON folder, which may not exist yet; what is stated in it is not asked again.

    Raises:
        AvatarError: A record cannot be read.
    """
    if option is not None:
        return consent.chosen(option)
    asked = all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))  # None: it is closed
    if not video.exists() or not asked:
        return None
    from avatar.preprocess.photo import is_photo
    from avatar.preprocess.pipeline import holds

    beside = not video.is_dir() and video.with_suffix(consent.BESIDE).is_file()
    if beside or (consent.of_folder(person).stated and holds(person, video)):
        return None
    print(_QUESTION.format("photo" if is_photo(video) else "video"), end="", file=sys.stderr, flush=True)
    said = sys.stdin.readline().strip()
    if not said:
        return None
    short = said.lower()
    if short == "p":
        return consent.SYNTHETIC
    if short in ("s", "self"):
        return consent.chosen("self")
    if len(said) > 1 and said[0] == said[-1] and said[0] in "'\"":  # as terminals paste a file that is dropped on them
        said = said[1:-1]
    return consent.chosen(os.path.expanduser(said))
