"""The face mesh's connectivity: which landmarks form triangles, and the outline of the face."""

from __future__ import annotations

import functools

import numpy as np

# The face's outline, clockwise in the image from the top of the forehead.
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip

# Landmarks that hardly move with the expression: they tell how far the head itself went.
STEADY = (10, 151, 9, 8, 168, 6, 33, 263, 133, 362, 127, 356, 234, 454, 116, 345)

# The landmark nearest to each of the 68 points of the iBUG annotation (Sagonas et al. 2013): jaw, brows, nose, eyes,
# outer and inner lips. Approximate: the mesh's jaw line lies a little inside the image's.
IBUG_68 = (
    127, 234, 132, 58, 172, 136, 150, 176, 152, 400, 379, 365, 397, 288, 361, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip


@functools.cache
def face_triangles() -> np.ndarray:
    """Triangles [898, 3] int64 of MediaPipe's 468-vertex face mesh (in the model file's metadata)."""
    from avatar.assets.canonical_face import canonical_face

    return np.asarray(canonical_face()[2], np.int64)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals [V, 3], area weighted; outward for faces counter-clockwise seen from outside in head axes."""
    v = vertices[faces]
    normal = np.cross(v[:, 1] - v[:, 0], v[:, 2] - v[:, 0])
    flat = faces.reshape(-1)
    total = np.stack([np.bincount(flat, np.repeat(normal[:, k], 3), minlength=len(vertices)) for k in range(3)], 1)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-9)


def face_normals(points: np.ndarray) -> np.ndarray:
    """Outward unit normals [468, 3] at vertices [468, 3] of the face mesh; see :func:`vertex_normals`."""
    return vertex_normals(points, face_triangles())
