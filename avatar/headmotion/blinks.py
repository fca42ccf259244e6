"""Blinks as a point process whose rate depends on speech, gaze and head, with the person's own blink shapes.

People blink at the ends of phrases and when the eyes jump, and hardly just after a blink. A logistic regression on the
person's track predicts the probability that a blink begins in each frame. By the time-rescaling theorem (Papangelou,
1972; Brown et al., 2002) the sum of these probabilities between two blinks is exponentially distributed with mean one:
a blink begins when the sum since the last one reaches such a draw, or one, where nothing shall be random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avatar.motion import Motion
from avatar.motion.blinks import EYES, LIDS, find_blinks

_MEMORIES = (0.5, 2.0)  # seconds, in which a blink is forgotten
_RIDGE = 10.0  # of the inputs' variance: as if ten blinks had shown that nothing brings one
_ROUNDS = 20  # of Newton's method


def influences(z: Tensor, speech: Tensor, rate: float) -> np.ndarray:
    """Compute the covariates of the blink rate [T, 4].

    They are loudness, the end of a voice, a jump of the eyes and a turn of the head.

    Args:
        z: [T, C] channels of `UpperFaceNormalizer`, in spreads.
        speech: [T, 2] loudness and voice activity (`avatar.headmotion.generator`).
        rate: Rows per second.
    """
    before = max(1, round(0.2 * rate))
    padded = torch.cat([z[:1].expand(before, -1), z])
    moved = z - padded[: len(z)]
    voice = torch.cat([speech[:1].expand(before, -1), speech])[: len(z), 1]
    return torch.stack(
        [
            speech[:, 0],
            voice - speech[:, 1],
            moved[:, 6:8].norm(dim=1).clamp(max=4),
            moved[:, :3].norm(dim=1).clamp(max=4),
        ],
        1,
    ).numpy()


@dataclass(frozen=True)
class BlinkHabit:
    """When and how one person blinks.

    Attributes:
        weights: [7] of the logistic regression: memories of the last blink, `influences`, a constant.
        shapes: [B, n, 4] how far `EYES` and `LIDS` are closed, 0 to 1, at `rate`; 0 where a blink begins and is over.
        closed: [B, 4] what they are when closed.
        lengths: [B] rows until each is over.
        rate: Rows per second.
    """

    weights: Tensor
    shapes: Tensor
    closed: Tensor
    lengths: Tensor
    rate: float

    @staticmethod
    def of(track: Motion, segments: Sequence[tuple[int, int]], z: Tensor, speech: Tensor) -> BlinkHabit:
        """Fit it to a track [T]; somebody who never blinks in it never will."""
        blinks = find_blinks(track, segments)
        length = max((b.stop - b.start for b in blinks), default=2)
        count = max(1, len(blinks))
        shapes, closed = torch.zeros(count, length, 4), torch.zeros(count, 4)
        for i, blink in enumerate(blinks):
            values = torch.cat([track.arkit[blink][:, EYES], track.face[blink][:, LIDS]], 1)
            moved = values - torch.lerp(values[:1], values[-1:], torch.linspace(0, 1, len(values))[:, None])
            most = moved.abs().argmax(0)
            closed[i] = values[most, range(4)]
            at = torch.arange(len(values))
            edge = (torch.minimum(at, len(values) - 1 - at) / 3).clamp(max=1)
            furthest = moved[most, range(4)]
            shapes[i, : len(values)] = (moved / torch.where(furthest == 0, 1, furthest)).clamp(0, 1) * edge[:, None]
        weights = torch.from_numpy(_regress(track.fps, segments, blinks, influences(z, speech, track.fps)))
        lengths = torch.tensor([b.stop - b.start for b in blinks] or [length])
        return BlinkHabit(weights=weights, shapes=shapes, closed=closed, lengths=lengths, rate=track.fps)

    def hazard(self, since: float, row: np.ndarray) -> float:
        """Probability that a blink begins in a row, ``since`` seconds after the last one began."""
        x = np.r_[np.exp(-since / np.array(_MEMORIES)), row, 1.0]
        return float(1 / (1 + np.exp(-np.clip(x @ self.weights.numpy(), -20, 3))))


def _regress(rate: float, segments: Sequence[tuple[int, int]], blinks: list[slice], rows: np.ndarray) -> np.ndarray:
    """[7] weights by Newton's method; the constant is not held back, so that blinks are as frequent as the person's."""
    if not blinks:
        return np.r_[np.zeros(len(_MEMORIES) + rows.shape[1]), -20.0]
    begins = np.zeros(len(rows))
    begins[[b.start for b in blinks]] = 1
    since, free = np.zeros(len(rows)), np.zeros(len(rows), bool)
    usual = sum(b - a for a, b in segments) / len(blinks) / rate
    for a, b in segments:
        last, until = a - usual * rate, a
        for t in range(a, b):
            since[t], free[t] = (t - last) / rate, t >= until
            if begins[t]:
                last = t
                until = next(k.stop for k in blinks if k.start == t)
    x = np.c_[np.exp(-since[:, None] / np.array(_MEMORIES)), rows][free]
    middle = x.mean(0)
    x, y = np.c_[x - middle, np.ones(len(x))], begins[free]
    ridge = np.diag(np.r_[x[:, :-1].var(0) * _RIDGE + 1e-6, 0])
    weights = np.r_[np.zeros(x.shape[1] - 1), np.log(y.mean() / (1 - y.mean()))]
    for _ in range(_ROUNDS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -20, 20)))
        hessian = x.T @ (x * (p * (1 - p) + 1e-9)[:, None]) + ridge
        weights = weights - np.linalg.solve(hessian, x.T @ (p - y) + ridge @ weights)
    weights[-1] -= middle @ weights[:-1]
    return weights
