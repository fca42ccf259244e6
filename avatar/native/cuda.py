"""The CUDA library: finds and calls it, and gives the operators of this package their CUDA implementations.

Everything runs on ``torch.cuda.current_stream()``; memory comes from torch. Only :func:`bin_gaussians` waits for the
device, because torch has to know the number of (tile, Gaussian) pairs to allocate their lists; within
:class:`pair_capacity` it does not, and a whole training step can be captured in a CUDA graph.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from avatar.errors import AvatarError
from avatar.native import _abi, _abi_cuda

NAME = "_native_cuda"
FIX = (
    "With nvcc on PATH run `AVATAR_CUDA=1 pip install .` in the sources; until then move the tensors with .cpu(), "
    "or set AVATAR_NATIVE=reference for plain torch, which is slow."
)
_DTYPES = {torch.float32: _abi.FLOAT32, torch.float64: _abi.FLOAT64}
_TILE = 16


@dataclass(frozen=True)
class CudaLibrary:
    """A loaded CUDA library."""

    handle: ctypes.CDLL
    path: Path

    def call(self, name: str, like: Tensor, *arguments: Any) -> None:
        """Launch on the current stream of the device of ``like``, whose dtype is the call's.

        Raises:
            AvatarError: The library refused the arguments, or the launch failed; the sentence is the library's.
        """
        if like.dtype not in _DTYPES:
            raise AvatarError(f"{name.removeprefix('avatar_cuda_')}: {like.dtype} is not supported.")
        call = _abi.Call(dtype=_DTYPES[like.dtype], num_threads=1)
        addresses = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
        with torch.cuda.device(like.device) if like.is_cuda else contextlib.nullcontext():
            stream = torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else None
            status = getattr(self.handle, name)(ctypes.byref(call), *addresses, stream)
        if status != _abi.OK:
            raise AvatarError(f"{name.removeprefix('avatar_')}: {call.message.decode()}.")

    def workspace(self, name: str, like: Tensor, *sizes: int) -> Tensor:
        """Scratch memory for one call, as the library asks for it."""
        size = getattr(self.handle, name)(*sizes)
        if size < 0:
            raise AvatarError(f"{name.removeprefix('avatar_')}: sizes {list(sizes)} are refused.")
        return torch.empty(size, dtype=torch.uint8, device=like.device)


def open_library(path: Path) -> CudaLibrary | str:
    """The library with its signatures set, or why it cannot be used."""
    try:
        handle = ctypes.CDLL(str(path))
        version = handle.avatar_cuda_abi_version()
        if version != _abi_cuda.ABI_VERSION:
            return f"{path} has ABI version {version}, not {_abi_cuda.ABI_VERSION}; run `pip install` again."
        for name, (result, arguments) in _abi_cuda.FUNCTIONS.items():
            function = getattr(handle, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as error:
        return f"{path} does not load: {error}."
    return CudaLibrary(handle, path)


@functools.cache
def _load() -> tuple[CudaLibrary | None, str]:
    choice = os.environ.get("AVATAR_NATIVE_CUDA", "")
    beside = [
        Path(__file__).parent / f"{NAME}.so",
        Path(sysconfig.get_path("platlib"), "avatar", "native", f"{NAME}.so"),
    ]
    reason = f"there is no {choice or f'{NAME}.so in {beside[0].parent}'}."
    for path in filter(Path.is_file, [Path(choice)] if choice else beside):
        loaded = open_library(path)
        if isinstance(loaded, CudaLibrary):
            return loaded, ""
        reason = loaded
    return None, reason


def cuda_library() -> CudaLibrary | None:
    """The CUDA library, or None (see :func:`cuda_status`)."""
    return _load()[0]


def require_cuda_library() -> CudaLibrary:
    """The CUDA library.

    Raises:
        AvatarError: It is not there; the sentence says how to build it.
    """
    loaded, reason = _load()
    if loaded is None:
        raise AvatarError("CUDA tensors need the CUDA library:", why=reason, fix=FIX)
    return loaded


def cuda_status() -> str:
    """One line: which CUDA library is there, or why none."""
    loaded, reason = _load()
    return f"not built: {reason}" if loaded is None else str(loaded.path)


class pair_capacity:
    """Within this context, lists of (tile, Gaussian) pairs have a fixed length and nothing waits for the device.

    Sorting takes the time of ``count`` pairs, so ``count`` should be some tens of percent above what scenes need. Run a
    step once before capturing it in a CUDA graph: kernels are loaded on first use.

    Args:
        count: Pairs that fit.
    """

    _current: pair_capacity | None = None

    def __init__(self, count: int) -> None:
        if not (isinstance(count, int) and 1 <= count < 2**31 - 1):
            raise AvatarError(f"pair_capacity({count}):", why="expected 1 to 2^31-2 pairs.")
        self.count = count
        self._flags: dict[torch.device, Tensor] = {}  # 1 once there were too many pairs

    def __enter__(self) -> pair_capacity:
        self._outer, pair_capacity._current = pair_capacity._current, self
        return self

    def __exit__(self, *_: object) -> None:
        pair_capacity._current = self._outer

    def overflowed(self) -> bool:
        """Whether any picture so far had more pairs, and lacks some of its Gaussians. Waits for the device."""
        return any(bool(flag) for flag in self._flags.values())

    def _flag(self, device: torch.device) -> Tensor:
        if device not in self._flags:
            self._flags[device] = torch.zeros(1, dtype=torch.int32, device=device)
        return self._flags[device]


def project_gaussians(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    eps2d: float,
    near_plane: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``avatar::project_gaussians``."""
    n = len(means)
    radii = means.new_empty(n, dtype=torch.int32)
    means2d, depths, conics = means.new_empty(n, 2), means.new_empty(n), means.new_empty(n, 3)
    require_cuda_library().call(
        "avatar_cuda_project",
        *(means, means, quats, scales, viewmat, K, n, width, height, eps2d, near_plane),
        *(radii, means2d, depths, conics),
    )
    return means2d, depths, conics, radii


