"""The torso's warp: displacements on a fixed grid over the upper body, bilinear in between.

Clothes are not rigid: a shrug lifts a shoulder, a collar shifts, a lapel opens. What the rigid motion of the torso
leaves over is stored as the displacement of the nodes of this grid, in centimetres in the plane of the torso.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

ROWS, COLUMNS = 6, 11
WIDTH = ROWS * COLUMNS * 2  # numbers per frame: (x, y) of each node, row by row


def cells(points: Float[Tensor, "N 2"], box: Float[Tensor, "2 2"]) -> tuple[Int[Tensor, "N 4"], Float[Tensor, "N 4"]]:
    """The four nodes around each point and their bilinear weights.

    Args:
        points: [N, 2]; those outside the box take the displacement of its nearest point.
        box: [2, 2] lower and upper corner, in the units of the points.

    Returns:
        Node indices [N, 4] (int64) and weights [N, 4], which sum to 1; NaN for points that are not finite.
    """
    x, y = ((points - box[0]) / (box[1] - box[0])).clamp(0, 1).unbind(-1)
    x, y = x * (COLUMNS - 1), y * (ROWS - 1)
    left, top = x.floor().clamp_max(COLUMNS - 2), y.floor().clamp_max(ROWS - 2)
    x, y = x - left, y - top
    corner = (top * COLUMNS + left).nan_to_num(0).long()  # NaN stays in the weights; as an index it is an access fault
    index = torch.stack([corner, corner + 1, corner + COLUMNS, corner + COLUMNS + 1], -1)
    return index, torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y], -1)


def halves(warp: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch 4"]:
    """Mean displacement of the two sides of the body, [..., 4] from [..., WIDTH]: the shoulders, roughly."""
    nodes = warp.unflatten(-1, (ROWS, COLUMNS, 2))
    middle = COLUMNS // 2
    return torch.cat([nodes[..., :middle, :].mean((-3, -2)), nodes[..., -middle:, :].mean((-3, -2))], -1)
