"""The changelog: fragments become entries of a version, and what is not one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from avatar.errors import AvatarError
from pipelines import changelog

ROOT = Path(__file__).resolve().parents[2]
BEFORE = "# Changelog\n\nAbout.\n\n## Unreleased\n\n### Added\n\n- One\n  of two lines.\n\n"
AFTER = "## 0.1.0 - 2026-01-01\n\n### Fixed\n\n- Old.\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "changelog").mkdir()
    (tmp_path / "CHANGELOG.md").write_text(BEFORE + AFTER)
    (tmp_path / "changelog/README.md").write_text("how")
    (tmp_path / "changelog/b.added.md").write_text("Two.\n")
    (tmp_path / "changelog/a.security.md").write_text("Three.\nFour.\n")
    return tmp_path


def test_a_release_takes_all_fragments(checkout: Path):
    changelog.main(changelog.Config(version="0.2.0", date="2026-02-03", root=checkout))
    assert (checkout / "CHANGELOG.md").read_text() == (
        "# Changelog\n\nAbout.\n\n## Unreleased\n\n"
        "## 0.2.0 - 2026-02-03\n\n### Added\n\n- One\n  of two lines.\n- Two.\n\n"
        "### Security\n\n- Three.\n  Four.\n\n" + AFTER
    )
    assert [path.name for path in (checkout / "changelog").iterdir()] == ["README.md"]
    with pytest.raises(AvatarError, match="Nothing is unreleased"):
        changelog.main(changelog.Config(version="0.3.0", root=checkout))


def test_without_a_version_nothing_changes(checkout: Path, capsys: pytest.CaptureFixture):
    before = {path: path.read_text() for path in checkout.rglob("*.md")}
    changelog.main(changelog.Config(root=checkout))
    assert capsys.readouterr().out.splitlines()[:5] == ["### Added", "", "- One", "  of two lines.", "- Two."]
    assert before == {path: path.read_text() for path in checkout.rglob("*.md")}


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.better.md", "x", {}, "not a fragment"),
        ("a.md", "x", {}, "not a fragment"),
        ("A b.added.md", "x", {}, "not a fragment"),
        ("c.fixed.md", " \n", {}, "is empty"),
        ("c.fixed.md", "x", {"version": "two"}, "is no version"),
        ("c.fixed.md", "x", {"version": "0.1.0"}, "already"),
        ("c.fixed.md", "x", {"version": "0.2.0", "date": "tomorrow"}, "is no date"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_lost(checkout: Path, name, text, options, message):
    (checkout / "changelog" / name).write_text(text)
    with pytest.raises(AvatarError, match=message):
        changelog.main(changelog.Config(root=checkout, **options))
    assert (checkout / "CHANGELOG.md").read_text() == BEFORE + AFTER
    assert (checkout / "changelog" / name).is_file()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# Changelog\n", "no section"),
        ("## Unreleased\n\nloose text\n", "no entry"),
        ("## Unreleased\n### News\n- x\n", "no entry"),
    ],
)
def test_a_changelog_of_another_form_is_refused(checkout: Path, text: str, message: str):
    (checkout / "CHANGELOG.md").write_text(text)
    with pytest.raises(AvatarError, match=message):
        changelog.main(changelog.Config(root=checkout))


def test_the_changelog_and_the_fragments_of_the_project_are_in_order():
    _, unreleased, _ = changelog.split((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    changelog.parse(unreleased)
    changelog.fragments(ROOT / "changelog")  # none right after a release
