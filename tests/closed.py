"""Folders that may not be looked into, for tests that run as root as well."""

from __future__ import annotations

import os
from typing import Any

import pytest


def close_folder(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let folders whose path ends in ``name`` refuse to be listed."""
    original = os.scandir

    def scandir(folder: Any) -> Any:
        if str(folder).endswith(name):
            raise PermissionError(13, "Permission denied", str(folder))
        return original(folder)

    monkeypatch.setattr(os, "scandir", scandir)
