"""What is behind the head: Gaussians of neck, clothes and hanging hair, trained with the field or taken from a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avatar.data.person import PersonInfo
from avatar.data.run import MODEL, PERSON, require_run
from avatar.errors import AvatarError
from avatar.fields.gaussians import REGIONS, Gaussians
from avatar.methods.base import RenderOutput, TrainCallback, TrainState
from avatar.methods.gaussian.config import DensifyConfig, GaussianConfig
from avatar.methods.gaussian.method import GaussianAvatar
from avatar.methods.model_file import read_model
from avatar.methods.nerf.head_shape import below_neck, neck_plane

if TYPE_CHECKING:
    from avatar.data import PersonDataset
    from avatar.methods.nerf.config import NerfConfig

DRAWN = "torso"  # name in `RenderOutput.aux` of what the Gaussians drew
_AVERTED = 0.25  # cosine between a surface's normal and the view
_SOLID = 1.5  # least logit of the opacity of the sides
_WHOLE = 1.6  # times as many are made: more than half of them are of the head, and go


def make_torso(data: PersonDataset, config: NerfConfig, seed: int) -> GaussianAvatar:
    """Make the Gaussians behind the head, or take those of a run.

    Raises:
        AvatarError: The run is of another method or person.
    """
    if config.torso is None:
        shape = GaussianConfig(
            initial_gaussians=round(_WHOLE * config.gaussians), max_gaussians=config.gaussians, levels=4, finest=64,
            log2_table=12, renderer=config.renderer, densify=DensifyConfig(refine_every=400),
        )  # fmt: skip
        whole = GaussianAvatar.from_person(data, shape, seed)
    else:
        whole = _of_run(config.torso, data, config)
    g, neck = whole.gaussians, neck_plane(data.shape)
    low = below_neck(whole.skinning.to_head(g.means.detach()), neck) > 0
    g.keep(((g.region >= REGIONS.index("neck")) | low | _averted(g)).nonzero()[:, 0])
    return whole


def _averted(gaussians: Gaussians) -> Tensor:
    """[N] whether Gaussians began on the sides and the back of the head, averted from the camera.

    The field learns nothing there. In canonical space the filming camera is the origin.
    """
    began = gaussians.anchor
    facing = -(gaussians.normal * began).sum(-1) / began.norm(dim=-1).clamp_min(1e-6)
    return (gaussians.region == REGIONS.index("hair")) & (facing < _AVERTED)


def _of_run(run: Path, data: PersonDataset, config: NerfConfig) -> GaussianAvatar:
    require_run(run)
    found = read_model(run / MODEL, config.renderer)
    if found.method != GaussianAvatar.name:
        raise AvatarError(f"--torso {run} is a run of the method {found.method}.", why="It must be gaussian.",
                          fix="Train one: avatar train PERSON --method gaussian --out RUN")  # fmt: skip
    person = PersonInfo.read(run / PERSON)
    if (found.checkpoint.width, found.checkpoint.height) != (data.width, data.height) or person != data.info:
        raise AvatarError(f"--torso {run} was trained on another person or size.",
                          fix="Train both on one PERSON folder.")  # fmt: skip
    return GaussianAvatar.from_checkpoint(found.checkpoint)


class KeepSides(TrainCallback):
    """Keeps the colors and the opacity that the sides of the head began with.

    From the front little of them shows, before a wall: they would take its color, or vanish, for a view from the front
    that is hardly better.
    """

    name = "sides"

    def __init__(self, torso: GaussianAvatar) -> None:
        self.torso = torso

    @torch.no_grad()
    def after_backward(self, out: RenderOutput) -> None:
        g = self.torso.gaussians
        side = _averted(g)[:, None]
        g.colors.copy_(torch.where(side, g.color_prior, g.colors))
        g.opacities.copy_(torch.where(side, g.opacities.clamp_min(_SOLID), g.opacities))


class TorsoCallback(TrainCallback):
    """A callback of the Gaussians, in steps in which they are trained."""

    def __init__(self, inner: TrainCallback) -> None:
        self.inner = inner
        self.name = inner.name

    def due(self, step: int, steps: int) -> bool:
        return self.inner.due(step, steps)

    def after_backward(self, out: RenderOutput) -> None:
        if DRAWN in out.aux:
            self.inner.after_backward(out.aux[DRAWN])

    def after_step(self, state: TrainState) -> None:
        self.inner.after_step(state)

    def state(self) -> dict[str, Tensor]:
        return self.inner.state()

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        self.inner.load_state(tensors)
