"""Training of the shared prior, in closed form: a ridge regression on principal components of the features.

The regression must serve people it has not heard, and those are best served by little: few components, few rows of
context, no more freedom than that (docs/prior.md). Sources teach each articulator in their own shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.motion.normalise import ARTICULATION
from avatar.prior.encoder import SpeechEncoder
from avatar.prior.shared import SharedPrior, project, stack

COMPONENTS = 96
BEHIND, AHEAD = 5, 2  # rows
RIDGE = 0.1  # of the mean power of the inputs


@dataclass(frozen=True)
class Recording:
    """Speech and what the mouth did.

    Attributes:
        features: [n, F] at `shared.RATE`.
        target: [n, len(ARTICULATION)] in the speaker's spreads.
    """

    features: np.ndarray
    target: np.ndarray


def fit(
    sources: Mapping[str, Sequence[Recording]],
    shares: Mapping[str, Mapping[str, float]],
    encoder: SpeechEncoder,
    about: dict[str, Any],
    gain: float = 1.0,
) -> SharedPrior:
    """Train a prior.

    Args:
        sources: Recordings by the name of where they are from.
        shares: Articulator, or "" for all that are not named, to the weight of each source.
        encoder: What made the features.
        about: To be kept with the prior.
        gain: See `SharedPrior`.

    Raises:
        AvatarError: There is nothing to train on.
    """
    if not any(sources.values()):
        raise AvatarError("There is no recording to train the prior on.")
    heard = torch.cat([torch.from_numpy(r.features[::3]) for part in sources.values() for r in part])
    mean, std = heard.mean(0), heard.std(0) + 1e-3
    z = ((heard - mean) / std).clamp(-6, 6)
    _, directions = torch.linalg.eigh(z.T @ z / len(z))
    basis = directions.flip(1)[:, :COMPONENTS].contiguous()

    sums = {name: _sums(part, mean, std, basis) for name, part in sources.items() if part}
    size = len(next(iter(sums.values()))[0])
    taps = torch.zeros(size, len(ARTICULATION), dtype=torch.float64)
    for i, name in enumerate(ARTICULATION):
        weights = {k: w for k, w in shares.get(name, shares[""]).items() if k in sums and w > 0}
        whole = sum(weights.values())
        gram = torch.stack([w / whole * sums[k][0] for k, w in weights.items()]).sum(0)
        moment = torch.stack([w / whole * sums[k][1][:, i] for k, w in weights.items()]).sum(0)
        ridge = torch.full((size,), RIDGE * float(gram.trace()) / size, dtype=torch.float64)
        ridge[-1] = 1e-6
        taps[:, i] = torch.linalg.solve(gram + torch.diag(ridge), moment)
    return SharedPrior(encoder, mean, std, basis, taps.float(), BEHIND, AHEAD, gain, about)


def _sums(part: Sequence[Recording], mean: Tensor, std: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """Second moments of the inputs, and of inputs with targets, per row."""
    gram = moment = torch.zeros(())
    count = 0
    for recording in part:
        x = stack(project(recording.features, mean, std, basis), BEHIND, AHEAD)
        gram = gram + (x.T @ x).double()
        moment = moment + (x.T @ torch.from_numpy(recording.target)).double()
        count += len(x)
    return gram / count, moment / count
