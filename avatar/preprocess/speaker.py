"""Who speaks: of several faces in a recording, the one whose lips move while there is a voice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np

from avatar.errors import AvatarError
from avatar.io.audio import SAMPLE_RATE
from avatar.io.video import VideoInfo
from avatar.preprocess.faces import MIN_FACE, Person, find_in_tiles, lip_gap, moved_face
from avatar.preprocess.landmarker import Face, Landmarker

SPANS = 8  # short spans of consecutive frames that are looked at, at most
MIN_SPANS = 2  # in which a face must be seen
SPAN_SECONDS = 1.0
SPAN_RATE = 25.0  # frames per second that are looked at, at most
MOST_SECONDS = 300.0  # of the recording that the spans are taken from
# Spread of the lip gap within a second, in face heights: listeners have 0.001, noisy stills 0.003, speakers 0.014.
TALKS = 0.006
LESS = 0.5  # a mouth that moves less than this share of another one does not compete with it
RIVAL_SIZE = 0.8  # where nobody speaks, a face of this share of the largest one's height competes with it
RIVAL_SHARE = 0.3  # share of the frames that show the largest face in which one that competes is seen
_WINDOW = 3.0  # side of the square in which a face is looked for again, in face heights


@dataclass(kw_only=True)
class Mouth:
    """Lip gaps of one person, span by span.

    Attributes:
        person: Whose.
        spans: Landmarks [N, 478, 3] of each span in which the face was seen throughout.
    """

    person: Person
    spans: list[np.ndarray] = field(default_factory=list)

    @property
    def movement(self) -> float:
        """Median over the spans of the spread of the lip gap, in face heights; 0 where it was never seen."""
        spreads = [float(np.std(_steep(lip_gap(span)))) for span in self.spans]
        return float(np.median(spreads)) if len(spreads) >= MIN_SPANS else 0.0


def _steep(values: np.ndarray) -> np.ndarray:
    """Take out what changes slowly: a smile, a turn of the head, a zoom."""
    time = np.linspace(-1, 1, len(values))
    return values - np.polyval(np.polyfit(time, values, 2), time)


def watch(frames: Iterator[np.ndarray], info: VideoInfo, people: Sequence[Person], voice: np.ndarray) -> list[Mouth]:
    """Look at the mouths of people over short spans of consecutive frames.

    Args:
        frames: Every frame of the video, in order.
        info: The video.
        people: Whom to look at, in pixels of the frames.
        voice: [N] 16 kHz audio, empty where there is none: the loudest second of each part is looked at.
    """
    mouths = [Mouth(person=person) for person in people]
    fps = float(info.fps)
    step = max(1, round(fps / SPAN_RATE))
    length = max(2, round(SPAN_SECONDS * fps / step))
    starts = span_starts(min(info.num_frames / fps, MOST_SECONDS), voice, SPANS)
    first = [round(start * fps) for start in starts]
    with Landmarker(num_faces=4) as several, Landmarker() as single:
        begun, span = -1, [[] for _ in mouths]
        for index, frame in enumerate(frames):
            if begun + 1 < len(first) and index == first[begun + 1]:
                _close(mouths, span, length)
                begun, span = begun + 1, [[face] if face else [] for face in _found(several, frame, people)]
            elif begun >= 0 and (index - first[begun]) % step == 0 and index - first[begun] < step * length:
                for seen in span:
                    if seen and (face := follow(single, frame, seen[-1])) is not None:
                        seen.append(face)
            elif begun == len(first) - 1 and index - first[begun] >= step * length:
                break
        _close(mouths, span, length)
    return mouths


def _close(mouths: list[Mouth], span: list[list[Face]], length: int) -> None:
    for mouth, seen in zip(mouths, span, strict=True):
        if len(seen) >= 0.9 * length:
            mouth.spans.append(np.stack([face.landmarks for face in seen]))


def span_starts(seconds: float, voice: np.ndarray, most: int) -> list[float]:
    """Choose the start of each span in seconds: the loudest of each part of the recording, else its middle.

    Args:
        seconds: Length of the recording.
        voice: [N] 16 kHz audio, empty where there is none.
        most: Number of parts, at most.
    """
    edges = np.linspace(0, seconds, min(most, int(seconds / SPAN_SECONDS)) + 1)
    starts = []
    for start, end in pairwise(edges):
        tries = np.arange(start, end - SPAN_SECONDS + 1e-6, SPAN_SECONDS / 4)
        loud = [_power(voice, time) for time in tries]
        starts.append(float(tries[int(np.argmax(loud))] if max(loud) > 0 else tries[len(tries) // 2]))
    return starts


def _power(voice: np.ndarray, start: float) -> float:
    part = voice[round(start * SAMPLE_RATE) : round((start + SPAN_SECONDS) * SAMPLE_RATE)]
    return float(np.mean(np.square(part, dtype=np.float64))) if len(part) else 0.0


def _found(landmarker: Landmarker, frame: np.ndarray, people: Sequence[Person]) -> list[Face | None]:
    """Find each person in a frame: near where one is usually, or else somewhere in it."""
    faces = find_in_tiles(landmarker, frame, landmarker.detect(frame))
    found: list[Face | None] = []
    for person in people:
        gap, face = min(
            ((_gap(person, face), face) for face in faces), key=lambda pair: pair[0], default=(np.inf, None)
        )
        found.append(face if gap < 1 else None)
    return found


def _gap(person: Person, face: Face) -> float:
    """Face heights to the nearest view of a person of about this size."""
    near = [
        float(np.linalg.norm(view.centre - face.centre)) / view.height
        for view in person.views.values()
        if 0.6 < face.height / view.height < 1.67
    ]
    return min(near, default=np.inf)


def follow(landmarker: Landmarker, frame: np.ndarray, last: Face) -> Face | None:
    """Find a face again near where it was in the frame before."""
    side = round(_WINDOW * last.height)
    x, y = (max(0, round(float(c) - side / 2)) for c in last.centre)
    for face in landmarker.detect(frame[y : y + side, x : x + side]):
        face = moved_face(face, x, y)
        if np.linalg.norm(face.centre - last.centre) < 0.5 * last.height:
            return face
    return None


def choose(mouths: Sequence[Mouth], path: Path) -> tuple[Person, str]:
    """Choose whom to learn: who moves and speaks; where nobody speaks, who is clearly the largest.

    Args:
        mouths: Of at least one person.
        path: The recording, for errors.

    Returns:
        The person, and why, for the user.

    Raises:
        AvatarError: Several speak, or nobody does and several are of about equal size.
    """
    # What looks still, or is too small to be learned, must talk to be more than a picture or a pattern.
    living = [m for m in mouths if m.movement >= TALKS or not (m.person.still or m.person.height < MIN_FACE)]
    living = living or list(mouths)
    most = max(mouth.movement for mouth in living)
    talking = [mouth for mouth in living if mouth.movement >= max(TALKS, LESS * most)]
    left = talking or living
    largest = max(left, key=lambda mouth: mouth.person.height)
    least = MIN_FACE if talking else RIVAL_SIZE * largest.person.height
    rivals = [
        mouth.person
        for mouth in left
        if mouth.person.height >= least and len(mouth.person.views) >= RIVAL_SHARE * len(largest.person.views)
    ]
    if len(rivals) > 1:
        raise _rivals(rivals, path, "that speak" if talking else "of about equal size")
    if len(left) > 1:
        return largest.person, "it is the largest of those that speak" if talking else "it is the largest"
    return largest.person, "it moves and speaks" if talking else "it moves"


def _rivals(people: Sequence[Person], path: Path, which: str) -> AvatarError:
    people = sorted(people, key=lambda person: person.centre)
    return AvatarError(
        f"{path} shows {len(people)} faces {which},",
        why=f"and which one to learn is not clear: {', '.join(str(person) for person in people)}.",
        fix=f"Choose with {' or '.join('--face {},{}'.format(*person.centre) for person in people)}.",
        see="several-faces",
    )
