"""What the site adds to the pages: links, tables of contents, the reference of the command line, tables of results."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import avatar
from avatar.cli.main import COMMANDS
from docs._ext import accessible, command_line, pages, python_api, results
from docs._ext.pages import DOCS, INDEX, ROOT


@pytest.mark.parametrize(
    ("written", "origin", "page", "shown"),
    [
        ("[a](install.md#extras)", "docs/gpu.md", "docs/gpu.md", "[a](install.md#extras)"),
        ("[a](../gpu.md)", "docs/notes/gpu.md", "docs/notes/gpu.md", "[a](../gpu.md)"),
        ("[a](docs/gpu.md)", "README.md", "docs/index.md", "[a](gpu.md)"),
        ("[a](CONTRIBUTING.md#pages)", "README.md", "docs/index.md", "[a](project/contributing.md#pages)"),
        ("[a](../CONTRIBUTING.md)", "docs/README.md", "docs/README.md", "[a](project/contributing.md)"),
        ("[a](../README.md)", "docs/README.md", "docs/README.md", "[a](index.md)"),
        ("[a](docs/architecture.md)", "CONTRIBUTING.md", "docs/project/contributing.md", "[a](../architecture.md)"),
        ("[a](../../benchmarks/README.md)", "docs/notes/x.md", "docs/notes/x.md",
         "[a](../project/benchmarks_readme.md)"),
        ("[a](epyc-2core/x.json)", "benchmarks/README.md", "docs/project/benchmarks_readme.md",
         "[a](../../benchmarks/epyc-2core/x.json)"),
        ("[a](configs/)", "README.md", "docs/index.md", "a"),
        ("[a](https://example.org/x) [b](#c)", "README.md", "docs/index.md", "[a](https://example.org/x) [b](#c)"),
        ("![a b](docs/images/x.jpg)", "README.md", "docs/index.md", "![a b](images/x.jpg)"),
        ('<img width="3" src="docs/images/x.jpg">', "README.md", "docs/index.md", '<img width="3" src="images/x.jpg">'),
        ("[![a b](docs/x.svg)](docs/gpu.md)", "README.md", "docs/index.md", "[![a b](x.svg)](gpu.md)"),
        ("`[a](docs/gpu.md)`\n```\n[a](docs/gpu.md)\n```", "README.md", "docs/index.md",
         "`[a](docs/gpu.md)`\n```\n[a](docs/gpu.md)\n```"),
    ],
)  # fmt: skip
def test_links_lead_to_where_pages_are_in_the_site(written: str, origin: str, page: str, shown: str):
    assert pages.rewrite(written, ROOT / origin, ROOT / page) == shown


def test_the_menu_is_the_index():
    menu = dict(pages.sections(INDEX))
    assert list(menu)[:3] == ["Get started", "Guides", "Concepts"]
    assert DOCS / "project/contributing.md" in menu["For developers"]
    places = set(pages.outside().values())
    assert all(page.is_file() or page in places for found in menu.values() for page in found)
    assert "\nMotion </concepts/motion>\n" in pages.contents(INDEX)
    assert len(places) == len(pages.outside())


def test_every_mark_of_a_page_is_known():
    marks = [m for page in DOCS.rglob("*.md") for m in pages._MARK.finditer(page.read_text(encoding="utf-8"))]
    assert {m["name"] for m in marks if m["what"] == "generated"} == set(pages.GENERATED)


@pytest.mark.parametrize(
    ("written", "heading", "names"),
    [
        (command_line.markdown, r"^## avatar (\w+)$", COMMANDS),
        (python_api.markdown, r"^\.\. auto(?:class|function):: (\w+)$", set(avatar.__all__) - {"__version__"}),
    ],
    ids=["commands", "python"],
)
def test_a_reference_holds_every_name_once(written: Callable[[], str], heading: str, names: Iterable[str]):
    assert sorted(re.findall(heading, written(), re.MULTILINE)) == sorted(names)


def test_the_references_have_defaults_and_groups():
    text = command_line.markdown()
    assert python_api.OTHERS not in python_api.groups(), "docs/_ext/python_api.py: put it into a group"
    assert "| `--steps N` | `10000` |" in text.replace("--schedule.steps N`, `--steps`", "--steps N`")
    assert "| `--no-eval` |" in text and "| `RUNS` | required |" in text
    assert "### `--format web`" in text and "`--speech-input`" in text
    assert "### train\n" in text  # of `avatar prior`


def test_tables_of_results_say_what_the_records_say():
    found = results.found()
    record = found["anchor_en_71s-standard"].content
    audio = record["full_frame"]["audio"]
    low, high = audio["intervals"]["psnr"]
    (line,) = [r for r in results.likeness().splitlines() if "/anchor_en_71s-standard.json" in r and "| audio |" in r]
    assert f"{audio['psnr']:.2f} ({low:.2f} to {high:.2f})" in line
    assert record["date"][:10] in line and record["commit"][:10] in line and record["hardware"]["cpu"] in line
    short = [r for r in results.likeness().splitlines() if "/synthetic_subject-standard.json" in r]
    assert [row.count("| too short |") for row in short] == [1, 0], "3 s; tracked lips are not from audio"
    assert not any(re.search(r"\d \(", row) for row in short), "nor has so little an interval"
    for name, table in results.TABLES.items():
        rows = table().splitlines()
        columns = {row.replace("\\|", "").count("|") for row in rows}
        assert len(rows) > 2 and len(columns) == 1, name
    assert all(f"/{name}.json)" in results.all_records() for name in found)


def test_a_page_that_is_gone_loses_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pages, "PROJECT", tmp_path)
    (tmp_path / "gone.md").write_text("old")
    pages.write_places()
    written = {path.name: path.read_text() for path in tmp_path.glob("*.md")}
    assert "gone.md" not in written and "contributing.md" in written and "index.md" not in written
    assert (
        written["benchmarks_readme.md"].startswith("<!-- include: ")
        and written["benchmarks_readme.md"].count("\n") == 1
    )


def test_code_and_tables_can_be_scrolled_by_keyboard():
    page = '<pre>a</pre><div class="table-wrapper docutils container">b</div>'
    mended = accessible.mend(page)
    assert mended.count('tabindex="0"') == 2
    assert accessible.mend(mended) == mended
