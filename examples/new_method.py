"""A renderer of your own in one file: each frame is a mixture of learned images, weighted by face and head motion.

    python examples/new_method.py runs/me.person --out runs/mixture

It has one view. A package announces such a class (docs/new_methods.md); then `avatar train --method mixture` finds it.
"""

from pathlib import Path

import torch
import tyro
from tyro.conf import Positional

from avatar import Method, Motion, RenderOutput, register_method, train_avatar, train_options
from avatar.io.arrays import load_state
from avatar.methods.base import ParamGroup


@register_method("mixture")
class Mixture(Method):
    def __init__(self, config, background, head):
        super().__init__(config, background)
        self.register_buffer("head", head)  # [3] place of the head at rest, centimetres
        self.images = torch.nn.Parameter(0.05 * torch.randn(12, 4, 128, 128))  # RGB and alpha, as logits
        self.weights = torch.nn.Linear(38 + 3 + 3, 12)  # from channels of the face, and rotation and place of the head

    @classmethod
    def from_person(cls, data, config, seed):
        torch.manual_seed(seed)
        return cls(config, torch.from_numpy(data.background_image).float() / 255, data.motion.head_translation[0])

    @classmethod
    def from_checkpoint(cls, checkpoint):
        model = cls(cls.Config(), checkpoint.tensors["background"], torch.zeros(3))
        load_state(model, checkpoint.tensors, checkpoint.path)  # checks names, shapes and numbers
        return model

    def param_groups(self):
        return [ParamGroup("images", [self.images], 0.02), ParamGroup("weights", [*self.weights.parameters()], 1e-3)]

    def forward(self, motion, index, camera, *, noise=None, background=None, with_depth=False, part=None):
        head = motion.head_rotation[index], (motion.head_translation[index] - self.head) / 10
        weights = self.weights(torch.cat([motion.face[index], *head]))
        mixed = torch.einsum("k,kchw->chw", weights, self.images)[None]
        mixed = torch.nn.functional.interpolate(mixed, (camera.height, camera.width), mode="bilinear")[0]
        rgb, alpha = torch.sigmoid(mixed).permute(1, 2, 0).split([3, 1], -1)
        behind = self.background_at(camera) if background is None else background
        return RenderOutput(rgb * alpha + behind * (1 - alpha), alpha)

    def reference_motion(self, fps):
        return Motion.zeros(1, fps).map(head_translation=self.head.cpu()[None])


def main(person: Positional[Path], out: Path) -> None:
    train_avatar(train_options("mixture", "draft", person=person, out=out))


if __name__ == "__main__":
    tyro.cli(main)
