"""Where numbers were measured, and how they are shown."""

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

from rich.table import Table

LABELS: dict[str, tuple[str, str]] = {
    "psnr": ("PSNR, whole frame (dB)", ".2f"),
    "psnr_face": ("PSNR, face (dB)", ".2f"),
    "ssim": ("SSIM, whole frame", ".4f"),
    "ssim_face": ("SSIM, face", ".4f"),
    "lpips": ("LPIPS (Alex)", ".4f"),
    "lmd": ("LMD, lips aligned (px at 512)", ".2f"),
    "lmd_raw": ("LMD, as placed (px at 512)", ".2f"),
    "mouth_correlation": ("mouth opening, correlation", ".3f"),
    "mouth_lag_frames": ("mouth opening, best lag (frames)", "+d"),
    "mouth_best_correlation": ("mouth opening, correlation there", ".3f"),
    "mouth_range": ("mouth opening, spread / real", ".2f"),
    "pose_jitter": ("pose jitter (px at 512)", ".3f"),
    "pose_wobble": ("pose jitter against the real (px at 512)", ".3f"),
    "blinks": ("blinks", "d"),
    "frames_without_face": ("frames without a face", "d"),
}


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
        "command": " ".join(["avatar", *(Path(word).name if "/" in word else word for word in sys.argv[1:])]),
        "commit": commit(),
        "hardware": {
            "cpu": _cpu_name(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
            "system": platform.platform(),
        },
        "versions": versions,
    }


def commit() -> str | None:
    """Commit of the source tree this runs from, with ``+changes`` when files differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
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


def table(result: dict[str, Any]) -> Table:
    """The metrics as a terminal table: a column per drive, and one for the real video where it has a number."""
    columns = {f"driven by {name}": values for name, values in result["drives"].items()} | {"real": result["real"]}
    out = Table(title=f"{result['frames']} held-out frames", title_justify="left")
    out.add_column("")
    for name in columns:
        out.add_column(name, justify="right")
    for key, (label, spec) in LABELS.items():
        out.add_row(label, *(_show(values.get(key), spec) for values in columns.values()))
    return out


def summary_lines(result: dict[str, Any]) -> list[str]:
    """Speed, size and memory in words."""
    speed, model = result["speed"], result["model"]
    parts = "speech and " if speed["with_speech"] else ""
    rates = f"Rendering alone {speed['render_fps']:.1f} frames/s; with {parts}encoding to mp4 "
    rates += f"{speed['end_to_end_fps']:.1f} frames/s."
    size = (
        f"Method {model.get('method')}: {model.get('gaussians')} Gaussians, {(model.get('bytes') or 0) / 1e6:.1f} MB; "
    )
    size += f"peak memory {result['peak_memory_bytes'] / 1e9:.2f} GB."
    return [rates, size, *(f"Note: {note}" for note in result["notes"])]


def _show(value: float | None, spec: str) -> str:
    return "-" if value is None else format(value, spec)


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
