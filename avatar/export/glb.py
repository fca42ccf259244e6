"""Export Gaussians as glTF with KHR_gaussian_splatting."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from avatar import log
from avatar.export.base import ExportSource
from avatar.export.gaussians import GaussianCloud, GaussiansExporter
from avatar.export.gltf import ARRAY_BUFFER, POINTS, GlbFile

SPLATTING, UNLIT = "KHR_gaussian_splatting", "KHR_materials_unlit"


@dataclass(frozen=True, kw_only=True)
class Glb(GaussiansExporter):
    """Gaussians as glTF with KHR_gaussian_splatting (PlayCanvas, Babylon.js, Cesium). In metres, y up."""

    suffixes: ClassVar[tuple[str, ...]] = (".glb",)
    default: ClassVar[str | None] = "head.glb"

    def write(self, source: ExportSource, path: Path) -> None:
        """Write one GLB file.

        Raises:
            AvatarError: The method has no Gaussians, or an option is out of range.
        """
        cloud = self.cloud(source, "+y")
        splatting_file(cloud).write(path)
        log.info(f"{path}: {len(cloud)} Gaussians, metres, y up.")


def splatting_file(cloud: GaussianCloud) -> GlbFile:
    """Put Gaussians with y up into a glTF document; programs without the extension show colored points."""
    file = GlbFile()

    def attribute(values: np.ndarray, *, normalized: bool = False, limits: bool = False) -> int:
        return file.accessor(values, target=ARRAY_BUFFER, normalized=normalized, limits=limits)

    attributes = {
        "POSITION": attribute(cloud.means, limits=True),
        "COLOR_0": attribute(point_colors(cloud), normalized=True),
        f"{SPLATTING}:ROTATION": attribute(cloud.quats[:, [1, 2, 3, 0]]),
        f"{SPLATTING}:SCALE": attribute(cloud.scales),
        f"{SPLATTING}:OPACITY": attribute(cloud.opacities.clip(0, 1)),
        f"{SPLATTING}:SH_DEGREE_0_COEF_0": attribute(cloud.harmonics),
    }
    primitive = {
        "mode": POINTS, "attributes": attributes, "material": 0,
        "extensions": {SPLATTING: {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}},
    }  # fmt: skip
    file.document |= {
        "extensionsUsed": [SPLATTING, UNLIT], "scene": 0, "scenes": [{"nodes": [0]}],
        "nodes": [{"name": "head", "mesh": 0}], "meshes": [{"name": "head", "primitives": [primitive]}],
        "materials": [{"name": "points", "extensions": {UNLIT: {}}}],
    }  # fmt: skip
    return file


def point_colors(cloud: GaussianCloud) -> np.ndarray:
    """Colors and opacities uint16 [N, 4] of points: linear light, as glTF has vertex colors."""
    color = linear_light(cloud.colors.clip(0, 1))
    return np.rint(np.concatenate([color, cloud.opacities[:, None].clip(0, 1)], 1) * 65535).astype("<u2")


def linear_light(color: np.ndarray) -> np.ndarray:
    """Linear light 0..1 of sRGB colors 0..1 (IEC 61966-2-1)."""
    return np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
