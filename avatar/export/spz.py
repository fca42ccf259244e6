"""Export Gaussians as SPZ, Niantic's compressed format: about a quarter of a PLY."""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from avatar import log
from avatar.errors import AvatarError
from avatar.export.base import ExportSource
from avatar.export.gaussians import GaussianCloud, GaussiansExporter
from avatar.writing import atomic_file

MAGIC = 0x5053474E  # "NGSP"
VERSION = 3
MOST_FRACTION_BITS = 20  # of positions: a micrometre
_COLOR_SCALE = 0.15  # of coefficients, so that those of displayed colors and more fit a byte
_LOG_SCALE = (16.0, 10.0)  # a byte is (log(scale) + 10) * 16
_BITS = 9  # of a component of a quaternion, beside its sign
_LEVEL = 6


@dataclass(frozen=True, kw_only=True)
class Spz(GaussiansExporter):
    """Gaussians as SPZ version 3 (three.js with Spark, Cesium, Omniverse, Scaniverse). In metres, y up."""

    suffixes: ClassVar[tuple[str, ...]] = (".spz",)
    default: ClassVar[str | None] = "head.spz"

    def write(self, source: ExportSource, path: Path) -> None:
        """Write one SPZ file.

        Raises:
            AvatarError: The method has no Gaussians, or an option is out of range.
        """
        cloud = self.cloud(source, "+y")
        data = spz_bytes(cloud)
        with atomic_file(path) as temporary:
            temporary.write_bytes(data)
        log.info(f"{path}: {len(cloud)} Gaussians in {len(data) / 2**20:.2f} MB, metres, y up.")


def spz_bytes(cloud: GaussianCloud) -> bytes:
    """Encode Gaussians with y up (right, up, back) as an SPZ file of version 3.

    Positions are 24-bit fixed-point numbers, scales have steps of 6 % from 0.05 mm on, colors and opacities are bytes,
    quaternions 32 bits.

    Raises:
        AvatarError: A Gaussian is further away than the format can say.
    """
    reach = float(np.abs(cloud.means).max(initial=1e-6))
    bits = min(MOST_FRACTION_BITS, math.floor(math.log2((2**23 - 1) / reach)))
    if bits < 0:
        raise AvatarError(f"A Gaussian is {reach:.0f} m away, further than SPZ can say.", fix="Check the motion.")
    fixed = np.rint(cloud.means.astype(np.float64) * 2**bits).astype("<i4")
    scale, offset = _LOG_SCALE
    scales = np.log(np.maximum(cloud.scales.astype(np.float64), 1e-30))
    parts = (
        fixed.reshape(-1, 1).view("u1")[:, :3],  # little-endian: the fourth byte repeats the sign
        _bytes(cloud.opacities * 255),
        _bytes(cloud.harmonics * (_COLOR_SCALE * 255) + 127.5),
        _bytes((scales + offset) * scale),
        pack_quaternions(cloud.quats[:, [1, 2, 3, 0]]),
    )
    header = struct.pack("<IIIBBBB", MAGIC, VERSION, len(cloud), 0, bits, 0, 0)
    return gzip.compress(header + b"".join(part.tobytes() for part in parts), _LEVEL, mtime=0)


def pack_quaternions(quats: np.ndarray) -> np.ndarray:
    """Pack unit quaternions [N, 4] xyzw as uint32 [N]: which component is largest, and the other three.

    The largest one's number is in the upper two bits. The others follow from the last to the first in the lower bits,
    each as a sign and 9 bits of its size over sqrt(1/2); all signs are turned so that the largest one is positive.
    """
    rows = np.arange(len(quats))
    largest = np.abs(quats).argmax(1)
    turned = quats * np.where(quats[rows, largest] < 0, -1.0, 1.0)[:, None]
    most = 2**_BITS - 1
    sizes = np.rint(np.minimum(np.abs(turned) * math.sqrt(2), 1.0) * most).astype(np.uint32)
    codes = sizes | ((turned < 0).astype(np.uint32) << np.uint32(_BITS))
    packed = largest.astype(np.uint32)
    for component in range(4):
        shifted = (packed << np.uint32(_BITS + 1)) | codes[:, component]
        packed = np.where(component == largest, packed, shifted)
    return packed.astype("<u4")


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
