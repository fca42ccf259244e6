"""Method ``gaussian``: making its model of a person, training, playing and baking it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from avatar.backends import require
from avatar.errors import AvatarError
from avatar.fields.gaussians import REGIONS, Gaussians
from avatar.fields.skinning import LandmarkBasis, Skinning
from avatar.geometry.landmarks import landmarks_to_head
from avatar.io.arrays import check_range, check_tensors, load_state
from avatar.methods.animated import AnimatedGaussians
from avatar.methods.base import Checkpoint, Playback
from avatar.methods.condition import Conditioner
from avatar.methods.gaussian import bake
from avatar.methods.gaussian.config import GaussianConfig, read_config
from avatar.methods.gaussian.cuda_graph import FrameGraphs
from avatar.methods.gaussian.densify import Densification
from avatar.methods.gaussian.model import GaussianModel, make_encoding
from avatar.methods.gaussian.playback import CpuFrames
from avatar.methods.gaussian.presets import PRESETS
from avatar.methods.gaussian.synthetic import synthetic_parts
from avatar.methods.options import TrainPreset
from avatar.motion import Motion
from avatar.motion.face_channels import NUM_LANDMARKS
from avatar.motion.population import stand_in
from avatar.native.library import multiplies_bfloat16, runs_native

if TYPE_CHECKING:
    from typing_extensions import Self

    from avatar.data import PersonDataset
    from avatar.device import Precision


class GaussianAvatar(GaussianModel):
    """One person as Gaussians.

    Build it with :meth:`from_person`, or empty with :meth:`blank` to load weights into.
    """

    name: ClassVar[str] = "gaussian"

    # -- making ------------------------------------------------------------------------------------------------------

    @classmethod
    def presets(cls) -> Mapping[str, Callable[[], TrainPreset]]:
        return PRESETS

    @classmethod
    def from_person(cls, data: PersonDataset, config: GaussianConfig, seed: int) -> Self:
        # What makes a model needs SciPy and OpenCV, without which a model plays: half a second of its start.
        from avatar.methods.gaussian.init import seeds
        from avatar.methods.gaussian.reference import Reference, reference_frame

        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        frame = reference_frame(data)
        motion = data.motion
        skinning = Skinning(
            motion.head_rotation[frame], motion.head_translation[frame], torch.from_numpy(data.torso_pivot),
            torch.from_numpy(data.warp_box),
        )  # fmt: skip
        basis, usual = _movement(data, frame)
        gaussians = Gaussians(
            seeds(Reference.of(data, skinning, frame), config.initial_gaussians, rng), config.embedding
        )
        means = gaussians.means.detach()
        margin = 2.0
        bounds = torch.stack([means.quantile(0.002, 0) - margin, means.quantile(0.998, 0) + margin])
        encoding = make_encoding(config, bounds)
        background = torch.from_numpy(data.background_image).float() / 255
        return cls(config, gaussians, skinning, basis, Conditioner.fit(usual), encoding, background)

    @classmethod
    def synthetic(cls, count: int, size: int, motion: Motion) -> Self:
        return cls(*synthetic_parts(count, size, motion))

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Self:
        path, tensors = checkpoint.path, checkpoint.tensors
        config = read_config(checkpoint.config, tensors, checkpoint.renderer)
        require(config.encoding, path.parent)
        count = check_tensors(tensors, path, {"gaussians.means": "N 3"})["N"]
        if count < 1:
            raise AvatarError(f"{path} holds no Gaussians.", fix="Train it again.")
        model = cls.blank(config, count=count, width=checkpoint.width, height=checkpoint.height)
        state = model.state_dict()
        for name, end in {"gaussians.bind_index": NUM_LANDMARKS, "gaussians.region": len(REGIONS)}.items():
            if name in tensors:
                check_range(tensors[name], f"{path}: {name}", end)
        name = "field.encoding.resolutions"
        if name in state and not torch.equal(state[name], tensors.get(name, torch.zeros(0))):
            raise AvatarError(f"{path}: {name} does not fit its configuration.", fix="Train it again.")
        load_state(model, tensors, path)
        return model

    # -- training ----------------------------------------------------------------------------------------------------

    def callbacks(self) -> list[Densification]:
        return [Densification(self)]

    # -- playback ----------------------------------------------------------------------------------------------------

    def playback(self, precision: Precision = "auto") -> Playback:
        """Prepare fast drawing: half precision for the field's cached code where that gains, a CUDA graph on a GPU."""
        # A basis is read off few Gaussians: there is nothing to gain, and it was baked from the exact ones.
        gains = self.device.type == "cpu" and self.baked is None and multiplies_bfloat16()
        half = precision == "bfloat16" or (precision == "auto" and gains)
        self.code_dtype, self._code = torch.bfloat16 if half else torch.float32, None
        # gsplat and the torch reference wait for the GPU within a frame.
        recordable = self.device.type == "cuda" and self.config.renderer == "native" and runs_native(self.background)
        if recordable:
            return FrameGraphs(self)
        if self.device.type == "cpu" and self.config.renderer == "native" and runs_native(self.background):
            return CpuFrames(self).draw
        return self.draw

    @torch.no_grad()
    def animated(self) -> AnimatedGaussians:
        g = self.gaussians
        means, quats, scales, opacities, colors = (
            value.detach().cpu() for value in (g.means, g.quats, g.scales, g.opacities[:, 0], g.colors)
        )
        return AnimatedGaussians(
            means, quats, scales, opacities, colors,
            torch.sigmoid(g.skinning_weight[:, 0]).cpu(), g.region.cpu(), copy.deepcopy(self.skinning).cpu(),
            self.all_changes,
        )  # fmt: skip

    def bake(self, run: Path, motion: Motion, modes: int) -> Path:
        return bake.save(bake.bake(self, motion, modes), run)

    def load_baked(self, run: Path) -> None:
        self.baked = bake.load(run, self).to(self.device)


def _movement(data: PersonDataset, frame: int) -> tuple[LandmarkBasis, Motion]:
    """How this person's landmarks move, and a motion that shows their usual range; of a photo people's in general."""
    if data.info.photo is not None:
        from avatar.methods.gaussian import photo

        return photo.basis_of(data), stand_in(data.shape, data.motion)
    train = data.motion[data.train_frames]
    lifted = landmarks_to_head(
        torch.from_numpy(np.asarray(data.landmarks[data.train_frames])[..., :2]), torch.from_numpy(data.shape),
        train.head_rotation, train.head_translation, data.camera,
    )  # fmt: skip
    return LandmarkBasis.fit(train.face, lifted - torch.from_numpy(data.shape), data.motion.gaze[frame]), train
