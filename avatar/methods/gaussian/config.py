"""Options of method ``gaussian``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro

from avatar.backends import EncodingName, RendererName, require
from avatar.checks import Record, number, whole
from avatar.errors import AvatarError
from avatar.methods.options import MethodConfig

if TYPE_CHECKING:
    from torch import Tensor

Attribute = Literal["means", "scales", "opacities", "colors"]
# Smallest and largest value of each whole number.
RANGES = {
    "initial_gaussians": (1, 10**7), "max_gaussians": (1, 10**7), "levels": (0, 32), "features": (1, 16),
    "coarsest": (1, 4096), "finest": (1, 4096), "log2_table": (1, 24), "embedding": (0, 1024), "hidden": (1, 1024),
}  # fmt: skip
# The same where a model is made: with fewer at the start, parts of the face would have none.
TRAINING = {"initial_gaussians": (150, 10**7)}


@dataclass(frozen=True, kw_only=True)
class LearningRates:
    """Learning rates per attribute, with gsplat's names."""

    means: float = 0.02
    """Centimetres per step; falls to 1 % of it by the end."""
    quats: float = 2e-3
    scales: float = 8e-3
    opacities: float = 3e-2
    colors: float = 4e-3
    skinning_weight: float = 2e-2
    embedding: float = 5e-3
    encoding: float = 5e-3
    network: float = 1e-3


@dataclass(frozen=True, kw_only=True)
class RegularizerConfig:
    """Weights of the regularizers."""

    deformation: float = 0.002
    """Weight of the squared size of the learned deformation."""
    color_prior: float = 1.0
    """Weight of the squared distance from initial colours. It decides only about what no training frame shows."""
    scale_reg: float = 0.05
    """Weight of the penalty on Gaussians of neck and clothes larger than `max_scale_cm`."""
    max_scale_cm: float = 0.6
    """Standard deviation, in centimetres, up to which `scale_reg` adds nothing."""
    surface: float = 0.02
    """Weight of the squared distance, square centimetres, of Gaussians from the place on a surface where they began."""
    surface_slack_cm: float = 0.1
    """Distance from the surface, in centimetres, up to which `surface` adds nothing. Along it there is more room."""
    thickness: float = 0.05
    """Weight of the squared excess of the Gaussians' thickness along the normal of their surface."""
    max_thickness_cm: float = 0.08
    """Standard deviation along the normal, in centimetres, up to which `thickness` adds nothing."""
    random_background: float = 0.3
    """Share of the steps before a random background color, so that the outline does not learn the real one's."""
    smoothness: float = 0.0
    """Weight of the squared difference between the deformations of neighbouring Gaussians."""


@dataclass(frozen=True, kw_only=True)
class DensifyConfig:
    """When and how strongly the set of Gaussians changes."""

    refine_start: float = 0.03
    """Share of the training after which densification starts."""
    refine_stop: float = 0.6
    """Share of the training after which the number of Gaussians stays."""
    refine_every: int = 100
    """Steps between two changes."""
    prune_opacity: float = 0.02
    """Gaussians with a lower opacity are pruned."""
    prune_scale_cm: float = 3.0
    """Gaussians with a larger standard deviation, in centimetres, are pruned."""


