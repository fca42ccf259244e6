"""Prepare docstrings for autodoc: they are Google style, with names in single or double backticks."""

from __future__ import annotations

import re
from typing import Any

_ITEM = re.compile(r"^\s*[-*] ")


def spaced(_: Any, __: str, ___: str, ____: Any, _____: Any, lines: list[str]) -> None:
    """Put a blank line before the first item of a list, as reStructuredText wants it."""
    before = ""
    for index, line in reversed(list(enumerate(list(lines)))):
        before = lines[index - 1] if index else ""
        if _ITEM.match(line) and before.strip() and not _ITEM.match(before) and not before.startswith(" "):
            lines.insert(index, "")


def setup(app: Any) -> dict[str, bool]:
    """Register the hook."""
    app.connect("autodoc-process-docstring", spaced)
    return {"parallel_read_safe": True}
