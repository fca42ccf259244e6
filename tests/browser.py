"""A real browser for tests, where there is one: Node.js, Chromium, and packages in ``AVATAR_NODE_MODULES``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from avatar.errors import AvatarError
from pipelines.live_browser import Tools

MODULES = Path(os.environ.get("AVATAR_NODE_MODULES", "node_modules")).resolve()


def found_tools(*packages: str) -> Tools:
    """The programs that drive a browser; the test is skipped where they or a package are missing."""
    missing = [name for name in ("playwright-core", *packages) if not (MODULES / name).is_dir()]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found in {MODULES}; AVATAR_NODE_MODULES says where they are")
    try:
        return Tools(None, MODULES / "playwright-core")
    except AvatarError as error:
        pytest.skip(str(error))
