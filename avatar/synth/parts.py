"""Patches of surface that the synthetic person is made of, and how they are built from grids of points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avatar.motion.arkit import ARKIT


@dataclass
class Part:
    """A patch of surface.

    Attributes:
        name: What it is; also the name of its texture.
        vertices: [V, 3] at rest, head axes.
        faces: [F, 3]; both sides are seen, but for the face.
        uv: [V, 2] in its texture, 0 to 1.
        head: [V] 1 moves with the head, 0 with the torso.
        fields: [52, V, 3] displacement per ARKit coefficient.
        nearer: Centimetres by which it is drawn nearer than it is in the video, which sorts triangles.
        outward: -1 where the normals of hair by the winding of its faces point inwards.
    """

    name: str
    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray
    head: np.ndarray
    fields: np.ndarray
    nearer: float = 0.0
    outward: float = 1.0


def grid_faces(index: np.ndarray, closed: bool = False) -> np.ndarray:
    """Triangles of a grid of vertex numbers [rows, columns]."""
    if closed:
        index = np.concatenate([index, index[:, :1]], 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    return np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])


def sheet(
    name: str,
    points: np.ndarray,
    uv: np.ndarray | None = None,
    head: float | np.ndarray = 1.0,
    nearer: float = 0.0,
) -> Part:
    """A part from a grid of points [rows, columns, 3]; texture coordinates run along the grid."""
    rows, columns = points.shape[:2]
    if uv is None:
        v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
        uv = np.stack([u, v], -1)
    index = np.arange(rows * columns).reshape(rows, columns)
    return Part(
        name,
        points.reshape(-1, 3).astype(float),
        grid_faces(index),
        uv.reshape(-1, 2),
        np.broadcast_to(np.asarray(head, float), (rows, columns)).reshape(-1).copy(),
        np.zeros((len(ARKIT), rows * columns, 3)),
        nearer,
    )


def tube(name: str, loops: list[np.ndarray], fields: list[np.ndarray], nearer: float) -> Part:
    """A part from closed loops [N, 3], each with displacements [52, N, 3]."""
    count = len(loops[0])
    index = np.arange(len(loops) * count).reshape(len(loops), count)
    uv = np.full((index.size, 2), 0.5)
    return Part(name, np.concatenate(loops), grid_faces(index, closed=True), uv, np.ones(index.size),
                np.concatenate(fields, 1), nearer)  # fmt: skip
