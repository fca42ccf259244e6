"""Turning a photo whose face lies on its side or stands on its head, by quarters of a turn."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from avatar.preprocess.config import PrepareConfig

if TYPE_CHECKING:
    from avatar.preprocess.landmarker import Face

SEARCHED = 1280  # pixels of the longer side at which faces are looked for
_NEAR = 0.5  # face heights from where a face was to where it must be in the turned photo


def head_rotation(face: Face) -> np.ndarray:
    """Find the rotation [3, 3] from head axes to those of the image.

    It comes from the depth of the landmarks. The image's y points down.
    """
    return _fit(face)[0]


def roll(face: Face) -> float:
    """Measure by how many degrees the head is tilted in the image, clockwise."""
    x, y, _ = head_rotation(face) @ [0.0, -1.0, 0.0]  # where the top of the head is
    return float(np.degrees(np.arctan2(x, -y)))


def quarter_turns(image: np.ndarray, face: Face | None) -> int:
    """Count the quarters of a turn, counterclockwise, that bring a face upright: 0 to 3.

    On a face that is upside down, or on its side at times, landmarks are put the wrong way round. The photo is looked
    at in all four positions, each says which way is up, and most of them are right.

    Args:
        image: uint8 RGB [H, W, 3].
        face: The face in it; None: none was found.
    """
    height, width = image.shape[:2]
    votes, apart = np.zeros(4), np.full(4, np.inf)
    for turns in range(4):
        place = None if face is None else moved_point(face.centre, width, height, turns)
        # What was found as the photo lies may be too small for a look at all of it.
        found = face if turns == 0 and face is not None else _at(_look(np.rot90(image, turns)), place, face)
        if found is not None:
            more = round(roll(found) / 90) % 4
            votes[(turns + more) % 4] += 1
            apart[turns] = _fit(found)[1] if more == 0 else np.inf
    best = np.flatnonzero(votes == votes.max())
    return int(min(best, key=lambda turns: apart[turns])) if votes.any() else 0


def turned(image: np.ndarray, turns: int, config: PrepareConfig, face: Face | None) -> tuple[np.ndarray, PrepareConfig]:
    """Turn a photo by quarters, counterclockwise, and with it the places that its options name.

    Args:
        image: uint8 RGB [H, W, 3].
        turns: Quarters.
        config: ``face`` and ``crop`` are of the photo as it is.
        face: The face that is meant; None: none was found.
    """
    height, width = image.shape[:2]
    meant = config.wanted_face if face is None else face.centre
    if meant is not None and not isinstance(meant, int):
        x, y = moved_point(np.array(meant, float), width, height, turns).round().clip(0).astype(int)
        config = replace(config, face=f"{x},{y}")
    if (square := config.square) is not None:
        corners = np.array([[square.x, square.y], [square.x + square.side, square.y + square.side]])
        x, y = np.min([moved_point(corner, width, height, turns) for corner in corners], 0).astype(int)
        config = replace(config, crop=f"{x},{y},{square.side}")
    return np.ascontiguousarray(np.rot90(image, turns)), config


def moved_point(point: np.ndarray, width: int, height: int, turns: int) -> np.ndarray:
    """Move a point [2] of an image of ``width`` and ``height`` along with its quarter turns, counterclockwise."""
    x, y = point
    for _ in range(turns % 4):
        x, y, width, height = y, width - x, height, width
    return np.array([x, y])


def _fit(face: Face) -> tuple[np.ndarray, float]:
    """Rotation [3, 3] of the canonical head, and how far the landmarks are from it, in centimetres of its size."""
    from avatar.assets.canonical_face import canonical_face
    from avatar.preprocess.bundle import similarity
    from avatar.preprocess.head_fit import canonical_in_head_axes, rigid_points

    canonical = canonical_in_head_axes(canonical_face()[0])
    points = rigid_points(canonical)
    target = face.landmarks.astype(np.float64)
    rotation = similarity(canonical[points], target[points], np.ones(len(points)))[1]
    target = target[: len(canonical)]
    scale, whole, shift = similarity(canonical, target, np.ones(len(canonical)))
    apart = np.linalg.norm(target - (scale * canonical @ whole.T + shift), axis=1)
    return rotation, float(np.sqrt(np.square(apart).mean()) / scale)


def _look(image: np.ndarray) -> list[Face]:
    """The faces of an image as a whole, largest first."""
    from avatar.io.images import resize
    from avatar.preprocess.faces import moved_face
    from avatar.preprocess.landmarker import Landmarker

    height, width = image.shape[:2]
    scale = min(1.0, SEARCHED / max(height, width))
    small = np.ascontiguousarray(image)
    small = small if scale == 1 else resize(small, (max(1, round(width * scale)), max(1, round(height * scale))))
    with Landmarker(num_faces=4) as landmarker:
        return [moved_face(face, 0, 0, scale) for face in landmarker.detect(small)]


def _at(faces: list[Face], place: np.ndarray | None, face: Face | None) -> Face | None:
    """The face at a place [2], where ``face`` is in another look; the largest where nothing is known of it."""
    if not faces or place is None or face is None:
        return faces[0] if faces else None
    nearest = min(faces, key=lambda found: float(np.linalg.norm(found.centre - place)))
    return nearest if np.linalg.norm(nearest.centre - place) < _NEAR * face.height else None
