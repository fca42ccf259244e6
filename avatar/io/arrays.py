"""Checks of arrays and tensors that come from files, and reading and writing NumPy files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from avatar.checks import Where, reading
from avatar.errors import AvatarError

LARGEST = 1e9  # of any number in a file: far beyond all that has a meaning, and its products are still finite
Kind = Literal["float", "int", "bool"]


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a NumPy file.

    Raises:
        OSError: The disk is full, say. NumPy's own way to disk has errors that do not say why.
    """
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    path.write_bytes(buffer.getbuffer())


def check_shape(array: np.ndarray | Tensor, where: Where, shape: str, sizes: dict[str, int] | None = None) -> None:
    """Compare the shape of an array with what it should be.

    Args:
        array: The array.
        where: What an error names.
        shape: Sizes in order, with spaces: "T 478 3". Numbers must be just that. A letter is a size that is taken from
            the first array that has it, and must be the same in all others. "" is a single number.
        sizes: The letters that are known; those that are new are added.

    Raises:
        AvatarError: It is another shape.
    """
    sizes = {} if sizes is None else sizes
    found, names = tuple(array.shape), shape.split()
    fits = len(found) == len(names) and all(
        size == (int(name) if name.isdecimal() else sizes.setdefault(name, size))
        for size, name in zip(found, names, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(sizes.get(name, name)) for name in names)
        raise AvatarError(f"{where} has the shape {list(found)}, expected [{wanted}].")


def check_numbers(array: np.ndarray | Tensor, where: Where, kind: Kind = "float", most: float = LARGEST) -> None:
    """Check the type of an array, and that its numbers are finite and at most ``most``, either sign.

    Raises:
        AvatarError: They are not.
    """
    tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) and array.dtype.kind in "fiub" else array
    if not isinstance(tensor, Tensor) or _kind(tensor) != kind:
        raise AvatarError(f"{where} has the type {str(array.dtype).removeprefix('torch.')}, expected {kind}.")
    if kind == "bool" or tensor.numel() == 0:
        return
    low, high = (float(v) for v in tensor.detach().aminmax())
    if not (-most <= low and high <= most):  # false for NaN
        finite = -np.inf < low and high < np.inf
        worst = low if -low > high else high
        found = f"{worst:g}, beyond the largest that can be, {most:g}" if finite else "NaN or infinite numbers"
        raise AvatarError(f"{where} holds {found}.", fix="Make the file anew with the command that wrote it.")


def check_tensors(
    tensors: Mapping[str, Tensor], path: Where, shapes: Mapping[str, str], ints: Mapping[str, int] | None = None
) -> dict[str, int]:
    """Check tensors of a file by name.

    Args:
        tensors: By name; others do no harm.
        path: The file.
        shapes: Of all that are needed, as :func:`check_shape` takes them.
        ints: Those that hold whole numbers: 0 up to this, excluded; all others are floating point.

    Returns:
        The sizes of the letters.

    Raises:
        AvatarError: One is missing, of another shape or type, or holds what no such tensor can.
    """
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        if name not in tensors:
            raise AvatarError(f"{path} lacks the tensor {name}.")
        where = f"{path}: {name}"
        check_shape(tensors[name], where, shape, sizes)
        if ints is None or name not in ints:
            check_numbers(tensors[name], where)
        else:
            check_range(tensors[name], where, ints[name])
    return sizes


def check_range(tensor: Tensor, where: Where, end: int) -> None:
    """Check that a tensor holds whole numbers from 0 up to ``end``, excluded.

    Raises:
        AvatarError: It does not.
    """
    check_numbers(tensor, where, "int", 2.0**62)
    if tensor.numel() and not (int(tensor.min()) >= 0 and int(tensor.max()) < end):
        raise AvatarError(f"{where} goes from {int(tensor.min())} to {int(tensor.max())}, not from 0 to {end - 1}.")


def load_state(module: torch.nn.Module, tensors: Mapping[str, Tensor], where: Where) -> None:
    """Load a network's state, its names, shapes and types checked.

    Args:
        module: The network, of the right shapes.
        tensors: By name, all of them and no others.
        where: What an error names.

    Raises:
        AvatarError: Something is missing, too much, of another shape or type, or not finite.
    """
    state = module.state_dict()
    for name in sorted(set(state) ^ set(tensors)):
        raise AvatarError(f"{where} {'lacks' if name in state else 'holds an unknown'} tensor {name}.")
    for name, wanted in state.items():
        place = f"{where}: {name}"
        check_shape(tensors[name], place, " ".join(map(str, wanted.shape)))
        check_numbers(tensors[name], place, _kind(wanted) or "float")
    module.load_state_dict(dict(tensors))


def load_array(
    path: Path, shape: str, kind: Kind = "float", *, finite: bool = True, mapped: bool = False
) -> np.ndarray:
    """A NumPy file.

    Args:
        path: The .npy file.
        shape: As :func:`check_shape` takes it.
        kind: Of its numbers.
        finite: Whether they must be; a face that was not found is NaN.
        mapped: Map the file into memory instead of reading it.

    Raises:
        AvatarError: It is missing, damaged, of another shape or type, or holds what is not finite.
    """
    fix = "Run the command again that made it."
    with reading(path, "an array", fix):
        array = np.load(path, mmap_mode="c", allow_pickle=False)  # an array larger than its file is refused
    if not isinstance(array, np.ndarray):
        raise AvatarError(f"{path} is not one array.", fix=fix)
    check_shape(array, path, shape)
    if not array.dtype.isnative or (array.dtype.kind != {"float": "f", "int": "i", "bool": "b"}[kind]):
        raise AvatarError(f"{path} has the type {array.dtype}, expected {kind}.", fix=fix)
    if finite and array.size:
        check_numbers(np.asarray(array), path, kind)
    return array if mapped else np.array(array)


def _kind(tensor: Tensor) -> Kind | None:
    if tensor.dtype == torch.bool:
        return "bool"
    if tensor.dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        return "float"
    return "int" if tensor.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64) else None
