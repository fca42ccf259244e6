"""Lips that meet: where p, b or m is heard, the lips of the person are brought together.

A regression says the mean of what lips do at such sounds, late here and early there, and so hardly ever shuts them. A
second one on the same rows says how surely they touch (`avatar.audio2motion.shared.SharedPrior.touch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avatar.motion import Motion
from avatar.motion.mouth import FACE, MouthNormalizer, mouth_channels, opening_weights, with_mouth

_RIDGE = 0.1  # of the mean power of the inputs
_UNSURE, _SURE = (
    0.2,
    0.55,
)  # of the regression's output, which is about 0 far from a closure and seldom reaches 1 at one
_SIGMA = 1.0  # rows; how exactly the times of closures are known


@dataclass(frozen=True)
class LipClosure:
    """How a person's lips come together.

    Attributes:
        way: [CHANNELS] what the channels do while the lips open by a centimetre.
        gap: Centimetres between the lips where they touch, as they are tracked.
    """

    way: Tensor
    gap: float

    @staticmethod
    def of(identity: MouthNormalizer, rest: Tensor) -> LipClosure:
        """The way in which the person's lips part most easily: what white articulation does along with the opening.

        Args:
            identity: The person's.
            rest: [CHANNELS] the closed mouth.
        """
        weights = _weights(rest)
        way = identity.matrix.T @ (identity.matrix @ weights)
        return LipClosure(way / (way @ weights), float(rest @ weights))

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


def fit_touch(sources: Sequence[Sequence[tuple[Tensor, np.ndarray]]]) -> Tensor:
    """[taps] a regression of whether the lips touch: 0 and less for surely not, 1 and more for surely.

    Args:
        sources: Sources of equal weight, of recordings: what the prior hears [n, taps], at `shared.RATE`, and the rows,
            as fractions, in the middle of p, b and m.
    """
    gram = moment = torch.zeros((), dtype=torch.float64)
    for recordings in sources:
        heard = torch.cat([rows for rows, _ in recordings]).double()
        near = torch.cat([_nearness(len(rows), closures) for rows, closures in recordings])
        gram = gram + heard.T @ heard / len(heard)
        moment = moment + heard.T @ near / len(heard)
    ridge = torch.full((len(gram),), _RIDGE * float(gram.trace()) / len(gram), dtype=torch.float64)
    ridge[-1] = 1e-6
    taps = torch.linalg.solve(gram + torch.diag(ridge), moment)
    taps[-1] -= _UNSURE
    return (taps / (_SURE - _UNSURE)).float()


def _nearness(count: int, closures: np.ndarray) -> Tensor:
    """[count] 1 where a closure is, less next to it."""
    if not len(closures):
        return torch.zeros(count, dtype=torch.float64)
    distance = np.abs(np.arange(count)[:, None] - closures).min(1)
    return torch.from_numpy(np.exp(-0.5 * (distance / _SIGMA) ** 2))
