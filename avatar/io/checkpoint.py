"""Model files: safetensors for numbers, JSON in its metadata for everything else. Never pickle."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save, save_file
from torch import Tensor

from avatar.checks import parse_json, reading
from avatar.errors import AvatarError
from avatar.io.arrays import check_numbers
from avatar.writing import atomic_file

_LARGEST = 1e30  # of any number: those who know what a tensor is for allow less
_FIX = "Delete it and run the command that made it."


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write tensors, of any device, and a JSON-able ``metadata`` dictionary, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_safetensors(path, contiguous, {"json": json.dumps(metadata)})


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write contiguous tensors of the CPU, atomically.

    Raises:
        AvatarError: The disk is full, or the folder cannot be written.
    """
    with atomic_file(Path(path)) as temporary:
        try:
            save_file(tensors, str(temporary), metadata)
        except SafetensorError:
            temporary.write_bytes(save(tensors, metadata))  # takes memory, and its error says why


def load_tensors(
    path: Path, only: Collection[str] | None = None, *, finite: bool = True
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote, or those of its tensors that are named in ``only``.

    Raises:
        AvatarError: The file is missing or damaged; or, where they must be ``finite``, holds numbers that are not.
    """
    tensors, metadata = read_safetensors(path, "a file of tensors", only, finite=finite)
    data = parse_json(metadata.get("json", ""), path, _FIX)
    if not isinstance(data, dict):
        raise AvatarError(f"{path}: its metadata is no JSON object.", fix=_FIX)
    return tensors, data


def read_safetensors(
    path: Path, kind: str, only: Collection[str] | None = None, *, finite: bool = True
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file. Its tensors are no larger than the file, whatever its header says.

    Args:
        path: The file.
        kind: What it should be, with its article.
        only: Names of tensors; by default all.
        finite: Whether all numbers must be finite.

    Returns:
        Tensors by name, and the metadata.

    Raises:
        AvatarError: The file is missing or damaged, or holds numbers that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise AvatarError(f"{path} does not exist." if not path.exists() else f"{path} is not a file.")
    with reading(path, kind, _FIX), safe_open(str(path), "pt") as file:
        names = [name for name in list(file.keys()) if only is None or name in only]
        tensors = {name: file.get_tensor(name) for name in names}
        metadata = file.metadata() or {}
    for name, tensor in tensors.items():
        if finite and (tensor.is_floating_point() or tensor.is_complex()):
            check_numbers(tensor, f"{path}: {name}", most=_LARGEST)
    return tensors, metadata
