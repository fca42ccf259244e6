"""What a model of one photo takes from people in general: how the face moves, the mouth's inside, its far side."""

from __future__ import annotations

import functools

import numpy as np
import torch

from avatar.assets.canonical_face import canonical_face
from avatar.data import PersonDataset
from avatar.fields.gaussians import Seeds
from avatar.fields.skinning import LandmarkBasis
from avatar.geometry.cameras import MEDIAPIPE_TO_HEAD
from avatar.methods.gaussian.reference import Reference, make_seeds
from avatar.motion.blinks import LIDS
from avatar.motion.face_channels import CHANNELS, CHIN, LIPS_INNER
from avatar.motion.population import eye_openings, landmark_basis

# A small palette, RGB in even light: an enamel that is not too white, gums, a tongue, and the dark behind them.
ENAMEL, GUM, TONGUE, DARK = (0.76, 0.70, 0.62), (0.58, 0.32, 0.30), (0.56, 0.28, 0.27), (0.10, 0.045, 0.04)
LIT = 0.72  # brightness of skin in even light: teeth of a darker photo are darker
TEETH = (0.42, 0.34, 0.40, 0.36, 0.36)  # half widths of the upper row, from the middle outwards, centimetres
LOWER = 0.75  # of them, the lower row's
LENGTH = (0.95, 0.85)  # centimetres of an upper and a lower tooth
SHOWN = 0.16  # centimetres of the upper teeth below the line where the lips meet
BEHIND = (0.35, 0.55)  # centimetres of either row behind the inner lips
ARCH = 0.30  # per centimetre: how fast the rows recede sideways
STEP = 0.075  # centimetres between the Gaussians of a tooth
GAP = 0.055  # share of a tooth's width at its edges that is darker
GRAZING = 0.25  # cosine to the view below which the face's mirror image shows a place better
BETTER = 0.15  # by which it must


def basis_of(data: PersonDataset) -> LandmarkBasis:
    """How landmarks move: people's usual way, with irises that follow this person's gaze."""
    return LandmarkBasis(landmark_basis(), data.motion.gaze[0])


def shut_eyes(data: PersonDataset) -> np.ndarray:
    """Landmarks [478, 3] of the neutral face with closed lids, head axes, centimetres."""
    face = torch.zeros(len(CHANNELS))
    for lid, opening in zip(LIDS, eye_openings(data.shape), strict=True):
        face[lid] = -opening
    return data.shape + (face @ landmark_basis()).reshape(-1, 3).numpy()


@functools.cache
def mirrored() -> np.ndarray:
    """Vertex [468] of the face mesh on the other side for each."""
    points = canonical_face()[0] * MEDIAPIPE_TO_HEAD.numpy()
    return np.linalg.norm(points[:, None] * [-1, 1, 1] - points, axis=-1).argmin(1)


