"""Model files: what rendering needs, and by which method they were written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from avatar.checks import Record, image_size
from avatar.errors import AvatarError
from avatar.io.arrays import check_tensors
from avatar.io.checkpoint import load_tensors, save_tensors
from avatar.methods.base import Checkpoint

if TYPE_CHECKING:
    from avatar.backends import RendererName
    from avatar.methods.base import Method

FORMAT = "avatar-model-7"


@dataclass(frozen=True)
class ModelFile:
    """A model file that was read.

    Attributes:
        method: Name of the method that wrote it.
        checkpoint: What `Method.from_checkpoint` takes.
        meta: What else the file says: ``method``, ``width``, ``height``, ``steps``.
    """

    method: str
    checkpoint: Checkpoint
    meta: dict[str, Any]


def save_model(path: Path, model: Method, width: int, height: int, steps: int) -> None:
    """Write a model file: what rendering needs, and by which method.

    Args:
        path: The file.
        model: The model.
        width, height: Size of the training frames, pixels.
        steps: Training steps that were done.
    """
    tensors, config = model.checkpoint()
    tensors = tensors | {"background": (model.background * 255).round().to(torch.uint8)}
    meta = {
        "format": FORMAT, "method": model.name, "config": config, "width": width, "height": height, "steps": steps,
    }  # fmt: skip
    save_tensors(path, tensors, meta)


def read_model(path: Path, renderer: RendererName = "native") -> ModelFile:
    """Read a model file, of whatever method.

    Args:
        path: The file.
        renderer: Backend that draws.

    Raises:
        AvatarError: The file is missing, damaged or of another version.
    """
    tensors, meta = load_tensors(path)
    if meta.get("format") != FORMAT:
        raise AvatarError(f"{path} was written by another version of the toolkit.", fix="Train it again.")
    about = Record(meta, path)
    name = about.text("method")
    sizes = check_tensors(tensors, path, {"background": "H W 3"}, {"background": 256})
    width, height = image_size(sizes["W"], sizes["H"], f"{path}: background")
    tensors["background"] = tensors["background"].float() / 255
    checkpoint = Checkpoint(path, tensors, about.record("config"), width, height, renderer)
    return ModelFile(name, checkpoint, meta | {"width": width, "height": height})
