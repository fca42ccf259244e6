"""List the records of measurements, mark those older than the code they measure, and write the tables made of them.

A record is a JSON file under ``benchmarks/`` or ``docs/benchmarks/``. It names the commit that it was measured at and,
where something was trained, the commit of the training. ``python -m pipelines.records`` rewrites the table of
``benchmarks/README.md`` and the tables of ``docs/notes/status.md`` and ``docs/notes/sync_judge.md``, between their
markers.

A change that changes no number need not make records older: where a training and its evaluation, done again, came to
the same bits, ``python -m pipelines.equal --proof`` writes that down, and the records that it names count as measured
at the later commit as well.
"""

from __future__ import annotations

import ast
import functools
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import tyro

from avatar.errors import AvatarError
from avatar.paths import read_json
from avatar.writing import atomic_file

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("benchmarks", "docs/benchmarks")
PROOFS = Path("benchmarks/equal.jsonl")  # lines of `pipelines.equal`

KERNELS = ("avatar/native", "cuda_ext/src", "cuda_ext/include")
SPEECH = ("avatar/audio", "avatar/audio2motion", "avatar/headmotion", "avatar/motion")
MODEL = (*KERNELS, "avatar/backends", "avatar/methods", "avatar/fields", "avatar/geometry", "avatar/data")
NO_REPORT = ":(exclude)avatar/preprocess/report*"  # nothing is computed from it
TRAINING = (*MODEL, *SPEECH, "avatar/preprocess", NO_REPORT, "avatar/train", "avatar/losses", "avatar/io")
RENDERING = (*MODEL, *SPEECH, "avatar/infer", "avatar/io")
TRACKER = tuple(f"avatar/preprocess/{name}.py" for name in ("face_tracker", "landmarker", "faces", "track", "head_fit"))
MEL = ("avatar/audio/encoders/base.py", "avatar/audio/encoders/mel.py", "avatar/audio/spectra.py")
SYNC = ("avatar/sync", *TRACKER, *MEL, "avatar/motion/face_channels.py", "avatar/motion/mouth.py", "avatar/io")
SHOWN = (":(exclude)avatar/eval/images.py", ":(exclude)avatar/eval/report*")  # nothing is measured in them
EVALUATION = (
    *MODEL, *SPEECH, "avatar/losses", "avatar/sync", *TRACKER, "avatar/eval", *SHOWN, "avatar/infer", "avatar/io",
)  # fmt: skip
KEPT = ("pipelines/kept.py", "pipelines/judging.py")  # what steps took, and which numbers are shown

# File name of a record: what code trained the thing, and what code measured it. The first that matches counts. Where
# a record names no commit of a training, that of the measurement counts for both. The last is `avatar bench`, whose
# records are named by their hardware.
WATCHED: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("*-render*", (), RENDERING),
    ("few-seconds-*", TRAINING, (*EVALUATION, "pipelines/few_seconds.py", *KEPT)),
    ("photo-*", TRAINING, (*EVALUATION, "pipelines/photo_check.py", KEPT[0])),
    ("compare-synthetic*", TRAINING, (*EVALUATION, "avatar/synth", "pipelines/compare.py", *KEPT)),
    ("compare-*", TRAINING, (*EVALUATION, "pipelines/compare.py", *KEPT)),
    ("*-draft*", TRAINING, EVALUATION),
    ("*-standard*", TRAINING, EVALUATION),
    ("*-high*", TRAINING, EVALUATION),
    ("free-view-*", TRAINING, (*EVALUATION, "avatar/synth")),
    ("synthetic-tracking*", (), ("avatar/preprocess", NO_REPORT, "avatar/synth", "pipelines/tracking_truth.py")),
    ("sync-judge*", (), (*SYNC, "avatar/motion/facegood.py", "avatar/synth", "pipelines/sync_judge.py")),
    ("offsets*", (), (*SYNC, "pipelines/offsets.py")),
    ("speech-tells*", (), (*SPEECH, "avatar/io", "pipelines/speech_tells.py")),
    ("lips-*", SPEECH, (*SPEECH, "avatar/eval", "pipelines/lips_blocks.py")),
    ("prior-corpus*", (*SPEECH, "avatar/corpus"), (*SPEECH, "avatar/corpus")),
    ("prior*", SPEECH, (*SPEECH, "pipelines/prior*")),
    ("generator*", SPEECH, (*SPEECH, "pipelines/generator.py")),
    ("web-*", (), (*RENDERING, "avatar/export", "pipelines/web_*")),
    ("readers-*", (), (*MODEL, "avatar/export", "pipelines/readers_*")),
    ("live-*", (), (*RENDERING, "avatar/serve", "pipelines/live_*")),
    ("field-rates*", (), (*RENDERING, "pipelines/field_rates.py")),
    ("fuzz*", (), ("avatar", "pipelines/fuzz*")),
    ("kills*", (), ("avatar", "pipelines/kills*")),
    ("mutations*", (), ("avatar", "tests", "pipelines/mutations*")),
    ("busy-machine*", (), (*MODEL, "avatar/bench", "avatar/train", "avatar/losses", "avatar/cli")),
    ("*", (), (*MODEL, "avatar/bench")),
)


