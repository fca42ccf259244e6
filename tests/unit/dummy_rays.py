"""A radiance field in one file: a grid of density and colour that moves with the head, trained on random rays.

Every third step is a patch, which has SSIM as well. An occupancy grid leaves out empty cells; a callback refreshes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.io.arrays import load_state
from avatar.methods.base import Checkpoint, Method, ParamGroup, RenderOutput, TrainCallback
from avatar.methods.options import MethodConfig
from avatar.motion import Motion
from avatar.native import march_rays

RADIUS = 14.0  # centimetres around the head that the grid covers
SAMPLES = 12  # along a ray
EMPTY = 0.02  # density, per centimetre, below which a cell is left out


@dataclass(frozen=True, kw_only=True)
class CloudConfig(MethodConfig):
    cells: int = 8
    """Cells along a side of the grid."""
    rays: int = 64
    """Rays of a step."""


class Occupancy(TrainCallback):
    """Marks the cells that hold something."""

    name = "occupancy"

    def __init__(self, model: Cloud) -> None:
        self.model = model

    def due(self, step, steps):
        return step % 2 == 0

    @torch.no_grad()
    def after_step(self, state):
        self.model.occupied.copy_(nn.functional.max_pool3d(self.model.density(self.model.grid[:, 3:]), 3, 1, 1) > EMPTY)


class Cloud(Method):
    Config = CloudConfig
    name = "cloud"
    head: Tensor
    occupied: Tensor

    def __init__(self, config: CloudConfig, background: Tensor, head: Tensor) -> None:
        super().__init__(config, background)
        self.config: CloudConfig = config
        self.register_buffer("head", head)
        self.grid = nn.Parameter(torch.zeros(1, 4, *[config.cells] * 3))
        self.register_buffer("occupied", torch.ones(1, 1, *[config.cells] * 3))

    @classmethod
    def from_person(cls, data, config, seed):
        return cls(config, torch.from_numpy(data.background_image).float() / 255, data.motion.head_translation[0])

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint):
        config = CloudConfig(cells=checkpoint.config.whole("cells", 1, 64))
        model = cls(config, torch.zeros_like(checkpoint.tensors["background"]), torch.zeros(3))
        load_state(model, checkpoint.tensors, checkpoint.path)
        return model

    def param_groups(self):
        return [ParamGroup("grid", [self.grid], lr=0.05)]

    def callbacks(self):
        return [Occupancy(self)]

    def sample(self, frame, progress, rng):
        height, width = frame.image.shape[:2]
        if rng.random() < 1 / 3:
            x, y = (int(v) for v in rng.integers(0, (width - 16, height - 16)))
            return frame.cropped(x, y, x + 16, y + 16)
        return frame.at(torch.from_numpy(rng.integers(0, (width, height), (self.config.rays, 2))))

    def regularizers(self, out, batch, progress):
        return {"entropy": 0.001 * (out.alpha * (1 - out.alpha)).mean()}

    @staticmethod
    def density(logits: Tensor) -> Tensor:
        return nn.functional.softplus(logits - 2)

    def forward_pixels(self, motion: Motion, index: int, camera, pixels, *, noise=None, background=None):
        origin, directions = camera.rays(pixels)
        turn, place = axis_angle_to_matrix(motion.head_rotation[index]), motion.head_translation[index]
        middle = float((place - origin).norm().detach())
        edges = torch.linspace(middle - RADIUS, middle + RADIUS, SAMPLES + 1)
        depths = (edges[1:] + edges[:-1]) / 2
        points = ((origin - place) + directions[:, None] * depths[:, None]) @ turn / RADIUS
        where = points[None, :, None]
        logits = nn.functional.grid_sample(self.grid, where, align_corners=False)[0, :, :, 0]
        full = nn.functional.grid_sample(self.occupied, where, "nearest", align_corners=False)[0, 0, :, 0]
        densities, colors = (self.density(logits[3]) * full).flatten(), torch.sigmoid(logits[:3]).flatten(1).T
        offsets = torch.arange(0, len(densities) + 1, SAMPLES, dtype=torch.int32)
        starts, ends = (x.repeat(len(pixels)) for x in (edges[:-1], edges[1:]))
        color, opacity, depth = march_rays(offsets, starts, ends, densities, colors.contiguous())
        behind = torch.zeros(3) if background is None else background
        return RenderOutput(color + (1 - opacity[:, None]) * behind, opacity[:, None], depth[:, None])

    def forward(self, motion: Motion, index: int, camera, *, noise=None, background=None, with_depth=False, part=None):
        y, x = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
        behind = self.background_at(camera) if background is None else background
        out = self.forward_pixels(
            motion, index, camera, torch.stack([x, y], -1).view(-1, 2), background=behind.reshape(-1, 3)
        )  # fmt: skip
        parts = (v.view(camera.height, camera.width, -1) for v in (out.rgb, out.alpha, out.depth) if v is not None)
        rgb, alpha, depth = parts
        return RenderOutput(rgb, alpha, depth if with_depth else None)

    def reference_motion(self, fps: float) -> Motion:
        return Motion.zeros(1, fps).map(head_translation=self.head.cpu()[None])
