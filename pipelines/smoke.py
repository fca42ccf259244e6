"""The main path on ten seconds of video: create at draft quality, then fail unless the result is a talking face."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import tyro

# Far below what a good run reaches on ten seconds, far above what a broken one does.
FLOORS = {"psnr": 22.0, "psnr_face": 19.0}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Cut, create, judge."""

    video: Path
    """A video of one person talking."""
    out: Path
    """Folder for everything this makes."""
    seconds: float = 10.0
    """Length of the cut."""


def main(config: Config) -> int:
    """Return 0 when the avatar shows the person and its mouth moves."""
    import subprocess

    from avatar.cli.main import main as avatar

    config.out.mkdir(parents=True, exist_ok=True)
    cut, run = config.out / "cut.mp4", config.out / "run"
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    subprocess.run(
        [ffmpeg, "-v", "error", "-y", "-t", str(config.seconds), "-i", str(config.video), "-c", "copy", str(cut)],
        check=True,
    )
    if avatar(["create", str(cut), "--out", str(run), "--quality", "draft"]) != 0:
        return 1
    metrics = json.loads((run / "metrics.json").read_text())
    shown = metrics["full_frame"]["tracked"]
    failed = [f"{name} {shown[name]:.2f} < {floor}" for name, floor in FLOORS.items() if not shown[name] >= floor]
    if not shown["mouth_correlation"] >= 0.5:
        failed.append(f"the mouth does not follow: correlation {shown['mouth_correlation']:.2f}")
    print("NOT A TALKING FACE: " + "; ".join(failed) if failed else "a talking face")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Config)))
