"""The list of breaks fits the code, and the driver tells what is caught from what is not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from avatar.errors import AvatarError
from pipelines import mutations
from pipelines.mutations import Config, Mutation, run, stale
from pipelines.mutations_list import MUTATIONS


def test_every_break_can_still_be_made() -> None:
    """Where this fails, code or a test has changed: write the break anew, or take another."""
    assert {m.name: said for m in MUTATIONS if (said := stale(mutations.ROOT, m))} == {}
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS) >= 30
    assert [m.name for m in MUTATIONS if m.old == m.new or not m.why.endswith(".")] == []


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository of one function and its tests; a file that git does not track is not part of it."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    (tmp_path / "doubling.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "test_it.py").write_text(
        "import pathlib\n"
        "import pytest\n"
        "from doubling import double\n"
        "def test_it():\n    assert double(3) == 6\n"
        "def test_loose():\n    assert double(3) > 0\n"
        "def test_broken():\n    assert double(3) == 7\n"
        "def test_skipped():\n    pytest.skip('not here')\n"
        "def test_files():\n    assert double(3) == 6 and not pathlib.Path('untracked.txt').exists()\n"
    )
    (tmp_path / "untracked.txt").touch()
    for command in (["init", "-q"], ["add", "doubling.py", "test_it.py"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_what_is_caught_is_told_from_what_is_not(tree: Path) -> None:
    def broken(name: str, *tests: str, old: str = "2 * x", new: str = "3 * x") -> Mutation:
        return Mutation(name, "doubling.py", old, new, tuple(f"test_it.py::{test}" for test in tests), "Wrong.")

    before = {path: path.read_bytes() for path in tree.glob("*.*") if path.is_file()}
    outcomes = run(
        tree,
        [
            broken("good", "test_it"),
            broken("one of two", "test_loose", "test_files"),
            broken("loose", "test_loose"),
            broken("always red", "test_broken"),
            broken("skipped", "test_skipped"),
            broken("gone", "test_it", old="4 * x"),
            broken("without its test", "test_gone"),
            broken("no code", "test_it", new="2 * * x"),
        ],
    )
    assert {outcome.name: outcome.verdict for outcome in outcomes} == {
        "good": "caught",
        "one of two": "caught",
        "loose": "not caught",
        "always red": "no verdict",
        "skipped": "no verdict",
        "gone": "stale",
        "without its test": "stale",
        "no code": "no verdict",
    }
    assert {path: path.read_bytes() for path in tree.glob("*.*") if path.is_file()} == before


def test_a_word_that_no_break_has() -> None:
    with pytest.raises(AvatarError, match="No break is called nonsense"):
        mutations.main(Config(only=("nonsense",)))


def test_a_folder_that_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(AvatarError, match="not a git checkout"):
        mutations.copy_tree(tmp_path, tmp_path / "copy")
