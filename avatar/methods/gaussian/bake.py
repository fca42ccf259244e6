"""Write a trained avatar's deformation as a linear basis, which plays back faster (see `avatar.fields.baked_basis`)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from avatar import log
from avatar.device import DeviceName
from avatar.errors import AvatarError
from avatar.paths import file_sha256
from avatar.writing import one_writer

if TYPE_CHECKING:
    from avatar.fields.baked_basis import BakedField
    from avatar.methods.gaussian.model import GaussianAvatar
    from avatar.motion import Motion

FILE = "baked.safetensors"
FORMAT = "avatar-baked-1"
SAMPLES = 256  # frames of the training motion that the basis is made from
CHECKED = 24  # frames between those, that it is measured on


@dataclass(frozen=True, kw_only=True)
class Config:
    """Bake an avatar for fast playback: `avatar render RUN --baked`."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder of `avatar create` or `avatar train`."""
    modes: int = 16
    """Dimensions of the basis; more follow the trained field more closely, fewer are faster."""
    device: DeviceName = "auto"
    """Where to compute: auto takes a GPU where there is one and the CUDA library is built."""


def main(config: Config) -> None:
    """Write RUN/baked.safetensors and say how close it is to the trained field.

    Raises:
        AvatarError: ``--modes`` is out of range, RUN is not an avatar, or another process writes to it.
    """
    if not 1 <= config.modes <= SAMPLES // 2:
        raise AvatarError(f"--modes {config.modes} is out of range.", fix=f"It goes from 1 to {SAMPLES // 2}.")
    if not config.run.is_dir():
        raise AvatarError(
            f"There is no run folder {config.run}.", fix=f"Make one: avatar create VIDEO --out {config.run}"
        )
    with one_writer(config.run):  # what is baked must not be trained meanwhile
        bake_run(config)
    log.next_command(f"avatar render {config.run} --baked --audio SPEECH.wav")


def bake_run(config: Config) -> None:
    """Bake a RUN folder that nobody else writes to."""
    import torch

    from avatar.infer.avatar import Avatar
    from avatar.motion import Motion

    avatar = Avatar.load(config.run, device=config.device, precision="float32")
    motion = Motion.load(config.run / "motion.safetensors").to(avatar.device)
    log.info(f"baking {avatar.info['gaussians']} Gaussians")
    began = time.perf_counter()
    baked = bake(avatar.model, motion, config.modes)
    path = save(baked, config.run)
    check = torch.linspace(0, len(motion) - 1, 2 * CHECKED + 1)[1::2].long().tolist()
    psnr = [_agreement(avatar, baked, motion, frame) for frame in check]
    log.info(
        f"{path}: {config.modes} modes, {path.stat().st_size / 2**20:.1f} MB, in {time.perf_counter() - began:.0f} s. "
        f"PSNR to the trained field's pictures: {sum(psnr) / len(psnr):.1f} dB, {min(psnr):.1f} at worst."
    )


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
        raise AvatarError(f"{run} is not baked.", fix=f"Bake it: avatar bake {run}")
    tensors, meta = load_tensors(path)
    if meta.get("format") != FORMAT or meta.get("model") != file_sha256(run / "model.safetensors"):
        raise AvatarError(
            f"{path} was baked from another model.", why="The avatar was trained again since.",
            fix=f"Bake it: avatar bake {run}",
        )  # fmt: skip
    g = model.gaussians
    count = len(g) if model.config.deform_torso else g.before_torso
    wide = sum(attribute_widths())
    shapes = {"mean": f"{count} {wide}", "modes": f"{count} {wide} M", "probes": "P", "reading": "M Q"}
    sizes = check_tensors(tensors, path, shapes, {"probes": count})
    if sizes["Q"] != sizes["P"] * wide:
        raise AvatarError(f"{path}: reading does not fit its probes.", fix=f"Bake it: avatar bake {run}")
    return BakedField(**{name: tensors[name].float() if name != "probes" else tensors[name].long() for name in shapes})
