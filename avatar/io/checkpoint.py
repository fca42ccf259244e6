"""Model files: safetensors for numbers, JSON in its metadata for everything else. Never pickle."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from avatar.errors import AvatarError
from avatar.paths import atomic_file


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors, of any device, and a JSON-able ``metadata`` dictionary, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_file(Path(path)) as temporary:
        save_file(contiguous, str(temporary), {"json": json.dumps(metadata)})


def load_tensors(path: Path, only: Collection[str] | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote, or those of its tensors that are named in ``only``.

    Raises:
        AvatarError: The file is missing or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise AvatarError(f"{path} does not exist.")
    try:
        with safe_open(str(path), "pt") as file:
            names = [name for name in list(file.keys()) if only is None or name in only]
            return {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()["json"])
    except Exception as error:  # safetensors raises its own, unexported class
        raise AvatarError(
            f"{path} cannot be read:", str(error), "Delete it and run the command that made it."
        ) from None
