"""A method in one file: a plane of colours behind the face that moves with the head and fades with the mouth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avatar.io.arrays import load_state
from avatar.methods.base import Checkpoint, Method, ParamGroup, RenderOutput
from avatar.methods.options import MethodConfig
from avatar.methods.registry import register_method
from avatar.motion import Motion


@dataclass(frozen=True, kw_only=True)
class DummyConfig(MethodConfig):
    cells: int = 32
    """Cells along a side of the plane."""


@register_method("dummy")
class Dummy(Method):
    Config = DummyConfig

    def __init__(self, config: DummyConfig, background: Tensor, head: Tensor) -> None:
        super().__init__(config, background)
        self.register_buffer("head", head)  # [3] at the reference pose, centimetres
        self.plane = nn.Parameter(torch.zeros(1, 4, config.cells, config.cells))  # RGB and alpha, logits
        self.opening = nn.Parameter(torch.zeros(4))

    @classmethod
    def from_person(cls, data, config: DummyConfig, seed: int) -> Dummy:
        return cls(config, torch.from_numpy(data.background_image).float() / 255, data.motion.head_translation[0])

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> Dummy:
        config = DummyConfig(cells=checkpoint.config.whole("cells", 1, 512))
        model = cls(config, torch.zeros_like(checkpoint.tensors["background"]), torch.zeros(3))
        load_state(model, checkpoint.tensors, checkpoint.path)
        return model

    def param_groups(self) -> list[ParamGroup]:
        return [ParamGroup("all", [self.plane, self.opening], lr=0.05)]

    def forward(self, motion: Motion, index: int, camera, *, noise=None, background=None, with_depth=False,
                part=None) -> RenderOutput:  # fmt: skip
        y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (camera.height, camera.width)), indexing="ij")
        shift = (motion.head_translation[index] - self.head)[:2] / self.head[2] * camera.focal / camera.width
        grid = (torch.stack([x, y], -1) - shift)[None]
        logits = nn.functional.grid_sample(self.plane, grid, align_corners=False)[0].permute(1, 2, 0)
        rgb, alpha = torch.sigmoid(logits + self.opening * motion.face[index].mean()).split([3, 1], -1)
        behind = self.background_at(camera) if background is None else background
        return RenderOutput(rgb * alpha + behind * (1 - alpha), alpha)

    def reference_motion(self, fps: float) -> Motion:
        return Motion.zeros(1, fps).map(head_translation=self.head.cpu()[None])
