"""Read pages: the sentences of Markdown and docstrings, links, anchors, and blocks of code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_NO_GUIDES = ("notes", "benchmarks", "project")  # folders of docs/: laboratory notes, tables, places made by the site

_FENCE = re.compile(r"^\s*(```|~~~)")
_COMMENT = re.compile(r"<!--.*?-->")
_IMAGE = re.compile(r"!\[([^\]]*)\]\([^)]*\)")
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]*)[^)]*\)")
_TARGET = re.compile(r"\]\(\s*<?([^)\s>]*)|\b(?:src|href)=\"([^\"]*)\"")  # of a link, an image, or in HTML
_BLOCK = re.compile(
    r"^(?P<indent> *)(?P<fence>```+|~~~+)(?P<language>[^\n`]*)\n(?P<code>.*?)^ *(?P=fence) *$", re.M | re.S
)
_CODE = re.compile(r"`+[^`]*`+")
_CODE_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)", re.S)
_ITEM = re.compile(r"^\s*([-*+]|\d+\.)\s+")
_RULE = re.compile(r"^[\s|:-]+$")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|vs|Fig|et al|approx)\.", re.IGNORECASE)
_END = re.compile(r"(?<=[.!?])[\"')*_\]]*\s+(?=[\"'(*_\[]*[A-Z0-9`])")
_ENTRY = re.compile(r"^\s*[\w.*-]+: ")


def pages() -> list[Path]:
    """Pages for users: README.md, CONTRIBUTING.md and those of docs/, without the laboratory notes."""
    docs = ROOT / "docs"
    kept = [path for path in sorted(docs.rglob("*.md")) if path.relative_to(docs).parts[0] not in _NO_GUIDES]
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *kept]


def notes() -> list[Path]:
    """Laboratory notes, and other pages that are no guide for users."""
    folders = ("docs/notes", "docs/benchmarks", "benchmarks", "changelog")
    return [ROOT / "CHANGELOG.md", *(path for name in folders for path in sorted((ROOT / name).rglob("*.md")))]


def blocks(text: str, first: int = 1) -> Iterator[tuple[int, str]]:
    """Pieces of Markdown that hold whole sentences, with their line: paragraphs, list items, headings, table cells.

    Code blocks, comments and rules of tables are left out.

    Args:
        text: Markdown.
        first: Number of its first line.
    """
    line, held, fenced = first, "", False
    for number, row in enumerate(text.splitlines(), first):
        row = _COMMENT.sub("", row)
        if _FENCE.match(row):
            fenced = not fenced
            row = ""
        elif fenced:
            continue
        begins = _ITEM.match(row) or row.lstrip().startswith(("#", "|")) or not row.strip() or held.startswith("#")
        if begins and held:
            yield line, held
            held = ""
        if row.lstrip().startswith("|"):
            if not _RULE.match(row):
                yield from ((number, cell.strip()) for cell in row.strip().strip("|").split("|") if cell.strip())
        elif row.strip():
            line, held = (line, f"{held} {row.strip()}") if held else (number, _ITEM.sub("", row).strip())
    if held:
        yield line, held


def plain(text: str) -> str:
    """Markdown without its marks: a link is its text, a piece of code is one word."""
    text = _LINK.sub(r"\1", _IMAGE.sub(r"\1", text))
    return _ABBREVIATION.sub(r"\1", _CODE.sub("`code`", text))


def sentences(text: str) -> list[str]:
    """Sentences of a piece of prose."""
    return [sentence for sentence in _END.split(plain(text)) if sentence]


def words(sentence: str) -> int:
    """Number of words: what holds a letter or a digit."""
    return sum(any(c.isalnum() for c in word) for word in sentence.split())


def long_sentences(text: str, most: int, first: int = 1) -> Iterator[tuple[int, str]]:
    """Line and sentence of all that have more than so many words."""
    for line, block in blocks(text, first):
        yield from ((line, sentence) for sentence in sentences(block) if words(sentence) > most)


def docstring_blocks(text: str) -> str:
    """A docstring as Markdown whose entries (``name: what it is``) are paragraphs of their own."""
    rows = text.splitlines()
    return "\n".join(f"\n{row.strip()}" if _ENTRY.match(row) else row.strip() for row in rows)


def links(text: str) -> Iterator[tuple[int, str]]:
    """Line and target of all links and images outside of code, also of those that go on in the next line."""
    prose = _CODE_SPAN.sub(_blank, _BLOCK.sub(_blank, text))
    for match in _TARGET.finditer(prose):
        yield prose.count("\n", 0, match.start()) + 1, match[1] if match[1] is not None else match[2]


def code_blocks(text: str, *languages: str) -> Iterator[tuple[int, str]]:
    """Line of the first row, and the code, of each fenced block in one of some languages."""
    for match in _BLOCK.finditer(text):
        if match["language"].strip() in languages:
            rows = match["code"].splitlines()
            indent = len(match["indent"])
            yield text.count("\n", 0, match.start()) + 2, "\n".join(row[indent:] for row in rows) + "\n"


def _blank(match: re.Match[str]) -> str:
    """As many lines, and nothing on them."""
    return "\n" * match[0].count("\n")


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    found: set[str] = set()
    fenced = False
    for row in text.splitlines():
        if _FENCE.match(row):
            fenced = not fenced
        elif not fenced and (heading := re.match(r"#+\s+(.*)", row)):
            name = _LINK.sub(r"\1", heading[1]).replace("`", "").strip().lower()
            found.add(re.sub(r"[^\w\- ]", "", name).replace(" ", "-"))
    return found
