"""Which part of the source is trained, and what rendering shows of it: `prepare --frame`.

Around the head both are one square. Otherwise rendering shows the bust or the whole frame at the source's resolution,
and only the rectangle is trained that holds the person over the whole video: all around it is background. So the edge
of what is trained lies where nobody is, or on the edge of the frame itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from avatar import log
from avatar.errors import AvatarError
from avatar.io.media import Treatment
from avatar.io.video import VideoInfo
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.learned_face import LearnedFace, reader

VERSION = 2  # of what --frame bust and full choose; --frame head does not depend on it
BLOCK = 16  # pixels; sides of stored frames are multiples of it
LONGEST, SHORTEST = 1920, 1080  # longer and shorter side of what rendering shows at most, pixels
BUST_WIDE, BUST_HIGH = 4.2, 3.9  # face heights that a bust is wide and high ...
BUST_ABOVE = 0.9  # ... of which so many are above the face
PROBES = 60  # frames in which the person is looked for, ...
BESIDE, OVER, UNDER = 2.6, 1.2, 5.0  # ... first so many face heights around the face
PERSON = 0.5  # share of the person from which a pixel is hers
AROUND = 0.3  # face heights that are trained around the person, for gestures between the probes
MOST_PIXELS = 2.0  # times the pixels of --size squared are trained at most, where the face needs them
GOOD_FACE, SMALL_FACE, LEAST_FACE = 160, 100, 64  # pixels of a face: aimed at, said where less, refused where less


class Rect(NamedTuple):
    """A rectangle of the upright source frame, in whole pixels."""

    x: int
    y: int
    width: int
    height: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Cut it out of an image [H, W, C]; beyond the right and the lower edge, edge pixels are repeated."""
        part = image[self.y : self.y + self.height, self.x : self.x + self.width]
        down, across = self.height - part.shape[0], self.width - part.shape[1]
        return np.pad(part, ((0, down), (0, across), (0, 0)), mode="edge") if down or across else part


@dataclass(frozen=True, kw_only=True)
class Framing:
    """What is taken from the source.

    Attributes:
        crop: The part that is trained.
        size: Width and height at which it is stored, pixels.
        frame: What rendering shows; None: the crop.
        frame_size: Width and height at which rendering shows it, pixels.
        treatments: What the user is told of it.
    """

    crop: Rect
    size: tuple[int, int]
    frame: Rect | None = None
    frame_size: tuple[int, int] | None = None
    treatments: tuple[Treatment, ...] = ()


def frame_person(info: VideoInfo, face: LearnedFace, config: PrepareConfig) -> Framing:
    """Choose what rendering shows for --frame bust and full, and the part of it that is trained.

    Raises:
        AvatarError: The face would become too small.
    """
    frame = Rect(0, 0, info.width, info.height) if config.frame == "full" else bust(info, face)
    box, missed = person_box(info, frame, face)
    crop, size = blocks(box, frame, face.height, config.size)
    reduced = min(1.0, LONGEST / max(frame[2:]), SHORTEST / min(frame[2:]))
    frame_size = round(frame.width * reduced), round(frame.height * reduced)
    treatments = frame_treatments(config, frame, frame_size, crop, size, face.height)
    if missed:
        text = (
            "The segmenter found nobody around the face, so what is trained was guessed: as wide as shoulders and "
            "arms. Look at the frames; where arms are cut off, give --frame head, or record it again in better light."
        )
        log.warn(text)
        treatments = *treatments, Treatment("person-not-found", text)
    return Framing(crop=crop, size=size, frame=frame, frame_size=frame_size, treatments=treatments)


