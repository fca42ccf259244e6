"""Several processes, here or on several machines, started by ``torchrun``: who has which share, and sums over all."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from avatar import log

T = TypeVar("T")
_PATIENCE = timedelta(days=7)  # one process may have much more to prepare than another


@dataclass(frozen=True)
class Ranks:
    """Processes that work together; one where the command was started by itself.

    Attributes:
        rank: Number of this one.
        count: How many there are.
    """

    rank: int = 0
    count: int = 1

    @staticmethod
    @contextmanager
    def join() -> Generator[Ranks]:
        """Meet the others; only the first speaks meanwhile."""
        if not dist.is_available() or not dist.is_torchelastic_launched():
            yield Ranks()
            return
        dist.init_process_group("gloo", timeout=_PATIENCE)
        log.console.quiet = dist.get_rank() > 0
        try:
            yield Ranks(dist.get_rank(), dist.get_world_size())
        finally:
            log.console.quiet = False
            dist.destroy_process_group()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """The items that are this process's."""
        return list(items[self.rank :: self.count])

    def add(self, sums: Tensor) -> Tensor:
        """The sum of a tensor over all processes."""
        if self.count > 1:
            dist.all_reduce(sums)
        return sums

    def merge(self, keys: dict[str, str], names: Sequence[str]) -> dict[str, str]:
        """What each process found for its names (hexadecimal digests), for all names; the processes wait here."""
        table = torch.zeros(len(names), 32, dtype=torch.uint8)
        for row, name in enumerate(names):
            if name in keys:
                table[row] = torch.tensor(list(bytes.fromhex(keys[name])), dtype=torch.uint8)
        return {name: bytes(row.tolist()).hex() for name, row in zip(names, self.add(table), strict=True)}

    def wait(self) -> None:
        """Go on when all are here."""
        if self.count > 1:
            dist.barrier()
