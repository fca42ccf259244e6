"""Links and anchors of the pages lead somewhere, and the index lists every page."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests import docs_text
from tests.docs_text import ROOT

ALL = [*docs_text.pages(), *docs_text.notes()]
FRAGMENT = re.compile(r"[a-z0-9-]+\.[a-z]+\.md")
CODE = [*(ROOT / "avatar").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py"), *(ROOT / "cuda_ext").rglob("*.h")]


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path):
    wrong = []
    for line, target in docs_text.links(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        folder = ROOT if FRAGMENT.fullmatch(page.name) else page.parent  # a fragment becomes a part of CHANGELOG.md
        file = (folder / name).resolve() if name else page
        if not file.exists() or not file.is_relative_to(ROOT):
            wrong.append(f"{page.relative_to(ROOT)}:{line}: there is no {target}")
        elif anchor and file.suffix == ".md" and anchor not in docs_text.anchors(file.read_text(encoding="utf-8")):
            wrong.append(f"{page.relative_to(ROOT)}:{line}: {name or 'this page'} has no heading #{anchor}")
    assert not wrong, "\n".join(wrong)


def test_the_index_lists_every_page():
    index = ROOT / "docs/README.md"
    listed = {(index.parent / target).resolve() for _, target in docs_text.links(index.read_text(encoding="utf-8"))}
    pages = [*docs_text.pages(), *(ROOT / "docs/notes").glob("*.md")]
    unlisted = {index, ROOT / "docs/index.md", ROOT / "README.md"}  # itself, and the front page
    missing = [path.relative_to(ROOT).as_posix() for path in pages if path not in listed | unlisted]
    assert not missing, f"docs/README.md does not list {', '.join(missing)}"


def test_links_and_anchors_are_found_as_they_are_written():
    text = "# A `code` heading, here\n```\n# not one\n```\n## [Linked](x.md) -- twice\n"
    assert docs_text.anchors(text) == {"a-code-heading-here", "linked----twice"}  # as GitHub makes them
    text = (
        "[one](a.md) and [two\nlines](b.md#c).\n![image](d.png) `[no](e.md)`\n```\n[no](f.md)\n```\n"
        '[![badge](g.svg)](h.md)\n<img src="i.jpg" width="3">\n'
    )
    assert list(docs_text.links(text)) == [
        (1, "a.md"), (2, "b.md#c"), (3, "d.png"), (7, "g.svg"), (7, "h.md"), (8, "i.jpg")
    ]  # fmt: skip


def test_external_links_are_well_formed():
    wrong = []
    for page in ALL:
        for line, target in docs_text.links(page.read_text(encoding="utf-8")):
            parts = urlsplit(target)
            if parts.scheme and (parts.scheme not in ("https", "http", "mailto") or " " in target):
                wrong.append(f"{page.relative_to(ROOT)}:{line}: {target}")
            elif parts.scheme == "https" and "." not in parts.netloc:
                wrong.append(f"{page.relative_to(ROOT)}:{line}: {target} names no host")
    assert not wrong, "\n".join(wrong)


def test_images_have_a_text_for_those_who_cannot_see_them():
    wrong = [
        f"{page.relative_to(ROOT)}: ![{match[1]}]({match[2]})"
        for page in ALL
        for match in re.finditer(r"!\[([^\]]*)\]\(([^)]*)\)", page.read_text(encoding="utf-8"))
        if len(match[1].split()) < 2
    ]
    assert not wrong, "\n".join(wrong)


def test_pages_that_the_code_names_are_there():
    wrong = [
        f"{path.relative_to(ROOT)}: there is no {name}"
        for path in CODE
        for name in re.findall(r"\bdocs/[\w/]+\.md\b", path.read_text(encoding="utf-8"))
        if not (ROOT / name).is_file()
    ]
    assert not wrong, "\n".join(wrong)


def test_every_metric_of_a_report_is_defined():
    from avatar.eval.report import SHOWN

    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    rows = (row.split("|")[1] for row in page.splitlines() if row.startswith("| `"))
    defined = {name for cell in rows for name in re.findall(r"`(\w+)`", cell)}
    assert not set(SHOWN) - defined, "docs/evaluation.md does not define them"
