"""`AnimatedGaussians`: an avatar of Gaussians as exporters of playback need it, taken apart into rest and change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.fields.deformation import Deformation, attribute_widths
from avatar.fields.skinning import Pose, Skinning
from avatar.geometry.cameras import Camera
from avatar.methods.gaussian.splats import Splats, project, rasterize
from avatar.motion import Motion

ROW = sum(attribute_widths())  # numbers by which a motion changes one Gaussian


@dataclass(frozen=True, eq=False)
class AnimatedGaussians:
    """N canonical Gaussians, what a motion changes of each, and the skinning that follows. All on the CPU.

    Attributes:
        means: [N, 3] canonical centimetres.
        quats: [N, 4] wxyz, of any length.
        scales: [N, 3] log centimetres.
        opacities: [N] logits.
        colors: [N, 3] RGB.
        weights: [N] skinning weight, 1 follows the head and 0 the torso.
        region: [N] uint8 index into `avatar.fields.gaussians.REGIONS`.
        skinning: What moves them as head and torso.
        changes: Gives [N, 10] of a motion's frame: what is added to means, scales, opacities and colors before the
            skinning, side by side.
    """

    means: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    scales: Float[Tensor, "N 3"]
    opacities: Float[Tensor, " N"]
    colors: Float[Tensor, "N 3"]
    weights: Float[Tensor, " N"]
    region: Tensor
    skinning: Skinning
    changes: Callable[[Motion, int], Tensor]

    def __len__(self) -> int:
        return len(self.means)

    @torch.no_grad()
    def posed(self, motion: Motion, index: int, changes: Float[Tensor, "N 10"] | None = None) -> Splats:
        """All Gaussians in one frame, in world space; ``changes`` stand in for those of the motion."""
        if changes is None:
            changes = self.changes(motion, index)
        change = Deformation(*changes.split(attribute_widths(), -1))
        pose = Pose(
            motion.head_rotation[index], motion.head_translation[index],
            motion.torso_rotation[index], motion.torso_translation[index], motion.torso_warp[index],
        )  # fmt: skip
        means, quats = self.skinning(self.means + change.means, self.quats, self.weights[:, None], pose)
        return Splats(
            means, quats, (self.scales + change.scales).exp(), torch.sigmoid(self.opacities + change.opacities[:, 0]),
            self.colors + change.colors, self.region,
        )  # fmt: skip


def picked(splats: Splats, keep: Tensor) -> Splats:
    """Some of the Gaussians, by a mask or by indices."""
    return Splats(**{name: getattr(splats, name)[keep] for name in Splats.__dataclass_fields__})


@torch.no_grad()
def draw_splats(splats: Splats, camera: Camera, background: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Draw posed Gaussians over a background [H, W, C], or nothing: image [H, W, C] and alpha [H, W, 1]."""
    image, alpha, _ = rasterize(splats, project(splats, camera), camera, background)
    return image, alpha


@torch.enable_grad()
def blend_weights(splats: Splats, camera: Camera) -> Float[Tensor, " N"]:
    """How much of the image each Gaussian makes, in pixels: the derivative of the image's sum by its color."""
    projected = project(splats, camera)
    ones = torch.ones(len(splats), 1, requires_grad=True)
    image, _, _ = rasterize(replace(splats, colors=ones), projected, camera)
    return torch.autograd.grad(image.sum(), ones)[0][:, 0]
