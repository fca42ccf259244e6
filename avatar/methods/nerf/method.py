"""Method ``nerf``: making its model of a person, training and storing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from avatar.backends import require
from avatar.fields.mesh_warp import MeshWarp
from avatar.geometry.cameras import Camera
from avatar.io.arrays import load_state
from avatar.methods.base import Checkpoint, TrainCallback
from avatar.methods.batch import Batch
from avatar.methods.encoding import make_triplane
from avatar.methods.gaussian.method import GaussianAvatar
from avatar.methods.nerf import sampling
from avatar.methods.nerf.config import NerfConfig, read_config
from avatar.methods.nerf.coverage import measure_seen
from avatar.methods.nerf.head_shape import measure_head
from avatar.methods.nerf.model import BELOW, Filmed, NerfModel, checkpoint_of
from avatar.methods.nerf.occupancy import Occupancy
from avatar.methods.nerf.presets import PRESETS
from avatar.methods.nerf.refresh import OccupancyRefresh
from avatar.methods.nerf.torso import TorsoCallback, leave_to_field, make_torso, read_torso
from avatar.methods.options import TrainPreset
from avatar.motion import Motion

if TYPE_CHECKING:
    from typing_extensions import Self

    from avatar.data import PersonDataset

FILMED = 256  # training frames whose conditions the occupancy grid is refreshed under
FEWEST_RAYS, MOST_RAYS = 64, 65_536


class NerfAvatar(NerfModel):
    """One person as a radiance field of the head over Gaussians of neck and clothes."""

    name: ClassVar[str] = "nerf"

    # -- making and storing ------------------------------------------------------------------------------------------

    @classmethod
    def presets(cls) -> Mapping[str, Callable[[], TrainPreset]]:
        return PRESETS

    @classmethod
    def check_person(cls, data: PersonDataset, config: NerfConfig) -> None:
        if config.torso is not None:
            read_torso(config.torso, data, config.renderer)

    @classmethod
    def from_person(cls, data: PersonDataset, config: NerfConfig, seed: int) -> Self:
        torso = make_torso(data, config, seed)
        motion, train = data.motion, data.train_frames
        pose = torso.reference_motion(data.fps)
        reference = int(train[(motion.head_rotation[train] - pose.head_rotation).norm(dim=-1).argmin()])
        head = measure_head(data, reference, torso.basis)
        leave_to_field(torso, head)
        frames = train[np.linspace(0, len(train) - 1, min(FILMED, len(train))).astype(int)]
        filmed = Filmed(motion[torch.from_numpy(frames)], data.camera)
        torch.manual_seed(seed)
        usual = motion.face[train].mean(0)
        shape = torch.from_numpy(data.shape).float() + torso.basis(usual, motion.gaze[train].mean(0))
        warp = MeshWarp(shape, usual)
        model = cls(config, torso, Occupancy(head), warp, make_triplane(config, head.box), filmed)
        model.seed = seed
        return model

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Self:
        path, tensors = checkpoint.path, checkpoint.tensors
        config = read_config(checkpoint.config.record("field"), tensors, checkpoint.renderer)
        require(config.encoding, path.parent)
        behind = {name[len(BELOW) :]: value for name, value in tensors.items() if name.startswith(BELOW)}
        behind["background"] = tensors["background"]
        torso = GaussianAvatar.from_checkpoint(
            replace(checkpoint, tensors=behind, config=checkpoint.config.record("torso"))
        )
        box = torch.tensor([[-1.0] * 3, [1.0] * 3])
        model = cls(config, torso, Occupancy.empty(), MeshWarp.empty(), make_triplane(config, box))
        state = {name: value for name, value in model.state_dict().items() if name.startswith(BELOW)}
        load_state(model, {k: v for k, v in tensors.items() if not k.startswith(BELOW)} | state, path)
        return model

    def checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return checkpoint_of(self)

    # -- training ----------------------------------------------------------------------------------------------------

    def sample(self, frame: Batch, progress: float, rng: np.random.Generator) -> Batch:
        config = self.config
        rays = min(max(round(config.samples / self.per_ray), FEWEST_RAYS), MOST_RAYS)
        return sampling.choose(
            frame, progress, rng, rays=rays, patch=config.patch, random_background=config.loss.random_background
        )

    def callbacks(self) -> list[TrainCallback]:
        return [OccupancyRefresh(self), *map(TorsoCallback, self.torso.callbacks())]

    def finish(self, motion: Motion, camera: Camera) -> None:
        self.occupancy.seen = measure_seen(self, motion, camera)

        @torch.no_grad()
        def before(index: int) -> Tensor:
            return 1 - self.head_image(motion, index, camera).alpha

        self.torso.finish(motion, camera, before)
