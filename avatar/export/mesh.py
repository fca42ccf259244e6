"""Export the neutral head as a triangle mesh with a texture, or with vertex colors."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float32, Int32, UInt8

from avatar import log
from avatar.checks import number, whole
from avatar.errors import AvatarError
from avatar.export.base import ExportSource, Need
from avatar.export.fusion import Fusion, look_around
from avatar.export.gaussians import METRES
from avatar.export.glb import UNLIT, linear_light
from avatar.export.gltf import ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER, TRIANGLES, GlbFile
from avatar.export.texture import Color, Unwrapped, bake, unwrap
from avatar.methods.base import Method
from avatar.methods.volume import Volume
from avatar.writing import atomic_file

POINTS_AT_ONCE = 2**18
LEVEL = 5.0  # density per centimetre of the surface
INSIDE_CM = 0.1  # how far below the surface a vertex takes its color: before it there is nothing
TO_UP = np.array([1.0, -1.0, -1.0], np.float32)  # from head axes to y up and z towards the viewer


@dataclass(frozen=True, kw_only=True)
class HeadMesh:
    """The neutral head as a mesh in metres: GLB with a texture, PLY with vertex colors; needs scikit-image."""

    suffixes: ClassVar[tuple[str, ...]] = (".ply", ".glb")
    default: ClassVar[str | None] = "head.ply"

    resolution: int = 128
    """Cells along each side of the box around the head, 16 to 512."""
    level: float | None = None
    """Only the field of the method nerf, at this density per centimetre, such as 5; default: the whole head."""
    texture: int = 1024
    """Side of the texture of a .glb in pixels, 256 to 4096; 0: vertex colors instead."""

    def needs(self) -> Set[Need]:
        """An avatar."""
        return {"avatar"}

    def write(self, source: ExportSource, path: Path) -> None:
        """Write the surface by marching cubes: of the head as all sides show it, or of a density.

        Raises:
            AvatarError: scikit-image is missing, an option is out of range, or nothing is as dense as ``level``.
        """
        assert source.avatar is not None
        whole(self.resolution, "--resolution", 16, 512)
        if self.texture:
            whole(self.texture, "--texture", 256, 4096)
        if self.level is not None:
            number(self.level, "--level", 1e-3, 1e3)
        if find_spec("skimage") is None:
            raise AvatarError("--format mesh needs scikit-image,", why="which is not installed.",
                              fix="Install it: pip install 'avatar-toolkit[mesh]'")  # fmt: skip
        model = source.avatar.model
        rest = model.reference_motion(source.avatar.fps).to(model.device)
        with torch.inference_mode():
            if self.level is not None and type(model).volume is Method.volume:
                raise AvatarError(f"--level belongs to a density, which the method {model.name} has not.",
                                  fix="Leave it out.")  # fmt: skip
            box = model.head_box(rest, 0)
            if box is not None and self.level is None:
                surface = fused_surface(look_around(model, rest, source.avatar.camera, box), self.resolution)
            else:
                level = LEVEL if self.level is None else self.level
                surface = head_surface(model.volume(rest, 0), self.resolution, level)
            if path.name.lower().endswith(".ply"):
                write_ply(path, surface.exported, surface.faces, surface.colors())
            elif self.texture:
                unwrapped = unwrap(surface.vertices, surface.faces, self.texture)
                image = bake(unwrapped, surface.vertices, surface.outward, surface.color)
                write_textured(path, surface, unwrapped, image)
            else:
                write_glb(path, surface.exported, surface.faces, surface.colors())
        log.info(f"{path}: {len(surface.vertices)} vertices and {len(surface.faces)} triangles, metres, y up.")


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface of a head, head axes, centimetres.

    Attributes:
        vertices: [V, 3].
        faces: [F, 3] triangles.
        outward: [V, 3] unit normals.
        color: RGB 0..1 of points on it, with their normals.
    """

    vertices: Float32[np.ndarray, "V 3"]
    faces: Int32[np.ndarray, "F 3"]
    outward: Float32[np.ndarray, "V 3"]
    color: Color

    @property
    def exported(self) -> Float32[np.ndarray, "V 3"]:
        """Vertices in metres, y up."""
        return self.vertices * TO_UP * np.float32(METRES)

    def colors(self) -> UInt8[np.ndarray, "V 3"]:
        """Colors of the vertices."""
        return (self.color(self.vertices, self.outward).clip(0, 1) * 255 + 0.5).astype(np.uint8)


def fused_surface(fusion: Fusion, resolution: int) -> Surface:
    """Extract the surface of a head from images with depth; see :func:`head_surface`."""
    density = fusion.density(resolution)
    return Surface(*solid_surface(density, fusion.box.numpy(), 0.5, "Nothing of the head is solid."), fusion.colors)