@dataclass(frozen=True, kw_only=True)
class Record:
    """A record of a measurement.

    Attributes:
        path: File, relative to the root of the project.
        content: What it holds.
    """

    path: Path
    content: dict[str, Any]

    @property
    def measured(self) -> list[str]:
        """Commits that measured parts of it, as they are written down."""
        return list(dict.fromkeys(_commits({k: v for k, v in self.content.items() if k != "training"})))

    @property
    def trained(self) -> list[str]:
        """Commits that trained what was measured, oldest first."""
        training = self.content.get("training") or {}
        last = {name: value for name, value in training.items() if name != "earlier"}
        return list(dict.fromkeys([*_commits(training.get("earlier")), *_commits(last)]))

    @property
    def unused(self) -> list[str]:
        """Folders that what was measured does not use, as git leaves them out: a Gaussian avatar has no field."""
        model = self.content.get("model")
        gaussian = isinstance(model, dict) and model.get("method") == "gaussian"
        return [":(exclude)avatar/methods/nerf"] if gaussian else []

    @property
    def frames(self) -> str:
        """How much was measured: frames and seconds of one video, where it says so."""
        frames, fps = self.content.get("frames"), self.content.get("fps")
        if not isinstance(frames, int):
            return "-"
        return f"{frames} frames, {frames / fps:.1f} s" if fps else f"{frames} frames"


def find(root: Path = ROOT) -> list[Record]:
    """All records, by path.

    Raises:
        AvatarError: A file is not a record.
    """
    records = []
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.json")):
        content = read_json(path)
        if not isinstance(content, dict):
            raise AvatarError(f"{path} is not a record of a measurement.", why="It holds no JSON object.")
        records.append(Record(path=path.relative_to(root), content=content))
    return records


def changed(record: Record, root: Path = ROOT) -> list[str]:
    """What makes a record older than the code: folders that changed since its commits, or why that is not known.

    Any change of code counts, also one that cannot change a number; comments and docstrings do not.
    """
    trained, measured = next((t, m) for name, t, m in WATCHED if fnmatch(record.path.stem, name))
    watched = [(c, trained) for c in record.trained or record.measured if trained]
    watched += [(c, measured) for c in record.measured]
    if not watched:
        return ["names no commit"]
    reasons: list[str] = []
    for commit, paths in watched:
        hexadecimal, _, uncommitted = commit.partition("+")
        if uncommitted:
            reasons.append("measured with uncommitted changes")
        last = [hexadecimal, *_same(record, hexadecimal, paths, root)][-1]
        names = _changes(record, last, "HEAD", paths, root)
        if names is None:
            reasons.append(f"{last[:10]} is not in this history")
        else:
            whole = {path for path in paths if "/" not in path}  # of which one name says enough
            reasons += sorted({top if (top := name.partition("/")[0]) in whole else _folder(name) for name in names})
    return list(dict.fromkeys(reasons))


def same_numbers(record: Record, root: Path = ROOT) -> list[str]:
    """Later commits at which the same numbers came out, as `pipelines.equal` found."""
    measured = next(paths for name, _, paths in WATCHED if fnmatch(record.path.stem, name))
    return list(
        dict.fromkeys(c for one in record.measured for c in _same(record, one.partition("+")[0], measured, root))
    )


def _same(record: Record, commit: str, paths: tuple[str, ...], root: Path) -> list[str]:
    """Commits whose code came to the same numbers as that of ``commit``, one after the other."""
    proofs = (root / PROOFS).read_text(encoding="utf-8").splitlines() if (root / PROOFS).is_file() else []
    found: list[str] = []
    for proof in map(json.loads, proofs):
        holds = any(fnmatch(record.path.stem, name) for name in proof["records"])
        if holds and _changes(record, [commit, *found][-1], proof["before"], paths, root) == []:
            found.append(proof["after"])
    return found


