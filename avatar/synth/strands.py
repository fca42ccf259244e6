"""Lashes, loose hair and catch lights: lines and dots that are drawn over the surfaces."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from avatar.synth.hair import hair_grid
from avatar.synth.shapes import LIDS

_LID_WIDTH = 0.10  # centimetres
_CATCH_LIGHT = 0.11  # radius, centimetres
_FRACTION = 4  # fractional bits of pixel positions


@dataclass(frozen=True)
class Strand:
    """A line in space.

    Attributes:
        points: [N, 3] world.
        colour: RGB.
        width: Centimetres; 0 is one pixel.
        of: ``lash`` or ``hair``.
    """

    points: np.ndarray
    colour: Iterable[float]
    width: float
    of: str


@dataclass(frozen=True)
class CatchLight:
    """The light's reflection in an eye.

    Attributes:
        point: [3] world.
        opening: [N, 3] the eye's opening, outside of which it is not seen.
        radius: Centimetres.
    """

    point: np.ndarray
    opening: np.ndarray
    radius: float = _CATCH_LIGHT


class LooseHair:
    """Loose strands of one side of the hair.

    Args:
        sign: +1 for the person's left side, -1 for the right one.
        rng: Random numbers.
        count: How many.
    """

    def __init__(self, sign: float, rng: np.random.Generator, count: int = 70) -> None:
        along, across = hair_grid(sign).shape[:2]
        column = rng.choice(across, count, p=_columns(across))
        self.index = np.arange(along)[None] * across + column[:, None]
        fade = np.linspace(0, 1, along)[None, :, None]
        drift = rng.normal(0, 0.35, (count, 1, 2)) * fade + rng.normal(0, 0.10, (count, 1, 2))
        curl = 0.10 * np.sin(2 * np.pi * (rng.uniform(0.5, 2, (count, 1, 1)) * fade + rng.uniform(0, 1, (count, 1, 1))))
        self.offset = drift + curl * fade

    def strands(self, grid: np.ndarray, colour: Iterable[float], distance: float) -> Iterator[Strand]:
        """Place them on the hair.

        Args:
            grid: [along * across, 3] posed vertices of the side's hair, world.
            colour: RGB of the hair.
            distance: Of the head from the filming camera, at which their offsets are centimetres.
        """
        points = grid[self.index]
        points[..., :2] += self.offset * points[..., 2:] / distance
        tones = np.asarray(colour)[None] * np.linspace(0.55, 1.5, len(points))[:, None]
        for strand, tone in zip(_smooth(points, 40), tones, strict=True):
            yield Strand(strand, tone, 0.0, "hair")


def short_strands(points: np.ndarray, colour: Iterable[float]) -> Iterator[Strand]:
    """Short loose hairs [N, K, 3] in the world."""
    tones = np.asarray(colour)[None] * np.linspace(0.5, 1.35, len(points))[:, None]
    for strand, tone in zip(_smooth(points, 6), tones, strict=True):
        yield Strand(strand, tone, 0.0, "hair")


def _columns(across: int) -> np.ndarray:
    weight = np.zeros(across)  # only where nothing is in front: the front edge and the outline
    weight[:2] = 4.0
    weight[across * 2 // 5 : across * 3 // 5] = 0.4
    return weight / weight.sum()


def lashes(face: np.ndarray, side: str, distance: float) -> Iterator[Strand]:
    """Lashes of an upper lid, and its dark edge.

    Args:
        face: [>=468, 3] posed vertices of the face, world.
        side: ``Left`` or ``Right``.
        distance: Of the head from the filming camera, at which their lengths are centimetres.
    """
    unit = face[LIDS[side]["upper"][4], 2] / distance
    lid, low = (face[list(LIDS[side][edge])] for edge in ("upper", "lower"))
    yield Strand(_smooth(lid[:-1], 24), (0.09, 0.06, 0.05), _LID_WIDTH, "lash")
    outward = np.sign(lid[0, 0] - lid[-1, 0])
    closed = 1 - min(1.0, float(np.abs(lid[4] - low[4]).max()) / (0.9 * unit))
    k = np.arange(22)[:, None]
    root = _smooth(lid[:-1], 26)[:22]
    along = [outward * (0.75 - 0.04 * k), np.full((22, 1), -0.55 + 1.1 * closed), np.zeros((22, 1))]
    tip = root + (0.42 - 0.012 * k) * unit * np.concatenate(along, 1)
    middle = (root + tip) / 2 + unit * np.array([outward * 0.05, 0.16 * (1 - closed), 0])
    for lash in np.stack([root, middle, tip], 1):
        yield Strand(lash, (0.10, 0.07, 0.06), 0.0, "lash")


def draw_line(canvas: np.ndarray, pixels: np.ndarray, colour: Iterable[float], width: int) -> None:
    """Draw a line through pixel positions [N, 2]."""
    corners = np.round((pixels - 0.5) * (1 << _FRACTION)).astype(np.int32)
    cv2.polylines(canvas, [corners], False, [float(c) for c in colour], width, cv2.LINE_8, _FRACTION)


def draw_catch_light(canvas: np.ndarray, at: np.ndarray, opening: np.ndarray, scale: float) -> None:
    """Draw a catch light where it is within the eye's opening.

    Args:
        canvas: Image.
        at: Pixel [2].
        opening: [N, 2] pixels.
        scale: Pixels per centimetre.
    """
    if cv2.pointPolygonTest(opening.astype(np.float32), (float(at[0]), float(at[1])), True) > 0.09 * scale:
        centre = (round(float(at[0] - 0.5) * 16), round(float(at[1] - 0.5) * 16))
        radius = round(_CATCH_LIGHT * scale * 16)
        cv2.circle(canvas, centre, radius, (0.97, 0.97, 0.98), -1, cv2.LINE_8, _FRACTION)


@functools.cache
def _spline(knots: int, count: int) -> np.ndarray:
    """[count, knots] matrix from points to a smooth curve through them."""
    from scipy.interpolate import CubicSpline

    return CubicSpline(np.linspace(0, 1, knots), np.eye(knots))(np.linspace(0, 1, count))


def _smooth(points: np.ndarray, count: int) -> np.ndarray:
    """A smooth curve [..., count, C] through points [..., K, C]."""
    return _spline(points.shape[-2], count) @ points
