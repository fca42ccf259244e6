"""The condition of a deformation field in a frame: normalised motion."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from avatar.motion import Motion


class Conditioner(nn.Module):
    """Turns motion into a condition vector: channels in units of the person's spread, clamped to their training range.

    Beyond that range a network answers with noise. Skinning and face mesh extrapolate well, and get the motion as it
    is. The field is conditioned on face, gaze and head rotation only. Channels that cause no change in the face (the
    torso), or repeat the face channels less exactly (ARKit's scores), correlate with it in the training video only.
    """

    mean: Tensor
    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, low: Tensor, high: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("low", low)
        self.register_buffer("high", high)

    @property
    def width(self) -> int:
        return self.mean.shape[0]

    @staticmethod
    def fit(motion: Motion) -> Conditioner:
        """Mean and spread of the channels over a training track."""
        raw = _raw(motion, slice(None))
        spread = raw.std(0)
        # A channel that never moved must not amplify its noise: floors in the channels' own units.
        floor = torch.full_like(spread, 0.02)
        mean, scale = raw.mean(0), 1 / torch.maximum(spread, floor)
        unit = (raw - mean) * scale
        return Conditioner(mean, scale, unit.quantile(0.005, 0).clamp(-4, 4), unit.quantile(0.995, 0).clamp(-4, 4))

    def in_range(self, face: Float[Tensor, "T F"], beyond: float) -> Float[Tensor, "T F"]:
        """Clamp face channels [T, F] to their training range, ``beyond`` times as wide around their mean."""
        mean, scale, low, high = (x[: face.shape[1]] for x in (self.mean, self.scale, self.low, self.high))
        return torch.minimum(torch.maximum(face, mean + beyond * low / scale), mean + beyond * high / scale)

    def forward(self, motion: Motion, index: int) -> Float[Tensor, " C"]:
        """Condition [width] of one frame."""
        # Pose correction must fit the image by moving the head, not by changing the condition.
        raw = _raw(motion, index).detach()
        return ((raw - self.mean) * self.scale).clamp(self.low, self.high)


def _raw(motion: Motion, index: int | slice) -> Tensor:
    return torch.cat([motion.face[index], motion.gaze[index], motion.head_rotation[index]], -1)
