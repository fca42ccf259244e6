"""Training options and the three quality presets."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from avatar.backends import EncodingName, RendererName
from avatar.checks import whole
from avatar.device import DeviceName
from avatar.errors import AvatarError
from avatar.methods.gaussian.densify import DensityConfig
from avatar.methods.gaussian.model import RANGES, GaussianConfig

MOST_STEPS = 10_000_000
Quality = Literal["draft", "standard", "high"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights of the training loss."""

    ssim: float = 0.2
    """Share of the structural term (1 - SSIM); L1 has the rest."""
    mouth: float = 6.0
    """Extra weight of L1 inside the mouth region."""
    eyes: float = 2.0
    """Extra weight of L1 around the eyes."""
    face: float = 1.0
    """Extra weight of L1 on the rest of the face."""
    alpha: float = 0.05
    """Coverage against the person mask."""
    deformation: float = 0.002
    """Size of the learned deformation."""
    paint: float = 1.0
    """Colours against what they were painted with: nothing for what is seen, all for what only free view shows."""
    size: float = 0.05
    """Pull of Gaussians of neck and clothes larger than `largest` towards that size: only what hardly any view shows
    gives way, and does not come through the collar when the head moves as it never did before."""
    largest: float = 0.6
    """Standard deviation, centimetres."""
    smooth: float = 0.0
    """How differently neighbouring Gaussians are moved by the deformation network."""
    lpips: float = 0.05
    """Perceptual loss on face crops, late in training; needs the LPIPS asset."""
    lpips_start: float = 0.5
    """Share of the training after which the perceptual loss begins."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Learning rates (per attribute, gsplat's names) and their decay."""

    means: float = 0.02
    """Centimetres per step; falls to 1 % of it by the end."""
    quats: float = 2e-3
    scales: float = 8e-3
    opacities: float = 3e-2
    colors: float = 4e-3
    rig: float = 2e-2
    embedding: float = 5e-3
    encoding: float = 5e-3
    network: float = 1e-3
    final: float = 0.05
    """Learning rates end at this share of their start."""
    poses: float = 0.5
    """Usual step of a correction of the head pose, in milliradians and tenths of a millimetre."""
    poses_start: float = 0.2
    """Share of the training after which poses are corrected."""
    condition_noise: float = 0.15
    """Noise on the motion condition, in units of its spread."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What a quality preset sets."""

    steps: int = 10_000
    """Optimisation steps."""
    half_until: float = 0.15
    """Share of the steps that are trained at half resolution."""
    align_passes: int = 4
    """How often each held-out frame is looked at to correct its head pose, after training."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Train an avatar."""

    person: Annotated[Path, tyro.conf.Positional]
    """PERSON folder, from `avatar prepare`."""
    out: Path
    """RUN folder to write."""
    quality: Quality = "standard"
    """One dial: time against fidelity."""
    steps: int | None = None
    """Optimisation steps, instead of the preset's."""
    resume: bool = False
    """Go on from the last checkpoint in the RUN folder."""
    overwrite: bool = False
    """Replace what the RUN folder holds."""
    seed: int = 0
    """Every random choice follows from it."""
    threads: int | None = None
    """CPU threads; all cores by default, or as OMP_NUM_THREADS says."""
    renderer: RendererName | None = None
    """What draws the Gaussians; short for --model.renderer."""
    encoding: EncodingName | None = None
    """What encodes positions; short for --model.encoding."""
    device: DeviceName = "auto"
    """Where to train: auto takes a GPU where there is one and the CUDA library is built."""
    prior: Path | None = None
    """Audio-to-motion prior to adapt to the person, from `avatar prior train`; default: the one that is shipped."""
    preview_every: int = 500
    """Steps between preview pictures."""
    save_every: int = 1000
    """Steps between checkpoints."""
    print_config: bool = False
    """Print the whole configuration and stop."""
    model: GaussianConfig = field(default_factory=GaussianConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    density: DensityConfig = field(default_factory=DensityConfig)
    schedule: Schedule = field(default_factory=Schedule)


def with_preset(config: TrainConfig) -> TrainConfig:
    """``config`` with the preset of its quality filled in wherever the user left the default."""
    from avatar.methods.gaussian.presets import PRESETS

    preset = PRESETS[config.quality]()
    parts = {
        name: replace(getattr(preset, name), **_chosen(getattr(config, name)))
        for name in ("model", "loss", "optim", "density", "schedule")
    }
    short = {name: value for name in ("renderer", "encoding") if (value := getattr(config, name)) is not None}
    parts["model"] = replace(parts["model"], **short)
    config = replace(config, **parts)
    if config.steps is not None:
        config = replace(config, schedule=replace(config.schedule, steps=config.steps))
    return config


def check(config: TrainConfig) -> None:
    """Refuse numbers out of range before anything slow happens.

    Raises:
        AvatarError: One is.
    """
    numbers = {
        "steps": (config.steps, 1), "threads": (config.threads, 1), "preview-every": (config.preview_every, 1),
        "save-every": (config.save_every, 1), "schedule.steps": (config.schedule.steps, 1), "seed": (config.seed, 0),
    }  # fmt: skip
    for name, (value, least) in numbers.items():
        if value is not None and value < least:
            raise AvatarError(f"--{name} {value} is out of range.", fix=f"It must be at least {least}.")
    for name, ends in RANGES.items():
        whole(getattr(config.model, name), f"--model.{name.replace('_', '-')}", *ends)
    whole(config.schedule.steps, "--schedule.steps", 1, MOST_STEPS)


def _chosen(part: Any) -> dict[str, Any]:
    """The options of a part of the configuration that are not at their defaults."""
    default = type(part)()
    return {f.name: value for f in fields(part) if (value := getattr(part, f.name)) != getattr(default, f.name)}
