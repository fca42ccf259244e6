"""Evaluate samples of rays from front to back, and leave out those that nothing shows of: most lie behind a surface."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.native import RaySamples

_FIRST, _AT_ONCE = 6, 4  # samples of a ray in the first round, and in each of the others
OPAQUE = 7.0  # optical depth from which on a ray shows a thousandth of what lies behind

Evaluate = Callable[[Float[Tensor, "N 3"]], tuple[Float[Tensor, " N"], Float[Tensor, "N 3"]]]


@torch.no_grad()
def evaluate_front_to_back(
    samples: RaySamples, evaluate: Evaluate
) -> tuple[Float[Tensor, " S"], Float[Tensor, "S 3"], int]:
    """Densities and colors of samples, 0 for those behind `OPAQUE`.

    Each round takes the next few samples of the rays that still let light through.

    Args:
        samples: Of rays without gradients.
        evaluate: Densities [N] per centimetre and colors [N, 3] of positions [N, 3].

    Returns:
        Densities [S], colors [S, 3], and how many samples were evaluated.
    """
    positions = samples.positions
    densities, colors = positions.new_zeros(len(positions)), positions.new_zeros(len(positions), 3)
    lengths = samples.ends - samples.starts
    at, end = samples.offsets[:-1].long(), samples.offsets[1:].long()
    depth = positions.new_zeros(len(at))
    count, take = 0, _FIRST
    while True:
        going = (at < end) & (depth < OPAQUE)
        at, end, depth = at[going], end[going], depth[going]
        if not len(at):
            return densities, colors, count
        index = at[:, None] + torch.arange(take, device=at.device)
        valid = index < end[:, None]
        chosen = index[valid]
        density, color = evaluate(positions[chosen])
        densities[chosen], colors[chosen] = density, color
        passed = positions.new_zeros(index.shape)
        passed[valid] = density * lengths[chosen]
        depth = depth + passed.sum(1)
        at, take, count = at + take, _AT_ONCE, count + len(chosen)
