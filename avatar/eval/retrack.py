"""The face in a video as it comes, frame by frame, with the tracker and the settings of `avatar prepare`."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, final

import numpy as np

from avatar.motion.arkit import ARKIT
from avatar.motion.face_channels import NUM_LANDMARKS


class Tracker(Protocol):
    """Finds the largest face of a picture."""

    def track(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Landmarks [478, 2] in pixels and ARKit coefficients [52] for a uint8 RGB picture [H, W, 3]; NaN when there
        is no face."""
        ...


@final
class FaceTracker:
    """MediaPipe on single pictures: no state, so rendered and real video are treated alike and nothing is delayed."""

    def __init__(self) -> None:
        from avatar.preprocess.landmarker import Landmarker

        self._landmarker = Landmarker()

    def track(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Tracker`."""
        faces = self._landmarker.detect(image)
        if not faces:
            return np.full((NUM_LANDMARKS, 2), np.nan, np.float32), np.full(len(ARKIT), np.nan, np.float32)
        return faces[0].landmarks[:, :2], faces[0].arkit

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._landmarker.close()
