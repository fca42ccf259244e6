"""The file of a prepared recording: what the mouth did, and the features of what was said."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from avatar.checks import MOST_FRAMES, Record
from avatar.corpus.mouth import Mouth
from avatar.errors import AvatarError
from avatar.io.arrays import check_numbers, check_shape, check_tensors
from avatar.io.checkpoint import load_tensors, save_tensors
from avatar.motion.mouth import ARTICULATION
from avatar.sync.judge import REACH

_MOUTH = ("values", "seen", "curve")


def write_prepared(
    path: Path, mouth: Mouth, features: np.ndarray, more: Mapping[str, np.ndarray] | None = None, **about: Any
) -> None:
    """Write a prepared recording.

    Args:
        path: The file.
        mouth: What the mouth did.
        features: [mouth.rows, F] of its audio.
        more: Further arrays by name.
        about: Further metadata.

    Raises:
        AvatarError: The disk is full or cannot be written.
    """
    arrays = {name: array for name in _MOUTH if (array := getattr(mouth, name)) is not None}
    arrays |= {"features": features, **(more or {})}
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    save_tensors(path, tensors, {"fps": mouth.fps, "rows": mouth.rows, **about})


def read_mouth(path: Path) -> Mouth:
    """Read the mouth of a prepared recording.

    Raises:
        AvatarError: The file is missing or damaged.
    """
    tensors, metadata = load_tensors(path, _MOUTH, finite=False)
    about, sizes = Record(metadata, path), {}
    for name, shape in {"values": f"T {len(ARTICULATION)}", "seen": "T"}.items():
        if name not in tensors:
            raise AvatarError(f"{path} lacks the tensor {name}.", fix="Delete it: it is made again.")
        check_shape(tensors[name], f"{path}: {name}", shape, sizes)
    check_numbers(tensors["seen"], f"{path}: seen", "bool")
    if "curve" in tensors:
        check_tensors(tensors, path, {"curve": f"{2 * REACH + 1}"})
    rows = about.whole("rows", 0, MOST_FRAMES)
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    return Mouth(**arrays, fps=about.frame_rate(), rows=rows)


def read_features(path: Path) -> np.ndarray:
    """Read the features [R, F] of a prepared recording.

    Raises:
        AvatarError: The file is missing or damaged.
    """
    tensors = load_tensors(path, ("features",))[0]
    check_tensors(tensors, path, {"features": "R F"})
    return tensors["features"].numpy()