def _changes(record: Record, before: str, after: str, paths: tuple[str, ...], root: Path) -> list[str] | None:
    """A file of each folder whose code differs between two commits; None where one of them is unknown."""
    difference = _git(root, "diff", "--raw", "--no-renames", "--abbrev=40", before, after, "--", *paths, *record.unused)
    return None if difference is None else list(_other_code(root, difference))


def table(records: list[Record], root: Path = ROOT) -> str:
    """Markdown table of all records."""
    head = _git(root, "rev-parse", "--short=10", "HEAD") or "unknown"
    proofs = f" ([proofs]({PROOFS.name}))" if (root / PROOFS).is_file() else ""
    lines = [
        f"As of commit `{head}`. A record is **older** than the code where a file that it depends on changed since its "
        "commit. Comments and docstrings do not count, nor does a change after which a training and its evaluation "
        f"came to the same bits{proofs}.", "",
        "| record | measured | frames | measured at | trained at | older than |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for record in records:
        link = Path(*record.path.parts[1:]) if record.path.parts[0] == "benchmarks" else Path("..") / record.path
        reasons = ", ".join(changed(record, root))
        same = shown(same_numbers(record, root))
        older = f"**older**: {reasons}" if reasons else "-" if same == "-" else f"- (the same numbers at {same})"
        lines.append(
            f"| [{record.path.stem}]({link.as_posix()}) | {str(record.content.get('date', 'unknown'))[:10]} "
            f"| {record.frames} | {shown(record.measured)} | {shown(record.trained)} "
            f"| {older} |"
        )
    return "\n".join(lines)


def shown(commits: list[str]) -> str:
    """Short commits in Markdown."""
    short = (commit.partition("+") for commit in commits)
    return ", ".join(f"`{c[:10]}{'+' if changed else ''}`" for c, _, changed in short) or "-"


def replace_block(path: Path, name: str, text: str) -> None:
    """Replace what stands between ``<!-- NAME ... -->`` and ``<!-- end of NAME -->`` in a file.

    Raises:
        AvatarError: The file has no such block.
    """
    old = path.read_text(encoding="utf-8")
    block = re.compile(rf"(<!-- {name}\b[^\n]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    new, count = block.subn(lambda m: f"{m[1]}{text}\n{m[2]}", old)
    if count != 1:
        raise AvatarError(
            f"{path} has {count} blocks between <!-- {name} --> and <!-- end of {name} -->.", fix="Write one."
        )
    with atomic_file(path) as temporary:
        temporary.write_text(new, encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Rewrite the tables that are made of the records."""

    root: Path = ROOT
    """A checkout of the project."""


def main(config: Config) -> None:
    """Write the tables, and name the records that are older than the code."""
    from pipelines import claims

    root = config.root
    records = find(root)
    replace_block(root / "benchmarks" / "README.md", "records", table(records, root))
    older = {record.path: reasons for record in records if (reasons := changed(record, root))}
    measured = claims.measured(records)
    notes = root / "docs" / "notes"
    replace_block(notes / "status.md", "bars", claims.bars(measured, older))
    replace_block(notes / "status.md", "numbers", claims.numbers(measured, older))
    replace_block(notes / "sync_judge.md", "judged", claims.judged(measured, older))
    for path, reasons in older.items():
        print(f"older: {path}: {', '.join(reasons)}")
    print(f"{len(records)} records, {len(older)} older than the code.")


def _commits(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("commit"), str):
            yield value["commit"]
        for part in value.values():
            yield from _commits(part)
    elif isinstance(value, list):
        for part in value:
            yield from _commits(part)


def _other_code(root: Path, difference: str) -> Iterator[str]:
    """Of each folder in ``git diff --raw``, the first file whose code is another one."""
    found: set[str] = set()
    for line in difference.splitlines():
        about, _, name = line.partition("\t")
        _, _, before, after, kind = about.split()
        if _folder(name) in found:
            continue
        if kind != "M" or not name.endswith(".py") or _code(root, before) != _code(root, after):
            found.add(_folder(name))
            yield name


@functools.cache
def _code(root: Path, blob: str) -> str:
    """What a Python file in git's store does: its syntax tree without comments and docstrings."""
    tree = ast.parse(_git(root, "cat-file", "blob", blob) or "")
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            texts = [one for one in body if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant)]
            node.body = [one for one in body if one not in texts]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _folder(path: str) -> str:
    """avatar/eval for avatar/eval/report.py."""
    parts = Path(path).parts
    return "/".join(parts[:2] if len(parts) > 2 else parts)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    main(tyro.cli(Config))
