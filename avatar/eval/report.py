"""How the metrics are shown."""

from __future__ import annotations

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