def project_gaussians_backward(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    eps2d: float,
    radii: Tensor,
    v_means2d: Tensor,
    v_depths: Tensor,
    v_conics: Tensor,
    need_viewmat: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``avatar::project_gaussians_backward``."""
    native, n = require_cuda_library(), len(means)
    v_means, v_quats, v_scales = torch.empty_like(means), torch.empty_like(quats), torch.empty_like(scales)
    v_viewmat = torch.empty_like(viewmat) if need_viewmat else viewmat.new_empty(0)
    native.call(
        "avatar_cuda_project_backward",
        *(means, means, quats, scales, viewmat, K, n, width, height, eps2d, radii),
        *(v_means2d, v_depths, v_conics, v_means, v_quats, v_scales, v_viewmat if need_viewmat else None),
        native.workspace("avatar_cuda_project_workspace", means, _DTYPES[means.dtype], n),
    )
    return v_means, v_quats, v_scales, v_viewmat


def pose_gaussians(
    means: Tensor, quats: Tensor, weights: Tensor, shifts: Tensor, moves: Tensor, turns: Tensor
) -> tuple[Tensor, Tensor]:
    """``avatar::pose_gaussians``."""
    posed_means, posed_quats = torch.empty_like(means), torch.empty_like(quats)
    require_cuda_library().call(
        *("avatar_cuda_pose", means, means, quats, weights, shifts, moves, turns, len(means)),
        *(posed_means, posed_quats),
    )
    return posed_means, posed_quats


def pose_gaussians_backward(
    means: Tensor,
    quats: Tensor,
    weights: Tensor,
    shifts: Tensor,
    moves: Tensor,
    turns: Tensor,
    v_posed_means: Tensor,
    v_posed_quats: Tensor,
    need_rig: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``avatar::pose_gaussians_backward``."""
    native, n = require_cuda_library(), len(means)
    v_means, v_quats = torch.empty_like(means), torch.empty_like(quats)
    v_weights, v_shifts = torch.empty_like(weights), torch.empty_like(shifts)
    v_moves = torch.empty_like(moves) if need_rig else moves.new_empty(0)
    v_turns = torch.empty_like(turns) if need_rig else turns.new_empty(0)
    native.call(
        *("avatar_cuda_pose_backward", means, means, quats, weights, shifts, moves, turns, n),
        *(v_posed_means, v_posed_quats, v_means, v_quats, v_weights, v_shifts),
        *((v_moves, v_turns) if need_rig else (None, None)),
        native.workspace("avatar_cuda_pose_workspace", means, _DTYPES[means.dtype], n),
    )
    return v_means, v_quats, v_weights, v_shifts, v_moves, v_turns


def triplane_encode(points: Tensor, table: Tensor, resolutions: Sequence[int]) -> Tensor:
    """``avatar::triplane_encode``."""
    planes, levels, rows, features = table.shape
    out = points.new_empty(len(points), planes * levels * features)
    sizes = torch.tensor(resolutions, dtype=torch.int32, device="cpu")  # copied by the launch
    require_cuda_library().call(
        *("avatar_cuda_triplane_encode", points, points, table, sizes),
        *(len(points), levels, rows, features, out),
    )
    return out


def triplane_encode_backward(
    v_out: Tensor, points: Tensor, table: Tensor, resolutions: Sequence[int], need_points: bool, need_table: bool
) -> tuple[Tensor, Tensor]:
    """``avatar::triplane_encode_backward``."""
    _, levels, rows, features = table.shape
    v_points = torch.empty_like(points) if need_points else points.new_empty(0)
    v_table = torch.empty_like(table) if need_table else table.new_empty(0)
    require_cuda_library().call(
        *("avatar_cuda_triplane_encode_backward", points, points, table),
        *(torch.tensor(resolutions, dtype=torch.int32, device="cpu"), len(points), levels, rows, features, v_out),
        *(v_points if need_points else None, v_table if need_table else None),
    )
    return v_points, v_table


def bin_gaussians(
    means2d: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, radii: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``avatar::bin_gaussians``. Reads the number of pairs from the device, unless within :class:`pair_capacity`."""
    native, n = require_cuda_library(), len(means2d)
    tiles = ((width + _TILE - 1) // _TILE) * ((height + _TILE - 1) // _TILE)
    limits, slot_offsets = means2d.new_empty(n), radii.new_empty(n + 1)
    native.call(
        *("avatar_cuda_bin_count", means2d, means2d, conics, opacities, radii, n, width, height),
        *(slot_offsets, limits, native.workspace("avatar_cuda_bin_count_workspace", means2d, n)),
    )
    fixed = pair_capacity._current
    capacity = int(slot_offsets[n]) if fixed is None else fixed.count
    if capacity == 2**31 - 1:
        raise AvatarError("More than 2^31-2 pairs of tile and Gaussian:", why="the Gaussians are too large.")
    tile_offsets = radii.new_empty(tiles + 1)
    ids, slots = radii.new_empty(capacity), radii.new_empty(capacity)
    overflow = None if fixed is None else fixed._flag(radii.device)
    native.call(
        *("avatar_cuda_bin_fill", means2d, means2d, conics, opacities, depths, radii, n, width, height),
        *(slot_offsets, capacity, tile_offsets, ids, slots, overflow),
        native.workspace("avatar_cuda_bin_fill_workspace", means2d, capacity, width, height),
    )
    return limits, tile_offsets, ids, slots, slot_offsets


def _background(background: Tensor | None) -> tuple[Tensor | None, int]:
    return background, background.shape[-1] if background is not None and background.dim() == 3 else 0


def rasterize(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    background: Tensor | None,
    limits: Tensor,
    tile_offsets: Tensor,
    ids: Tensor,
    slots: Tensor,
    slot_offsets: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """``avatar::rasterize``."""
    n, channels = colors.shape
    image, final_t = means2d.new_empty(height, width, channels), means2d.new_empty(height, width)
    last = ids.new_empty(height, width)
    require_cuda_library().call(
        "avatar_cuda_rasterize",
        *(means2d, means2d, conics, colors, opacities, n, channels, *_background(background)),
        *(width, height, limits, tile_offsets, ids, image, final_t, last),
    )
    return image, final_t, last


def rasterize_backward(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    background: Tensor | None,
    limits: Tensor,
    tile_offsets: Tensor,
    ids: Tensor,
    slots: Tensor,
    slot_offsets: Tensor,
    final_t: Tensor,
    last: Tensor,
    v_image: Tensor,
    v_final_t: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``avatar::rasterize_backward``."""
    native, (n, channels), (height, width) = require_cuda_library(), colors.shape, final_t.shape
    v_means2d, v_conics = torch.empty_like(means2d), torch.empty_like(conics)
    v_colors, v_opacities = torch.empty_like(colors), torch.empty_like(opacities)
    sizes = (_DTYPES[means2d.dtype], len(ids), channels, width, height)
    native.call(
        "avatar_cuda_rasterize_backward",
        *(means2d, means2d, conics, colors, opacities, n, channels, *_background(background)),
        *(width, height, limits, tile_offsets, ids, slots, slot_offsets, len(ids)),
        *(final_t, last, v_image, v_final_t, v_means2d, v_conics, v_colors, v_opacities),
        native.workspace("avatar_cuda_rasterize_workspace", means2d, *sizes),
    )
    return v_means2d, v_conics, v_colors, v_opacities


def ssim(a: Tensor, b: Tensor, need_a: bool, need_b: bool) -> tuple[Tensor, Tensor, Tensor]:
    """``avatar::ssim``."""
    native, mean = require_cuda_library(), a.new_empty(())
    for_a, for_b = (a.new_empty((3, *a.shape) if needed else (0,)) for needed in (need_a, need_b))
    native.call(
        *("avatar_cuda_ssim", a, a, b, *a.shape, mean, for_a if need_a else None, for_b if need_b else None),
        native.workspace("avatar_cuda_ssim_workspace", a, *a.shape),
    )
    return mean, for_a, for_b


def ssim_backward(a: Tensor, b: Tensor, partials: Tensor, v_mean: Tensor) -> Tensor:
    """``avatar::ssim_backward``."""
    v_a = torch.empty_like(a)
    require_cuda_library().call("avatar_cuda_ssim_backward", a, a, b, partials, v_mean.contiguous(), *a.shape, v_a)
    return v_a


def l1_ssim(
    image: Tensor, target: Tensor, weight: Tensor | None, ssim_weight: float, need_image: bool
) -> tuple[Tensor, Tensor]:
    """``avatar::l1_ssim``: loss, L1, SSIM and squared error [4], and the gradient of the loss by the picture."""
    native, terms = require_cuda_library(), image.new_empty(4)
    v_image = image.new_empty(image.shape if need_image else (0,))
    native.call(
        *("avatar_cuda_l1_ssim", image, image, target, weight, ssim_weight, *image.shape),
        *(terms, v_image if need_image else None),
        native.workspace("avatar_cuda_l1_ssim_workspace", image, _DTYPES[image.dtype], *image.shape),
    )
    return terms, v_image


def adam_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """One Adam step in place; see :func:`avatar.native.adam_step`."""
    require_cuda_library().call(
        *("avatar_cuda_adam_step", param, param, grad, exp_avg, exp_avg_sq, param.numel()),
        *(lr, beta1, beta2, eps, step),
    )


def deform_mlp(
    features: Tensor,
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    condition: Tensor,
    middle_weight: Tensor,
    middle_bias: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    scale: Tensor,
) -> Tensor:
    """``avatar::deform_mlp``: the first layer, the wide one, by cuBLAS; the rest as :func:`deform_code`."""
    base, gate = F.linear(features, spatial_weight, spatial_bias).chunk(2, dim=1)
    code = torch.cat([base, 2 * torch.sigmoid(gate)], dim=1)
    return deform_code(code, condition, middle_weight, middle_bias, head_weight, head_bias, scale)


def deform_mlp_backward(
    v_out: Tensor,
    features: Tensor,
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    condition: Tensor,
    middle_weight: Tensor,
    middle_bias: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    scale: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``avatar::deform_mlp_backward``, by cuBLAS, from the inputs: nothing is kept from forward."""
    base, gate = F.linear(features, spatial_weight, spatial_bias).chunk(2, dim=1)
    attention = 2 * torch.sigmoid(gate)
    first = F.relu(torch.addcmul(base, attention, condition))
    second = F.relu(F.linear(first, middle_weight, middle_bias))
    v_head = v_out * scale
    v_second = (v_head @ head_weight) * (second > 0)
    v_first = (v_second @ middle_weight) * (first > 0)
    v_gate = v_first * condition * attention * (1 - 0.5 * attention)
    v_spatial = torch.cat([v_first, v_gate], dim=1)
    return (
        v_spatial @ spatial_weight,
        v_spatial.T @ features,
        v_spatial.sum(0),
        (v_first * attention).sum(0),
        v_second.T @ first,
        v_second.sum(0),
        v_head.T @ second,
        v_head.sum(0),
    )


def deform_code(
    code: Tensor,
    condition: Tensor,
    middle_weight: Tensor,
    middle_bias: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    scale: Tensor,
) -> Tensor:
    """``avatar::deform_code``: the layers of the deformation network after the first; other sizes than the kernel's by
    cuBLAS.

    Args:
        code: [N, 2 H], base and attention; the kernel is for H = 64. A bfloat16 code is converted.
        condition: [H], the condition after its linear layer.
        middle_weight: [H, H].
        middle_bias: [H].
        head_weight: [O, H]; the kernel is for up to 16 outputs.
        head_bias: [O].
        scale: [O].

    Returns:
        [N, O], ``scale * (head(relu(middle(relu(base + attention * condition)))))``.
    """
    outputs, hidden = head_weight.shape
    code = code.to(condition.dtype)
    if hidden != 64 or not 1 <= outputs <= 16 or code.dtype != torch.float32:
        base, attention = code.chunk(2, dim=1)
        active = F.relu(torch.addcmul(base, attention, condition))
        return F.linear(F.relu(F.linear(active, middle_weight, middle_bias)), head_weight, head_bias) * scale
    out = code.new_empty(len(code), outputs)
    require_cuda_library().call(
        *("avatar_cuda_deform_code", code, code, condition, middle_weight, middle_bias, head_weight, head_bias),
        *(scale, len(code), hidden, outputs, out),
    )
    return out


def march_rays(
    offsets: Tensor, starts: Tensor, ends: Tensor, densities: Tensor, colors: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``avatar::march_rays``."""
    rays, channels = len(offsets) - 1, colors.shape[1]
    color, opacity, depth = colors.new_empty(rays, channels), colors.new_empty(rays), colors.new_empty(rays)
    transmittance = torch.empty_like(densities)
    require_cuda_library().call(
        *("avatar_cuda_march", colors, offsets, starts, ends, densities, colors, rays, channels),
        *(color, opacity, depth, transmittance),
    )
    return color, opacity, depth, transmittance


def march_rays_backward(
    offsets: Tensor,
    starts: Tensor,
    ends: Tensor,
    densities: Tensor,
    colors: Tensor,
    opacity: Tensor,
    depth: Tensor,
    transmittance: Tensor,
    v_color: Tensor,
    v_opacity: Tensor,
    v_depth: Tensor,
) -> tuple[Tensor, Tensor]:
    """``avatar::march_rays_backward``."""
    v_densities, v_colors = torch.empty_like(densities), torch.empty_like(colors)
    require_cuda_library().call(
        *("avatar_cuda_march_backward", colors, offsets, starts, ends, densities, colors),
        *(len(offsets) - 1, colors.shape[1], opacity, depth, transmittance, v_color, v_opacity, v_depth),
        *(v_densities, v_colors),
    )
    return v_densities, v_colors
