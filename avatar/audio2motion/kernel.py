"""What the shared regression misses of one person, learnt by how alike moments of speech are, in closed form.

A Gaussian kernel over five rows of the prior's own components, as in Gaussian process regression (Rasmussen and
Williams, 2006) with the prior as its mean. A minute of one person holds too few mouths for weights of 769 inputs; that
the mouth looks the same where the speech does is easier to learn. It needs no audio that the prior does not need, so
it serves live audio as well.

What is left of a track is no white noise: poses of the head, smiles and moods are slower than speech. The noise is
modelled as half white, half correlated over `DRIFT_SECONDS`, so that slow changes are not taken for speech.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avatar.checks import Where
from avatar.io.arrays import check_tensors

BEHIND = AHEAD = 2  # rows
DRIFT_SECONDS = 2.0
NOISES = (0.1, 0.3, 1.0, 3.0)  # variance of the noise over that of what is learnt: the choices
MOST_POINTS = 1500  # moments that speech is compared with; longer tracks give every second or third
_DRIFT = 0.5  # of the noise
_NARROW = 2.0  # exponent at the median distance
_CONSTANT = 0.1  # variance of a constant, over that of what is learnt
_JITTER = 1e-6  # moments of silence are the same
_FOLDS = 5
_GAP_SECONDS = 0.5  # beside a fold, left out with it
_PAIRS = 500  # moments whose distances say what is far


@dataclass(frozen=True)
class KernelRegression:
    """What is added to the prior's channels.

    Attributes:
        points: [M, W] moments of the person's speech, components of consecutive rows side by side.
        weights: [M, C] of their kernels.
        bias: [C] of the constant.
        gain: [C] what restores the movement that a mean lacks, for the sum of prior and this.
        scale: Median squared distance between moments.
    """

    points: Tensor
    weights: Tensor
    bias: Tensor
    gain: Tensor
    scale: float

    @staticmethod
    def unpack(tensors: Mapping[str, Tensor], path: Where, scale: float, width: int, channels: int) -> KernelRegression:
        """Read what :meth:`tensors` gave; ``width`` is that of moments.

        Raises:
            AvatarError: A tensor is missing, or of another shape.
        """
        shapes = {"points": f"M {width}", "weights": f"M {channels}", "bias": str(channels), "gain": str(channels)}
        check_tensors(tensors, path, {f"kernel.{name}": shape for name, shape in shapes.items()})
        points, weights, bias, gain = (tensors[f"kernel.{name}"].float() for name in shapes)
        return KernelRegression(points, weights, bias, gain, scale)

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a file."""
        named = {"points": self.points.half(), "weights": self.weights, "bias": self.bias, "gain": self.gain}
        return {f"kernel.{name}": tensor for name, tensor in named.items()}

    def __call__(self, moments: Float[Tensor, "T W"]) -> Float[Tensor, "T C"]:
        """Channels [T, C] to add at moments [T, W]."""
        return _kernel(moments, self.points, self.scale) @ self.weights + self.bias


@dataclass(frozen=True)
class KernelFit:
    """A fitted regression, and what it predicts of parts that it was not fitted to.

    Attributes:
        noise: One of `NOISES`, chosen on fifths that are left out.
        points, weights, bias, scale: See `KernelRegression`.
        unseen: [n, C] predicted for the rows of each fifth by the others.
    """

    noise: float
    points: Tensor
    weights: Tensor
    bias: Tensor
    scale: float
    unseen: np.ndarray

    def regression(self, gain: Float[np.ndarray, " C"]) -> KernelRegression:
        """What speaks, with the gain [C] of the sum of prior and this."""
        restored = torch.from_numpy(gain).float()
        return KernelRegression(self.points, self.weights, self.bias, restored, self.scale)


def moments_of(inputs: Float[Tensor, "T R"], behind: int, ahead: int) -> Float[Tensor, "T W"]:
    """Moments of speech: of inputs of a prior that has ``behind`` and ``ahead`` rows, those next to the middle."""
    width = (inputs.shape[1] - 1) // (behind + 1 + ahead)
    first, last = behind - min(behind, BEHIND), behind + 1 + min(ahead, AHEAD)
    return inputs[:, first * width : last * width]


