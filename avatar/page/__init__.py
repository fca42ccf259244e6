"""The design of all HTML reports: one page with its style and script inside, which loads nothing from elsewhere.

It is readable on a phone and in the dark. Tables sort by a click or a key on the title of a column, and a video steps
frame by frame. What is text is escaped here; what is HTML already is called ``body`` or ``content``.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        text: What it shows.
        small: Lines below it in small print.
        number: Whether it is set to the right, as numbers are.
    """

    text: str
    small: tuple[str, ...] = ()
    number: bool = True


def page(title: str, lead: str, sections: Mapping[str, str]) -> str:
    """Make a whole page.

    Args:
        title: Text of its first heading and of the window.
        lead: HTML below the title.
        sections: HTML of each part by the text of its heading, in order.
    """
    names = {heading: anchor(heading) for heading in sections}
    links = "".join(f'<li><a href="#{names[heading]}">{html.escape(heading)}</a></li>' for heading in sections)
    body = "".join(
        f'<section><h2 id="{names[heading]}">{html.escape(heading)}</h2>\n{content}</section>\n'
        for heading, content in sections.items()
    )
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
<style>
{style}</style>
<header>
<h1>{html.escape(title)}</h1>
<nav aria-label="Contents"><ul>{links}</ul></nav>
</header>
<main>
{lead}
{body}</main>
<script>
{script}</script>
</html>
"""


def anchor(heading: str) -> str:
    """The id of a heading: its words in lower case, with hyphens between them."""
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") or "part"


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str | Cell]], *, sorts: bool = True) -> str:
    """Make a table that sorts, and that scrolls by itself where it is wider than the page.

    Args:
        title: What it is, for people who do not see it.
        head: Titles of the columns; none may be empty.
        rows: Their cells. The first of a row is its heading; text in others is set to the left.
        sorts: Whether its columns sort.
    """
    kind = ' class="sortable"' if sorts else ""
    name = html.escape(title)
    titles = "".join(f'<th scope="col">{html.escape(text)}</th>' for text in head)
    body = "\n".join(f"<tr>{_row(row)}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">'
        f"<table{kind}><thead><tr>{titles}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>\n"
    )


def _row(row: Sequence[str | Cell]) -> str:
    first, *others = (cell if isinstance(cell, Cell) else Cell(cell, number=False) for cell in row)
    return f'<th scope="row">{_content(first)}</th>' + "".join(
        f'<td class="n">{_content(cell)}</td>' if cell.number else f"<td>{_content(cell)}</td>" for cell in others
    )


def _content(cell: Cell) -> str:
    return html.escape(cell.text) + "".join(f"<small>{html.escape(line)}</small>" for line in cell.small)


def image(source: str, alt: str, caption: str = "", *, plot: bool = False) -> str:
    """Make a figure of an image.

    Args:
        source: Address of the image: a file beside the page, or a data URL. A file opens in full size by a click.
        alt: What it shows, for people who do not see it.
        caption: Text below it.
        plot: Whether its colours are turned around in the dark, as those of lines on white should be.
    """
    kind = ' class="plot"' if plot else ""
    shown = f'<img{kind} src="{html.escape(source)}" alt="{html.escape(alt)}">'
    if not source.startswith("data:"):
        shown = f'<a href="{html.escape(source)}" title="Open in full size">{shown}</a>'
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{shown}{below}</figure>\n"


def video(source: str, label: str, fps: float) -> str:
    """Make a video that steps frame by frame: by buttons, and by the keys , and . as in players.

    Args:
        source: A file beside the page.
        label: What it shows.
        fps: Its frames per second.
    """
    return (
        f'<figure class="video" data-fps="{fps:.6g}"><div class="wide" tabindex="0" role="region" '
        f'aria-label="{html.escape(label)}, video"><video controls playsinline preload="metadata" '
        f'src="{html.escape(source)}" aria-label="{html.escape(label)}"></video></div>'
        '<div class="steps" role="group" aria-label="Frame by frame" hidden>'
        '<button type="button" data-step="-1">Back <kbd>,</kbd></button>'
        '<button type="button" data-step="1">Next <kbd>.</kbd></button>'
        '<output aria-label="Frame">frame 0</output></div>'
        f"<figcaption>{html.escape(label)}</figcaption></figure>\n"
    )


def paragraph(text: str, kind: str = "") -> str:
    """Make a paragraph of text; ``kind`` is "warning" or empty."""
    marked = f' class="{kind}"' if kind else ""
    return f"<p{marked}>{html.escape(text)}</p>\n"


def items(texts: Iterable[str]) -> str:
    """Make a list of texts; empty where there are none."""
    listed = "".join(f"<li>{html.escape(text)}</li>\n" for text in texts)
    return f"<ul>{listed}</ul>\n" if listed else ""
