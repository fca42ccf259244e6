"""Bilabial closure: the lips of the person are brought together on p, b and m.

Regression averages over timing jitter and so rarely closes the lips on p, b, m. A second linear head on the same inputs
predicts the closure probability (`avatar.audio2motion.shared.SharedPrior.closure_weights`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avatar.motion import Motion
from avatar.motion.mouth import FACE, MouthNormalizer, mouth_channels, opening_weights, with_mouth

_RIDGE = 0.1  # of the mean power of the inputs
# Output of the regression that counts as probability 0 and 1: it is about 0 far from a closure and seldom reaches 1.
_UNSURE, _SURE = 0.2, 0.55
_SIGMA = 1.0  # rows; how exactly the times of closures are known


@dataclass(frozen=True)
class LipClosure:
    """How a person's lips come together.

    Attributes:
        direction: [CHANNELS] change of the channels per centimetre of lip opening.
        gap: Centimetres between the lips where they touch, as they are tracked.
    """

    direction: Tensor
    gap: float

    @staticmethod
    def of(normalizer: MouthNormalizer, rest: Tensor) -> LipClosure:
        """Find the direction in which the person's lips part most easily: how channels go with the opening.

        Args:
            normalizer: The person's.
            rest: [CHANNELS] the closed mouth.
        """
        weights = _weights(rest)
        direction = normalizer.matrix.T @ (normalizer.matrix @ weights)
        return LipClosure(direction / (direction @ weights), float(rest @ weights))

    def __call__(self, motion: Motion, probability: Float[Tensor, " T"]) -> Motion:
        """Bring the lips together by ``probability`` [T], 0 to 1; lips that are closed stay as they are."""
        if not bool(probability.any()):
            return motion
        channels = torch.from_numpy(mouth_channels(motion))
        excess = (channels @ _weights(channels) - self.gap).clamp(min=0)
        return with_mouth(channels - (probability * excess)[:, None] * self.direction, motion.fps)


def _weights(like: Tensor) -> Tensor:
    """[CHANNELS] of the opening."""
    weights = np.zeros(like.shape[-1], np.float32)
    weights[: len(FACE)] = opening_weights()
    return torch.from_numpy(weights)


def fit_bilabial_closure(sources: Sequence[Sequence[tuple[Tensor, np.ndarray]]]) -> Tensor:
    """Fit the closure head: a ridge regression to 0 and less for surely open, 1 and more for surely closed.

    Args:
        sources: Sources of equal weight, of recordings: inputs of the prior [n, R], at `shared.RATE`, and the rows, as
            fractions, in the middle of p, b and m.

    Returns:
        Weights [R].
    """
    gram = moment = torch.zeros((), dtype=torch.float64)
    for recordings in sources:
        inputs = torch.cat([rows for rows, _ in recordings]).double()
        near = torch.cat([_nearness(len(rows), closures) for rows, closures in recordings])
        gram = gram + inputs.T @ inputs / len(inputs)
        moment = moment + inputs.T @ near / len(inputs)
    ridge = torch.full((len(gram),), _RIDGE * float(gram.trace()) / len(gram), dtype=torch.float64)
    ridge[-1] = 1e-6
    weights = torch.linalg.solve(gram + torch.diag(ridge), moment)
    weights[-1] -= _UNSURE
    return (weights / (_SURE - _UNSURE)).float()


def _nearness(count: int, closures: np.ndarray) -> Tensor:
    """[count] 1 where a closure is, less next to it."""
    if not len(closures):
        return torch.zeros(count, dtype=torch.float64)
    distance = np.abs(np.arange(count)[:, None] - closures).min(1)
    return torch.from_numpy(np.exp(-0.5 * (distance / _SIGMA) ** 2))
