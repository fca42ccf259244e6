"""The one exception that users see: what happened, why, and what to do about it."""

from __future__ import annotations

TROUBLESHOOTING = "docs/troubleshooting.md"  # the page, or its address, that errors lead to
# Characters without a picture of their own that join letters, or keep them apart, within words of Persian and Hindi.
_JOINERS = "\u200c\u200d"
_LONGEST = 1000  # characters of each part of an error: what a broken file holds may be megabytes


class AvatarError(Exception):
    """A mistake or a limit the user can act on. The CLI prints it without a traceback and exits with 2.

    Args:
        what: What happened, naming the file, option or tensor.
        why: The cause, if it is known and not already said by ``what``.
        fix: What the user can do now; a command where there is one.
        see: Anchor of a heading of the page `TROUBLESHOOTING` that says more; the command line names it.
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "", see: str = "") -> None:
        self.see = see
        self.what, self.why, self.fix = (printable(part) for part in (what, why, fix))
        super().__init__(" ".join(part for part in (self.what, self.why, self.fix) if part))


def printable(text: str) -> str:
    """The text as any terminal can show it, at most `_LONGEST` characters.

    Names of files and what is in them may hold lone surrogates, which cannot be encoded, and control characters, which
    move the cursor or recolour the terminal; both are written as escapes.
    """
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 2 :]}"
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in f"\n{_JOINERS}" else ascii(c)[1:-1] for c in text)
