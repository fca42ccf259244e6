"""What a command must not write over: its inputs, and the parts of an avatar or of a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from avatar.data import run
from avatar.data.person import MARKER
from avatar.errors import AvatarError

PARTS = run.FILES | {MARKER}


def check_output(out: Path, *inputs: Path | None, suffixes: Sequence[str] = ()) -> None:
    """Refuse the value of --out where it has another ending, or for what `refuse_to_overwrite` refuses.

    Args:
        out: The file to write.
        inputs: Files that must stay.
        suffixes: Endings that are right, lower case; empty: any.

    Raises:
        AvatarError: It is refused.
    """
    if suffixes and not out.name.lower().endswith(tuple(suffixes)):
        raise AvatarError(f"--out {out} must end in {' or '.join(suffixes)}.")
    refuse_to_overwrite(out, *inputs)


def refuse_to_overwrite(out: Path, *inputs: Path | None) -> None:
    """Refuse an output that is an input, a part of an avatar or of a person, or a folder.

    Raises:
        AvatarError: It is one of these.
    """
    if out.is_dir():
        raise AvatarError(f"The output {out} is a folder.", fix="Name a file.")
    if out.name in PARTS and out.exists() and (out.parent / run.PERSON).is_file():
        raise AvatarError(f"The output {out} is a part of what is in {out.parent}.", fix="Choose another name.")
    for path in inputs:
        if path is not None and path.exists() and out.exists() and out.samefile(path):
            raise AvatarError(f"The output {out} is one of the inputs.", fix="Choose another --out.")
