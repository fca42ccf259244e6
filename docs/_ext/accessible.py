"""Mend what a page of the theme lacks for those who use a keyboard or a screen reader, as axe-core finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CHANGES = (
    ('<aside class="sidebar-drawer">', '<aside class="sidebar-drawer" aria-label="Pages">'),
    ('<aside class="toc-drawer', '<aside aria-label="Contents" class="toc-drawer'),
    ('<p class="caption" role="heading">', '<p class="caption" role="heading" aria-level="2">'),
    ('<th class="head"><p></p></th>', "<td></td>"),  # the corner of a table
    ('<div id="search-results"></div>', '<h1>Search</h1><div id="search-results"></div>'),
    # What may be wider than the window can be scrolled by keyboard.
    ("<pre>", '<pre tabindex="0">'),
    ('<div class="table-wrapper', '<div tabindex="0" class="table-wrapper'),
)


def mend(html: str) -> str:
    """A page with what it lacked. Mended twice, it is the same."""
    for old, new in CHANGES:
        if new not in html:
            html = html.replace(old, new)
    return html


def mend_all(app: Any, failed: Exception | None) -> None:
    """Mend all pages that were written."""
    if failed is None and app.builder.format == "html":
        for page in Path(app.outdir).rglob("*.html"):
            text = page.read_text(encoding="utf-8")
            if (mended := mend(text)) != text:
                page.write_text(mended, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Register the hook."""
    app.connect("build-finished", mend_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
