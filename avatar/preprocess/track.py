"""Stage 2: landmarks and ARKit coefficients of the main face in every frame, and where the video is cut."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from avatar import log
from avatar.data.results import IngestResult, Segments, TrackResult
from avatar.errors import AvatarError
from avatar.geometry.mesh import STEADY
from avatar.io.arrays import save_array
from avatar.preprocess.faces import NEAR, moved_face
from avatar.preprocess.landmarker import Face, Landmarker
from avatar.preprocess.stage import StageContext

NAME = "track"
INPUTS = ("ingest",)
VERSION = 5

MIN_VALID_SHARE = 0.5
THUMBNAIL = 64  # pixels; frames are compared at this size to find cuts
CUT_CHANGE = 1.0  # least mean change of a grey level at a cut, of 255
CUT_RATIO = 4.0  # a cut changes the image this many times as much as the frames around it do
CUT_JUMP = 0.02  # in face heights; a jump of the face this large ...
CUT_JUMP_RATIO = 6.0  # ... and this many times the motion around it is a cut where the background does not tell
CUT_REACH = 3  # frames looked at on either side
LOST_SECONDS = 0.5  # without the face, after which it is looked for where it usually is


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on, apart from the frames: nothing."""
    return {}


def run(ctx: StageContext, out: Path) -> TrackResult:
    """Write landmarks.npy, blendshapes.npy, valid.npy, sharpness.npy and change.npy.

    Raises:
        AvatarError: The face is missing in more than half of the frames.
    """
    count = ctx.frames
    landmarks = np.full((count, 478, 3), np.nan, np.float32)
    arkit = np.zeros((count, 52), np.float32)
    change = ImageChange()
    sharpness = np.zeros(count, np.float32)
    ingest = ctx.person.result(IngestResult)
    main = MainFace(usual_place(ingest), alone=ingest.face is None, fps=ingest.fps)
    left, top, right, bottom = head_window(ingest)
    with Landmarker(num_faces=1) as single, Landmarker(num_faces=4) as several:
        for index, image in enumerate(log.track(ctx.person.frames(count), "tracking the face", count)):
            change.add(image)
            window = image[top:bottom, left:right]
            face = main.among([moved_face(face, left, top) for face in single.detect(window)])
            if face is None:
                face = main.among([moved_face(face, left, top) for face in several.detect(window)])
            if face is not None:
                face = single.look_again(image, face)
                landmarks[index], arkit[index] = face.landmarks, face.arkit
                sharpness[index] = face_sharpness(image, face)
            main.go_on(face)
    valid = np.isfinite(landmarks[:, 0, 0])
    if valid.mean() < MIN_VALID_SHARE:
        raise AvatarError(
            f"The face was found in only {valid.mean():.0%} of the frames of {ctx.video};",
            why="an avatar needs it in at least half of them.",
            fix="Cut out the parts without the face.",
            see="no-face-is-found",
        )
    segments = find_segments(change.values, landmarks)
    landmarks, arkit = fill_gaps(landmarks, segments), fill_gaps(np.where(valid[:, None], arkit, np.nan), segments)
    save_array(out / "landmarks.npy", landmarks)
    save_array(out / "blendshapes.npy", arkit)
    save_array(out / "valid.npy", valid)
    save_array(out / "sharpness.npy", sharpness)
    save_array(out / "change.npy", change.values)
    return TrackResult(segments=segments, valid_share=round(float(valid.mean()), 4))


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a face is: its middle [2] and its height in pixels."""

    centre: np.ndarray
    height: float


class MainFace:
    """The face that is followed from frame to frame, and found again where a cut or an absence ended that.

    Args:
        usual: Where it is most of the time; None where that is not known.
        alone: Whether it is the only face, so that it may begin anywhere.
        fps: Frames per second.
    """

    def __init__(self, usual: Place | None, *, alone: bool, fps: float) -> None:
        self._usual, self._alone, self._patience = usual, alone, round(LOST_SECONDS * fps)
        self._last: Face | Place | None = usual
        self._missed = 0

    def among(self, faces: list[Face]) -> Face | None:
        """The main face out of those of a frame, largest first; None where it is not among them.

        Another shot may show it at another size or place. Then it is taken up again where it usually is, so that most
        of the video counts, and never where somebody else may sit.
        """
        found = pick_face(self._last, faces)
        if found is not None or self._missed < self._patience:
            return found
        if self._alone and self._last is self._usual:  # it was nowhere yet
            return faces[0] if faces else None
        return None if self._usual is None else pick_face(self._usual, faces, reach=NEAR)

    def go_on(self, face: Face | None) -> None:
        """Remember what a frame showed."""
        self._missed = 0 if face is not None else self._missed + 1
        self._last = face or self._last


def usual_place(ingest: IngestResult) -> Place | None:
    """Where the face to learn usually is in the stored frames; None where that is not known."""
    place = ingest.usual or ingest.face
    if place is None:
        return None
    x, y, height = place
    left, top = ingest.crop[:2]
    scale = ingest.scale
    return Place(centre=np.array([x - left, y - top]) * scale, height=height * scale)


def head_window(ingest: IngestResult) -> tuple[int, int, int, int]:
    """Compute where in the stored frames the face is looked for, x0, y0, x1, y1; elsewhere a small one escapes."""
    if ingest.head is None:
        return 0, 0, ingest.width, ingest.height
    x, y, side = ingest.head
    left, top = (x - ingest.crop[0]) * ingest.scale, (y - ingest.crop[1]) * ingest.scale
    right, bottom = left + side * ingest.scale, top + side * ingest.scale
    return (
        max(0, math.floor(left)), max(0, math.floor(top)),
        min(ingest.width, math.ceil(right)), min(ingest.height, math.ceil(bottom)),
    )  # fmt: skip


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Scale an image to 64x64."""
    import cv2

    return cv2.resize(image, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def face_sharpness(image: np.ndarray, face: Face) -> float:
    """Standard deviation of the Laplacian over the face: small where it is blurred."""
    import cv2

    x0, y0, x1, y1 = np.clip(face.box, 0, [*image.shape[1::-1]] * 2).astype(int)
    part = image[y0:y1, x0:x1]
    return float(cv2.Laplacian(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), cv2.CV_32F).std()) if part.size else 0.0


