"""Whether an optional backend can run here, and one clear sentence where it cannot."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from avatar.errors import AvatarError


@dataclass(frozen=True, kw_only=True)
class Backend:
    """An optional package.

    Attributes:
        option: The command-line option that chooses it.
        install: How to get it.
        kernels: Module that holds the compiled kernels as ``_C``, and compiles them on its first import; empty where
            importing the package itself loads them.
        oldest: Oldest version that will do; empty for any.
    """

    option: str
    install: str
    kernels: str = ""
    oldest: str = ""


BACKENDS = {
    "gsplat": Backend(
        option="--renderer gsplat",
        install="pip install 'gsplat>=1.5,<2'",
        kernels="gsplat.cuda._backend",
        oldest="1.5",  # radii along both axes of the image
    ),
    "tinycudann": Backend(
        option="--encoding tinycudann",
        install="pip install 'git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch'",
    ),
    "nerfacc": Backend(
        option="--marcher nerfacc",
        install="pip install 'nerfacc>=0.5.3,<0.6'",
        kernels="nerfacc.cuda._backend",
        oldest="0.5",
    ),
}


def require(name: str, run: Path | None = None) -> None:
    """Load a backend.

    Args:
        name: Of the backend; ``native`` is always there.
        run: The run folder that asks for it, where it was not the user who did.

    Raises:
        AvatarError: No CUDA GPU, not installed, too old, or its kernels do not load.
    """
    found = None if name == "native" else problem(name)
    if found is not None:  # raised as a new one: a cached exception would gather tracebacks
        asked = f"{run} was trained with {BACKENDS[name].option}. " if run else ""
        raise AvatarError(asked + found.what, why=found.why, fix=found.fix)


@functools.cache
def problem(name: str) -> AvatarError | None:
    """Why a backend cannot run here, or None. The first call may compile the backend's kernels, which takes minutes."""
    import torch

    backend = BACKENDS[name]
    install = f"Install it: {backend.install}"
    if not torch.cuda.is_available():
        why = "this torch is built without CUDA." if torch.version.cuda is None else "torch finds none on this machine."
        fix = f"Use a machine that has one, or {backend.option.split()[0]} native."
        return AvatarError(f"{backend.option} needs a CUDA GPU:", why=why, fix=fix)
    if importlib.util.find_spec(name) is None:
        return AvatarError(f"{backend.option} needs the package {name},", why="which is not installed.", fix=install)
    if backend.oldest and _version(name) < _numbers(backend.oldest):
        return AvatarError(
            f"{backend.option} needs {name} {backend.oldest} or newer;", why="the one here is older.", fix=install
        )
    try:
        module = importlib.import_module(backend.kernels or name)
    except Exception as error:  # a build or a library that fails, in any way it likes
        reason = str(error).strip().splitlines() or [type(error).__name__]
        why = reason[0].rstrip(".") + "."
        return AvatarError(
            f"{name} is installed, but does not load:", why=why, fix=f"Install it again: {backend.install}"
        )
    if backend.kernels and getattr(module, "_C", None) is None:
        return AvatarError(
            f"{name} is installed without its CUDA kernels,",
            why="and there is no CUDA compiler (nvcc) to make them with.",
            fix="Install the CUDA toolkit of torch's CUDA version, or a build of it for this torch.",
        )
    return None


def _version(name: str) -> tuple[int, ...]:
    """Installed version; a package without metadata (a source checkout) counts as new enough."""
    try:
        return _numbers(version(name))
    except PackageNotFoundError:
        return (10**6,)


def _numbers(text: str) -> tuple[int, ...]:
    numbers = []
    for part in text.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)
