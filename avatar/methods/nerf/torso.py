"""What is around the field: Gaussians of ears, sides and back of the head, of hanging hair, neck and clothes.

They are trained with the field or taken from a run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from avatar.data.person import PersonInfo
from avatar.data.run import MODEL, PERSON, RunInfo, require_run
from avatar.errors import AvatarError
from avatar.fields.gaussians import REGIONS
from avatar.methods.base import RenderOutput, TrainCallback, TrainState
from avatar.methods.gaussian.config import DensifyConfig, GaussianConfig
from avatar.methods.gaussian.method import GaussianAvatar
from avatar.methods.model_file import read_model
from avatar.methods.nerf.head_shape import HeadShape, below_neck

if TYPE_CHECKING:
    from avatar.backends import RendererName
    from avatar.data import PersonDataset
    from avatar.methods.base import Checkpoint
    from avatar.methods.nerf.config import NerfConfig

_BEGUN = 8000  # Gaussians of a person whose normals those of a run take over
DRAWN = "torso"  # name in `RenderOutput.aux` of what the Gaussians drew
_UNDER = (
    3.0  # centimetres that Gaussians go on under the field: what makes the half-transparent skin of the sides solid
)
_WHOLE = 1.6  # times as many are made: more than half of them are of the head, and go


def make_torso(data: PersonDataset, config: NerfConfig, seed: int) -> GaussianAvatar:
    """Make the Gaussians of a whole person, or take those of a run; `leave_to_field` takes the face out.

    Raises:
        AvatarError: The run is of another method or person.
    """
    densify = DensifyConfig(refine_every=400)
    if config.torso is None:
        shape = GaussianConfig(
            initial_gaussians=round(_WHOLE * config.gaussians), max_gaussians=config.gaussians, levels=4, finest=64,
            log2_table=12, renderer=config.renderer, densify=densify,
        )  # fmt: skip
        return GaussianAvatar.from_person(data, shape, seed)
    whole = GaussianAvatar.from_checkpoint(read_torso(config.torso, data, config.renderer))
    whole.config = replace(whole.config, max_gaussians=config.gaussians, densify=densify)
    # A model file lacks what only training needs: where they belong, and in which colour. Both are as they were left.
    g = whole.gaussians
    g.anchor, g.color_prior = g.means.detach().clone(), g.colors.detach().clone()
    # It lacks normals as well; the surface that Gaussians begin on has not moved.
    begun = GaussianAvatar.from_person(data, replace(whole.config, initial_gaussians=_BEGUN), seed).gaussians
    g.normal = begun.normal[_nearest(g.means.detach(), begun.means.detach())]
    return whole


def _nearest(points: Tensor, among: Tensor) -> Tensor:
    """Indices [N] of the nearest of points [M, 3] to points [N, 3]."""
    from scipy.spatial import KDTree

    return torch.from_numpy(KDTree(among.numpy()).query(points.numpy())[1])


def leave_to_field(torso: GaussianAvatar, head: HeadShape) -> None:
    """Keep Gaussians of neck, clothes and hanging hair, and those of ears, sides and back of the head.

    The last go on a little under the field, so that no gap opens where it ends.
    """
    from scipy.spatial import KDTree

    g = torso.gaussians
    places = torso.skinning.to_head(g.means.detach())
    away, _ = KDTree(head.sides.numpy()).query(places.numpy())
    outer = (g.region == REGIONS.index("hair")) | (g.region == REGIONS.index("face"))
    aside = outer & torch.from_numpy(away < _UNDER)
    low = below_neck(places, head.neck) > 0
    g.keep(((g.region >= REGIONS.index("neck")) | low | aside).nonzero()[:, 0])


def read_torso(run: Path, data: PersonDataset, renderer: RendererName) -> Checkpoint:
    """Read the model of a run whose Gaussians are to be taken.

    Raises:
        AvatarError: It is no finished run, or of another method or person.
    """
    require_run(run)
    info = RunInfo.read(run)
    found = read_model(run / MODEL, renderer)
    if found.method != GaussianAvatar.name:
        raise AvatarError(f"--torso {run} is a run of the method {found.method}.", why="It must be gaussian.",
                          fix="Train one: avatar train PERSON --method gaussian --out RUN")  # fmt: skip
    if not info.finished:
        raise AvatarError(f"The training of --torso {run} has not finished.",
                          fix="Go on with it: avatar train --resume")  # fmt: skip
    person = PersonInfo.read(run / PERSON)
    if (found.checkpoint.width, found.checkpoint.height) != (data.width, data.height) or person != data.info:
        raise AvatarError(f"--torso {run} was trained on another person or size.",
                          fix="Train both on one PERSON folder.")  # fmt: skip
    return found.checkpoint


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
