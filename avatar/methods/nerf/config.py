"""Options of method ``nerf``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import tyro

from avatar.backends import EncodingName, MarcherName, RendererName, require
from avatar.checks import Record, number, whole
from avatar.errors import AvatarError
from avatar.methods.options import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

# Smallest and largest value of each whole number.
RANGES = {
    "hidden": (8, 256), "geometry": (1, 255), "levels": (1, 32), "features": (1, 16), "coarsest": (1, 4096),
    "finest": (1, 4096), "log2_table": (1, 24), "max_samples": (1, 1024),
}  # fmt: skip
TRAINING = {"samples": (256, 2**22), "gaussians": (100, 10**6), "patch": (16, 512)}
STEP_CM = (0.02, 2.0)
_ANEW = "The file is damaged or of another version. Train the avatar again."
MOST_INPUTS = 1024  # features of a point that the network takes


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Learning rates of the field; those of the Gaussians behind it are that method's own."""

    encoding: float = 2e-2
    network: float = 8e-3


@dataclass(frozen=True, kw_only=True)
class RegularizerConfig:
    """Weights of the regularizers."""

    entropy: float = 1e-3
    """Weight of the entropy of the head's opacity: a pixel shows it or does not, which leaves no haze."""
    distortion: float = 5e-3
    """Weight of the variance of the samples' depth along a ray, square centimetres: one thin surface, and no haze."""
    hidden: float = 0.005
    """Weight of what lies behind a surface: it takes the color of what hides it, and is solid. Summed over a ray."""
    head: float = 0.05
    """Weight of the head's opacity's difference from the mask of face and hair."""
    random_background: float = 0.3
    """Share of the rays with a random background color, which haze would not match."""


@dataclass(frozen=True, kw_only=True)
class NerfConfig(MethodConfig):
    """Shape and sampling of the field, and what is behind it."""

    hidden: int = 64
    """Width of the networks of density and color."""
    geometry: int = 31
    """Features that the density network hands to the color network."""
    levels: int = 6
    """Resolutions of the tri-plane."""
    features: int = 2
    """Features per level and plane."""
    coarsest: int = 16
    """Cells across the head at the coarsest level."""
    finest: int = 512
    """Cells across the head at the finest level."""
    log2_table: int = 14
    """Log2 of the entries per level and plane."""
    step_cm: float = 0.15
    """Distance of two samples on a ray, in centimetres."""
    max_samples: int = 32
    """Most samples of a ray."""
    samples: int = 32_768
    """Samples of a training step, about; the number of rays follows from it."""
    patch: int = 48
    """Side of the square image parts trained on, pixels, for a frame 256 wide; it grows with the frame."""
    gaussians: int = 8_400
    """Gaussians of all that the field is not: ears, sides and back of the head, neck, clothes, hanging hair; about."""
    torso: Annotated[Path | None, tyro.conf.arg(aliases=["--torso"])] = None
    """RUN folder of the method gaussian whose neck and clothes to take; default: train them with the head."""
    marcher: Annotated[MarcherName, tyro.conf.arg(aliases=["--marcher"])] = "native"
    """Backend of volume rendering: nerfacc computes the same image, on a CUDA GPU."""
    encoding: Annotated[EncodingName, tyro.conf.arg(aliases=["--encoding"])] = "native"
    """Backend of the tri-plane; a model keeps it, because tinycudann (on a CUDA GPU) stores other numbers."""
    renderer: Annotated[RendererName, tyro.conf.arg(aliases=["--renderer"])] = "native"
    """Backend that draws the Gaussians behind the head."""
    lr: LearningRates = field(default_factory=LearningRates)
    loss: RegularizerConfig = field(default_factory=RegularizerConfig)

    def check(self) -> None:
        for name, ends in (RANGES | TRAINING).items():
            whole(getattr(self, name), _option(name), *ends)
        if self.coarsest > self.finest:
            raise AvatarError(f"--model.coarsest {self.coarsest} is larger than --model.finest {self.finest}.",
                              fix="Give a smaller --model.coarsest.")  # fmt: skip
        number(self.step_cm, _option("step_cm"), *STEP_CM)
        if (inputs := 3 * self.levels * self.features) > MOST_INPUTS:
            raise AvatarError(
                f"--model.levels {self.levels} and --model.features {self.features} give a point {inputs} features.",
                why=f"The network takes {MOST_INPUTS} at most: 3 times levels times features.",
                fix="Give fewer of either.",
            )
        for part in ("loss", "lr"):
            for name, value in asdict(getattr(self, part)).items():
                most = 1.0 if name == "random_background" else 1e3
                number(value, f"{_option(part)}.{name.replace('_', '-')}", 0, most)

    def require(self) -> None:
        for backend in (self.marcher, self.encoding, self.renderer):
            require(backend)

    def shape(self) -> dict[str, Any]:
        """The options that a model file keeps: those of the shape, not those of the training."""
        values = asdict(self)
        beside = {"lr", "loss", "torso", "marcher", "renderer", *TRAINING}
        return {f.name: values[f.name] for f in fields(self) if f.name not in beside}


def read_config(about: Record, tensors: dict[str, Tensor], renderer: RendererName) -> NerfConfig:
    """Read the options of a model file.

    Each must agree with the tensors, so that no number makes a model larger.

    Raises:
        AvatarError: A number is out of range, or the tensors have other sizes.
    """
    numbers: dict[str, Any] = {name: about.whole(name, *ends) for name, ends in RANGES.items()}
    config = NerfConfig(
        **numbers,
        step_cm=about.number("step_cm", *STEP_CM),
        encoding=about.text("encoding"),  # pyright: ignore[reportArgumentType]
        renderer=renderer,
    )
    if config.encoding not in get_args(EncodingName):
        raise AvatarError(f"{about.place('encoding')} is {config.encoding!r}, which is not known.", fix=_ANEW)
    if config.coarsest > config.finest:
        raise AvatarError(f"{about.place('coarsest')} is larger than finest.", fix=_ANEW)
    wanted: dict[str, tuple[int, ...]] = {
        "field.base.weight": (config.hidden, 3 * config.levels * config.features),
        "field.density.weight": (1 + config.geometry, config.hidden),
    }
    if config.encoding == "native":
        cells = config.finest if config.levels > 1 else config.coarsest
        entries = min(2**config.log2_table, (cells + 1) ** 2)
        wanted["field.encoding.table"] = (3, config.levels, entries, config.features)
    for name, shape in wanted.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shape:
            raise AvatarError(f"{about.where} asks for the tensor {name} of the shape {list(shape)}, "
                              f"and the file has {'none' if found is None else list(found)}.", fix=_ANEW)  # fmt: skip
    return config


def _option(name: str) -> str:
    return f"--model.{name.replace('_', '-')}"
