"""What `avatar doctor` finds: one line of its report."""

from __future__ import annotations

from dataclasses import dataclass

GOOD, NOTE, BROKEN = "ok", "note", "broken"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        part: What was looked at.
        state: "ok", "note" (works, but could be better) or "broken".
        detail: What was found.
        fix: What to do, empty if nothing.
    """

    part: str
    state: str
    detail: str
    fix: str = ""


def sentence(error: BaseException) -> str:
    """The class of an exception and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"
