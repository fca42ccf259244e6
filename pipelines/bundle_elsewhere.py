"""Open a bundle in an environment that has nothing but the wheel and the bundle, and compare what is rendered.

    python -m pipelines.bundle_elsewhere --run runs/me --audio speech.wav

Builds the wheel of this checkout, installs it into a new virtual environment, and copies the bundle alone into an empty
folder, which is home and working directory there. The same frames are rendered here from the RUN folder. Every pixel
has to be the same.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import tyro

from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.paths import write_json

ROOT = Path(__file__).resolve().parents[1]
PASSED = ("PATH", "AVATAR_ASSETS", "OMP_NUM_THREADS", "PIP_INDEX_URL", "PIP_FIND_LINKS")  # of the environment here


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to render, and with what."""

    run: Path
    """RUN folder of the avatar; its consent has to cover likeness."""
    audio: Path
    """What the avatar says."""
    frames: int = 25
    """How many frames to compare."""
    wheel: Path | None = None
    """Wheel of this checkout. Default: one is built, which takes minutes."""
    dependencies: Path | None = None
    """Folder of installed packages to use instead of installing them: quicker, and not quite as new."""
    json: Path | None = None
    """Write the record here."""


def run(command: list[str], folder: Path, **variables: str) -> None:
    """Run a command with hardly any environment.

    Raises:
        AvatarError: It fails.
    """
    kept = {name: os.environ[name] for name in PASSED if name in os.environ}
    done = subprocess.run(command, cwd=folder, env=kept | variables, capture_output=True, text=True)
    if done.returncode:
        raise AvatarError(f"{' '.join(command[:4])} ... failed:", why=(done.stderr or done.stdout)[-1500:])


def built_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout."""
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(folder), str(ROOT)], ROOT, HOME=str(folder))
    return next(folder.glob("*.whl"))


def new_environment(folder: Path, wheel: Path, dependencies: Path | None) -> Path:
    """Make a virtual environment with the wheel, and return its `avatar` command."""
    run([sys.executable, "-m", "venv", str(folder)], ROOT)
    pip = [str(folder / "bin/pip"), "install", "-q", str(wheel)]
    run(pip if dependencies is None else [*pip, "--no-deps"], folder, HOME=str(folder))
    if dependencies is not None:
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "dependencies.pth").write_text(f"{dependencies.resolve()}\n")
    return folder / "bin/avatar"


def frames_of(path: Path) -> list[str]:
    """SHA-256 of the decoded pixels of each frame of a video."""
    with av.open(str(path)) as container:
        return [hashlib.sha256(f.to_ndarray(format="yuv420p").tobytes()).hexdigest() for f in container.decode(video=0)]


def main(config: Config) -> None:
    """Render in both places, compare, and write the record.

    Raises:
        AvatarError: Something fails, or a frame differs.
    """
    here = [sys.executable, "-m", "avatar.cli.main"]
    with tempfile.TemporaryDirectory() as temporary:
        work, there = Path(temporary), Path(temporary) / "there"
        there.mkdir()
        (work / "wheel").mkdir()
        command = new_environment(work / "venv", config.wheel or built_wheel(work / "wheel"), config.dependencies)
        # `avatar` has to be the one of the wheel.
        run([str(command.with_name("python")), "-c",
             f"import avatar; assert avatar.__file__.startswith({str(work)!r}), avatar.__file__"], there)  # fmt: skip
        run([*here, "export", str(config.run.resolve()), "--format", "bundle", "--out", str(there / "me.avatar")], ROOT,
            PYTHONPATH=str(ROOT), HOME=str(work))  # fmt: skip
        shutil.copy(config.audio, there / f"speech{config.audio.suffix}")
        said = ["--audio", str(there / f"speech{config.audio.suffix}"), "--frames", str(config.frames)]
        run([*here, "render", str(config.run.resolve()), *said, "--out", str(work / "here.mp4")], ROOT,
            PYTHONPATH=str(ROOT), HOME=str(work))  # fmt: skip
        run([str(command), "render", "me.avatar", *said, "--out", "there.mp4"], there, HOME=str(there))
        ours, theirs = frames_of(work / "here.mp4"), frames_of(there / "there.mp4")
        found: dict[str, Any] = {
            "frames": len(theirs), "same": sum(a == b for a, b in zip(ours, theirs, strict=True)),
            "bundle_bytes": (there / "me.avatar").stat().st_size, "installed_dependencies": config.dependencies is None,
        }  # fmt: skip
    if config.json is not None:
        write_json(config.json, environment() | {"avatar": config.run.name, "audio": config.audio.name} | found)
    print(f"{found['same']} of {found['frames']} frames are the same to the bit.")
    if found["same"] != found["frames"] or not found["frames"]:
        raise AvatarError("The bundle draws something else there.")


if __name__ == "__main__":
    from avatar.cli.errors import command_code

    sys.exit(command_code("bundle_elsewhere", lambda: main(tyro.cli(Config))))
