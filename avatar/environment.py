"""Where and when numbers were measured: hardware, versions, commit, command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_SIMD = ("sse4", "avx", "fma", "asimd", "sve")


def environment() -> dict[str, Any]:
    """Hardware, versions, commit and command of this process."""
    import torch

    from avatar import __version__

    versions = {"avatar": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "mediapipe", "av", "onnxruntime", "opencv-contrib-python"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        # Names instead of whole paths: results are for sharing, the layout of somebody's disk is not.
        "command": " ".join([_program(), *(Path(word).name if "/" in word else word for word in sys.argv[1:])]),
        "commit": commit(),
        "hardware": {
            "cpu": _cpu("model name") or platform.processor() or platform.machine(),
            "simd": [f for f in (_cpu("flags") or _cpu("Features")).split() if f.startswith(_SIMD)],
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "gpu": _gpu(),
            "system": platform.platform(),
        },
        "versions": versions,
    }


def _program() -> str:
    """What a shell would call this program."""
    path = Path(sys.argv[0])
    return f"python -m pipelines.{path.stem}" if path.parent.name == "pipelines" else "avatar"


def commit() -> str | None:
    """Commit of the source tree this runs from, with ``+changes`` when files differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        changed = bool(git("status", "--porcelain", "--untracked-files=no"))
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory() -> int:
    """Largest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _gpu() -> str | None:
    import torch

    with suppress(AssertionError, RuntimeError):  # a driver that cannot be spoken to is no reason to fail
        return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def _cpu(field: str) -> str:
    """A line of the kernel's description of the processor; empty where there is none."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == field:
                return value.strip()
    return ""
