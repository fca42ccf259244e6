"""The one exception that users see: what happened, why, and what to do about it."""

from __future__ import annotations


class AvatarError(Exception):
    """A mistake or a limit the user can act on. The CLI prints it without a traceback and exits with 2.

    Args:
        what: What happened, naming the file, option or tensor.
        why: The cause, if it is known and not already said by ``what``.
        fix: What the user can do now; a command where there is one.
    """

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        self.what, self.why, self.fix = what, why, fix
        super().__init__(" ".join(part for part in (what, why, fix) if part))
