"""What keeps the CUDA library from harm: whether it runs at all, and tile lists that are not as they were counted."""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from avatar.native import _abi
from tests.kernels.cuda_backends import Backend


def test_an_empty_kernel_tells_whether_the_library_runs(emulation):
    call = _abi.Call(dtype=_abi.FLOAT32, num_threads=1)
    assert emulation.library.handle.avatar_cuda_probe(ctypes.byref(call), None) == _abi.OK and call.message == b""


SIZE = 64, 16


def miscounted(backend: Backend) -> tuple[Any, ...]:
    """Two Gaussians, of which the first was counted with one tile more, and the second with one less, dealt to tiles.

    Returns:
        Means, conics, opacities, offsets, tile offsets, ids and slots.
    """
    device = backend.device
    means2d = torch.tensor([[8.0, 8.0], [40.0, 8.0]], device=device)
    conics = torch.tensor([[0.5, 0, 0.5], [0.05, 0, 0.05]], device=device)
    opacities, depths = torch.full((2,), 0.9, device=device), torch.tensor([2.0, 1.0], device=device)
    radii = torch.full((2,), 20, dtype=torch.int32, device=device)
    offsets = torch.tensor([0, 2, 4], dtype=torch.int32, device=device)  # there are 1 and 3
    tile_offsets, ids, slots = (torch.full((size,), -1, dtype=torch.int32, device=device) for size in (5, 4, 4))
    with backend.active():
        backend.library.call(
            *("bin_fill", means2d, means2d, conics, opacities, depths, radii, 2, *SIZE, offsets, 4),
            *(tile_offsets, ids, slots, None, backend.library.workspace("bin_fill_workspace", means2d, 4, *SIZE)),
        )
    return means2d, conics, opacities, offsets, tile_offsets, ids, slots


def test_places_that_were_counted_and_not_filled_are_behind_the_last_tile(backend):
    *_, tile_offsets, ids, slots = miscounted(backend)
    assert tile_offsets.tolist() == [0, 1, 2, 3, 3]
    assert ids[:3].tolist() == [0, 1, 1] and sorted(slots.tolist()) == [0, 1, 2, 3] and slots[3] == 1


def test_places_that_were_counted_and_not_filled_have_no_gradient(backend):
    """Nothing writes their rows of the workspace, and what was in memory before must not be summed."""
    means2d, conics, opacities, offsets, tile_offsets, ids, slots = miscounted(backend)
    device, library = backend.device, backend.library
    colors, limits = torch.full((2, 3), 0.5, device=device), 2 * (opacities * 255).log()
    image, rest = torch.empty(16, 64, 3, device=device), torch.empty(16, 64, device=device)
    last = torch.empty(16, 64, dtype=torch.int32, device=device)
    found = []
    with backend.active():
        scene = (means2d, means2d, conics, colors, opacities, 2, 3, None, 0, *SIZE, limits, tile_offsets, ids)
        library.call("rasterize", *scene, image, rest, last)
        for before in (0x00, 0xFF, 0x41):
            workspace = library.workspace("rasterize_workspace", means2d, 4, 3, *SIZE).fill_(before)
            gradients = [torch.empty_like(x) for x in (means2d, conics, colors, opacities)]
            library.call(
                *("rasterize_backward", *scene, slots, offsets, 4, rest, last, torch.ones_like(image)),
                *(torch.zeros_like(rest), *gradients, workspace),
            )
            found.append(torch.cat([x.flatten() for x in gradients]))
    assert found[0].isfinite().all() and all(torch.equal(found[0], other) for other in found[1:])
