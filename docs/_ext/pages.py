"""Make a site of pages that are written for a code host as well.

Before a page is parsed, four things are done to its text:

- ``<!-- include: FILE -->`` becomes the text of a page outside of ``docs/``, such as the README of the project.
- ``<!-- contents: FILE -->`` becomes tables of contents: one per section of an index page, of the pages it lists.
- ``<!-- generated: NAME -->`` becomes what a function of `GENERATED` writes: options of commands, tables of results.
- Links to pages outside of ``docs/`` lead to their copies in the site. Other files are copied into the site.

Pages outside of ``docs/`` have a place in ``docs/project/``, which is written anew by every build and not kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
PROJECT = DOCS / "project"  # made here: a place for each page outside of docs/
INDEX = DOCS / "README.md"  # lists all pages

_CODE = re.compile(
    r"(^[ ]*(?P<fence>```+|~~~+).*?^[ ]*(?P=fence)[ ]*$|(?P<tick>`+)(?!`).*?(?<!`)(?P=tick)(?!`))", re.M | re.S
)
_LINK = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*)\]\((?P<to>[^)\s]+)(?P<title>\s+\"[^\"]*\")?\)")
_IMAGE = re.compile(r"(?P<head>!\[[^\]]*\]\(|<img\b[^>]*?\bsrc=\")(?P<to>[^)\s\"]+)")
_MARK = re.compile(r"^<!-- (?P<what>include|contents|generated): (?P<name>[^\n]+?) -->$", re.M)
_SECTION = re.compile(r"^## (?P<title>.+)\n(?P<body>(?:(?!## ).*\n?)*)", re.M)
_HELD = "\x00{}\x00"


def outside() -> dict[Path, Path]:
    """Pages outside of ``docs/`` with their places in the site. The README of the project is its front page."""
    found = [*ROOT.glob("*.md"), *(ROOT / folder / "README.md" for folder in ("benchmarks", "changelog", "examples"))]
    places = {page: PROJECT / f"{_slug(page)}.md" for page in sorted(found) if page.is_file()}
    return places | {ROOT / "README.md": DOCS / "index.md"}


def _slug(page: Path) -> str:
    return (page.stem if page.parent == ROOT else f"{page.parent.name}_{page.stem}").lower()


def write_places(*_: Any) -> None:
    """Write ``docs/project/``: a page of one line for each page outside of ``docs/``."""
    places = {place: page for page, place in outside().items() if place.parent == PROJECT}
    PROJECT.mkdir(exist_ok=True)
    for old in set(PROJECT.glob("*.md")) - set(places):
        old.unlink()
    for place, page in places.items():
        text = f"<!-- include: {Path(os.path.relpath(page, PROJECT)).as_posix()} -->\n"
        if not place.is_file() or place.read_text(encoding="utf-8") != text:
            place.write_text(text, encoding="utf-8")


def rewrite(text: str, origin: Path, page: Path) -> str:
    """Text of a page in which links lead to where their targets are in the site.

    Args:
        text: Markdown.
        origin: The file that it was written in; links are relative to it.
        page: The page of the site that shows it.

    Returns:
        The same Markdown, with links relative to ``page``. A link to a folder without a page becomes its text.
    """
    held: list[str] = []

    def hold(match: re.Match[str]) -> str:
        held.append(match[0])
        return _HELD.format(len(held) - 1)

    def link(match: re.Match[str]) -> str:
        to = target(match["to"], origin, page)
        return f"[{match['text']}]({to}{match['title'] or ''})" if to else match["text"]

    def image(match: re.Match[str]) -> str:
        return match["head"] + (target(match["to"], origin, page) or match["to"])

    text = _IMAGE.sub(image, _LINK.sub(link, _CODE.sub(hold, text)))
    return re.sub("\x00(\\d+)\x00", lambda match: held[int(match[1])], text)


def target(link: str, origin: Path, page: Path) -> str | None:
    """Where a link of ``origin`` leads from ``page``; None: to a folder, which is no page."""
    name, hash_, anchor = link.partition("#")
    if re.match(r"[a-z]+:", link) or not name:
        return link
    file = (origin.parent / name).resolve()
    if file.is_dir():
        file /= "README.md"
        if not file.is_file():
            return None
    place = outside().get(file, file)
    return Path(os.path.relpath(place, page.parent)).as_posix() + hash_ + anchor


def sections(index: Path) -> Iterator[tuple[str, dict[Path, str]]]:
    """Title of each section of an index page, and the pages in the first column of its table with their names."""
    for section in _SECTION.finditer(index.read_text(encoding="utf-8")):
        rows = re.findall(r"^\| \[([^\]]+)\]\(([^)#\s]+\.md)(?:#[^)]*)?\) \|", section["body"], re.M)
        pages = {(index.parent / file).resolve(): name for name, file in reversed(rows)}  # of two names, the first
        if pages:
            yield section["title"], {outside().get(page, page): name for page, name in reversed(pages.items())}


def contents(index: Path) -> str:
    """Tables of contents in Markdown, one per section of an index page."""
    blocks = []
    for title, pages in sections(index):
        entries = [f"{name} </{page.relative_to(DOCS).with_suffix('').as_posix()}>" for page, name in pages.items()]
        blocks.append("\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *entries, "```"]))
    return "\n\n".join(blocks)


def _command_line() -> str:
    from docs._ext import command_line

    return command_line.markdown()


def _python_api() -> str:
    from docs._ext import python_api

    return python_api.markdown()


def _results(name: str) -> Callable[[], str]:
    def table() -> str:
        from docs._ext import results

        return results.TABLES[name]()

    return table


GENERATED: dict[str, Callable[[], str]] = {
    "command line": _command_line,
    "python api": _python_api,
    **{
        f"results, {name}": _results(name)
        for name in ("likeness", "views", "methods", "speed", "asked", "speech", "records")
    },
}


def read(app: Any, docname: str, source: list[str]) -> None:
    """Change the text of a page before it is parsed."""
    page = Path(app.env.doc2path(docname))

    def made(match: re.Match[str]) -> str:
        if match["what"] == "generated":
            return rewrite(GENERATED[match["name"]](), DOCS / "index.md", page)
        file = (page.parent / match["name"]).resolve()
        app.env.note_dependency(str(file))
        return contents(file) if match["what"] == "contents" else rewrite(file.read_text(encoding="utf-8"), file, page)

    text, last = "", 0
    for match in _MARK.finditer(source[0]):
        text += rewrite(source[0][last : match.start()], page, page) + made(match)
        last = match.end()
    text += rewrite(source[0][last:], page, page)
    if not re.search(r"^# ", text, re.M):  # a table that a recipe wrote
        text = f"# {page.stem.capitalize()}\n\n{text}"
    listed = {place for _, pages in sections(INDEX) for place in pages}
    if page not in listed and docname != "index":
        text = f"---\norphan: true\n---\n{text}"
    source[0] = text


def setup(app: Any) -> dict[str, bool]:
    """Register the hooks."""
    app.connect("config-inited", write_places)
    app.connect("source-read", read)
    return {"parallel_read_safe": True}
