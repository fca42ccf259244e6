"""What keeps the CUDA library from harm: whether it runs at all, and tile lists that are not as they were counted."""

from __future__ import annotations

import ctypes

import torch

from avatar.native import _abi


def test_an_empty_kernel_tells_whether_the_library_runs(emulation):
    call = _abi.Call(dtype=_abi.FLOAT32, num_threads=1)
    assert emulation.library.handle.avatar_cuda_probe(ctypes.byref(call), None) == _abi.OK and call.message == b""


def test_places_that_were_counted_and_not_filled_are_behind_the_last_tile(backend):
    """Two Gaussians, of which the first was counted with one tile more, and the second with one less."""
    device = backend.device
    means2d = torch.tensor([[8.0, 8.0], [40.0, 8.0]], device=device)
    conics = torch.tensor([[0.5, 0, 0.5], [0.05, 0, 0.05]], device=device)
    opacities, depths = torch.full((2,), 0.9, device=device), torch.tensor([2.0, 1.0], device=device)
    radii = torch.full((2,), 20, dtype=torch.int32, device=device)
    offsets = torch.tensor([0, 2, 4], dtype=torch.int32, device=device)  # there are 1 and 3
    library, sizes = backend.library, (64, 16)
    tile_offsets, ids, slots = (torch.full((size,), -1, dtype=torch.int32, device=device) for size in (5, 4, 4))
    with backend.active():
        library.call(
            *("bin_fill", means2d, means2d, conics, opacities, depths, radii, 2, *sizes, offsets, 4),
            *(tile_offsets, ids, slots, None, library.workspace("bin_fill_workspace", means2d, 4, *sizes)),
        )
    assert tile_offsets.tolist() == [0, 1, 2, 3, 3]
    assert ids[:3].tolist() == [0, 1, 1] and sorted(slots.tolist()) == [0, 1, 2, 3] and slots[3] == 1
