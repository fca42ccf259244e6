"""Training of the shared prior, in closed form: a ridge regression on principal components of the features.

The regression must serve people it has not heard, and those are best served by little: few components, few rows of
context, no more freedom than that (docs/prior.md). Sources teach each articulator in their own shares.

All that is learnt is in sums over rows. So recordings are read one at a time, and processes that have some of them each
get the same prior by adding up their sums.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.motion.normalise import ARTICULATION
from avatar.prior.encoder import SpeechEncoder
from avatar.prior.shared import GAIN, SharedPrior, project, stack

COMPONENTS = 96
BEHIND, AHEAD = 5, 2  # rows
RIDGE = 0.1  # of the mean power of the inputs
_EVERY = 3  # neighbouring rows are alike: every third says how the features vary


@dataclass(frozen=True)
class Recording:
    """Speech and what the mouth did.

    Attributes:
        features: [n, F] at `shared.RATE`.
        target: [n, len(ARTICULATION)] in the speaker's spreads. Rows that are NaN throughout are left out: no face was
            seen. Columns may be NaN where no share weighs the articulator.
    """

    features: np.ndarray
    target: np.ndarray


def fit(
    sources: Mapping[str, Sequence[Recording]],
    shares: Mapping[str, Mapping[str, float]],
    encoder: SpeechEncoder,
    about: dict[str, Any],
    gain: float = GAIN,
    *,
    components_of: Collection[str] | None = None,
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> SharedPrior:
    """Train a prior.

    Args:
        sources: Recordings by the name of where they are from. Each is read three times, one after the other, so they
            may come from a disk.
        shares: Articulator, or "" for all that are not named, to the weight of each source.
        encoder: What made the features.
        about: To be kept with the prior.
        gain: See `SharedPrior`.
        components_of: Sources by whose sound the components are chosen; None: all.
        reduce: Adds up a float64 tensor over the processes that have a part of the recordings each. All of them name
            the same sources, and get the same prior.

    Raises:
        AvatarError: There is nothing to train on.
    """
    chosen = [part for name, part in sources.items() if components_of is None or name in components_of]
    mean, std = _spread(chosen, encoder.dim, reduce)
    basis = _components(chosen, mean, std, reduce)
    sums = {name: _sums(part, mean, std, basis, reduce) for name, part in sources.items()}
    size = (BEHIND + 1 + AHEAD) * basis.shape[1] + 1
    taps = torch.zeros(size, len(ARTICULATION), dtype=torch.float64)
    taught: dict[tuple[tuple[str, float], ...], list[int]] = defaultdict(list)
    for i, name in enumerate(ARTICULATION):
        share = shares[name if name in shares else ""]
        weights = tuple((k, w / sums[k][2]) for k, w in share.items() if w > 0 and sums[k][2] > 0)
        if not weights:
            raise AvatarError(f"No recording teaches the prior {name}.")
        taught[weights].append(i)
    for weights, columns in taught.items():
        gram = torch.stack([w * sums[k][0] for k, w in weights]).sum(0)
        moment = torch.stack([w * sums[k][1][:, columns] for k, w in weights]).sum(0)
        ridge = torch.full((size,), RIDGE * float(gram.trace()) / size, dtype=torch.float64)
        ridge[-1] = 1e-6 * sum(w * sums[k][2] for k, w in weights)
        taps[:, columns] = torch.linalg.solve(gram + torch.diag(ridge), moment)
    return SharedPrior(encoder, mean, std, basis, taps.float(), BEHIND, AHEAD, gain, about)


def _spread(
    parts: Sequence[Sequence[Recording]], size: int, reduce: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Mean and deviation of the features, [size] each."""
    count = torch.zeros(1, dtype=torch.float64)
    total, squares = torch.zeros(2, size, dtype=torch.float64)
    for recording in itertools.chain(*parts):
        rows = torch.from_numpy(recording.features[::_EVERY]).double()
        count += len(rows)
        total += rows.sum(0)
        squares += rows.square().sum(0)
    count, total, squares = reduce(count), reduce(total), reduce(squares)
    if float(count) < 2:
        raise AvatarError("There is no recording to train the prior on.")
    mean = total / count
    std = ((squares - count * mean.square()) / (count - 1)).clamp(min=0).sqrt()
    return mean.float(), std.float() + 1e-3


def _components(
    parts: Sequence[Sequence[Recording]], mean: Tensor, std: Tensor, reduce: Callable[[Tensor], Tensor]
) -> Tensor:
    """[F, COMPONENTS] the directions in which the features vary most."""
    second = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    count = torch.zeros(1, dtype=torch.float64)
    for recording in itertools.chain(*parts):
        z = project(recording.features[::_EVERY], mean, std, torch.eye(len(mean)))
        second += (z.T @ z).double()
        count += len(z)
    _, directions = torch.linalg.eigh(reduce(second) / reduce(count))
    return directions.flip(1)[:, :COMPONENTS].float().contiguous()


def _sums(
    part: Sequence[Recording], mean: Tensor, std: Tensor, basis: Tensor, reduce: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, float]:
    """Second moments of the inputs, and of inputs with targets; the number of rows."""
    size = (BEHIND + 1 + AHEAD) * basis.shape[1] + 1
    gram = torch.zeros(size, size, dtype=torch.float64)
    moment = torch.zeros(size, len(ARTICULATION), dtype=torch.float64)
    count = torch.zeros(1, dtype=torch.float64)
    for recording in part:
        target = torch.from_numpy(recording.target)
        seen = target.isfinite().any(1)
        x = stack(project(recording.features, mean, std, basis), BEHIND, AHEAD)[seen]
        gram += (x.T @ x).double()
        moment += (x.T @ target[seen].nan_to_num()).double()
        count += len(x)
    return reduce(gram), reduce(moment), float(reduce(count))
