"""Feed damaged and hostile files to everything that reads files, and see that each is refused in one sentence.

A corpus of small files of every kind is made, and thousands of mutations of them are read in a process of their own,
whose time and memory are limited. Right is a result of finite numbers, or an :class:`AvatarError` that names the file
in one sentence. Everything else is a finding: another exception, ten seconds without an end, two gigabytes, numbers
that are not finite. The same seed makes the same cases.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import tyro

from pipelines.fuzz_mutations import mutate

HANGS_AFTER = 10.0  # seconds
MOST_BYTES = 2 * 2**30  # beyond what the process has after its imports
LONGEST_ERROR = 1500  # characters
# Words of errors about it. FFmpeg's "Cannot allocate memory" is its own limit, far below this one.
_NO_MEMORY = ("more memory than there is", "unable to allocate", "bad_alloc", "defaultcpuallocator")


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to try."""

    cases: int = 5000
    """How many mutated files, spread evenly over the kinds."""
    seed: int = 0
    """Another seed, other mutations."""
    kinds: tuple[str, ...] = ()
    """Only these kinds of file; all by default."""
    json: Path | None = None
    """Write counts and findings here."""
    keep: Path | None = None
    """Folder for the files that were findings."""
    seconds: float = 3600.0
    """Stop after this time; what was not tried is not counted."""


@dataclass(frozen=True)
class Finding:
    """A case that did not end as it should."""

    kind: str
    case: int
    outcome: str
    text: str


def main(config: Config) -> int:
    """Run the cases, print counts by kind, and return how many findings there were."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        counts, findings = run(config, Path(folder), began)
    print(f"{'kind':18} {'cases':>6} {'read':>6} {'refused':>8} {'findings':>9}")
    for kind, count in sorted(counts.items()):
        bad = count.total() - count["read"] - count["refused"]
        print(f"{kind:18} {count.total():6} {count['read']:6} {count['refused']:8} {bad:9}")
    total = sum((count for count in counts.values()), Counter())
    names = ("exception", "hang", "memory", "not finite", "text", "crash")
    print(f"{total.total()} cases, seed {config.seed}, {time.monotonic() - began:.0f} s: {total['read']} read, "
          f"{total['refused']} refused; " + ", ".join(f"{name} {total[name]}" for name in names))  # fmt: skip
    for finding in findings[:50]:
        print(f"  {finding.kind} case {finding.case}: {finding.outcome}: {finding.text[:300]}")
    if config.json is not None:
        from avatar.environment import environment

        content = {**environment(), "seed": config.seed, "cases": total.total(), "outcomes": dict(total),
                   "kinds": {kind: dict(count) for kind, count in sorted(counts.items())},
                   "findings": [asdict(finding) for finding in findings]}  # fmt: skip
        config.json.write_text(json.dumps(content, indent=2) + "\n")
    return len(findings)


def run(config: Config, folder: Path, began: float) -> tuple[dict[str, Counter[str]], list[Finding]]:
    """All cases, in as many worker processes as it takes, one after the other."""
    context = multiprocessing.get_context("spawn")
    counts: dict[str, Counter[str]] = {}
    findings: list[Finding] = []
    case = 0
    while case < config.cases and time.monotonic() - began < config.seconds:
        here, there = context.Pipe()
        worker = context.Process(target=_work, args=(there, config, folder, case), daemon=True)
        worker.start()
        there.close()
        kind = "start"
        while case < config.cases:
            left = config.seconds - (time.monotonic() - began)
            if left <= 0:
                break
            if not here.poll(300.0 if kind == "start" else HANGS_AFTER):
                message = ("end", "hang", f"no end after {HANGS_AFTER:.0f} s")
            else:
                try:
                    message = here.recv()
                except (EOFError, OSError):
                    worker.join(10)
                    message = ("end", "crash", f"the process ended with {worker.exitcode}")
            if message[0] == "begin":
                kind = message[1]
                continue
            _, outcome, text = message
            if kind == "start":
                raise SystemExit(f"The worker did not start: {text}")
            counts.setdefault(kind, Counter())[outcome] += 1
            if outcome not in ("read", "refused"):
                findings.append(Finding(kind, case, outcome, text))
                if config.keep is not None:
                    _keep(config.keep, folder, kind, case)
            case += 1
            if outcome in ("hang", "crash"):
                break
        worker.kill()
        worker.join()
        here.close()
    return counts, findings


def _keep(keep: Path, folder: Path, kind: str, case: int) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    source = folder / "mutated"
    if source.is_file():
        (keep / f"{kind}-{case}").write_bytes(source.read_bytes())


def _work(pipe: Connection, config: Config, folder: Path, case: int) -> None:
    """Run cases from ``case`` on and say of each how it ended; in a process of its own."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 2)  # FFmpeg and OpenCV talk about every damaged file
    os.environ["AVATAR_CACHE"] = str(folder / "cache")
    from pipelines.fuzz_corpus import corpus

    targets = corpus(folder / "corpus", folder / "corpus" / "ready", set(config.kinds))
    others = [target.good for target in targets]
    held = _virtual_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (held + MOST_BYTES, held + MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST_BYTES, MOST_BYTES))
    while case < config.cases:
        target = targets[case % len(targets)]
        chance = random.Random(f"{config.seed}:{case}")
        data = target.good
        for _ in range(chance.choice((1, 1, 1, 2))):
            try:
                data = mutate(data, target.contents, chance, others)
            except Exception:  # a mutation of what a mutation left
                data = data[: len(data) // 2]
        (folder / "mutated").write_bytes(data)
        pipe.send(("begin", target.kind))
        pipe.send(("end", *judge(target, data)))
        case += 1


def judge(target: Any, data: bytes) -> tuple[str, str]:
    """Read a mutated file; how it ended and what was said."""
    import traceback

    from avatar.errors import AvatarError

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    target.path.write_bytes(data)
    try:
        target.read(target.path)
        outcome, text = "read", ""
    except AvatarError as error:
        outcome, text = "refused", str(error)
        if any(word in text.lower() for word in _NO_MEMORY):
            outcome = "memory"
        elif "\n" in text or len(text) > LONGEST_ERROR or not names(text, target.path):
            outcome = "text"
    except AssertionError as error:
        outcome, text = "not finite", str(error)
    except MemoryError:
        outcome, text = "memory", "MemoryError"
    except BaseException as error:  # a finding, whatever it is
        place = traceback.extract_tb(error.__traceback__)[-1]
        outcome, text = "exception", f"{type(error).__name__} at {place.filename}:{place.lineno}: {str(error)[:300]}"
    finally:
        target.path.write_bytes(target.good)
    if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 > MOST_BYTES:
        return "memory", f"took more than 2 GiB; {text}"
    return outcome, text


def names(text: str, path: Path) -> bool:
    """Whether an error names a file, or the run, person or dataset that it is in."""
    return path.name in text or any(str(folder) in text for folder in [*path.parents][:3])


def _virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    sys.exit(min(1, main(tyro.cli(Config))))
