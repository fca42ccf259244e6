"""Build the packages of a release, and try the wheel where there is no compiler: ``python pipelines/packages.py``.

It needs nothing but Python, and a network for its tools. From the checkout it makes an sdist; from the sdist a wheel
for each processor; and a trial: a fresh environment without compilers in which the wheel is installed, `avatar doctor`
finds the kernels, and `avatar demo` films and begins to prepare. Nothing is sent anywhere.

Zig's C++ compiler comes as a Python package, and aims at any version of the C library and at any processor. So the
wheels are compiled on any Linux, without a container of an old one. Its C++ library is linked in.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("build", "scikit-build-core>=0.10", "cmake>=3.20", "ninja", "wheel", "auditwheel", "ziglang")
GLIBC = "2.17"  # of CentOS 7; what torch and numpy ask for is newer
PLATFORMS = {"x86_64": "manylinux_2_17_x86_64", "aarch64": "manylinux_2_17_aarch64"}
COMPILERS = ("cc", "gcc", "c++", "g++", "clang", "clang++", "cmake", "ninja", "make", "nvcc")
DEMO_SECONDS = 90  # of `avatar demo`, which takes minutes in all


def main(arguments: Sequence[str] | None = None) -> int:
    """Build, check, try; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the packages")
    parser.add_argument("--native", action="store_true", help="one wheel, for this machine, with its own compiler")
    parser.add_argument("--only", choices=PLATFORMS, action="append", help="a processor; can be given again")
    parser.add_argument("--torch", default="torch", help="torch of the trial, such as torch==2.13.0")
    parser.add_argument("--no-trial", action="store_true", help="do not install the wheel")
    parser.add_argument(
        "--packages-of", type=Path, metavar="PYTHON", help="try it beside the packages of this Python, and fetch none"
    )
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="avatar-packages-") as folder:
        work = Path(folder)
        tools = environment(work / "tools", TOOLS)
        sdist = build_sdist(tools, options.out)
        source = unpacked(sdist, work)
        if options.native:
            wheels = [kept(build_wheel(tools, source, work / "native", {}), options.out)]
        else:
            wheels = [kept(linux_wheel(tools, source, work, name), options.out) for name in options.only or PLATFORMS]
        mine = [wheel for wheel in wheels if wheel.stem.endswith(platform.machine())]
        if mine and not options.no_trial:
            attempt(mine[0], work / "trial", options.torch, options.packages_of)
    return 0


def run(*command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a command; its failure ends the program."""
    print("+", *command, flush=True)
    subprocess.run([str(word) for word in command], check=True, env={**os.environ, **(env or {})}, cwd=cwd)


def environment(folder: Path, packages: Sequence[str]) -> Path:
    """Make a virtual environment with some packages; its Python."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    if packages:
        run(python, "-m", "pip", "install", "--quiet", *packages)
    return python


def build_sdist(python: Path, out: Path) -> Path:
    """Make the sdist of the checkout."""
    before = set(out.glob("*.tar.gz"))
    for old in before:
        old.unlink()
    run(python, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, ROOT)
    (sdist,) = out.glob("*.tar.gz")
    print(f"{sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB", flush=True)
    return sdist


def unpacked(sdist: Path, work: Path) -> Path:
    """The folder that an sdist holds."""
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "source", filter="data")
    (source,) = (work / "source").iterdir()
    return source


def kept(wheel: Path, out: Path) -> Path:
    """Copy a wheel to where it stays."""
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)
    return Path(shutil.copy(wheel, out))


def build_wheel(python: Path, source: Path, work: Path, env: dict[str, str], *settings: str) -> Path:
    """Make a wheel of an unpacked sdist."""
    chosen = [word for setting in settings for word in ("--config-setting", setting)]
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", work, *chosen, source)
    run(python, *build, env={"AVATAR_CUDA": "0", "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}", **env})
    (wheel,) = work.glob("*.whl")
    return wheel


def linux_wheel(python: Path, source: Path, work: Path, processor: str) -> Path:
    """Make a wheel for an old Linux on a processor, and check what it needs."""
    folder = work / processor
    folder.mkdir()
    compiler = folder / "c++"  # CMake takes one word
    target = f"{processor}-linux-gnu.{GLIBC}"
    compiler.write_text(f'#!/bin/sh\nexec "{python}" -m ziglang c++ -target {target} "$@"\n')
    compiler.chmod(0o755)
    wheel = build_wheel(
        python, source, folder, {"CXX": str(compiler), "_PYTHON_HOST_PLATFORM": f"linux-{processor}"},
        "install.strip=false", "cmake.define.CMAKE_SYSTEM_NAME=Linux",
        f"cmake.define.CMAKE_SYSTEM_PROCESSOR={processor}", "cmake.define.CMAKE_SHARED_LINKER_FLAGS=-s",
    )  # fmt: skip
    run(python, "-m", "auditwheel", "show", wheel)
    run(python, "-m", "auditwheel", "repair", "--plat", PLATFORMS[processor], "--wheel-dir", folder / "good", wheel)
    (good,) = (folder / "good").glob("*.whl")
    return good


def site(python: Path) -> str:
    """Where the packages of a Python are."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def attempt(wheel: Path, folder: Path, torch: str, packages_of: Path | None = None) -> None:
    """Install a wheel where no compiler can be found, and use it."""
    python = environment(folder, ())
    bare = {"PATH": str(python.parent), "PYTHONPATH": ""}
    found = [name for name in COMPILERS if shutil.which(name, path=bare["PATH"])]
    assert not found, f"compilers in the trial: {found}"
    wanted = [torch, str(wheel.resolve())]
    if packages_of is not None:
        Path(site(python), "others.pth").write_text(f"{site(packages_of)}\n")
        wanted[:1] = ["--no-deps"]
    run(python, "-m", "pip", "install", "--quiet", *wanted, env=bare)
    avatar = python.parent / "avatar"
    run(avatar, "doctor", env=bare, cwd=folder)
    code = "from avatar.native import library_status as s; print(s()); assert s().startswith('native'), s()"
    run(python, "-c", code, env=bare, cwd=folder)
    command = [str(avatar), "demo", "--out", "demo"]
    print("+", *command, f"# for {DEMO_SECONDS} s", flush=True)
    process = subprocess.Popen(command, env={**os.environ, **bare}, cwd=folder)
    try:
        code = process.wait(DEMO_SECONDS)
        assert code == 0, f"avatar demo ended with {code}"
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
    begun = folder / "demo" / "run.person"
    assert (folder / "demo" / "subject" / "video.mp4").is_file() and begun.is_dir(), "the demo did not get that far"
    print("The wheel works without a compiler.", flush=True)


if __name__ == "__main__":
    sys.exit(main())
