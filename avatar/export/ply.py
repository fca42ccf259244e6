"""Export Gaussians as PLY in the layout of INRIA's 3D Gaussian splatting, for one moment or for every frame."""

from __future__ import annotations

import shutil
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from avatar import log
from avatar.checks import whole
from avatar.errors import AvatarError
from avatar.export.base import ExportSource, Need
from avatar.export.gaussians import GaussianCloud, GaussiansExporter, Up, check_gaussians, posed
from avatar.export.sequence import at_rate, check_rate, sequence_folder
from avatar.writing import atomic_file

MOST_DEGREE = 3  # of spherical harmonics that readers know
_NUMBER_BYTES = 4
_LEAST_OPACITY = 1e-7  # logits beyond are no numbers


@dataclass(frozen=True, kw_only=True)
class Ply(GaussiansExporter):
    """Gaussians as PLY (SuperSplat, Blender, Unreal): the neutral head, or one moment of a motion. In metres."""

    suffixes: ClassVar[tuple[str, ...]] = (".ply",)
    default: ClassVar[str | None] = "head.splat.ply"

    up: Up = "-y"
    """Where up is: -y as in INRIA's files, +y for readers that do not turn them."""
    sh_degree: int = 0
    """Degree of the spherical harmonics, 0 to 3. All but degree 0 are zero: some readers refuse files without them."""

    def write(self, source: ExportSource, path: Path) -> None:
        """Write one PLY file.

        Raises:
            AvatarError: The method has no Gaussians, or an option is out of range.
        """
        whole(self.sh_degree, "--sh-degree", 0, MOST_DEGREE)
        cloud = self.cloud(source, self.up)
        write_ply(path, cloud, self.sh_degree)
        log.info(f"{path}: {len(cloud)} Gaussians, metres, {self.up} up.")


@dataclass(frozen=True, kw_only=True)
class PlySequence:
    """A folder with one PLY of Gaussians per frame of a motion, for programs that flip through files. In metres."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    default: ClassVar[str | None] = None

    fps: float | None = None
    """Frames per second; default: the avatar's."""
    up: Up = "-y"
    """Where up is: -y as in INRIA's files, +y for readers that do not turn them."""
    torso: bool = True
    """Write neck and torso too."""
    sh_degree: int = 0
    """Degree of the spherical harmonics, 0 to 3. All but degree 0 are zero: some readers refuse files without them."""
    overwrite: bool = False
    """Replace a sequence that this command wrote."""

    def __post_init__(self) -> None:
        check_rate(self.fps)
        whole(self.sh_degree, "--sh-degree", 0, MOST_DEGREE)

    def needs(self) -> Set[Need]:
        """An avatar and what it does."""
        return {"avatar", "motion"}

    def write(self, source: ExportSource, path: Path) -> None:
        """Write the folder: 000000.ply and so on, and sequence.json with the rate.

        Raises:
            AvatarError: The method has no Gaussians, the folder is not free, or the disk has no room for it.
        """
        check_gaussians(source)
        track = at_rate(source, self.fps)
        first = posed(source, track, 0, self.up, self.torso)
        facts = {"fps": track.fps, "frames": len(track), "unit": "metre", "up": self.up}
        with sequence_folder(path, self.overwrite, facts) as folder:
            _refuse_full_disk(path, len(track) * len(first) * len(_names(self.sh_degree)) * _NUMBER_BYTES)
            for index in log.track(range(len(track)), "writing frames"):
                cloud = posed(source, track, index, self.up, self.torso)
                (folder / f"{index:06d}.ply").write_bytes(ply_bytes(cloud, self.sh_degree))
        log.info(f"{path}: {len(track)} files of {len(first)} Gaussians, {track.fps:g} per second.")


def write_ply(path: Path, cloud: GaussianCloud, sh_degree: int = 0) -> None:
    """Write a PLY file; see :func:`ply_bytes`."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(ply_bytes(cloud, sh_degree))


def ply_bytes(cloud: GaussianCloud, sh_degree: int = 0) -> bytes:
    """Encode Gaussians as a binary PLY: coefficients of color, logits of opacity, logarithms of scales, wxyz.

    Args:
        cloud: The Gaussians.
        sh_degree: Degree of the spherical harmonics; those above 0 are zero.
    """
    names = _names(sh_degree)
    table = np.zeros((len(cloud), len(names)), "<f4")
    # Float64 between: what a reader activates is the value to float32's last digits.
    opacity = np.clip(cloud.opacities.astype(np.float64), _LEAST_OPACITY, 1 - _LEAST_OPACITY)
    for name, values in {
        "x": cloud.means,
        "f_dc_0": cloud.harmonics,
        "opacity": np.log(opacity / (1 - opacity))[:, None],
        "scale_0": np.log(np.maximum(cloud.scales.astype(np.float64), 1e-30)),
        "rot_0": cloud.quats,
    }.items():
        column = names.index(name)
        table[:, column : column + values.shape[1]] = values
    properties = "".join(f"property float {name}\n" for name in names)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(cloud)}\n{properties}end_header\n"
    return header.encode() + table.tobytes()


def _names(sh_degree: int) -> list[str]:
    """Columns in INRIA's order; normals are there and zero, as everywhere."""
    rest = [f"f_rest_{i}" for i in range(3 * ((sh_degree + 1) ** 2 - 1))]
    colors = [f"f_dc_{i}" for i in range(3)]
    shape = [*(f"scale_{i}" for i in range(3)), *(f"rot_{i}" for i in range(4))]
    return ["x", "y", "z", "nx", "ny", "nz", *colors, *rest, "opacity", *shape]


def _refuse_full_disk(path: Path, size: int) -> None:
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    if size > (free := shutil.disk_usage(folder).free):
        raise AvatarError(
            f"The files need {size / 2**30:.1f} GiB, and {folder} has {free / 2**30:.1f} GiB free.",
            fix="Write a shorter motion, fewer frames with --fps, or no torso with --no-torso.",
        )
