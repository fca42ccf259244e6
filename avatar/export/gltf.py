"""Writing binary glTF 2.0 files (.glb): one JSON part, one part of numbers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from avatar import __version__
from avatar.writing import atomic_file

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
POINTS, TRIANGLES = 0, 4
_COMPONENTS = {np.dtype("u1"): 5121, np.dtype("<u2"): 5123, np.dtype("<u4"): 5125, np.dtype("<f4"): 5126}
_TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4"}
_MAGIC, _JSON, _BIN = 0x46546C67, 0x4E4F534A, 0x004E4942


class GlbFile:
    """A glTF document in the making.

    Attributes:
        document: What is written as JSON; `accessor` and `write` add what belongs to the numbers.
    """

    def __init__(self) -> None:
        self.document: dict[str, Any] = {"asset": {"version": "2.0", "generator": f"avatar {__version__}"}}
        self._views: list[dict[str, Any]] = []
        self._accessors: list[dict[str, Any]] = []
        self._data = bytearray()

    def accessor(
        self, values: np.ndarray, *, target: int | None = None, normalized: bool = False, limits: bool = False
    ) -> int:
        """Add numbers, and return the index of their accessor.

        Args:
            values: [N] or [N, 1 to 4] uint8, uint16, uint32 or float32.
            target: `ARRAY_BUFFER` of vertex attributes, `ELEMENT_ARRAY_BUFFER` of indices.
            normalized: Whether integers stand for 0..1.
            limits: Write the least and largest values, as positions and times must.
        """
        values = np.ascontiguousarray(values)
        width = 1 if values.ndim == 1 else values.shape[1]
        view = self.data(values.tobytes(), target)
        found = {
            "bufferView": view, "componentType": _COMPONENTS[values.dtype], "count": len(values),
            "type": _TYPES[width],
        }  # fmt: skip
        if normalized:
            found["normalized"] = True
        if limits:
            rows = values.reshape(len(values), width)
            found |= {"min": rows.min(0).tolist(), "max": rows.max(0).tolist()}
        self._accessors.append(found)
        return len(self._accessors) - 1

    def data(self, data: bytes, target: int | None = None) -> int:
        """Add bytes, such as an image, and return the index of their view."""
        self._data += bytes(-len(self._data) % 4)
        view = {"buffer": 0, "byteOffset": len(self._data), "byteLength": len(data)}
        self._views.append(view | ({} if target is None else {"target": target}))
        self._data += data
        return len(self._views) - 1

    def write(self, path: Path) -> None:
        """Write the file.

        Raises:
            AvatarError: It cannot be written.
        """
        self._data += bytes(-len(self._data) % 4)
        parts = {"accessors": self._accessors, "bufferViews": self._views, "buffers": [{"byteLength": len(self._data)}]}
        text = json.dumps(self.document | parts, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        total = 12 + 8 + len(text) + 8 + len(self._data)
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            file.write(struct.pack("<III", _MAGIC, 2, total))
            file.write(struct.pack("<II", len(text), _JSON) + text)
            file.write(struct.pack("<II", len(self._data), _BIN) + self._data)
