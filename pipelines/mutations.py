"""Break the code on purpose, one fault at a time, and check that the tests named for it fail.

A test that passes over broken code holds nothing. Each `Mutation` is one such break: a piece of a file, what stands
there instead, and the tests that must notice. They run in a copy of the tree, never in the checkout.

    python -m pipelines.mutations                     # all of them, ten minutes on one core
    python -m pipelines.mutations --only lpips sync   # those whose name holds one of the words
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.paths import write_json

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 300  # for the tests of one break; a break that makes them hang is not caught by them

Verdict = Literal["caught", "not caught", "stale", "no verdict"]


@dataclass(frozen=True)
class Mutation:
    """One break.

    Attributes:
        name: What breaks.
        file: Path in the repository.
        old: Text that stands in it exactly once.
        new: What stands there instead.
        tests: Ids as pytest takes them; at least one of them must fail.
        why: What a user would get.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Outcome:
    """What came of one break; ``said`` explains any verdict but "caught"."""

    name: str
    verdict: Verdict
    said: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which breaks to try."""

    only: tuple[str, ...] = ()
    """Words; only breaks whose name holds one of them. Default: all."""
    json: Path | None = None
    """Write the result here."""


def main(config: Config) -> None:
    """Try the breaks and print what came of them.

    Raises:
        AvatarError: One was not caught, or says nothing any more.
    """
    from pipelines.mutations_list import MUTATIONS

    chosen = [m for m in MUTATIONS if not config.only or any(word in m.name for word in config.only)]
    if not chosen:
        raise AvatarError(f"No break is called {' or '.join(config.only)}.")
    began = time.monotonic()
    outcomes = []
    for outcome in run(ROOT, chosen):
        outcomes.append(outcome)
        print(f"{outcome.verdict:10} {outcome.seconds:5.1f} s  {outcome.name}", flush=True)
        if outcome.said:
            print("    " + outcome.said.replace("\n", "\n    "), flush=True)
    counts = Counter(outcome.verdict for outcome in outcomes)
    print(
        f"{counts['caught']} of {len(outcomes)} breaks were caught, in {(time.monotonic() - began) / 60:.1f} minutes."
    )
    if config.json is not None:
        whys = {m.name: {"file": m.file, "why": m.why, "tests": m.tests} for m in chosen}
        listed = [vars(outcome) | whys[outcome.name] for outcome in outcomes]
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        about = {"counts": dict(counts), "core_minutes": round((used.ru_utime + used.ru_stime) / 60, 1)}
        write_json(config.json, environment() | about | {"breaks": listed})
    if counts["caught"] < len(outcomes):
        raise AvatarError("Not every break was caught.", fix="Mend the test, or the list where its text is stale.")


def run(root: Path, mutations: Sequence[Mutation]) -> Iterable[Outcome]:
    """Try breaks one after the other, in a copy of a repository.

    Args:
        root: The repository; only what git tracks there, as it stands on the disk, and built libraries are copied.
        mutations: What to break.
    """
    with tempfile.TemporaryDirectory(prefix="avatar-mutations-") as folder:
        tree = Path(folder)
        copy_tree(root, tree)
        fresh = [m for m in mutations if not stale(tree, m)]
        whole = results(tree, sorted({test for m in fresh for test in m.tests}))
        for mutation in mutations:
            if said := stale(tree, mutation):
                yield Outcome(mutation.name, "stale", said)
            elif said := unusable(mutation, whole):
                yield Outcome(mutation.name, "no verdict", said)
            else:
                yield judge(tree, mutation)


def copy_tree(root: Path, tree: Path) -> None:
    """Copy tracked files, links as links, and the native libraries, which git ignores.

    Raises:
        AvatarError: The folder is not a git checkout.
    """
    if not (root / ".git").exists():
        raise AvatarError(f"{root} is not a git checkout.", fix="Breaks are tried in a clone of the repository.")
    names = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True, check=True
    ).stdout
    built = [str(path.relative_to(root)) for path in root.glob("avatar/native/*.so")]
    for name in [*names.split("\0")[:-1], *built]:
        if (source := root / name).is_symlink() or source.is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, tree / name, follow_symlinks=False)


def stale(tree: Path, mutation: Mutation) -> str:
    """Why a break cannot be made; empty where it can."""
    path = tree / mutation.file
    found = path.read_text().count(mutation.old) if path.is_file() else 0
    if found != 1:
        return f"Its text stands {found} times in {mutation.file}, not once."
    missing = [test for test in mutation.tests if not _is_there(tree, test)]
    return f"There is no test {missing[0]}." if missing else ""


def _is_there(tree: Path, test: str) -> bool:
    path, _, function = test.partition("::")
    return (tree / path).is_file() and f"def {function.partition('[')[0]}(" in (tree / path).read_text()


def unusable(mutation: Mutation, whole: dict[str, str]) -> str:
    """Why its tests say nothing: one does not pass on unbroken code. Empty where all do."""
    for test in mutation.tests:
        states = [state for name, state in whole.items() if name == test or name.startswith(f"{test}[")]
        if not states or set(states) != {"passed"}:
            return f"Unbroken, {test} is {' and '.join(sorted(set(states))) or 'not found'}."
    return ""


def judge(tree: Path, mutation: Mutation) -> Outcome:
    """Break the tree, run the tests, and put the tree back."""
    path, began = tree / mutation.file, time.monotonic()
    text = path.read_text()
    path.write_text(text.replace(mutation.old, mutation.new))
    try:
        states = results(tree, mutation.tests, stop=True)
    finally:
        path.write_text(text)
    seconds = round(time.monotonic() - began, 1)
    if "failed" in states.values():
        return Outcome(mutation.name, "caught", seconds=seconds)
    if states and set(states.values()) == {"passed"}:
        return Outcome(mutation.name, "not caught", f"{mutation.why} {mutation.file}: {mutation.new!r}", seconds)
    return Outcome(mutation.name, "no verdict", f"Broken, its tests are {states or 'not collected'}.", seconds)


def results(tree: Path, tests: Iterable[str], stop: bool = False) -> dict[str, str]:
    """The tests' ids and whether each is "passed", "failed", "skipped" or "error" (it could not be begun)."""
    tests = list(tests)
    if not tests:
        return {}
    report = tree / "mutations.xml"
    report.unlink(missing_ok=True)
    # No bytecode: a break may change neither the size nor the second of a file. No plugins that write to the checkout.
    environ = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", "-o",
               "junit_family=xunit1", *(["-x"] if stop else []), *tests]  # fmt: skip
    try:
        subprocess.run(command, cwd=tree, env=environ, capture_output=True, timeout=SECONDS * (1 if stop else 3))
    except subprocess.TimeoutExpired:
        return {}
    if not report.is_file():
        return {}
    states = {}
    for case in ElementTree.parse(report).iter("testcase"):
        if case.get("file"):  # not of an error in collection
            name = f"{case.get('file')}::{case.get('name')}"
            states[name] = next((kind for tag, kind in _KINDS.items() if case.find(tag) is not None), "passed")
    return states


_KINDS = {"failure": "failed", "error": "error", "skipped": "skipped"}


if __name__ == "__main__":
    try:
        main(tyro.cli(Config))
    except AvatarError as error:
        sys.exit(str(error))
