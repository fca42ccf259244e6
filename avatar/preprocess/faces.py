"""Faces of a recording over time: who is there, where, and who is a still picture.

Frames far apart tell who is there. A face that moves changes its shape from frame to frame; a still picture does not,
however it is panned, enlarged or faded in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from avatar.preprocess.landmarker import Face, Landmarker

MIN_FACE = 64  # pixels from forehead to chin, in the source
STILL = 0.003  # of the face height; noisy stills reach 0.002 and people who talk start at 0.0034
MIN_SAMPLES = 4  # views of a face that are needed to call it still
STILL_VIEWS = 8  # successive views over which a still picture stays: a slide with another one may follow
LASTING = 0.2  # share of the probed frames in which a face must be seen to count
NEAR = 0.8  # face heights between two views of one person
STEP = 2 * NEAR  # ... and between probes, seconds apart, of somebody who moves in the same shot
_ALIKE = 0.6  # least ratio of their heights


@dataclass(frozen=True, kw_only=True)
class ProbedFace(Face):
    """A face of a probed frame, in pixels of the source.

    Attributes:
        colour: [3] mean RGB of its box, 0..255.
    """

    colour: np.ndarray


@dataclass(kw_only=True)
class Person:
    """One face over the probed frames.

    Attributes:
        views: The face in each probed frame that shows it, by the number of the probe.
    """

    views: dict[int, Face] = field(default_factory=dict)

    @property
    def centre(self) -> tuple[int, int]:
        """Median middle of the face in pixels."""
        x, y = np.median([face.centre for face in self.views.values()], axis=0)
        return round(float(x)), round(float(y))

    @property
    def height(self) -> float:
        """Median height in pixels."""
        return float(np.median([face.height for face in self.views.values()]))

    @property
    def usual(self) -> tuple[int, int, int]:
        """x, y and height in pixels where it is in most views: shots may show it at different sizes."""
        near = self._usual_views()
        x, y = np.median([face.centre for face in near], axis=0)
        return round(float(x)), round(float(y)), round(float(np.median([face.height for face in near])))

    def _usual_views(self) -> list[Face]:
        faces = list(self.views.values())
        return max(([other for other in faces if near_in_size_and_place(face, other)] for face in faces), key=len)

    @property
    def boxes(self) -> np.ndarray:
        """[N, 4] x0, y0, x1, y1 of every view in pixels."""
        return np.stack([face.box for face in self.views.values()])

    @property
    def own_boxes(self) -> np.ndarray:
        """[N, 4] as `boxes`, without rare views that no step from view to view joins to the usual place.

        They show somebody else, in a cutaway, or this face as it is not followed. A place that is seen as often as
        somebody who counts is one of its places.
        """
        views = list(self.views.values())
        parts = _linked(views)
        usual = {id(face) for face in self._usual_views()}
        main = next(part for part in parts if any(id(views[k]) in usual for k in part))
        kept = sorted(k for part in parts if part is main or len(part) >= LASTING * len(main) for k in part)
        return np.stack([views[k].box for k in kept])

    @property
    def landmarks(self) -> np.ndarray:
        """[N, 478, 3] of every view in pixels, in order of time."""
        return np.stack([self.views[index].landmarks for index in sorted(self.views)])

    @property
    def still(self) -> bool:
        """Whether this is a picture of a face, or one after another."""
        return len(self.views) >= MIN_SAMPLES and _usual_change(self.landmarks) < STILL

    def distance(self, x: float, y: float) -> float:
        """Pixels from a point to the median box; 0 inside."""
        x0, y0, x1, y1 = np.median(self.boxes, axis=0)
        return float(np.hypot(max(x0 - x, 0, x - x1), max(y0 - y, 0, y - y1)))

    def __str__(self) -> str:
        x, y = self.centre
        return f"the {'still ' if self.still else ''}face at {x},{y} ({self.height:.0f} pixels high)"


def _linked(views: Sequence[Face]) -> list[list[int]]:
    """Part views, by their numbers, so that no step of one person leads from one part into another."""
    parts, waiting = list[list[int]](), list(range(len(views)))
    while waiting:
        part = [waiting.pop(0)]
        for here in part:  # which grows
            near = [k for k in waiting if near_in_size_and_place(views[here], views[k], STEP)]
            part += near
            waiting = [k for k in waiting if k not in near]
        parts.append(part)
    return parts


def near_in_size_and_place(face: Face, other: Face, reach: float = NEAR) -> bool:
    """Whether two faces can be one in the same shot, ``reach`` face heights apart at most."""
    ratio = other.height / face.height
    apart = float(np.linalg.norm(other.centre - face.centre)) / face.height
    return apart < reach and _ALIKE < ratio < 1 / _ALIKE


def _usual_change(landmarks: np.ndarray) -> float:
    """Median change of shape within `STILL_VIEWS` successive views of a face [N, 478, 3], in face heights."""
    starts = range(0, max(1, len(landmarks) - STILL_VIEWS + 1), STILL_VIEWS // 4)
    return float(np.median([shape_change(landmarks[start : start + STILL_VIEWS]) for start in starts]))


def shape_change(landmarks: np.ndarray) -> float:
    """Measure how much a face [N, 478, 3] changes its shape: median distance from the median shape, in face heights.

    Place, size and turn in the picture's plane are taken out first.
    """
    points = landmarks[..., 0].astype(np.complex128) + 1j * landmarks[..., 1]
    points -= points.mean(1, keepdims=True)
    points /= np.sqrt(np.mean(np.abs(points) ** 2, axis=1, keepdims=True)) + 1e-9
    usual = points[len(points) // 2]
    for _ in range(2):  # turned towards the median shape, which is then known better
        turn = points.conj() @ usual
        points *= (turn / (np.abs(turn) + 1e-9))[:, None]
        usual = np.median(points.real, axis=0) + 1j * np.median(points.imag, axis=0)
    away = np.sqrt(np.mean(np.abs(points - usual) ** 2, axis=1))
    return float(np.median(away) / (np.ptp(usual.imag) + 1e-9))


def lip_gap(landmarks: np.ndarray) -> np.ndarray:
    """Measure the gap of the lips [N] of a face [N, 478, 3], in face heights."""
    from avatar.motion.face_channels import mouth_opening  # brings torch, which a refused video does not need

    return mouth_opening(landmarks) / (np.ptp(landmarks[..., 1], axis=1) + 1e-9)


def group(samples: Sequence[Sequence[Face]]) -> list[Person]:
    """Tell the people of probed frames apart: by place and size, and by who is seen together.

    Args:
        samples: Faces per probed frame.

    Returns:
        Everybody, whoever is seen most often first.
    """
    people: list[Person] = []
    for index, faces in enumerate(samples):
        for face in faces:
            near = [(gap, person) for person in people if (gap := _gap(person, face, index)) is not None]
            person = min(near, key=lambda pair: pair[0])[1] if near else Person()
            if not near:
                people.append(person)
            person.views[index] = face
    return sorted(_joined(people), key=lambda person: -len(person.views))


def _gap(person: Person, face: Face, index: int) -> float | None:
    """Face heights from where somebody was last seen; None where this must be somebody else."""
    if index in person.views:
        return None
    last = person.views[max(person.views)]
    gap = float(np.linalg.norm(last.centre - face.centre)) / last.height
    return gap if near_in_size_and_place(last, face) else None


def _joined(people: list[Person]) -> list[Person]:
    """Join those who are never seen together: one person who walked, or whose shot changed.

    A still picture and somebody who moves stay apart.
    """
    joined: list[Person] = []
    for person in sorted(people, key=lambda person: -len(person.views)):
        for other in joined:
            if not other.views.keys() & person.views.keys() and other.still == person.still:
                other.views |= person.views
                break
        else:
            joined.append(person)
    return joined


def lasting(people: Sequence[Person]) -> list[Person]:
    """Those who are seen often enough to count, in proportion to whoever is seen most often."""
    most = max((len(person.views) for person in people), default=0)
    return [person for person in people if len(person.views) >= LASTING * most]


def find_in_tiles(landmarker: Landmarker, image: np.ndarray, known: Sequence[Face] = ()) -> list[Face]:
    """Find faces in overlapping tiles of an image, largest first: small ones escape the detector otherwise.

    Args:
        landmarker: Finds the faces.
        image: uint8 RGB [H, W, 3].
        known: Faces that were found before; they are part of the result.
    """
    faces = distinct(known)
    for x, y, side in _tiles(*image.shape[:2]):
        for face in landmarker.detect(image[y : y + side, x : x + side]):
            moved = moved_face(face, x, y)
            if not any(_overlap(moved, other) for other in faces):
                faces.append(moved)
    return sorted(faces, key=lambda face: -face.height)


def distinct(faces: Sequence[Face]) -> list[Face]:
    """Leave out what shows a face a second time; the detector now and then returns one twice."""
    kept: list[Face] = []
    for face in faces:
        if not any(_overlap(face, other) for other in kept):
            kept.append(face)
    return kept


def _overlap(one: Face, other: Face) -> bool:
    """Whether the middle of one face lies in the other one."""
    return any(bool(np.all((a.centre >= b.box[:2]) & (a.centre <= b.box[2:]))) for a, b in ((one, other), (other, one)))


def moved_face(face: Face, x: float, y: float, scale: float = 1.0) -> Face:
    """Convert a face to pixels of the whole image, of which a reduced part was searched."""
    return Face(landmarks=face.landmarks / scale + np.array([x, y, 0], np.float32), arkit=face.arkit)


def face_colour(image: np.ndarray, face: Face) -> np.ndarray:
    """Mean RGB [3] of the box of a face."""
    x0, y0, x1, y1 = np.maximum(face.box, 0).astype(int)
    part = image[y0 : y1 + 1, x0 : x1 + 1]
    return part.reshape(-1, 3).mean(0) if part.size else np.zeros(3)


def _tiles(height: int, width: int) -> Iterator[tuple[int, int, int]]:
    side = min(height, width) // 2
    if side < 2 * MIN_FACE:
        return
    for y in range(0, height - side + 1, side // 2):
        for x in range(0, width - side + 1, side // 2):
            yield x, y, side
