"""A Ray cluster that a command starts on this machine answers that command alone."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import pytest

from avatar.cluster import connected
from avatar.errors import AvatarError

NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module that keeps the environment in which it was told to start."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    fake: Any = ModuleType("ray")
    fake.__version__, fake.seen = "2.52.0", []
    fake.init = lambda *_, **__: fake.seen.append({name: os.environ.get(name) for name in NAMES})
    fake.shutdown = lambda: None
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.exceptions", ModuleType("ray.exceptions"))
    return fake


def test_a_cluster_of_this_machine_asks_for_a_token(ray: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        with connected("local", 1):
            pass
    first, second = (seen["RAY_AUTH_TOKEN"] for seen in ray.seen)
    assert first == second and len(first) == 64, "Ray keeps the first token that it reads: another one is refused"
    assert all(seen["RAY_AUTH_MODE"] == "token" for seen in ray.seen)
    assert not any(name in os.environ for name in NAMES)
    with connected("10.0.0.1:6379"):  # whoever runs that one knows what it asks for
        pass
    assert ray.seen[-1] == dict.fromkeys(NAMES)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "mine")
    with connected("local", 1):
        pass
    assert ray.seen[-1] == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": None, "RAY_AUTH_TOKEN_PATH": "mine"}


def test_a_version_that_cannot_ask_is_refused(ray: Any) -> None:
    ray.__version__ = "2.9.3"
    with pytest.raises(AvatarError, match=r"needs Ray 2\.52 or newer"), connected("local", 1):
        pass
    with connected("auto"):
        pass
    assert len(ray.seen) == 1
