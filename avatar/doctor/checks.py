"""Look at every part of the installation: what is here, and whether it works."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from avatar.doctor.finding import BROKEN, GOOD, NOTE, Finding, sentence
from avatar.doctor.operators import TOLERANCE, operator_errors
from avatar.errors import AvatarError

# distribution: (module, needed for)
PACKAGES = {
    "torch": ("torch", "everything"),
    "numpy": ("numpy", "everything"),
    "scipy": ("scipy", "prepare"),
    "mediapipe": ("mediapipe", "prepare, eval"),
    "opencv-contrib-python": ("cv2", "prepare, train"),
    "av": ("av", "reading and writing video"),
    "onnxruntime": ("onnxruntime", "the voice of avatar demo, older runs"),
    "soundfile": ("soundfile", "reading audio"),
    "soxr": ("soxr", "reading audio"),
    "safetensors": ("safetensors", "models"),
    "matplotlib": ("matplotlib", "reports"),
    "aiohttp": ("aiohttp", "avatar serve, avatar view"),
    "aiortc": ("aiortc", "avatar serve, avatar view"),
    "c2pa-python": ("c2pa", "content credentials"),
    "hibari-tts": ("hibari", "the voice of avatar demo"),
}
OPTIONAL = {
    "aiohttp",
    "aiortc",
    "hibari-tts",
    "scikit-image",
}  # without them one command is missing, not the product
# These packages load libraries of the system.
OF_THE_SYSTEM = ("cv2", "mediapipe")
SYSTEM_LIBRARIES = "apt install libgl1 libglib2.0-0 libegl1 libgles2"
INSTRUCTION_SETS = ("avx2", "fma", "avx512f", "asimd")  # that the kernels can use
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
# What kernels run with, the slowest first, and the flags, as Linux calls them, that a processor needs for it.
_AVX2 = {"avx2", "fma", "abm", "bmi1", "bmi2"}
_AVX512 = _AVX2 | {"avx512f", "avx512dq", "avx512cd", "avx512bw", "avx512vl"}
RUNS_WITH: dict[str, set[str]] = {
    "baseline": set(), "avx2": _AVX2, "avx512": _AVX512, "avx512_bf16": _AVX512 | {"avx512_bf16"}
}  # fmt: skip


def examine() -> list[Finding]:
    """Everything, in the order in which one thing needs the other. Never raises."""
    findings: list[Finding] = []
    for check in (check_machine, check_packages, check_gpu, check_native, check_backends, check_video, check_assets):
        try:
            findings += check()
        except Exception as error:  # a broken installation fails in ways that nobody listed; each must be a line
            name = check.__name__.removeprefix("check_")
            detail, fix = sentence(error), "Reinstall the package."
            if isinstance(error, AvatarError):
                detail, fix = error.what, error.fix
            findings.append(Finding(part=name, state=BROKEN, detail=detail, fix=fix))
    return findings


def check_machine() -> Iterator[Finding]:
    """Python, processor, memory, free disk."""
    import shutil

    from avatar import __version__, paths

    state = GOOD if sys.version_info >= (3, 10) else BROKEN
    yield Finding(part="avatar", state=GOOD, detail=f"{__version__}, {os.path.dirname(os.path.dirname(__file__))}")
    python = f"{platform.python_version()}, {sys.executable}"
    yield Finding(part="python", state=state, detail=python, fix="" if state == GOOD else "Install Python 3.10.")
    model, flags = cpu()
    features = " ".join(name for name in INSTRUCTION_SETS if name in flags) or "-"
    bfloat16 = ", ".join(name for name in BFLOAT16 if name in flags)
    use = "rendering uses it" if "avx512_bf16" in flags else "no kernel uses it"
    detail = f"{model}, {os.cpu_count()} cores, {features}; bfloat16: {bfloat16 or 'no'} ({use})"
    yield Finding(part="processor", state=GOOD, detail=detail)
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        enough = memory >= 3.5
        fix = "" if enough else "Preparing a long video needs 3 GB: close other programs."
        yield Finding(part="memory", state=GOOD if enough else NOTE, detail=f"{memory:.1f} GB", fix=fix)
    folder = paths.cache_dir()
    while not os.path.exists(folder):  # False as well where it may not be looked into
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 2**30
    fix = "" if free > 2 else "Free some space, or set AVATAR_CACHE to another disk."
    yield Finding(part="disk", state=GOOD if free > 2 else NOTE, detail=f"{free:.1f} GB free in {folder}", fix=fix)


def cpu() -> tuple[str, set[str]]:
    """Name of the processor and its instruction sets, as Linux calls them; none where it does not say."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            pairs = [line.split(":", 1) for line in file if ":" in line]
    except OSError:
        return platform.processor() or platform.machine(), set()
    fields = {key.strip(): value.strip() for key, value in pairs}
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    return fields.get("model name") or platform.machine(), set(flags)


