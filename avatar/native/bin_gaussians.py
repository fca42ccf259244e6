"""Tile lists of projected Gaussians as a torch operator: who may be seen where, front to back."""

from __future__ import annotations

from contextvars import ContextVar, Token

import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.native.cuda import CudaLibrary
from avatar.native.operators import Kernels, address, operator, wanted

TILE = 16  # pixels on a side


class pair_capacity:
    """Within this context, lists of (tile, Gaussian) pairs have a fixed length and nothing waits for the device.

    It holds for the thread that entered it: others may draw, or record, at the same time.

    Sorting takes the time of ``count`` pairs, so ``count`` should be some tens of percent above what scenes need. Run a
    step once before capturing it in a CUDA graph: kernels are loaded on first use.

    Args:
        count: Pairs that fit.
    """

    def __init__(self, count: int) -> None:
        if not (isinstance(count, int) and 1 <= count < 2**31 - 1):
            raise AvatarError(f"pair_capacity({count}):", why="expected 1 to 2^31-2 pairs.")
        self.count = count
        self._flags: dict[torch.device, Tensor] = {}  # 1 once there were too many pairs
        self._entered: list[Token[pair_capacity | None]] = []

    def __enter__(self) -> pair_capacity:
        self._entered.append(_current.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        _current.reset(self._entered.pop())

    @staticmethod
    def current() -> pair_capacity | None:
        """The innermost one that this thread is within."""
        return _current.get()

    def overflowed(self) -> bool:
        """Whether any image so far had more pairs, and lacks some of its Gaussians. Waits for the device."""
        return any(bool(flag) for flag in self._flags.values())

    def _flag(self, device: torch.device) -> Tensor:
        if device not in self._flags:
            self._flags[device] = torch.zeros(1, dtype=torch.int32, device=device)
        return self._flags[device]


_current: ContextVar[pair_capacity | None] = ContextVar("pair_capacity", default=None)  # threads begin without


def _lists(
    means2d: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, radii: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Tile lists: limits [N], tile_offsets [tiles+1], ids [pairs], slots [pairs], slot_offsets [N+1]."""
    pairs = torch.library.get_ctx().new_dynamic_size()
    limits, tile_offsets, slot_offsets = _known(means2d, width, height)
    ids = tile_offsets.new_empty(pairs)
    return limits, tile_offsets, ids, torch.empty_like(ids), slot_offsets


def _known(means2d: Tensor, width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """The results whose sizes follow from the arguments: limits, tile_offsets, slot_offsets."""
    n, tiles = means2d.shape[0], ((width + TILE - 1) // TILE) * ((height + TILE - 1) // TILE)
    limits = means2d.new_empty(n)
    return limits, limits.new_empty(tiles + 1, dtype=torch.int32), limits.new_empty(n + 1, dtype=torch.int32)


def tile_lists(
    native: Kernels,
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    depths: Tensor,
    radii: Tensor,
    width: int,
    height: int,
    *,
    backward: bool = True,
) -> tuple[Tensor, ...]:
    """What the operator computes; without ``backward``, slots may be left out: an empty tensor."""
    if isinstance(native, CudaLibrary):
        return _compute_cuda(native, means2d, conics, opacities, depths, radii, width, height)
    n = len(means2d)
    limits, tile_offsets, slot_offsets = _known(means2d, width, height)
    pairs = torch.zeros(1, dtype=torch.int64)
    work = native.workspace("bin_workspace", means2d, n, width, height)
    native.call(
        *("bin_count", means2d, means2d, conics, opacities, depths, radii, n, width, height),
        *(slot_offsets, tile_offsets, pairs, limits, work),
    )
    ids = tile_offsets.new_empty(int(pairs))
    slots = wanted(ids, backward)
    native.call(
        *("bin_fill", means2d, means2d, conics, opacities, n, width, height, slot_offsets),
        *(ids, address(slots, backward), work),
    )
    return limits, tile_offsets, ids, slots, slot_offsets


def _compute_cuda(
    native: CudaLibrary,
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    depths: Tensor,
    radii: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, ...]:
    """Reads the number of pairs from the device, unless within :class:`pair_capacity`."""
    n = len(means2d)
    limits, tile_offsets, slot_offsets = _known(means2d, width, height)
    native.call(
        *("bin_count", means2d, means2d, conics, opacities, radii, n, width, height),
        *(slot_offsets, limits, native.workspace("bin_count_workspace", means2d, n)),
    )
    fixed = pair_capacity.current()
    capacity = int(slot_offsets[n]) if fixed is None else fixed.count
    if capacity == 2**31 - 1:
        raise AvatarError("More than 2^31-2 pairs of tile and Gaussian:", why="the Gaussians are too large.")
    ids, slots = radii.new_empty(capacity), radii.new_empty(capacity)
    overflow = None if fixed is None else fixed._flag(radii.device)  # pyright: ignore[reportPrivateUsage]
    native.call(
        *("bin_fill", means2d, means2d, conics, opacities, depths, radii, n, width, height),
        *(slot_offsets, capacity, tile_offsets, ids, slots, overflow),
        native.workspace("bin_fill_workspace", means2d, capacity, width, height),
    )
    return limits, tile_offsets, ids, slots, slot_offsets


bin_gaussians = operator("bin_gaussians", _lists, tile_lists)
