"""Write the safetensors format, so that every version of the library agrees on the hash of a converted asset."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def to_bytes(tensors: dict[str, np.ndarray]) -> bytes:
    """Tensors in the safetensors format, written here so that every version of the library agrees on the hash."""
    kinds = {"<f4": "F32", "<f2": "F16", "|i1": "I8"}
    header, content = {}, bytearray()
    for name, tensor in sorted(tensors.items()):
        start = len(content)
        content += tensor.tobytes()
        span = {"shape": list(tensor.shape), "data_offsets": [start, len(content)]}
        header[name] = {"dtype": kinds[tensor.dtype.str]} | span
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(content)