def fit_kernel(
    moments: Float[Tensor, "T W"],
    missing: Float[np.ndarray, "T C"],
    seen: Bool[np.ndarray, " T"],
    rate: float,
    error_of: Callable[[Float[np.ndarray, "n C"]], float],
) -> KernelFit:
    """Fit what the prior misses.

    Args:
        moments: Of the person's speech, see :func:`moments_of`.
        missing: Channels as tracked minus those of the prior.
        seen: Whether the face was tracked; other rows are left out.
        rate: Rows per second.
        error_of: Of what is predicted [n, C] for all rows that were seen, by parts that were left out: the noise is
            chosen by it.
    """
    rows = np.flatnonzero(seen)
    own, target = moments[torch.from_numpy(rows)].double(), missing[rows]
    points = own[:: -(-len(own) // MOST_POINTS)].half().double()  # as they are stored
    sample = own[:: max(1, len(own) // _PAIRS)]
    scale = float(_distances(sample, sample).median()) + 1e-6
    near = _kernel(own, points, scale).numpy() + _CONSTANT
    between = _kernel(points, points, scale).numpy() + _CONSTANT
    between[np.diag_indices_from(between)] += _JITTER
    edges = np.linspace(0, len(rows), _FOLDS + 1).astype(int)
    pieces = _pieces(edges, rows, round(_GAP_SECONDS * rate))
    sums = [_moments(near[a:b], target[a:b], rows[a:b], rate) for a, b, _ in pieces]
    best: tuple[float, float, np.ndarray] | None = None
    for noise in NOISES:
        unseen = np.zeros_like(target)
        for fold, (start, end) in enumerate(itertools.pairwise(edges)):
            weights = _solve([s for s, (*_, out) in zip(sums, pieces, strict=True) if fold not in out], between, noise)
            unseen[start:end] = near[start:end] @ weights
        error = error_of(unseen)
        if best is None or error < best[0]:
            best = error, noise, unseen
    assert best is not None
    weights = _solve(sums, between, best[1])
    bias = torch.from_numpy(_CONSTANT * weights.sum(0)).float()
    return KernelFit(best[1], points.float(), torch.from_numpy(weights).float(), bias, scale, best[2])


_Sums = tuple[np.ndarray, np.ndarray]  # [M, M] and [M, C], weighted by the inverse of the noise


def _pieces(edges: np.ndarray, rows: np.ndarray, gap: int) -> list[tuple[int, int, set[int]]]:
    """Cut rows into parts, and name the folds with which each is left out: its own, and those that it touches."""
    cuts: set[int] = {0, len(rows)}
    for edge in edges[1:-1]:
        cuts |= {int(np.searchsorted(rows, rows[edge] + shift)) for shift in (-gap, 0, gap)}
    found = []
    for a, b in itertools.pairwise(sorted(cuts)):
        out = {
            fold
            for fold, (start, end) in enumerate(itertools.pairwise(edges))
            if rows[b - 1] >= rows[start] - gap and rows[a] <= rows[end - 1] + gap
        }
        found.append((a, b, out))
    return found


def _moments(near: np.ndarray, target: np.ndarray, rows: np.ndarray, rate: float) -> _Sums:
    """Second moments of kernels, and of kernels with targets."""
    weighted = _without_drift(near, rows / rate)
    return near.T @ weighted, weighted.T @ target


def _without_drift(values: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Values [n, K] times the inverse of the noise's covariance at these times [n].

    The inverse of the slow part's covariance has three diagonals, P. That of (1 - d) I + d / P is P ((1 - d) P + d)^-1.
    """
    from scipy.linalg import solveh_banded

    if len(seconds) < 2:
        return values
    like = np.exp(-np.diff(seconds) / DRIFT_SECONDS)
    new = 1 / (1 - like**2)
    diagonal = np.r_[new, 1] + np.r_[0, like**2 * new]
    beside = -like * new
    bands = np.stack([np.r_[0, (1 - _DRIFT) * beside], (1 - _DRIFT) * diagonal + _DRIFT])
    solved = solveh_banded(bands, values)
    out = diagonal[:, None] * solved
    out[:-1] += beside[:, None] * solved[1:]
    out[1:] += beside[:, None] * solved[:-1]
    return out


def _solve(sums: Sequence[_Sums], between: np.ndarray, noise: float) -> np.ndarray:
    """Weights [M, C]."""
    from scipy.linalg import cho_factor, cho_solve

    gram, moment = (sum(parts) for parts in zip(*sums, strict=True))
    return cho_solve(cho_factor(gram + noise * between, overwrite_a=True), moment)


def _kernel(a: Tensor, b: Tensor, scale: float) -> Tensor:
    return torch.exp(-_NARROW / scale * _distances(a, b))


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances [T, M] of rows [T, W] and [M, W]."""
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp(min=0)
