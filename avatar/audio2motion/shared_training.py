"""Training of the shared prior, in closed form: a ridge regression on principal components of the features.

The regression must serve unseen people, who are best served by few components and few rows of context
(docs/notes/audio2motion.md). Sources teach each articulator in their own shares.

All that is learnt is in sums over rows. So recordings are read one at a time, and processes that have some of them each
get the same prior by adding up their sums.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avatar.audio.encoders.base import SpeechEncoder
from avatar.audio2motion.shared import GAIN, RATE, SharedPrior, project
from avatar.errors import AvatarError
from avatar.motion.mouth import ARTICULATION

COMPONENTS = 96
BEHIND, AHEAD = 5, 2  # rows
RIDGE = 0.1  # of the mean power of the inputs
# Seconds of speech that a prior to go on from counts for; 30 to 1000 are nearly as good (docs/notes/audio2motion.md).
BASE_SECONDS = 300.0
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
    base: SharedPrior | None = None,
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
        base: To go on from: its weights are corrected as far as the recordings outweigh `BASE_SECONDS` of speech. Its
            encoder made the features; its components, gain and closure weights are kept, and what no recording teaches.
        components_of: Sources by whose audio the components are chosen; None: all.
        reduce: Adds up a float64 tensor over the processes that have a part of the recordings each. All of them name
            the same sources, and get the same prior.

    Raises:
        AvatarError: There is nothing to train on.
    """
    before = base
    if before is None:
        chosen = [part for name, part in sources.items() if components_of is None or name in components_of]
        mean, std = _spread(chosen, encoder.dim, reduce)
        basis = _components(chosen, mean, std, reduce)
        nothing = torch.zeros((BEHIND + 1 + AHEAD) * basis.shape[1] + 1, len(ARTICULATION))
        before = SharedPrior(encoder, mean, std, basis, nothing, BEHIND, AHEAD, gain)
    sums = {name: _sums(part, before, reduce) for name, part in sources.items()}
    weights = before.weights.double()
    for shares_of, columns in _columns(shares, sums, complete=base is None).items():
        weights[:, columns] += _correction(weights[:, columns], shares_of, columns, sums, from_base=base is not None)
    return replace(before, weights=weights.float(), about=about)


_Shares = tuple[tuple[str, float], ...]  # sources, and the weight of each
_Sums = Mapping[str, tuple[Tensor, Tensor, float]]  # by source: see `_sums`


def _columns(shares: Mapping[str, Mapping[str, float]], sums: _Sums, *, complete: bool) -> dict[_Shares, list[int]]:
    """Columns of articulation by the shares of the sources that teach them; ``complete``: all must be taught."""
    taught: dict[_Shares, list[int]] = defaultdict(list)
    for i, name in enumerate(ARTICULATION):
        share = shares[name if name in shares else ""]
        weights = tuple((k, w) for k, w in share.items() if w > 0 and sums[k][2] > 0)
        if weights:
            taught[weights].append(i)
        elif complete:
            raise AvatarError(f"No recording teaches the prior {name}.")
    return taught


def _correction(before: Tensor, shares: _Shares, columns: list[int], sums: _Sums, *, from_base: bool) -> Tensor:
    """What ridge regression adds to the weights ``before`` [R, n] of some columns."""
    size = len(before)
    whole = sum(w for _, w in shares)
    rows = sum(sums[k][2] for k, _ in shares)
    gram = torch.stack([w / whole / sums[k][2] * sums[k][0] for k, w in shares]).sum(0)  # means over rows
    moment = torch.stack([w / whole / sums[k][2] * sums[k][1][:, columns] for k, w in shares]).sum(0)
    if from_base:
        power = float(gram.trace() - gram[-1, -1]) / (size - 1)
        ridge = torch.full((size,), power * BASE_SECONDS * RATE / rows, dtype=torch.float64)
        ridge[-1] = RATE / rows  # the constant: a second of what the base predicts
    else:
        ridge = torch.full((size,), RIDGE * float(gram.trace()) / size, dtype=torch.float64)
        ridge[-1] = 1e-6
    return torch.linalg.solve(gram + torch.diag(ridge), moment - gram @ before)


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
    part: Sequence[Recording], prior: SharedPrior, reduce: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, float]:
    """Second moments of the inputs, and of inputs with targets; the number of rows."""
    size = len(prior.weights)
    gram = torch.zeros(size, size, dtype=torch.float64)
    moment = torch.zeros(size, len(ARTICULATION), dtype=torch.float64)
    count = torch.zeros(1, dtype=torch.float64)
    for recording in part:
        target = torch.from_numpy(recording.target)
        seen = target.isfinite().any(1)
        x = prior.inputs(recording.features)[seen]
        gram += (x.T @ x).double()
        moment += (x.T @ target[seen].nan_to_num()).double()
        count += len(x)
    return reduce(gram), reduce(moment), float(reduce(count))
