"""Write a trained avatar's deformation as a linear basis, which plays back faster (see `avatar.fields.baked_basis`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from avatar.errors import AvatarError
from avatar.paths import file_sha256

if TYPE_CHECKING:
    from avatar.fields.baked_basis import BakedField
    from avatar.methods.gaussian.model import GaussianAvatar
    from avatar.motion import Motion

FILE = "baked.safetensors"
FORMAT = "avatar-baked-1"
SAMPLES = 256  # frames of the training motion that the basis is made from
CHECKED = 24  # frames between those, that it is measured on


def bake(model: GaussianAvatar, motion: Motion, modes: int) -> BakedField:
    """The basis of a trained model over the motion it was trained on, both on one device."""
    import torch

    from avatar.fields.baked_basis import BakedField

    frames = torch.linspace(0, len(motion) - 1, min(SAMPLES, len(motion))).long().tolist()
    with torch.no_grad():
        conditions = torch.stack([model.condition(motion, frame) for frame in frames])
        code = model.spatial_code()
        opacities = torch.sigmoid(model.gaussians.opacities)[: len(code), 0]
    return BakedField.fit(model.field, code, conditions, opacities, modes)


def _agreement(avatar, baked: BakedField, motion: Motion, frame: int) -> float:
    """PSNR in dB between the pictures of the trained and the baked field."""
    avatar.model.baked = None
    exact = avatar.render(avatar.camera, motion, frame).float()
    avatar.model.baked = baked
    error = (avatar.render(avatar.camera, motion, frame).float() - exact).square().mean()
    return float(10 * (255**2 / error.clamp_min(1e-3)).log10())


def save(baked: BakedField, run: Path) -> Path:
    """Write RUN/baked.safetensors; the modes as half floats, whose error is far below a grey level."""
    from avatar.io.checkpoint import save_tensors

    tensors = dict(baked.state_dict())
    tensors["modes"] = tensors["modes"].half()
    path = run / FILE
    save_tensors(path, tensors, {"format": FORMAT, "model": file_sha256(run / "model.safetensors")})
    return path


def load(run: Path, model: GaussianAvatar) -> BakedField:
    """Read RUN/baked.safetensors, the basis of the run's model.

    Raises:
        AvatarError: There is none, it is damaged, or the avatar was trained again since.
    """
    from avatar.fields.baked_basis import BakedField
    from avatar.fields.deformation import attribute_widths
    from avatar.io.arrays import check_tensors
    from avatar.io.checkpoint import load_tensors

    path = run / FILE
    if not path.is_file():
        raise AvatarError(f"{run} is not baked.", fix=f"Bake it: avatar export {run} --format baked")
    tensors, meta = load_tensors(path)
    if meta.get("format") != FORMAT or meta.get("model") != file_sha256(run / "model.safetensors"):
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
        raise AvatarError(f"{path}: reading does not fit its probes.", fix=f"Bake it: avatar export {run} --format baked")
    return BakedField(**{name: tensors[name].float() if name != "probes" else tensors[name].long() for name in shapes})
