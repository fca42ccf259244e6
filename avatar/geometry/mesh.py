"""The face mesh's connectivity: which landmarks form triangles, and the outline of the face."""

from __future__ import annotations

import functools

import numpy as np

# The face's outline, clockwise in the picture from the top of the forehead.
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip


@functools.cache
def face_triangles() -> np.ndarray:
    """Triangles [898, 3] int64 of MediaPipe's 468-vertex face mesh (in the model file's metadata)."""
    from avatar.assets import canonical_face

    return np.asarray(canonical_face()[2], np.int64)