def frame_treatments(
    config: PrepareConfig, frame: Rect, frame_size: tuple[int, int], crop: Rect, size: tuple[int, int], face: float
) -> tuple[Treatment, ...]:
    """Say what is trained at which size, and warn where the face becomes small.

    Raises:
        AvatarError: It becomes too small.
    """
    height = face * size[0] / crop.width
    nearer = "head" if config.frame == "bust" else "bust or --frame head"
    if height < LEAST_FACE:
        raise AvatarError(
            f"With --frame {config.frame} the face would be only {height:.0f} pixels high in the trained part;",
            why=f"at least {LEAST_FACE} are needed, and {GOOD_FACE} make a good avatar.",
            fix=f"Give --frame {nearer}, or a larger --size.",
        )
    text = (
        f"Rendering shows {frame.width}x{frame.height} pixels of the source at {frame_size[0]}x{frame_size[1]} "
        f"(--frame {config.frame}); the {crop.width}x{crop.height} with the person are trained at {size[0]}x{size[1]}."
    )
    result = [Treatment("frame", text)]
    if height < SMALL_FACE:
        text = (
            f"The face is only {height:.0f} pixels high in the trained part, so it will be soft: "
            f"--frame {nearer} shows it larger, and so does a larger --size."
        )
        log.warn(text)
        result.append(Treatment("small-face", text))
    return tuple(result)


def bust(info: VideoInfo, face: LearnedFace) -> Rect:
    """Choose the part of the source that shows head, shoulders and chest, wherever the head goes."""
    x0, y0, x1, y1 = face_way(face)
    usual = np.median(face.boxes, axis=0)
    spare = face.height - np.array([usual[2] - usual[0], usual[3] - usual[1]])
    travel = np.maximum(np.array([x1 - x0, y1 - y0]) - face.height + spare.clip(0), 0)
    width = min(info.width, round(BUST_WIDE * face.height + travel[0]))
    height = min(info.height, round(BUST_HIGH * face.height + travel[1]))
    x = round((x0 + x1) / 2 - width / 2)
    y = round(y0 - BUST_ABOVE * face.height)
    return Rect(min(max(x, 0), info.width - width), min(max(y, 0), info.height - height), width, height)


