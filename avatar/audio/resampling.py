"""Rows of a stream at another rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor


def at_rate(
    blocks: Iterable[Tensor], rate: float, fps: float, total: Callable[[], int] = lambda: 0
) -> Iterator[Tensor]:
    """Blocks of rows at another rate, linearly, however they are cut; a row is out when those on both sides are there.

    Args:
        blocks: Rows [n, C], at ``rate``.
        rate, fps: Rows per second, before and after.
        total: How many rows there shall be in all, asked when the blocks have ended: the last one is repeated.
    """
    held = torch.zeros(0)
    base = frame = 0  # row number of held[0]; next row to make

    def take(count: int) -> Tensor:
        nonlocal held, base, frame
        at = (torch.arange(frame, frame + count, dtype=torch.float64) * (rate / fps) - base).clamp(max=len(held) - 1)
        low = at.long()
        high = (low + 1).clamp(max=len(held) - 1)
        part = (at - low)[:, None]
        mixed = held[low] * (1 - part) + held[high] * part
        frame += count
        drop = min(int(frame * rate / fps) - base, len(held) - 1)
        held, base = held[drop:], base + drop
        return mixed.float()

    for block in blocks:
        held = torch.cat([held, block])
        ready = int((base + len(held) - 1) * fps / rate + 1e-6) + 1 - frame
        if ready > 0:
            yield take(ready)
    if len(held) and total() > frame:
        yield take(total() - frame)