def check_packages() -> Iterator[Finding]:
    """Whether every package that is needed is installed and can be imported."""
    try:
        from avatar.preprocess.landmarker import quiet_stderr
    except ImportError:  # then some of the packages below are at fault
        quiet_stderr = contextlib.nullcontext
    for distribution, (module, use) in PACKAGES.items():
        failure = ""
        try:
            found = version(distribution)
        except PackageNotFoundError:
            found = "version unknown"
        try:
            with quiet_stderr():
                importlib.import_module(module)
        except Exception as error:  # a damaged package can raise anything
            failure = sentence(error)
        state = GOOD if not failure else NOTE if distribution in OPTIONAL else BROKEN
        fix = f"Needed for {use}: pip install {distribution}" if failure else ""
        if "cannot open shared object file" in failure and module in OF_THE_SYSTEM:
            fix = f"Needed for {use}. A library of the system is missing: {SYSTEM_LIBRARIES}"
        yield Finding(part=distribution, state=state, detail=failure or found, fix=fix)


def check_gpu() -> Iterator[Finding]:
    """The graphics card, which nothing needs, and the library that uses it."""
    import torch

    from avatar.native.cuda import CANNOT_RUN, cuda_library, cuda_status

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding(part="gpu", state=GOOD, detail=f"{', '.join(names)} (CUDA {torch.version.cuda})")
    else:
        build = f"this torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build of torch"
        yield Finding(part="gpu", state=GOOD, detail=f"none, {build}; everything runs on the CPU")
    library, status, fix = cuda_library(), cuda_status(), ""
    if torch.cuda.is_available():
        if library is None:
            fix = "With nvcc on PATH: AVATAR_CUDA=1 pip install . in the sources."
        elif problem := library.problem(torch.cuda.current_device()):
            status, fix = f"{status} does not run on this GPU: {problem}", CANNOT_RUN
    yield Finding(part="CUDA library", state=NOTE if fix else GOOD, detail=status, fix=fix)


def check_native() -> Iterator[Finding]:
    """The native library, and each of its operators against its reference on a tiny input."""
    from avatar.native import library_status
    from avatar.native.library import library

    loaded = library()
    if loaded is None:
        fix = "Everything works, but several times slower. Follow the reason on the left."
    else:
        fix = faster(loaded.instruction_set, cpu()[1])
    yield Finding(part="native library", state=NOTE if fix else GOOD, detail=library_status(), fix=fix)
    for name, error in operator_errors().items():
        good = not isinstance(error, str) and error <= TOLERANCE
        detail = error if isinstance(error, str) else f"differs from the reference by {error:.1e}"
        fix = "" if good else "Set AVATAR_NATIVE=reference for now, reinstall, and report this table."
        yield Finding(part=f"  {name}", state=GOOD if good else BROKEN, detail=detail, fix=fix)


def faster(used: str, flags: set[str]) -> str:
    """What to do where kernels run with less than the processor has; empty where they do not.

    Args:
        used: Instruction set of the kernels, a key of `RUNS_WITH`.
        flags: Of the processor, as Linux calls them.
    """
    names = list(RUNS_WITH)
    best = [name for name, needed in RUNS_WITH.items() if needed <= flags][-1]
    if names.index(best) <= names.index(used):
        return ""
    if asked := os.environ.get("AVATAR_ISA"):
        return f"Everything works, but slower: the processor has {best}. Unset AVATAR_ISA, which is {asked}."
    return (
        f"Everything works, but slower: the processor has {best}. Install a wheel of a release, or build again with "
        "GCC 10, Clang 9 or newer: pip install --force-reinstall --no-deps . in the sources."
    )


def check_backends() -> Iterator[Finding]:
    """The optional backends, none of which is needed: available, or why not. May compile one that is installed."""
    from avatar.backends.requirements import BACKENDS, problem

    for name, backend in BACKENDS.items():
        found = problem(name)
        detail = f"available: {backend.option}" if found is None else f"not available: {found.what} {found.why}"
        yield Finding(part=name, state=GOOD, detail=detail)


def check_video() -> Iterator[Finding]:
    """Whether H.264 and AAC, in which results are written, can be encoded."""
    import av

    for name, kind in (("libx264", "video"), ("aac", "audio")):
        try:
            av.Codec(name, "w")
            yield Finding(part=f"{kind} encoder", state=GOOD, detail=name)
        except Exception as error:  # av's own class for an unknown codec changed its name between versions
            fix = "pip install --force-reinstall --only-binary av av"
            yield Finding(part=f"{kind} encoder", state=BROKEN, detail=f"{name}: {sentence(error)}", fix=fix)


def check_assets() -> Iterator[Finding]:
    """Which pretrained parts are on this machine."""
    from avatar.assets.store import ASSETS, states

    for name, found in states().items():
        here = found not in ("absent", "damaged")
        fix = "" if here else f"Fetched when it is needed, or now: avatar assets --fetch {name}"
        detail = f"{found} ({ASSETS[name].purpose})"
        yield Finding(part=name, state=GOOD if here else NOTE, detail=detail, fix=fix)