def better_side(reference: Reference, index: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Vertices [N, 3] to take colours from, of places on the face: their own, or their mirror image's.

    Args:
        reference: The photo.
        index: [N, 3] corners of each place's triangle.
        normals: [N, 3] canonical outward normals there.
    """
    skinning, shape = reference.skinning, reference.data.shape
    axes = skinning.directions_to_canonical(torch.eye(3)).numpy()  # rows: the head's axes

    def facing(corners: np.ndarray, outward: np.ndarray) -> np.ndarray:
        places = skinning.to_canonical(torch.from_numpy(shape[corners].mean(1)).float()).numpy()
        return -(outward * places).sum(1) / np.linalg.norm(places, axis=1)

    other = mirrored()[index]
    here, there = facing(index, normals), facing(other, (normals @ axes.T * [-1, 1, 1]) @ axes)
    swap = (here < GRAZING) & (there > here + BETTER)
    return np.where(swap[:, None], other, index)


def mouth(reference: Reference, rng: np.random.Generator) -> Seeds:
    """Two rows of teeth with gums, a tongue, and the dark behind them. Lower teeth and tongue ride the chin."""
    shape = reference.data.shape
    lips = shape[list(LIPS_INNER)]
    middle = shape[[13, 14]].mean(0)
    skin = reference.sample(np.asarray(reference.data.landmarks[reference.frame])[[50, 280, 101, 330], :2])
    light = float(np.clip(np.median(skin.max(1)) / LIT, 0.35, 1.0))
    parts = [
        _row(reference, middle, light, 1.0, rng), _row(reference, middle, light, -1.0, rng),
        _tongue(reference, middle, light, rng), _cavity(reference, middle, np.ptp(lips[:, 0]), rng),
    ]  # fmt: skip
    return Seeds.cat(parts)


def _row(reference: Reference, middle: np.ndarray, light: float, side: float, rng: np.random.Generator) -> Seeds:
    """A row of teeth with its gum; ``side`` 1 is the upper one."""
    upper = side > 0
    widths = np.array(TEETH) * (1 if upper else LOWER) * 2
    edges = np.concatenate([[0], np.cumsum(widths)])
    length, behind = LENGTH[0 if upper else 1], BEHIND[0 if upper else 1]
    biting = SHOWN if upper else SHOWN - 0.05  # lower teeth end just above the upper ones' edges, behind them
    points, colors = [], []
    for sign in (-1, 1):
        for k, width in enumerate(widths):
            x, y = np.meshgrid(np.arange(STEP / 2, width, STEP) / width, np.arange(0, length + 0.45, STEP))
            x, y = x.ravel(), y.ravel()
            gum = y > length - 0.12 * np.sin(np.pi * x)
            round_ = 0.05 * np.abs(2 * x - 1) ** 3  # corners of a tooth
            keep = y >= round_
            shade = np.where((x < GAP) | (x > 1 - GAP), 0.86, 1.0) * (1 - 0.10 * k) * (1 - 0.25 * y / length)
            across = sign * (edges[k] + x * width)
            points.append(np.stack([across, biting - side * y, behind + ARCH * across**2 * 0.55], -1)[keep])
            color = np.where(gum[:, None], GUM, ENAMEL) * shade[:, None] * light
            colors.append((color * rng.normal(1, 0.01, (len(color), 1)))[keep])
    at, color = np.concatenate(points) + [middle[0], middle[1], middle[2]], np.concatenate(colors)
    return _seeds(reference, at, color, STEP * 0.62, "mouth_upper" if upper else "mouth_lower", rides=not upper)


def _tongue(reference: Reference, middle: np.ndarray, light: float, rng: np.random.Generator) -> Seeds:
    x, z = np.meshgrid(np.arange(-1.5, 1.51, 0.14), np.arange(0, 2.2, 0.14))
    x, z = x.ravel(), z.ravel()
    y = 0.42 - 0.25 * np.cos(np.pi * x / 3.4) * np.sin(np.pi * np.minimum(z + 0.6, 2.2) / 2.6)
    color = np.array(TONGUE) * light * (0.95 - 0.28 * z[:, None])
    points = np.stack([x, y, 0.95 + z], -1) + middle
    return _seeds(reference, points, color * rng.normal(1, 0.03, (len(x), 1)), 0.11, "mouth_lower", rides=True)


def _cavity(reference: Reference, middle: np.ndarray, width: float, rng: np.random.Generator) -> Seeds:
    count = 320
    x, y = rng.uniform(-0.62, 0.62, count) * width, rng.uniform(-1.3, 2.2, count)
    points = np.stack([x, y, 2.9 + 0.12 * x**2], -1) + middle
    return _seeds(reference, points, np.tile(np.array(DARK), (count, 1)), 0.32, "mouth_upper", rides=False)


def _seeds(reference: Reference, points: np.ndarray, colors: np.ndarray, sigma: float, region: str, *,
           rides: bool) -> Seeds:  # fmt: skip
    count = len(points)
    return make_seeds(
        means=reference.skinning.to_canonical(torch.from_numpy(points).float()), sigma=np.full(count, sigma),
        colors=colors.astype(np.float32).clip(0, 1), opacity=0.95, skinning_weight=np.full(count, 0.99), region=region,
        bind_index=np.tile(np.array(CHIN[:3]), (count, 1)),
        bind_weight=np.full((count, 3), 0.9 / 3 if rides else 0.0, np.float32),
    )  # fmt: skip
