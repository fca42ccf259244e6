"""Face motion as geometry: a fixed low-rank basis of landmark displacements, the same for every person.

MediaPipe's blendshape scores describe lips only roughly, so `Motion` carries beside them what the landmarks
themselves do in the head's own frame. The basis needs no training data: displacements along the outer and the inner
lip contour are written as low Fourier modes over the contour (smooth, ordered from coarse to fine, left-right
symmetric), jaw, cheeks, eyelids and brows as plain averages. Units are centimetres of the canonical face, so the
numbers mean the same for every person.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from torch import Tensor

# Contours in order: from the person's right mouth corner along the lower lip, then back along the upper lip.
LIPS_OUTER = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
LIPS_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
CHIN = (152, 148, 377, 176, 400, 175, 199)
EYE_UPPER = {"right": (159, 158, 160), "left": (386, 385, 387)}
EYE_LOWER = {"right": (145, 153, 144), "left": (374, 380, 373)}
EYE_CORNERS = {"right": (33, 133), "left": (362, 263)}  # outer and inner, inner and outer
EYE_RIM = {
    "right": (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),
    "left": (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),
}  # the lids' edges, around the opening
IRIS = {"right": (468, 469, 470, 471, 472), "left": (473, 474, 475, 476, 477)}  # centre, then its outline
EYE_RADIUS = 1.2  # centimetres, of the eyeball; hardly differs between people
BROW_INNER = {"right": (107, 55, 66), "left": (336, 285, 296)}
BROW_OUTER = {"right": (70, 46, 63, 105), "left": (300, 276, 293, 334)}
CHEEK = {"right": (205, 206, 50), "left": (425, 426, 280)}
MODES = 4  # constant plus three harmonics: seven numbers per contour and axis
NUM_LANDMARKS = 478


@functools.cache
def _basis() -> tuple[tuple[str, ...], np.ndarray]:
    names: list[str] = []
    rows: list[np.ndarray] = []

    def add(name: str, weights: dict[tuple[int, int], float]) -> None:
        row = np.zeros((NUM_LANDMARKS, 3), np.float32)
        for (vertex, axis), value in weights.items():
            row[vertex, axis] += value
        names.append(name)
        rows.append(row)

    def mean(name: str, vertices: tuple[int, ...], axis: int, minus: tuple[int, ...] = ()) -> None:
        weights = {(v, axis): 1 / len(vertices) for v in vertices}
        weights.update({(v, axis): -1 / len(minus) for v in minus})
        add(name, weights)

    for label, contour in (("outer", LIPS_OUTER), ("inner", LIPS_INNER)):
        phase = 2 * np.pi * np.arange(len(contour)) / len(contour)
        for axis, axis_name in ((0, "x"), (1, "y")):
            for k in range(MODES):
                for part, wave in (("cos", np.cos(k * phase)), ("sin", np.sin(k * phase))):
                    if k == 0 and part == "sin":
                        continue
                    scale = (1 if k == 0 else 2) / len(contour)  # so that the modes reconstruct the contour directly
                    weights = {(v, axis): float(scale * w) for v, w in zip(contour, wave, strict=True)}
                    add(f"lip_{label}_{axis_name}_{part}{k}", weights)
    mean("jaw_x", CHIN, 0)
    mean("jaw_y", CHIN, 1)
    for side in ("right", "left"):
        mean(f"cheek_{side}_y", CHEEK[side], 1)
        mean(f"eye_{side}_open", EYE_LOWER[side], 1, EYE_UPPER[side])
        mean(f"brow_{side}_inner_y", BROW_INNER[side], 1)
        mean(f"brow_{side}_outer_y", BROW_OUTER[side], 1)
    return tuple(names), np.stack(rows)


CHANNELS: tuple[str, ...] = _basis()[0]
CHANNEL_INDEX = {name: i for i, name in enumerate(CHANNELS)}
LIP_CHANNELS = tuple(i for i, n in enumerate(CHANNELS) if n.startswith(("lip_", "jaw_", "cheek_")))
UPPER_CHANNELS = tuple(i for i in range(len(CHANNELS)) if i not in LIP_CHANNELS)
_SIN1 = (CHANNEL_INDEX["lip_inner_y_sin1"], CHANNEL_INDEX["lip_outer_y_sin1"])
# Opposite points of the contour's two halves have opposite sines and equal cosines: the gap between the lips is in the
# sines alone, and the shape of the line where they meet in the cosines.
GAP_INNER, GAP_OUTER = ([CHANNEL_INDEX[f"lip_{name}_y_sin{k}"] for k in range(1, MODES)] for name in ("inner", "outer"))


def encode(displacements: Float[np.ndarray, "T 478 3"]) -> Float[np.ndarray, "T 38"]:
    """Channels of landmark displacements.

    Args:
        displacements: [T, 478, 3] float, head-frame landmarks minus the person's neutral, in canonical centimetres
            and head axes (x to the person's left, y down, z into the head).

    Returns:
        [T, len(CHANNELS)] float32.
    """
    return np.einsum("tvd,cvd->tc", displacements, _basis()[1]).astype(np.float32)


def mouth_opening(landmarks: Float[np.ndarray, "T 478 axes"]) -> Float[np.ndarray, " T"]:
    """Gap between the inner lips, averaged over three columns, in the units of ``landmarks`` [T, 478, 2 or 3]."""
    upper, lower = landmarks[:, [13, 82, 312], :2], landmarks[:, [14, 87, 317], :2]
    return np.linalg.norm(upper - lower, axis=-1).mean(-1)


def relative_opening(landmarks: Float[np.ndarray, "T 478 axes"]) -> Float[np.ndarray, " T"]:
    """Mouth opening over the distance of the outer eye corners, [T]; independent of the size of the face."""
    return mouth_opening(landmarks) / np.linalg.norm(landmarks[:, 33, :2] - landmarks[:, 263, :2], axis=-1)


def opening_change(face: Float[Tensor, "*batch 38"]) -> Float[Tensor, "*batch"]:
    """Gap between the inner lips in their middle minus the neutral face's, [...] centimetres, of channels [..., 38]."""
    return 2 * (face[..., _SIN1[0]] - face[..., CHANNEL_INDEX["lip_inner_y_sin3"]])


def open_lips(face: Float[Tensor, "*batch 38"], gap: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 38"]:
    """Channels [..., 38] with the lips moved apart by ``gap`` [...] centimetres in their middle, both lips alike."""
    moved = face.clone()
    for channel in _SIN1:
        moved[..., channel] += gap / 2
    return moved
