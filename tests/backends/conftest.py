"""Ways to stand in for a machine that has, or has not, what a backend needs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch

from avatar.backends import requirements

WITHOUT_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA GPU")


@pytest.fixture(autouse=True)
def fresh():
    """What a backend was found to be is remembered; tests change what there is to be found."""
    requirements.problem.cache_clear()
    yield
    requirements.problem.cache_clear()


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a CUDA GPU, as far as torch says."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, gpu: None) -> Callable[..., ModuleType]:
    """Put a package in place of a backend: ``install("nerfacc", name=function, ...)``."""

    def put(name: str, kernels: object = "compiled", **contents: object) -> ModuleType:
        module = ModuleType(name)
        module.__spec__ = ModuleSpec(name, None)
        module.__path__ = []  # type: ignore[attr-defined]
        for key, value in contents.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, name, module)
        for part in ("cuda", "cuda._backend"):
            inner = ModuleType(f"{name}.{part}")
            inner.__path__ = []  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, f"{name}.{part}", inner)
        sys.modules[f"{name}.cuda._backend"]._C = kernels  # type: ignore[attr-defined]
        monkeypatch.setattr(requirements, "_version", lambda _: (10**6,))
        return module

    return put
