"""The commands that pages show are ones that exist, with options that exist."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from avatar.cli.main import COMMANDS, read_options
from tests import docs_text
from tests.docs_text import ROOT

# Of other programs, and those that every program has.
OF_OTHERS = {
    "help",
    "version",
    "nnodes",
    "nproc-per-node",
    "require-hashes",
    "ignore-scripts",
    "update",
    "logdir",
    "follow-tags",
    "native",
}
_BLOCK = re.compile(r"^ *```(?:sh|bash)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def examples(page: Path) -> list[str]:
    """Calls of `avatar` in the code blocks of a page, without comments."""
    blocks = "\n".join(match[1] for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))).replace("\\\n", " ")
    calls = [call.strip() for line in blocks.splitlines() for call in line.split("&&")]
    return [call for call in calls if call.startswith("avatar ")]


# Pages that tell how to add something call commands with names that only a plug-in brings.
PAGES = [page for page in docs_text.pages() if not page.name.startswith("new_")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_examples_of_a_page_are_understood(page: Path, capsys: pytest.CaptureFixture):
    wrong = []
    for call in examples(page):
        name, *options = shlex.split(call, comments=True)[1:]
        try:
            read_options(importlib.import_module(COMMANDS[name][0]), name, options)
        except KeyError:
            wrong.append(f"{call}: there is no such command")
        except SystemExit as stop:
            if stop.code:
                wrong.append(f"{call}: {capsys.readouterr().err or capsys.readouterr().out}")
    assert not wrong, "\n".join(wrong)


def known_options() -> set[str]:
    """The last part of every option's name: fields of all dataclasses of the package and its recipes."""
    found = set()
    for path in [*(ROOT / "avatar").rglob("*.py"), *(ROOT / "pipelines").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                fields = (n.target for n in node.body if isinstance(n, ast.AnnAssign))
                names = [target.id for target in fields if isinstance(target, ast.Name)]
                found |= {name.replace("_", "-") for name in names}
    return found | {f"no-{name}" for name in found}


def test_options_that_pages_name_exist():
    known = known_options() | OF_OTHERS
    wrong = [
        f"{page.relative_to(ROOT)}: there is no {option}"
        for page in [*PAGES, *(ROOT / "docs/notes").glob("*.md")]
        for code in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8"))
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*(?:\.[a-z][\w-]*)*", code)
        if option[2:].rpartition(".")[2] not in known
    ]
    assert not wrong, "\n".join(wrong)


def test_examples_are_found_as_they_are_written(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\npip install . && avatar demo --out x  # a comment\n```\n"
        "- item\n\n  ```bash\n  avatar a \\\n    --b\n  ```\n"
    )
    assert [shlex.split(call, comments=True) for call in examples(page)] == [
        ["avatar", "demo", "--out", "x"], ["avatar", "a", "--b"]
    ]  # fmt: skip