def head_surface(volume: Volume, resolution: int, level: float) -> Surface:
    """Extract the surface of a volume by marching cubes (Lorensen and Cline 1987; Lewiner et al. 2003).

    Only the largest connected solid is kept, and its hollows are filled: no image shows what is inside.

    Args:
        volume: Density and color.
        resolution: Cells along each side of its box.
        level: Density of the surface.

    Raises:
        AvatarError: No cell reaches ``level``.
    """
    low, high = volume.box.cpu().numpy()
    axes = [np.linspace(low[axis], high[axis], resolution, dtype=np.float32) for axis in range(3)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    density = _evaluate(volume, points)[0].reshape((resolution,) * 3)
    empty = f"Nothing in the head is as dense as --level {level:g}."
    vertices, faces, normals = solid_surface(density, np.stack([low, high]), level, empty)

    def color(points: np.ndarray, outward: np.ndarray) -> np.ndarray:
        return _evaluate(volume, (points - INSIDE_CM * outward).astype(np.float32))[1]

    return Surface(vertices, faces, normals, color)


def solid_surface(
    density: np.ndarray, box: np.ndarray, level: float, empty: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Extract the closed surface of the largest solid.

    Args:
        density: [N, N, N] over the box.
        box: [2, 3] its corners.
        level: Density of the surface.
        empty: What the error says where there is none.

    Returns:
        Vertices float32 [V, 3]; triangles int32 [F, 3]; unit normals float32 [V, 3] that point outwards.

    Raises:
        AvatarError: No cell reaches ``level``.
    """
    from scipy import ndimage
    from skimage.measure import marching_cubes

    parts, count = ndimage.label(density > level)  # pyright: ignore[reportGeneralTypeIssues]
    if count == 0:
        raise AvatarError(empty, fix="Give a lower --level." if "--level" in empty else "Train it longer.")
    solid = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    filled = np.asarray(ndimage.binary_fill_holes(solid))
    # Beyond the largest part nothing is left, in hollows everything is full; the surface itself keeps its density.
    near = np.asarray(ndimage.binary_dilation(solid))
    density = np.where(filled & ~solid, 2 * level, np.where(near, np.minimum(density, 2 * level), 0))
    density = np.where(near & ~filled, np.minimum(density, 0.99 * level), density)
    edge = np.pad(density, 1)  # closes the surface at the sides of the box
    low, high = box
    cell = (high - low) / (len(density) - 1)
    vertices, faces, normals, _ = marching_cubes(edge, level, spacing=tuple(cell), gradient_direction="ascent")
    # Triangles are seen from outside; which way the normals point has changed between versions of scikit-image.
    first, second, third = (vertices[faces[:, corner]] for corner in range(3))
    outward = np.cross(second - first, third - first)
    side = np.sign((normals[faces].sum(1) * outward).sum())
    return (vertices + low - cell).astype(np.float32), faces.astype(np.int32), (side * normals).astype(np.float32)


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


def write_glb(path: Path, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray) -> None:
    """Write a glTF file of an unlit mesh with vertex colors; arguments as for :func:`write_ply`, in metres."""
    file = GlbFile()
    light = np.rint(linear_light(np.pad(colors / 255, ((0, 0), (0, 1)), constant_values=1)) * 65535)
    attributes = {
        "POSITION": file.accessor(vertices.astype("<f4"), target=ARRAY_BUFFER, limits=True),
        "COLOR_0": file.accessor(light.astype("<u2"), target=ARRAY_BUFFER, normalized=True),
    }
    _finish(file, path, attributes, faces, {"extensions": {UNLIT: {}}})


def write_textured(path: Path, surface: Surface, unwrapped: Unwrapped, image: UInt8[np.ndarray, "S S 3"]) -> None:
    """Write a glTF file of an unlit mesh with its texture inside, as PNG."""
    import cv2

    file = GlbFile()
    attributes = {
        "POSITION": file.accessor(surface.exported[unwrapped.source].astype("<f4"), target=ARRAY_BUFFER, limits=True),
        "NORMAL": file.accessor((surface.outward * TO_UP)[unwrapped.source].astype("<f4"), target=ARRAY_BUFFER),
        "TEXCOORD_0": file.accessor((unwrapped.texels / unwrapped.size).astype("<f4"), target=ARRAY_BUFFER),
    }
    data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
    file.document |= {
        "images": [{"mimeType": "image/png", "bufferView": file.data(data)}], "samplers": [{}],
        "textures": [{"source": 0, "sampler": 0}],
    }  # fmt: skip
    material = {
        "extensions": {UNLIT: {}}, "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0},
    }  # fmt: skip
    _finish(file, path, attributes, unwrapped.faces, material)


def _finish(
    file: GlbFile, path: Path, attributes: dict[str, int], faces: np.ndarray, material: dict[str, Any]
) -> None:  # fmt: skip
    """Add triangles and material, and write the file."""
    indices = file.accessor(faces.astype("<u4").ravel(), target=ELEMENT_ARRAY_BUFFER)
    primitive = {"mode": TRIANGLES, "attributes": attributes, "indices": indices, "material": 0}
    file.document |= {
        "extensionsUsed": [UNLIT], "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"name": "head", "mesh": 0}],
        "meshes": [{"name": "head", "primitives": [primitive]}], "materials": [material],
    }  # fmt: skip
    file.write(path)
