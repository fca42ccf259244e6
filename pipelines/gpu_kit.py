"""Pack what a bare GPU machine without network needs for `pipelines.gpu_check`: wheels, sources, persons, avatars.

The machine is expected to have Python with torch (CUDA build), numpy, scipy, safetensors, onnxruntime, cmake, ninja and
nvcc. Everything else that training and rendering import travels as wheels, in the versions that are installed here.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

ROOT = Path(__file__).parents[1]
MANIFEST = "kit.json"
# Packages by the module that shows whether a machine has them already; what it has is not installed.
PACKAGES = {
    "av": "av",
    "soxr": "soxr",
    "tyro": "tyro",
    "docstring_parser": "docstring_parser",
    "typeguard": "typeguard",
    "tomli_w": "tomli-w",
    "jaxtyping": "jaxtyping",
    "wadler_lindig": "wadler-lindig",
    "msgspec": "msgspec",
    "rich": "rich",
    "markdown_it": "markdown-it-py",
    "mdurl": "mdurl",
    "pygments": "pygments",
    "pytest": "pytest",
    "pluggy": "pluggy",
    "iniconfig": "iniconfig",
    "packaging": "packaging",
}
GSPLAT = {"gsplat": "gsplat"}
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
RECOMPRESSED = 8 << 20  # bytes; a wheel from this size on travels as .tar.xz, a third smaller
LANDMARK_STEP = 1 / 64  # pixels; landmarks travel rounded to this, a tenth of their noise, at a third of the size


@dataclass(frozen=True, kw_only=True)
class Config:
    """Pack a kit."""

    out: Path
    """Folder to write; replaced if it is a kit."""
    persons: tuple[Path, ...] = ()
    """PERSON folders. Where the video that a folder was made from is still there, it travels instead of the frames."""
    runs: tuple[Path, ...] = ()
    """RUN folders, without checkpoints, logs and results of `avatar eval`."""
    sounds: tuple[Path, ...] = ()
    """Audio files to render."""
    assets: tuple[str, ...] = ("lpips_alex", "whisper_front")
    """Pretrained parts, as `avatar assets` names them."""
    gsplat: bool = True
    """Take gsplat along, to be compiled there and timed beside our kernels."""
    sources: bool = True
    """Take the sources along; without them the kit is run from a checkout."""
    python: str = "3.12"
    """Python version of the GPU machine."""
    limit: float = 60.0
    """MiB that the kit may have."""


def main(config: Config) -> int:
    """Write the kit; returns 0 if it keeps within the limit."""
    from avatar.assets.store import fetch
    from avatar.environment import commit
    from avatar.errors import AvatarError

    if config.out.exists() and not (config.out / MANIFEST).is_file():
        raise AvatarError(f"{config.out} exists and is no kit.", fix="Choose another --out.")
    shutil.rmtree(config.out, ignore_errors=True)
    config.out.mkdir(parents=True)
    wheels = pack_wheels(config)
    if config.sources:
        listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], check=True, capture_output=True, text=True)
        names = [name for name in listed.stdout.split("\0") if name]
        pack(config.out / "sources.tar.xz", {name: ROOT / name for name in names})
    persons = [pack_person(folder, config.out) for folder in config.persons]
    runs = [pack_run(folder, config.out) for folder in config.runs]
    for kind, files in (("assets", map(fetch, config.assets)), ("sounds", config.sounds)):
        for path in files:
            (config.out / kind).mkdir(exist_ok=True)
            shutil.copy(path, config.out / kind / path.name)
    manifest = {
        "commit": commit(), "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "wheels": wheels,
        "persons": persons, "runs": runs,
    }  # fmt: skip
    (config.out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    sizes = {p.relative_to(config.out): p.stat().st_size for p in sorted(config.out.rglob("*")) if p.is_file()}
    for name, size in sizes.items():
        print(f"{size / 2**20:8.2f} MiB  {name}")
    total = sum(sizes.values()) / 2**20
    print(f"{total:8.2f} MiB  in all; {config.limit:.0f} allowed")
    return 0 if total <= config.limit else 1


def pack_wheels(config: Config) -> dict[str, str]:
    """Download the wheels for the machine; returns the file of each module."""
    folder = config.out / "wheels"
    folder.mkdir()
    wanted = PACKAGES | (GSPLAT if config.gsplat else {})
    packed = {}
    for module, package in wanted.items():
        pinned = package
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # not needed here: any version
            pinned = f"{package}=={importlib.metadata.version(package)}"
        with tempfile.TemporaryDirectory() as temporary:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
            command += ["--python-version", config.python, "--implementation", "cp", "-d", temporary, pinned]
            subprocess.run(command + [f"--platform={p}" for p in PLATFORMS], check=True)
            (wheel,) = Path(temporary).iterdir()
            if wheel.stat().st_size < RECOMPRESSED:
                shutil.move(wheel, folder / wheel.name)
                packed[module] = wheel.name
            else:
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(Path(temporary, "content"))
                content = Path(temporary, "content")
                packed[module] = f"{wheel.stem}.tar.xz"
                files = {p.relative_to(content).as_posix(): p for p in sorted(content.rglob("*")) if p.is_file()}
                pack(folder / packed[module], files)
    return packed


def pack(path: Path, files: Mapping[str, Path | bytes]) -> None:
    """Write files, by their names in the archive, as .tar.xz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:xz", preset=9) as tar:
        for name, content in files.items():
            if isinstance(content, bytes):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                tar.add(content, name, recursive=False)


