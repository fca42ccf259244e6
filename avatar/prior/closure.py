"""Lips that meet: where p, b or m is heard, the lips of the person are brought together.

A regression says the mean of what lips do at such sounds, late here and early there, and so hardly ever shuts them. A
second one on the same rows says how surely they touch (`avatar.prior.shared.SharedPrior.touch`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avatar.motion import Motion
from avatar.motion.normalise import FACE, Identity, mouth_channels, opening_weights, with_mouth


@dataclass(frozen=True)
class Closing:
    """How a person's lips come together.

    Attributes:
        way: [CHANNELS] what the channels do while the lips open by a centimetre.
        gap: Centimetres between the lips where they touch, as they are tracked.
    """

    way: Tensor
    gap: float

    @staticmethod
    def of(identity: Identity, rest: Tensor) -> Closing:
        """The way in which the person's lips part most easily: what white articulation does along with the opening.

        Args:
            identity: The person's.
            rest: [CHANNELS] the closed mouth.
        """
        weights = _weights(rest)
        way = identity.matrix.T @ (identity.matrix @ weights)
        return Closing(way / (way @ weights), float(rest @ weights))

    def __call__(self, motion: Motion, touch: Tensor) -> Motion:
        """Lips brought together as much as ``touch`` [T] says, 0 to 1; lips that are closed stay as they are."""
        if not bool(touch.any()):
            return motion
        channels = torch.from_numpy(mouth_channels(motion))
        excess = (channels @ _weights(channels) - self.gap).clamp(min=0)
        return with_mouth(channels - (touch * excess)[:, None] * self.way, motion.fps)


def _weights(like: Tensor) -> Tensor:
    """[CHANNELS] of the opening."""
    weights = np.zeros(like.shape[-1], np.float32)
    weights[: len(FACE)] = opening_weights()
    return torch.from_numpy(weights)
