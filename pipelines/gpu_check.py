"""Make the most of a few minutes on a GPU: build, test, compare, time, train, render, in order of value.

Each step runs in a process of its own with a time limit, and the record is written after each, so that neither a crash
nor a cut loses what was measured. Runs in a checkout; with ``--kit`` (`pipelines.gpu_kit`) on a bare machine without
network. Only the standard library is needed to start. Give a machine that is lent by the minute two calls, a short one
(``--steps device build tests``) first: a machine that goes away takes with it what it has not given back.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# Name: seconds after which it is given up. Steps that find nothing to work on say so and take no time.
STEPS = {
    "device": 60.0,
    "build": 180.0,
    "tests": 150.0,
    "agreement": 90.0,
    "frames": 60.0,
    "train_steps": 60.0,
    "train": 330.0,
    "picture": 60.0,
    "render": 120.0,
    "kernels": 120.0,
    "gsplat": 240.0,
    "memory_check": 120.0,
}
GSPLAT_SECONDS = 240.0  # for compiling gsplat, beside everything else


def main() -> int:
    """Unpack, then run the steps; returns 0 if all that ran succeeded."""
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    record: dict[str, Any] = {"format": "avatar-gpu-check-1", "seconds_allowed": options.seconds, "steps": {}}

    def left() -> float:
        return options.seconds - (time.monotonic() - began)

    def note(name: str, result: dict[str, Any]) -> None:
        record["steps"][name] = result
        write(options.out / "gpu_check.json", record)
        print(f"== {name}: {json.dumps(result)[:1500]}", flush=True)

    environment = os.environ | {"AVATAR_GPU_WORK": str(options.work), "PYTHONUNBUFFERED": "1"}
    if options.kit:
        try:
            record["kit"] = unpack(options.kit, options.work, environment)
        except Exception as error:
            note("unpack", {"failed": f"{type(error).__name__}: {error}"})
            return 1
        note("unpack", {"seconds": round(time.monotonic() - began, 1)})
    compiler = None
    for name in options.steps:
        limit = min(options.limits.get(name, STEPS[name]), left())
        if left() < 5:
            note(name, {"skipped": "no time was left"})
            continue
        start = time.monotonic()
        result = run_step(name, limit, options.out, environment)
        note(name, result | {"seconds": round(time.monotonic() - start, 1)})
        if name in ("device", "build") and "failed" in result:
            return 1
        if name == "build" and "gsplat" in options.steps:
            compiler = compile_gsplat(options.out, environment)
    if compiler is not None:
        end(compiler)
    record["seconds"] = round(time.monotonic() - began, 1)
    write(options.out / "gpu_check.json", record)
    return int(any("failed" in result for result in record["steps"].values()))


def parse() -> argparse.Namespace:
    """The command line, read without anything that a bare machine lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kit", type=Path, nargs="*", default=[], help="folders that pipelines.gpu_kit wrote")
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="where the record goes")
    parser.add_argument("--work", type=Path, default=Path("/tmp/avatar-gpu"), help="where the kit is unpacked")
    parser.add_argument("--seconds", type=float, default=560.0, help="time that the whole may take")
    parser.add_argument("--steps", nargs="*", choices=list(STEPS), default=list(STEPS), help="which steps, in order")
    parser.add_argument("--limits", nargs="*", default=[], help="STEP=SECONDS, instead of the usual limits")
    options = parser.parse_args()
    options.limits = {name: float(seconds) for name, _, seconds in (text.partition("=") for text in options.limits)}
    options.out, options.work = options.out.resolve(), options.work.resolve()
    options.kit = [folder.resolve() for folder in options.kit]
    return options


def write(path: Path, record: dict[str, Any]) -> None:
    """Replace the record, so that a cut leaves the old or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=2) + "\n")
    temporary.replace(path)


def unpack(kits: list[Path], work: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Install the packages that this Python lacks into ``work``, and put persons and runs beside them."""
    site = work / "site"
    site.mkdir(parents=True, exist_ok=True)
    assets = work / "assets"
    assets.mkdir(exist_ok=True)
    taken: dict[str, Any] = {"installed": [], "persons": {}, "runs": []}
    manifests = [(kit, json.loads((kit / "kit.json").read_text())) for kit in kits]
    for kit, manifest in manifests:
        for module, name in manifest["wheels"].items():
            if importlib.util.find_spec(module) is not None or (site / module).exists():
                continue
            file = kit / "wheels" / name
            if file.name.endswith(".tar.xz"):
                with tarfile.open(file) as tar:
                    tar.extractall(site, filter="data")
            else:
                command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
                subprocess.run([*command, "--no-warn-script-location", "--target", site, file], check=True)
            taken["installed"].append(name)
        for path in (kit / "assets").glob("*"):
            (assets / path.name).write_bytes(path.read_bytes())
        for path in (kit / "sounds").glob("*"):
            (work / "sounds").mkdir(exist_ok=True)
            (work / "sounds" / path.name).write_bytes(path.read_bytes())
        for name in manifest["runs"]:
            with tarfile.open(kit / "runs" / f"{name}.tar.xz") as tar:
                tar.extractall(work / "runs" / name, filter="data")
            taken["runs"].append(name)
        taken["commit"] = manifest["commit"]
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(site), environment.get("PYTHONPATH", "")])
    environment["AVATAR_ASSETS"] = str(assets)
    environment["AVATAR_CACHE"] = str(work / "cache")
    persons = [(kit, person) for kit, manifest in manifests for person in manifest["persons"]]
    if persons:
        code = "import json, sys; from pathlib import Path; from pipelines.gpu_kit import unpack_person\n"
        code += "print(unpack_person(json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])))"
        for kit, person in persons:
            out = work / "persons" / person["name"]
            done = subprocess.run(
                [sys.executable, "-c", code, json.dumps(person), kit, out],
                cwd=ROOT, env=environment, text=True, capture_output=True,
            )  # fmt: skip
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:])
            taken["persons"][person["name"]] = {"same_pictures": done.stdout.split()[-1] == "True"}
    return taken


def run_step(name: str, limit: float, out: Path, environment: dict[str, str]) -> dict[str, Any]:
    """One step in a process of its own; what it measured, or why it failed."""
    result = out / f"{name}.json"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pipelines.gpu_stages", name, str(out), str(limit)]
    log = out / "logs.txt"
    with log.open("a") as file:
        file.write(f"\n======== {name}\n")
        file.flush()
        start = file.tell()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
            failed = f"exit code {code}" if code else ""
        except subprocess.TimeoutExpired:
            failed = f"given up after {limit:.0f} s"
        end(process)
    measured = json.loads(result.read_text()) if result.is_file() else {}
    result.unlink(missing_ok=True)
    if failed:
        with log.open(errors="replace") as file:
            file.seek(start)
            measured |= {"failed": failed, "end_of_log": file.read()[-3000:]}
    return measured


def end(process: subprocess.Popen[bytes]) -> None:
    """End a step and what it started. A process that hangs in the driver cannot be ended, and is not waited for."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)


def compile_gsplat(out: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start compiling gsplat's kernels (it does so at first use) beside the other steps."""
    code = "import gsplat.cuda._backend as b; assert b._C is not None"
    nice = ["nice", "-n", "10", "timeout", str(GSPLAT_SECONDS), sys.executable, "-c", code]
    with (out / "gsplat_compile.txt").open("w") as file:
        return subprocess.Popen(
            nice, cwd=ROOT, env=environment | {"MAX_JOBS": "8"}, stdout=file, stderr=file, start_new_session=True
        )


if __name__ == "__main__":
    sys.exit(main())
