"""Approximate a trained deformation field by a linear basis, which plays faster (see `avatar.fields.baked_basis`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from avatar.data.run import BAKED, MODEL
from avatar.errors import AvatarError
from avatar.fields.baked_basis import BakedField
from avatar.fields.deformation import attribute_widths
from avatar.io.arrays import check_tensors
from avatar.io.checkpoint import load_tensors, save_tensors
from avatar.paths import file_sha256

if TYPE_CHECKING:
    from avatar.methods.gaussian.model import GaussianModel
    from avatar.motion import Motion

FORMAT = "avatar-baked-1"
SAMPLES = 256  # frames of the training motion that the basis is fitted to


def bake(model: GaussianModel, motion: Motion, modes: int) -> BakedField:
    """Fit a basis to a trained model over the motion it was trained on, both on one device.

    Raises:
        AvatarError: ``modes`` is out of range.
    """
    if not 1 <= modes <= SAMPLES // 2:
        raise AvatarError(f"--modes {modes} is out of range.", fix=f"It goes from 1 to {SAMPLES // 2}.")
    frames = torch.linspace(0, len(motion) - 1, min(SAMPLES, len(motion))).long().tolist()
    with torch.no_grad():
        conditions = torch.stack([model.condition(motion, frame) for frame in frames])
        code = model.spatial_code()
        opacities = torch.sigmoid(model.gaussians.opacities)[: len(code), 0]
    return BakedField.fit(model.field, code, conditions, opacities, modes)


def save(baked: BakedField, run: Path) -> Path:
    """Write RUN/baked.safetensors; the modes as half floats, whose error is far below a grey level."""
    tensors = dict(baked.state_dict())
    tensors["modes"] = tensors["modes"].half()
    path = run / BAKED
    save_tensors(path, tensors, {"format": FORMAT, "model": file_sha256(run / MODEL)})
    return path


def load(run: Path, model: GaussianModel) -> BakedField:
    """Read RUN/baked.safetensors, the basis of the run's model.

    Raises:
        AvatarError: There is none, it is damaged, or the avatar was trained again since.
    """
    path = run / BAKED
    if not path.is_file():
        raise AvatarError(f"{run} is not baked.", fix=f"Bake it: avatar export {run} --format baked")
    tensors, meta = load_tensors(path)
    if meta.get("format") != FORMAT or meta.get("model") != file_sha256(run / MODEL):
        raise AvatarError(
            f"{path} was baked from another model.", why="The avatar was trained again since.",
            fix=f"Bake it: avatar export {run} --format baked",
        )  # fmt: skip
    g = model.gaussians
    count = len(g) if model.config.deform_torso else g.before_torso
    wide = sum(attribute_widths())
    shapes = {"mean": f"{count} {wide}", "modes": f"{count} {wide} M", "probes": "P", "reading": "M Q"}
    sizes = check_tensors(tensors, path, shapes, {"probes": count})
    if sizes["Q"] != sizes["P"] * wide:
        raise AvatarError(
            f"{path}: reading does not fit its probes.", fix=f"Bake it: avatar export {run} --format baked"
        )
    return BakedField(**{name: tensors[name].float() if name != "probes" else tensors[name].long() for name in shapes})