def pick_face(previous: Face | Place | None, faces: list[Face], reach: float | None = None) -> Face | None:
    """The face that goes on from ``previous``: the largest one of about its size and not far from it.

    Before the first one, the face nearest to where it is usually.

    The crop was chosen around the main face, so after a cut it is near as well, though not at the same place.

    Args:
        previous: Where it was, or where it usually is.
        faces: Those of a frame, largest first.
        reach: Face heights to it, at most; by default more where it is only known where it usually is.
    """
    if previous is None:
        return faces[0] if faces else None
    if isinstance(previous, Place):  # the head may begin some way off, and others may be nearby
        faces = sorted(faces, key=lambda face: float(np.linalg.norm(face.centre - previous.centre)))
    if reach is None:
        reach = 2 * NEAR if isinstance(previous, Place) else NEAR
    for face in faces:
        ratio = face.height / previous.height
        if 0.6 < ratio < 1.67 and np.linalg.norm(face.centre - previous.centre) < reach * previous.height:
            return face
    return None


class ImageChange:
    """Measures by how much each frame differs from the one before, and keeps no more than one small image."""

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._values: list[float] = []

    def add(self, image: np.ndarray) -> None:
        """Go on with the next frame, uint8 RGB."""
        small = thumbnail(image).astype(np.int16)
        if self._before is not None:
            self._values.append(float(np.abs(small - self._before).mean()))
        self._before = small

    @property
    def values(self) -> np.ndarray:
        """Mean absolute change from each frame to the next in grey levels, float32 [T - 1]."""
        return np.array(self._values, np.float32)


def find_segments(change: np.ndarray, landmarks: np.ndarray) -> list[tuple[int, int]]:
    """Find the segments between cuts.

    A cut changes the whole image once, where motion changes it over several frames; so each change is compared with
    the changes around it. A flash changes the image twice and is no cut.

    Args:
        change: [T - 1] change of the image from each frame to the next, in grey levels.
        landmarks: [T, 478, 3] pixels, NaN where the face was not found.

    Returns:
        [start, end) of each segment.
    """
    count = len(landmarks)
    if count < 2:
        return [(0, count)]
    steady = landmarks[:, STEADY, :2]
    height = np.nanmedian(np.ptp(landmarks[..., 1], axis=1))
    jump = np.nan_to_num(np.linalg.norm(np.diff(steady, axis=0), axis=-1).mean(1) / height)
    stands_out, leaps = _peak_ratio(change), _peak_ratio(jump)
    cuts = (change > CUT_CHANGE) & (stands_out > CUT_RATIO)
    cuts |= (jump > CUT_JUMP) & (leaps > CUT_JUMP_RATIO) & (stands_out > 1.5)
    edges = [0, *(np.flatnonzero(cuts) + 1).tolist(), count]
    return list(pairwise(edges))


def _peak_ratio(values: np.ndarray) -> np.ndarray:
    """Each value over the largest of its neighbours."""
    padded = np.pad(values, CUT_REACH, constant_values=0)
    around = [padded[k : k + len(values)] for k in range(2 * CUT_REACH + 1) if k != CUT_REACH]
    return values / (np.max(around, axis=0) + 1e-6)


def fill_gaps(values: np.ndarray, segments: Segments) -> np.ndarray:
    """Replace NaN rows by linear interpolation inside their segment; a wholly empty one takes the nearest rows."""
    flat = values.reshape(len(values), -1)
    known = np.all(np.isfinite(flat), axis=1)
    filled = flat.copy()
    for start, end in segments:
        inside = np.flatnonzero(known[start:end]) + start
        source = inside if len(inside) else np.flatnonzero(known)
        missing = np.flatnonzero(~known[start:end]) + start
        if len(missing) == 0 or len(source) == 0:
            continue
        after = np.searchsorted(source, missing).clip(0, len(source) - 1)
        before = (after - 1).clip(0)
        before = np.where(source[after] < missing, after, before)
        span = np.maximum(source[after] - source[before], 1)
        mix = ((missing - source[before]) / span).clip(0, 1)[:, None]
        filled[missing] = flat[source[before]] * (1 - mix) + flat[source[after]] * mix
    return filled.reshape(values.shape)