def face_way(face: LearnedFace) -> tuple[float, float, float, float]:
    """Compute the box around the face over the whole video, without rare outliers.

    Returns:
        x0, y0, x1, y1 in pixels of the source.
    """
    low, high = np.percentile(face.boxes[:, :2], 2, axis=0), np.percentile(face.boxes[:, 2:], 98, axis=0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def person_box(info: VideoInfo, frame: Rect, face: LearnedFace) -> tuple[tuple[float, float, float, float], bool]:
    """Find the box around the person over the whole video, within ``frame``.

    Without the segmenter, and where it finds nobody at the face, it is guessed: as wide as shoulders and arms, down to
    the lower edge.

    Returns:
        x0, y0, x1, y1 in pixels of the source, and whether the segmenter missed the person.
    """
    from avatar.preprocess.parse import open_parser

    x0, y0, x1, y1 = face_way(face)
    margin, boxes, missed = AROUND * face.height, list[tuple[float, float, float, float]](), False
    with open_parser() as (parse, method):
        if method == "segmenter":
            frames = reader(info.path).sample_frames(info, PROBES)
            for image in log.track(frames, "looking for the person", PROBES):
                boxes += person_boxes(image, frame, face, lambda part: parse(part, np.zeros((478, 2)))[0])
            missed = not boxes
    if boxes:
        low, high = np.min(boxes, 0)[:2], np.max(boxes, 0)[2:]
        x0, y0, x1, y1 = min(x0, low[0]), min(y0, low[1]), max(x1, high[0]), max(y1, high[1])
    else:
        x0, x1, y0, y1 = x0 - face.height, x1 + face.height, y0 - 0.5 * face.height, frame.y + frame.height
    return (
        max(x0 - margin, frame.x), max(y0 - margin, frame.y),
        min(x1 + margin, frame.x + frame.width), min(y1 + margin, frame.y + frame.height),
    ), missed  # fmt: skip


def person_boxes(
    image: np.ndarray, frame: Rect, face: LearnedFace, parse: Callable[[np.ndarray], np.ndarray]
) -> list[tuple[float, float, float, float]]:
    """Find the person in one image, first in a window around the face, which a small person fills.

    The segmenter sees 256 pixels across: of a whole landscape frame too few are left for the shoulders of a small
    person. The window becomes twice as large while the person touches an edge of it that lies inside the frame, and
    while nobody is found.

    Args:
        image: The source frame [H, W, 3].
        frame: What rendering shows.
        face: The face to learn.
        parse: Gives the shares [4, S, S] of an image [S, S, 3].

    Returns:
        x0, y0, x1, y1 in pixels of the source, of each window in which the person was found.
    """
    from avatar.preprocess.parse import square

    found, reach = list[tuple[float, float, float, float]](), 1.0
    while True:
        window = face_window(frame, face, reach)
        part, restore = square(window.cut(image))
        mask = person_mask(1 - restore(parse(part))[3], window, face)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            across, down = window.width / mask.shape[1], window.height / mask.shape[0]
            found.append((
                window.x + columns[0] * across, window.y + rows[0] * down,
                window.x + (columns[-1] + 1) * across, window.y + (rows[-1] + 1) * down,
            ))  # fmt: skip
        touches = mask[:, 0].any(), mask[0].any(), mask[:, -1].any(), mask[-1].any()
        inner = inner_edges(window, frame)
        if not any(inner) or (len(rows) and not any(a and b for a, b in zip(touches, inner, strict=True))):
            return found
        reach *= 2


def face_window(frame: Rect, face: LearnedFace, reach: float) -> Rect:
    """Choose the window around the face in which the person is looked for, within ``frame``.

    Args:
        frame: What rendering shows.
        face: The face to learn; all of its way is inside.
        reach: Size of the window; 1 holds an upright person down to the thighs.
    """
    x0, y0, x1, y1 = face_way(face)
    unit = reach * face.height
    left, right = max(frame.x, math.floor(x0 - BESIDE * unit)), math.ceil(x1 + BESIDE * unit)
    top, bottom = max(frame.y, math.floor(y0 - OVER * unit)), math.ceil(y1 + UNDER * unit)
    right, bottom = min(frame.x + frame.width, right), min(frame.y + frame.height, bottom)
    return Rect(left, top, right - left, bottom - top)


def inner_edges(part: Rect, frame: Rect) -> tuple[bool, bool, bool, bool]:
    """Which edges of a part (left, top, right, bottom) lie inside of ``frame``."""
    return (
        part.x > frame.x, part.y > frame.y,
        part.x + part.width < frame.x + frame.width, part.y + part.height < frame.y + frame.height,
    )  # fmt: skip


def person_mask(share: np.ndarray, frame: Rect, face: LearnedFace) -> np.ndarray:
    """Keep of a mask [S, S] of all people in ``frame`` what hangs together with the face: bool [S, S]."""
    import cv2

    _, labels = cv2.connectedComponents((share > PERSON).astype(np.uint8))
    x0, y0, x1, y1 = face_way(face)
    scale = np.array(labels.shape[::-1]) / frame[2:]
    left, top = ((np.array([x0, y0]) - frame[:2]) * scale).clip(0).astype(int)
    right, bottom = np.ceil((np.array([x1, y1]) - frame[:2]) * scale).astype(int)
    hers = np.unique(labels[top:bottom, left:right])
    return np.isin(labels, hers[hers > 0])


def blocks(box: tuple[float, float, float, float], frame: Rect, face: float, size: int) -> tuple[Rect, tuple[int, int]]:
    """Choose the trained part around a box, and the width and height at which it is stored.

    Both sides are multiples of 16 pixels, and of one whole number of source pixels: so the scale is the same across
    and down, exactly. Where that does not go into the frame, the part reaches over its right or lower edge.

    Args:
        box: x0, y0, x1, y1 that must be inside, pixels of the source.
        frame: What rendering shows.
        face: Height of the face in the source, pixels.
        size: Side of the square whose pixels are aimed at; up to twice as many where the face would be small.
    """
    wide, high = box[2] - box[0], box[3] - box[1]

    def finest(pixels: float) -> int:
        unit = BLOCK
        while math.ceil(wide / unit) * math.ceil(high / unit) * BLOCK**2 > pixels:
            unit += 1
        return unit

    aimed = math.floor(BLOCK * face / GOOD_FACE)
    unit = max(finest(MOST_PIXELS * size**2), min(finest(size**2), max(BLOCK, aimed)))
    across, down = math.ceil(wide / unit), math.ceil(high / unit)
    places = []
    for low, length, count, start, end in (
        (box[0], wide, across, frame.x, frame.x + frame.width), (box[1], high, down, frame.y, frame.y + frame.height)
    ):  # fmt: skip
        place = math.floor(low - (count * unit - length) / 2)
        places.append(max(start, min(place, end - count * unit)))
    return Rect(places[0], places[1], across * unit, down * unit), (across * BLOCK, down * BLOCK)
