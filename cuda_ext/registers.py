"""Compare registers and spills of the CUDA kernels with ``registers.txt``, from what ``ptxas -v`` printed.

``python3 registers.py LOG`` fails when a kernel spills or takes over 8 registers more than written there;
``--update`` writes the file anew.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TABLE = Path(__file__).with_name("registers.txt")
ARCHITECTURES = ("75", "86", "90", "120")
MORE = 8  # registers; compilers differ by a few from version to version

Table = dict[str, dict[str, int]]


def parse(log: str) -> tuple[Table, list[str]]:
    """Registers of each kernel by architecture, and a sentence for each that spills."""
    registers: Table = {}
    spills = []
    for entry in log.split("Compiling entry function")[1:]:
        found = re.match(r" '([^']+)' for 'sm_(\d+)\w*'", entry)
        if found is None or found[2] not in ARCHITECTURES:
            continue
        kernel = name(found[1])
        used, stored = re.search(r"Used (\d+) registers", entry), re.search(r"(\d+) bytes spill stores", entry)
        if kernel is None or used is None or stored is None:
            continue
        registers.setdefault(kernel, {})[found[2]] = int(used[1])
        if int(stored[1]):
            spills.append(f"{kernel} spills {stored[1]} bytes on sm_{found[2]}")
    return registers, spills


def name(mangled: str) -> str | None:
    """A kernel of ours without namespaces and arguments; None for those of CUB."""
    text = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout.strip()
    found = re.match(r"(?:void )?avatar::cuda::\(anonymous namespace\)::(\w+(?:<[^()]*>)?)\(", text)
    return found[1] if found else None


def write(registers: Table) -> None:
    width = max(map(len, registers))
    lines = ["# Registers of each kernel; written by `compile_check.sh --update`."]
    lines.append(f"{'kernel':{width}}  " + "  ".join(f"sm_{arch:3}" for arch in ARCHITECTURES))
    for kernel, used in sorted(registers.items()):
        lines.append(f"{kernel:{width}}  " + "  ".join(f"{used.get(arch, '-'):>6}" for arch in ARCHITECTURES))
    TABLE.write_text("\n".join(line.rstrip() for line in lines) + "\n")


def read() -> Table:
    table: Table = {}
    for line in TABLE.read_text().splitlines()[2:]:
        kernel, *used = re.split(r"\s{2,}", line)
        table[kernel] = {arch: int(count) for arch, count in zip(ARCHITECTURES, used, strict=True) if count != "-"}
    return table


def main(arguments: list[str]) -> int:
    registers, problems = parse(Path(arguments[0]).read_text())
    if "--update" in arguments:
        write(registers)
    known = read() if TABLE.exists() else {}
    for kernel, used in registers.items():
        for arch, count in used.items():
            before = known.get(kernel, {}).get(arch)
            if before is None:
                problems.append(f"{kernel} on sm_{arch} is not in {TABLE.name}: run compile_check.sh --update")
            elif count > before + MORE:
                problems.append(f"{kernel} takes {count} registers on sm_{arch}, was {before}")
    for problem in problems:
        print(f"registers: {problem}", file=sys.stderr)
    if not problems:
        print(f"registers: {len(registers)} kernels, no spills, as in {TABLE.name}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