def pack_person(folder: Path, out: Path) -> dict[str, Any]:
    """Pack a PERSON folder; returns what `pipelines.gpu_check` needs to unpack it."""
    from avatar.data.person import PersonFolder
    from avatar.data.results import IngestResult
    from avatar.paths import file_sha256

    video = Path(PersonFolder(folder).result(IngestResult).source)
    left_out = {"report", "landmarks.npy"} | ({"frames", "audio.wav"} if video.is_file() else set())
    files: dict[str, Path | bytes] = {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not left_out.intersection(path.relative_to(folder).parts)
    }
    landmarks = np.load(folder / "track" / "landmarks.npy")
    steps = np.rint(landmarks / LANDMARK_STEP).astype(np.int32)
    moved = np.concatenate([steps[:1], np.diff(steps, axis=0)])  # differences in time compress better
    buffer = io.BytesIO()
    np.save(buffer, moved)
    files["track/landmarks.steps.npy"] = buffer.getvalue()
    pack(out / "persons" / f"{folder.name}.tar.xz", files)
    person: dict[str, Any] = {"name": folder.name}
    if video.is_file():
        shutil.copy(video, out / "persons" / f"{folder.name}{video.suffix}")
        frames = sorted((folder / "ingest" / "frames").iterdir())
        looked_at = [frames[i] for i in (0, len(frames) // 2, -1)]
        person |= {"video": f"{folder.name}{video.suffix}", "frames": {p.name: file_sha256(p) for p in looked_at}}
    return person


def unpack_person(person: dict[str, Any], kit: Path, out: Path) -> bool:
    """Undo :func:`pack_person` into the folder ``out``; returns whether its pictures are the same to the byte."""
    from avatar.data.person import PersonFolder
    from avatar.data.results import IngestResult
    from avatar.io import video
    from avatar.io.audio_timing import TimingReport
    from avatar.paths import file_sha256
    from avatar.preprocess import ingest
    from avatar.preprocess.framing import Framing, Rect

    with tarfile.open(kit / "persons" / f"{person['name']}.tar.xz") as tar:
        tar.extractall(out, filter="data")
    steps = np.load(out / "track" / "landmarks.steps.npy")
    landmarks = np.cumsum(steps.astype(np.int64), axis=0) * LANDMARK_STEP
    np.save(out / "track" / "landmarks.npy", landmarks.astype(np.float32))
    if "video" not in person:
        return True
    result = PersonFolder(out).result(IngestResult)
    info = video.read_info(kit / "persons" / person["video"])
    (out / "ingest").mkdir(exist_ok=True)
    framing = Framing(
        crop=Rect(*result.crop), size=(result.width, result.height),
        frame=None if result.frame is None else Rect(*result.frame), frame_size=result.frame_size,
    )  # fmt: skip
    ingest.write_frames(info, framing, out / "ingest")
    if result.has_audio:
        ingest.write_audio(info, out / "ingest" / "audio.wav", TimingReport())
    return all(file_sha256(out / "ingest" / "frames" / name) == sha for name, sha in person["frames"].items())


def pack_run(folder: Path, out: Path) -> str:
    """Pack what rendering needs of a RUN folder; returns its name."""
    from avatar.data.run import FILES

    files: dict[str, Path | bytes] = {name: folder / name for name in sorted(FILES) if (folder / name).is_file()}
    pack(out / "runs" / f"{folder.name}.tar.xz", files)
    return folder.name


if __name__ == "__main__":
    from avatar.errors import AvatarError

    try:
        sys.exit(main(tyro.cli(Config, description=__doc__)))
    except AvatarError as error:
        sys.exit(str(error))