@dataclass(frozen=True, kw_only=True)
class GaussianConfig(MethodConfig):
    """Shape of the model."""

    initial_gaussians: int = 16_000
    """Gaussians at the start; densification grows them to max_gaussians."""
    max_gaussians: int = 30_000
    """Upper limit of the number of Gaussians."""
    levels: int = 8
    """Resolutions of the tri-plane; 0 leaves it out."""
    features: int = 2
    """Features per level and plane."""
    coarsest: int = 8
    """Cells across the scene at the coarsest level."""
    finest: int = 160
    """Cells across the scene at the finest level; coarse grids keep the deformation smooth."""
    log2_table: int = 15
    """Log2 of the entries per level and plane."""
    embedding: int = 0
    """Length of a learned embedding per Gaussian, an input of the deformation network beside the tri-plane."""
    deforms: tuple[Attribute, ...] = ("means", "scales", "opacities", "colors")
    """Attributes that the deformation network may change."""
    deform_torso: bool = False
    """Apply the deformation network to clothes as well; skinning and the torso's warp move them in any case."""
    hidden: int = 64
    """Width of the deformation network."""
    renderer: Annotated[RendererName, tyro.conf.arg(aliases=["--renderer"])] = "native"
    """Backend of projection and rasterization: gsplat computes the same image, on a CUDA GPU."""
    encoding: Annotated[EncodingName, tyro.conf.arg(aliases=["--encoding"])] = "native"
    """Backend of the tri-plane; a model keeps it, because tinycudann (on a CUDA GPU) stores other numbers."""
    lr: LearningRates = field(default_factory=LearningRates)
    loss: RegularizerConfig = field(default_factory=RegularizerConfig)
    densify: DensifyConfig = field(default_factory=DensifyConfig)

    def check(self) -> None:
        for name, ends in (RANGES | TRAINING).items():
            whole(getattr(self, name), f"--model.{name.replace('_', '-')}", *ends)
        if self.coarsest > self.finest:
            raise AvatarError(f"--model.coarsest {self.coarsest} is larger than --model.finest {self.finest}.",
                              fix="Give a smaller --model.coarsest.")  # fmt: skip
        if self.max_gaussians < self.initial_gaussians:  # which would only switch splitting off
            raise AvatarError(
                f"--model.max-gaussians {self.max_gaussians} is below --model.initial-gaussians, which is "
                f"{self.initial_gaussians}.", fix="Give a smaller --model.initial-gaussians as well.",
            )  # fmt: skip
        whole(self.densify.refine_every, "--model.densify.refine-every", 1, 10**7)
        number(self.loss.random_background, "--model.loss.random-background", 0, 1)

    def require(self) -> None:
        for backend in (self.renderer, self.encoding):
            require(backend)

    def shape(self) -> dict[str, Any]:
        """The options that a model file keeps: those of the shape, not those of the training."""
        values = asdict(self)
        return {f.name: values[f.name] for f in fields(self) if f.name not in ("lr", "loss", "densify")}


def read_config(about: Record, tensors: dict[str, Tensor], renderer: RendererName) -> GaussianConfig:
    """Read the options of a model file.

    Each must agree with the tensors, so that no number makes a model larger.

    Raises:
        AvatarError: A number is out of range, or the tensors have other sizes.
    """
    numbers: dict[str, Any] = {name: about.whole(name, *ends) for name, ends in RANGES.items()}
    config = GaussianConfig(
        **numbers,
        deforms=tuple(about.names("deforms")),  # pyright: ignore[reportArgumentType]
        deform_torso=about.flag("deform_torso"),
        encoding=about.text("encoding"),  # pyright: ignore[reportArgumentType]
        renderer=renderer,
    )
    if unknown := set(config.deforms) - set(get_args(Attribute)):
        raise AvatarError(f"{about.place('deforms')} names {min(unknown)!r}, which no model has.")
    if config.encoding not in get_args(EncodingName):
        raise AvatarError(f"{about.place('encoding')} is {config.encoding!r}, which is not known.")
    if config.coarsest > config.finest:
        raise AvatarError(f"{about.place('coarsest')} is larger than finest.")
    wanted: dict[str, tuple[int, ...]] = {"field.middle.weight": (config.hidden, config.hidden)}
    if config.embedding:
        means = tensors.get("gaussians.means")
        wanted["gaussians.embedding"] = (*(() if means is None else means.shape[:1]), config.embedding)
    if config.levels and config.encoding == "native":
        cells = config.finest if config.levels > 1 else config.coarsest
        entries = min(2**config.log2_table, (cells + 1) ** 2)
        wanted["field.encoding.table"] = (3, config.levels, entries, config.features)
    for name, shape in wanted.items():
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != shape:
            raise AvatarError(f"{about.where} asks for the tensor {name} of the shape {list(shape)}, "
                              f"and the file has {'none' if found is None else list(found)}.")  # fmt: skip
    return config
