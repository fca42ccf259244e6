"""A release: what it writes, commits and tags, what a dry run leaves alone, and what is refused."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest

import avatar
from avatar.errors import AvatarError
from pipelines import release
from tests.docs_text import ROOT

CHANGELOG = "# Changelog\n\nAll changes. Nothing is released yet.\nMore.\n\n## Unreleased\n"


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("avatar", "changelog"):
        (tmp_path / name).mkdir()
    (tmp_path / "avatar/__init__.py").write_text('"""Docs."""\n\n__version__ = "0.1.0"\n')
    (tmp_path / "CITATION.cff").write_text('cff-version: 1.2.0\ntitle: "x"\nversion: 0.1.0\nlicense: Apache-2.0\n')
    (tmp_path / "README.md").write_text("@software{x,\n  year    = {2025},\n  version = {0.1.0},\n}\n")
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "changelog/one.added.md").write_text("Something new.\n")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for key, value in (("user.name", "A"), ("user.email", "a@example.org"), ("commit.gpgsign", "false"),
                       ("tag.gpgsign", "false")):  # fmt: skip
        git(tmp_path, "config", key, value)
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "--message", "First")
    return tmp_path


def release_it(checkout: Path, version: str = "0.2.0", **options) -> None:
    release.main(release.Config(version=version, date="2026-02-03", root=checkout, **options))


def test_a_release_is_a_commit_and_a_tag(checkout: Path, capsys: pytest.CaptureFixture[str]):
    release_it(checkout)
    assert (checkout / "avatar/__init__.py").read_text() == '"""Docs."""\n\n__version__ = "0.2.0"\n'
    assert (checkout / "CITATION.cff").read_text() == (
        'cff-version: 1.2.0\ntitle: "x"\nversion: 0.2.0\ndate-released: 2026-02-03\nlicense: Apache-2.0\n'
    )
    assert "  year    = {2026},\n  version = {0.2.0},\n" in (checkout / "README.md").read_text()
    text = (checkout / "CHANGELOG.md").read_text()
    assert "## 0.2.0 - 2026-02-03\n\n### Added\n\n- Something new.\n" in text and "Nothing is released" not in text
    assert not (checkout / "changelog/one.added.md").exists()
    assert git(checkout, "status", "--porcelain") == ""
    assert git(checkout, "log", "-1", "--format=%s") == "Release 0.2.0"
    assert git(checkout, "rev-parse", "v0.2.0^{commit}") == git(checkout, "rev-parse", "HEAD")
    assert git(checkout, "tag", "--list", "--format=%(objecttype) %(contents)") == "tag Version 0.2.0"
    assert "git push --follow-tags" in capsys.readouterr().out
    (checkout / "changelog/two.fixed.md").write_text("Mended.\n")
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "More")
    release_it(checkout, "0.2.1", tag=False)
    assert git(checkout, "tag") == "v0.2.0"
    assert "git tag --annotate v0.2.1 --message 'Version 0.2.1'" in capsys.readouterr().out
    assert (checkout / "CITATION.cff").read_text().count("date-released") == 1


def test_a_dry_run_changes_nothing(checkout: Path, capsys: pytest.CaptureFixture[str]):
    head = git(checkout, "rev-parse", "HEAD")
    release_it(checkout, dry_run=True)
    shown = capsys.readouterr().out
    assert "0.1.0 would become 0.2.0" in shown and "Something new." in shown and "Tag: v0.2.0" in shown
    release_it(checkout, dry_run=True, tag=False)
    assert "Commit: Release 0.2.0" in (shown := capsys.readouterr().out) and "Tag:" not in shown
    assert git(checkout, "status", "--porcelain") == "" and git(checkout, "rev-parse", "HEAD") == head
    assert git(checkout, "tag") == ""


def test_what_cannot_be_released_is_refused(checkout: Path):
    for version, message in (("two", "is no version"), ("0.1.0", "not newer"), ("0.1.0rc1", "not newer")):
        with pytest.raises(AvatarError, match=message):
            release_it(checkout, version)
    git(checkout, "tag", "v0.2.0")
    with pytest.raises(AvatarError, match=r"a tag v0\.2\.0"):
        release_it(checkout)
    for options, message in (
        ({"date": "tomorrow"}, "is no date"),
        ({"date": "20260203"}, "is no date"),
    ):
        for dry_run in (True, False):
            with pytest.raises(AvatarError, match=message):
                release.main(release.Config(version="0.3.0", root=checkout, dry_run=dry_run, **options))
    (checkout / "loose.txt").write_text("x")
    with pytest.raises(AvatarError, match=r"has changes: loose\.txt"):
        release_it(checkout, "0.3.0")
    (checkout / "loose.txt").unlink()
    (checkout / "CITATION.cff").write_text("version: 0.0.9\n")
    git(checkout, "commit", "--quiet", "--all", "--message", "Apart")
    with pytest.raises(AvatarError, match="Versions differ"):
        release_it(checkout, "0.3.0")
    (checkout / "CITATION.cff").write_text("title: x\n")
    git(checkout, "commit", "--quiet", "--all", "--message", "Nowhere")
    with pytest.raises(AvatarError, match=r"CITATION\.cff does not say its version"):
        release_it(checkout, "0.3.0")
    assert (checkout / "changelog/one.added.md").is_file()


def test_without_news_there_is_no_release(checkout: Path):
    git(checkout, "rm", "--quiet", "changelog/one.added.md")
    git(checkout, "commit", "--quiet", "--message", "Nothing")
    for dry_run in (True, False):
        with pytest.raises(AvatarError, match="Nothing is unreleased"):
            release_it(checkout, dry_run=dry_run)


def hook(checkout: Path, name: str) -> None:
    path = checkout / ".git/hooks" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)


def test_where_git_refuses_the_commit_nothing_changes(checkout: Path):
    head = git(checkout, "rev-parse", "HEAD")
    hook(checkout, "pre-commit")
    with pytest.raises(AvatarError, match="git commit failed"):
        release_it(checkout)
    assert git(checkout, "status", "--porcelain") == "" and git(checkout, "rev-parse", "HEAD") == head
    assert (checkout / "changelog/one.added.md").is_file()


def test_where_it_is_interrupted_nothing_changes(checkout: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(root: Path, version: str, date: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(release, "write_version", interrupted)  # the fragments are gone by then
    with pytest.raises(KeyboardInterrupt):
        release_it(checkout)
    assert git(checkout, "status", "--porcelain") == "" and (checkout / "changelog/one.added.md").is_file()


def test_where_git_refuses_the_tag_it_says_how_to_go_on(checkout: Path):
    hook(checkout, "reference-transaction")
    (checkout / ".git/hooks/reference-transaction").write_text("#!/bin/sh\n! grep -q refs/tags/\n")
    with pytest.raises(AvatarError, match=r"committed, but has no tag.*git tag --annotate v0\.2\.0"):
        release_it(checkout)
    assert git(checkout, "log", "-1", "--format=%s") == "Release 0.2.0" and git(checkout, "tag") == ""


def test_a_mistake_is_one_sentence(checkout: Path):
    command = [sys.executable, "-m", "pipelines.release", "--version", "two", "--root", str(checkout)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "--version two is no version." in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_versions_are_in_the_order_of_releases():
    names = ["0.2.0a1", "0.2.0a2", "0.2.0b1", "0.2.0rc1", "0.2.0", "0.2.1", "0.10.0", "1.0.0"]
    assert all(release.order(a) < release.order(b) for a, b in itertools.pairwise(names))


def test_the_project_says_one_version():
    assert release.current(ROOT) == avatar.__version__
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^cff-version: 1\.2\.0$", text, re.MULTILINE)
    assert all(re.search(rf"^{key}:", text, re.MULTILINE) for key in ("message", "title", "authors", "license"))
