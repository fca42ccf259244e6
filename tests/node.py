"""Scripts that run in Node.js and tell what they found in JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def told(*arguments: str | Path, given: str | None = None) -> Any:
    """What a script prints that is given a text; skips the test where there is no Node.js."""
    if (node := shutil.which("node")) is None:
        pytest.skip("there is no node")
    done = subprocess.run([node, *arguments], input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
