"""Export the neutral head of a radiance field as a triangle mesh with vertex colors."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from avatar import log
from avatar.checks import number, whole
from avatar.errors import AvatarError
from avatar.export.base import ExportSource, Need
from avatar.methods.base import Volume
from avatar.writing import atomic_file

POINTS_AT_ONCE = 2**18
INSIDE_CM = 0.1  # how far below the surface a vertex takes its color: before it there is nothing
TO_UP = np.array([1.0, -1.0, -1.0], np.float32)  # from head axes to y up and z towards the viewer


@dataclass(frozen=True, kw_only=True)
class HeadMesh:
    """The neutral head as a mesh (PLY) in centimetres, y up, from the method nerf; needs scikit-image."""

    suffixes: ClassVar[tuple[str, ...]] = (".ply",)
    default: ClassVar[str | None] = "head.ply"

    resolution: int = 128
    """Cells along each side of the box around the head, 16 to 512."""
    level: float = 5.0
    """Density per centimetre at which the surface lies."""

    def needs(self) -> Set[Need]:
        """An avatar."""
        return {"avatar"}

    def write(self, source: ExportSource, path: Path) -> None:
        """Write the surface of the density by marching cubes.

        Raises:
            AvatarError: scikit-image is missing, the method has no density, or nothing in it reaches ``level``.
        """
        assert source.avatar is not None
        whole(self.resolution, "--resolution", 16, 512)
        number(self.level, "--level", 1e-3, 1e3)
        if find_spec("skimage") is None:
            raise AvatarError("--format mesh needs scikit-image,", why="which is not installed.",
                              fix="Install it: pip install 'avatar-toolkit[mesh]'")  # fmt: skip
        model = source.avatar.model
        with torch.inference_mode():
            volume = model.volume(model.reference_motion(source.avatar.fps).to(model.device), 0)
            vertices, faces, colors = head_surface(volume, self.resolution, self.level)
        write_ply(path, vertices * TO_UP, faces, colors)
        log.info(f"{path}: {len(vertices)} vertices and {len(faces)} triangles, centimetres, y up.")


def head_surface(volume: Volume, resolution: int, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Extract the surface of a volume by marching cubes (Lorensen and Cline 1987; Lewiner et al. 2003).

    Only the largest connected solid is kept, and its hollows are filled: no image shows what is inside.

    Args:
        volume: Density and color.
        resolution: Cells along each side of its box.
        level: Density of the surface.

    Returns:
        Vertices float32 [V, 3] in head axes, centimetres; triangles int32 [F, 3]; colors uint8 [V, 3].

    Raises:
        AvatarError: No cell reaches ``level``.
    """
    from scipy import ndimage
    from skimage.measure import marching_cubes

    low, high = volume.box.cpu().numpy()
    axes = [np.linspace(low[axis], high[axis], resolution, dtype=np.float32) for axis in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    density = _evaluate(volume, points)[0].reshape((resolution,) * 3)
    parts, count = ndimage.label(density > level)  # pyright: ignore[reportGeneralTypeIssues]
    if count == 0:
        raise AvatarError(f"Nothing in the head is as dense as --level {level:g}.", fix="Give a lower --level.")
    solid = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    filled = np.asarray(ndimage.binary_fill_holes(solid))
    # Beyond the largest part nothing is left, in hollows everything is full; the surface itself keeps its density.
    near = np.asarray(ndimage.binary_dilation(solid))
    density = np.where(filled & ~solid, 2 * level, np.where(near, np.minimum(density, 2 * level), 0))
    density = np.where(near & ~filled, np.minimum(density, 0.99 * level), density)
    edge = np.pad(density, 1)  # closes the surface at the sides of the box
    cell = (high - low) / (resolution - 1)
    vertices, faces, normals, _ = marching_cubes(edge, level, spacing=tuple(cell), gradient_direction="ascent")
    vertices = (vertices + low - cell).astype(np.float32)
    colors = _evaluate(volume, (vertices + INSIDE_CM * normals).astype(np.float32))[1]
    return vertices, faces.astype(np.int32), (colors.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _evaluate(volume: Volume, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Densities [N] and colors [N, 3] at points [N, 3]."""
    found = [volume(part) for part in torch.from_numpy(points).split(POINTS_AT_ONCE)]
    density, color = (torch.cat(values).float().cpu().numpy() for values in zip(*found, strict=True))
    return density, color


def write_ply(path: Path, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray) -> None:
    """Write a binary PLY file.

    Args:
        path: The file.
        vertices: float32 [V, 3].
        faces: int32 [F, 3].
        colors: uint8 [V, 3] RGB.
    """
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.empty(len(vertices), [("place", "<f4", 3), ("color", "u1", 3)])
    rows["place"], rows["color"] = vertices, colors
    corners = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
    corners["count"], corners["corners"] = 3, faces
    with atomic_file(path) as temporary:
        temporary.write_bytes(header.encode() + rows.tobytes() + corners.tobytes())
