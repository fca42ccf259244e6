"""Compare two RUN folders, and two files of metrics: a change that should change nothing proves it here.

    python -m pipelines.equal runs/before runs/after --metrics before.json after.json

Tensors must be the same bits. Records are compared without times and places. Names that changed on purpose can be given
as ``--renamed OLD=NEW``; each is replaced where it stands in the name of a file, a tensor or a field of the first run.

``--proof FILE --records 'NAME*'`` writes down that nothing differed between two commits, so that records of those names
do not count as older than the later one (`pipelines.records`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from avatar.errors import AvatarError
from avatar.io.checkpoint import read_safetensors
from avatar.paths import read_json

FILES = ("*.safetensors", "checkpoints/last/*.safetensors")
RECORDS = ("training.json", "person.json")
# Fields that no two runs share.
OF_THE_DAY = {"seconds", "date", "command", "speed", "peak_memory_bytes", "hardware", "commit", "earlier", "run",
              "person", "software", "device", "notes", "source", "bytes", "report"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to compare."""

    runs: Annotated[tuple[Path, Path], tyro.conf.Positional]
    """Two RUN folders, before and after."""
    metrics: tuple[Path, Path] | None = None
    """Two files of metrics, from `avatar eval`."""
    renamed: tuple[str, ...] = ()
    """Names that changed on purpose, OLD=NEW."""
    proof: Path | None = None
    """Add a line to this file where nothing differs; needs metrics as well."""
    records: tuple[str, ...] = ()
    """Patterns of the names of records for which that is a proof."""


def compare(config: Config) -> tuple[list[str], int]:
    """What differs, a line each, and how many tensors and fields were compared.

    Raises:
        AvatarError: A folder holds no tensors.
    """
    renamed = [tuple(pair.split("=", 1)) for pair in config.renamed]

    def new_name(name: str) -> str:
        for old, new in renamed:
            name = name.replace(old, new)
        return name

    before, after = config.runs
    found, count = [], 0
    pairs = [({new_name(k): v for k, v in tensors(before).items()}, tensors(after))]
    for name in RECORDS:
        there = [place for place, run in (("before", before), ("after", after)) if (run / name).is_file()]
        if len(there) == 1:
            found.append(f"{name}: only {there[0]}")
        elif there:
            pairs.append(({new_name(k): v for k, v in record(before / name).items()}, record(after / name)))
    if config.metrics is not None:
        one, other = config.metrics
        pairs.append(({new_name(k): v for k, v in record(one).items()}, record(other)))
    for ours, theirs in pairs:
        found += [f"{name}: only before" for name in sorted(ours.keys() - theirs.keys())]
        found += [f"{name}: only after" for name in sorted(theirs.keys() - ours.keys())]
        shared = sorted(ours.keys() & theirs.keys())
        found += [f"{name}: {text}" for name in shared if (text := difference(ours[name], theirs[name]))]
        count += len(shared)
    return found, count


def tensors(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a RUN folder, as FILE:NAME.

    Raises:
        AvatarError: There is none, so that nothing would be compared.
    """
    paths = sorted(path for pattern in FILES for path in run.glob(pattern))
    if not paths:
        raise AvatarError(f"There are no tensors in {run}.", fix="Give a RUN folder of `avatar train`.")
    return {
        f"{path.relative_to(run)}:{name}": tensor
        for path in paths
        for name, tensor in read_safetensors(path, "a file of tensors", finite=False)[0].items()
    }


def record(path: Path) -> dict[str, Any]:
    """The fields of a JSON file, as FIELD.FIELD, without those that no two runs share."""

    def walk(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key not in OF_THE_DAY:
                    yield from walk(inner, f"{name}.{key}" if name else key)
        else:
            yield name, value

    return dict(walk(read_json(path), ""))


def difference(one: Any, other: Any) -> str:
    """How two values differ, or nothing."""
    if not isinstance(one, torch.Tensor):
        return "" if one == other or (one != one and other != other) else f"{one!r} before, {other!r} after"
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"{one.dtype} {list(one.shape)} before, {other.dtype} {list(other.shape)} after"
    if torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8)):
        return ""
    apart = (one.double() - other.double()).abs()
    return f"{int((apart != 0).sum())} of {apart.numel()} numbers differ, by {float(apart.max()):.3g} at most"


def main(config: Config) -> int:
    """Print what differs; 1 if anything does."""
    found, count = compare(config)
    print("\n".join(found) or f"All {count} tensors and fields are equal.")
    if config.proof is not None and not found:
        line = json.dumps(proof(config, count))
        with config.proof.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
    return 1 if found else 0


def proof(config: Config, count: int) -> dict[str, Any]:
    """What was shown: two commits, how many things were compared of which run, and the records that it counts for.

    Raises:
        AvatarError: No metrics or records were named, or a run and its metrics are not of one clean commit.
    """
    if config.metrics is None or not config.records:
        raise AvatarError("A proof needs a training and its evaluation.", fix="Add --metrics and --records.")
    commits = []
    for run, metrics in zip(config.runs, config.metrics, strict=True):
        made = {read_json(run / "environment.json").get("commit"), read_json(metrics).get("commit")}
        commit = made.pop()
        if made or not commit or "+" in commit:
            raise AvatarError(f"{run} and {metrics} were not made at one commit without changes.")
        commits.append(commit)
    before, after = commits
    what = {"before": before, "after": after, "compared": count, "run": config.runs[1].name}
    return what | {"records": list(config.records)}


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
