"""Tensors rounded to 8 or 16 bits, for compact bundles.

Large tensors of 32-bit floats become whole numbers between the smallest and the largest value of each channel (their
last axis). Tables of 16-bit floats become 8 bits in the same way, weights of networks 16-bit floats. Everything is
turned back when a bundle is opened.
"""

from __future__ import annotations

import json

import torch
from safetensors.torch import load, save
from torch import Tensor

_FEWEST = 1024  # numbers of a tensor that is worth it
_MARK = "packed"  # key of the metadata
# By the last part of a tensor's name: bits per number. Positions need 16, what is seen through sigmoids and colours 8.
_BITS = {"colors": 8, "opacities": 8, "quats": 8, "scales": 8, "bind_weight": 8, "skinning_weight": 8, "table": 8}
_WHOLE = {8: (torch.uint8, 255), 16: (torch.int32, 65535)}


def packed(data: bytes) -> bytes:
    """A safetensors file with its large tensors rounded."""
    tensors, kinds = load(data), {}
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.numel() < _FEWEST or tensor.dtype not in (torch.float32, torch.float16):
            stored[name] = tensor
        elif name.endswith(".weight") and tensor.dtype == torch.float32:  # of a network
            stored[name], kinds[name] = tensor.half(), "float32"
        else:
            bits = _BITS.get(name.rpartition(".")[2], 16)
            if bits == 16 and tensor.dtype == torch.float16:
                stored[name] = tensor
                continue
            low, step, numbers = _rounded(tensor.float(), bits)
            stored |= {name: numbers, f"{name}.low": low, f"{name}.step": step}
            kinds[name] = str(tensor.dtype).removeprefix("torch.")
    return save(stored, _metadata(data) | {_MARK: json.dumps(kinds)})


def unpacked(data: bytes) -> bytes:
    """A safetensors file as it was before it was rounded; one that was not stays as it is.

    Raises:
        Exception: Of the library; or a key or a shape is wrong.
    """
    metadata = _metadata(data)
    if _MARK not in metadata:
        load(data)  # damaged ones are found here
        return data
    kinds, tensors = json.loads(metadata.pop(_MARK)), load(data)
    for name, kind in kinds.items():
        dtype = {"float32": torch.float32, "float16": torch.float16}[kind]
        if f"{name}.low" in tensors:
            low, step = tensors.pop(f"{name}.low"), tensors.pop(f"{name}.step")
            numbers = tensors[name]
            if not low.shape == step.shape == numbers.shape[-1:]:  # or a small file would become a large tensor
                raise ValueError(f"{name} has another number of channels")
            if numbers.dtype == torch.int16:
                numbers = numbers.int() & 0xFFFF
            tensors[name] = (low + step * numbers.float()).to(dtype)
        else:
            tensors[name] = tensors[name].to(dtype)
    return save(tensors, metadata)


def _rounded(tensor: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Least value and step of each channel, and the whole numbers."""
    dtype, most = _WHOLE[bits]
    flat = tensor.reshape(-1, tensor.shape[-1])
    low, high = flat.amin(0), flat.amax(0)
    step = ((high - low) / most).clamp_min(1e-12)
    numbers = ((tensor - low) / step).round().clamp(0, most).to(dtype)
    return low, step, numbers if bits == 8 else numbers.to(torch.int16)  # wraps; undone when it is read


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]).get("__metadata__", {})
