"""Errors that happen to many lead to a section of the troubleshooting page."""

from __future__ import annotations

import ast
import importlib

import pytest

from avatar import errors
from avatar.cli.main import COMMANDS, main
from avatar.errors import TROUBLESHOOTING, AvatarError
from tests import docs_text
from tests.docs_text import ROOT


def anchors_in_code() -> dict[str, str]:
    """Anchors that errors name, with a file that does."""
    found = {}
    for path in (ROOT / "avatar").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "see" and isinstance(node.value, ast.Constant):
                found[str(node.value.value)] = path.relative_to(ROOT).as_posix()
    return found


def test_every_anchor_is_a_heading_and_every_message_has_one() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    named = anchors_in_code()
    there = docs_text.anchors(text)
    wrong = [f"{file}: the page has no #{anchor}" for anchor, file in named.items() if anchor not in there]
    assert not wrong, "\n".join(wrong)
    messages = text.partition("\n## Messages\n")[2].partition("\n## ")[0]
    assert docs_text.anchors(messages) == set(named)  # none is left that nothing leads to
    assert len(named) >= 10


def test_the_command_line_names_the_section(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(COMMANDS["doctor"][0])

    def refuse(_: object) -> None:
        raise AvatarError("The disk [red]is full.", fix="Free some.", see="the-disk-is-full")

    monkeypatch.setattr(module, "main", refuse)
    assert main(["doctor"]) == 2
    said = capfd.readouterr().err.splitlines()
    assert said == ["avatar doctor: The disk [red]is full. Free some.", f"See: {TROUBLESHOOTING}#the-disk-is-full"]
    monkeypatch.setattr(errors, "TROUBLESHOOTING", "https://example.org/help")
    assert main(["doctor"]) == 2
    assert capfd.readouterr().err.endswith("See: https://example.org/help#the-disk-is-full\n")
    assert str(AvatarError("A.", see="x")) == "A." and AvatarError("A.").see == ""


def test_the_page_is_there() -> None:
    assert (ROOT / TROUBLESHOOTING).is_file() or TROUBLESHOOTING.startswith("https://")
