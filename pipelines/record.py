"""Print what a pipeline measured, and keep it as a record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from avatar.environment import environment
from avatar.paths import write_json


def keep(found: dict[str, Any], path: Path | None) -> None:
    """Print numbers by name, and write them to a JSON file with hardware and commit; None: print them only."""
    for name, value in found.items():
        print(f"{name}: {value}")
    if path is not None:
        write_json(path, environment() | found)
