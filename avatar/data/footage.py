"""`Footage`: what measuring a head needs of a filmed person, and the same of one whose preparation goes on."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from avatar.data.masks import SIZE
from avatar.data.person import PersonFolder
from avatar.data.results import IngestResult, RefineResult
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.motion import Motion


class Footage(Protocol):
    """A filmed person with tracked head poses; a :class:`avatar.data.PersonDataset` is one.

    Attributes:
        width, height: Size of the frames in pixels.
        camera: The camera that filmed them.
        motion: Tracked motion.
        landmarks: [T, 478, 3] pixels.
        shape: [478, 3] neutral face, head axes, centimetres.
    """

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def camera(self) -> Camera: ...
    @property
    def motion(self) -> Motion: ...
    @property
    def landmarks(self) -> np.ndarray: ...
    @property
    def shape(self) -> np.ndarray: ...
    @property
    def train_frames(self) -> np.ndarray:
        """Indices of the frames that may be learnt from."""
        ...

    def image(self, index: int) -> np.ndarray:
        """Frame ``index`` as uint8 RGB [H, W, 3]."""
        ...

    def masks(self, index: int, size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Soft masks of a frame, float32 0..1, in its own size or of another width and height."""
        ...


class PreparedFootage:
    """The footage of a PERSON folder in which the stages up to `parse` have run.

    Args:
        person: The folder.
        test_start: First held-out frame.
    """

    def __init__(self, person: PersonFolder, test_start: int) -> None:
        ingest, found = person.result(IngestResult), person.result(RefineResult).camera
        self._person, self._test_start = person, test_start
        self.width, self.height = ingest.width, ingest.height
        self.camera = Camera.source(found.focal, found.cx, found.cy, ingest.width, ingest.height)
        self.motion = person.tracked_motion()
        self.landmarks = person.landmarks(ingest.num_frames, mapped=True)
        self.shape = person.shape()

    @property
    def train_frames(self) -> np.ndarray:
        """Indices of the measured frames before the held-out ones; every measured frame where none is left."""
        measured = np.flatnonzero(self.motion.valid.numpy())
        return measured[measured < self._test_start] if (measured < self._test_start).any() else measured

    def image(self, index: int) -> np.ndarray:
        """Frame ``index`` as uint8 RGB [H, W, 3]."""
        return self._person.frame(index)

    def masks(self, index: int, size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        """Soft masks of a frame; see :meth:`Footage.masks`."""
        return self._person.masks(index, (self.width, self.height) if size is None else size)


def small_masks(data: Footage, index: int, side: int = SIZE) -> dict[str, np.ndarray]:
    """Masks of a frame whose longer side has at most ``side`` pixels: outlines need no more."""
    shrink = min(1.0, side / max(data.width, data.height))
    return data.masks(index, (round(data.width * shrink), round(data.height * shrink)))


def pose_at(data: Footage, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Rotation [3, 3] and translation [3] of the head in one frame, float64."""
    motion = data.motion
    return (
        axis_angle_to_matrix(motion.head_rotation[index].double()).numpy(),
        motion.head_translation[index].double().numpy(),
    )
