"""MediaPipe's face landmarker behind a small class: pixels in, landmarks and ARKit coefficients out.

It runs in image mode on purpose. Video mode with one face smooths the landmarks with a causal filter, which was
measured to delay the mouth by half a frame and to flatten quick lip closures; we smooth afterwards, without delay.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from avatar.motion.arkit import from_named

SECOND_LOOK = 384  # pixels
SECOND_LOOK_FACES = 1.9  # side of the second look's image in face heights


@dataclass(frozen=True, kw_only=True)
class Face:
    """One face in one image.

    Attributes:
        landmarks: [478, 3] float32 pixels; z grows away from the camera, in the same scale.
        arkit: [52] float32 ARKit coefficients.
    """

    landmarks: np.ndarray
    arkit: np.ndarray

    @property
    def box(self) -> np.ndarray:
        """x0, y0, x1, y1 of the landmarks in pixels."""
        return np.concatenate([self.landmarks[:, :2].min(0), self.landmarks[:, :2].max(0)])

    @property
    def height(self) -> float:
        """Longer side of the box: the height of an upright face, whichever way it is turned."""
        box = self.box
        return float(max(box[2:] - box[:2]))

    @property
    def centre(self) -> np.ndarray:
        """Middle of the box."""
        box = self.box
        return (box[:2] + box[2:]) / 2


class Landmarker:
    """Finds faces in single images. Use as a context manager.

    Args:
        num_faces: At most this many faces are returned.
        confidence: Least detection confidence.

    Raises:
        AvatarError: The model is not available.
    """

    def __init__(self, num_faces: int = 1, confidence: float = 0.5) -> None:
        from avatar.assets.store import fetch

        model = fetch("face_landmarker")
        with quiet_stderr():
            import mediapipe as mp
            from mediapipe.tasks.python import BaseOptions, vision

            self._mp = mp
            self._task = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(
                    base_options=BaseOptions(model_asset_path=str(model)),
                    num_faces=num_faces,
                    min_face_detection_confidence=confidence,
                    output_face_blendshapes=True,
                )
            )
            self.detect(np.zeros((64, 64, 3), np.uint8))  # its chatter comes with the first image

    def detect(self, image: np.ndarray) -> list[Face]:
        """Find the faces of a uint8 RGB image [H, W, 3], largest first."""
        height, width = image.shape[:2]
        wrapped = self._mp.Image(image_format=self._mp.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        result = self._task.detect(wrapped)
        scale = np.array([width, height, width], np.float32)
        faces = [
            Face(
                landmarks=np.array([(p.x, p.y, p.z) for p in points], np.float32) * scale,
                arkit=from_named({c.category_name: c.score for c in scores}),
            )
            for points, scores in zip(result.face_landmarks, result.face_blendshapes, strict=True)
        ]
        return sorted(faces, key=lambda face: -face.height)

    def look_again(self, image: np.ndarray, face: Face) -> Face:
        """Average ``face`` with a second look at it, turned upright and at a fixed size.

        The network's error depends on how the face lies in its input, so the two looks err in part independently:
        measured on three people, the shake of the lips falls by 12 to 18 %.
        """
        import cv2

        points = face.landmarks[:, :2].astype(np.float64)
        eyes = points[263] - points[33]
        length = float(np.hypot(*eyes)) or 1.0
        scale = SECOND_LOOK / (SECOND_LOOK_FACES * face.height)
        cos, sin = eyes / length * scale
        turn = np.array([[cos, sin], [-sin, cos]])
        shift = SECOND_LOOK / 2 - turn @ points.mean(0)
        matrix = np.column_stack([turn, shift + turn @ [0.5, 0.5] - 0.5])  # OpenCV's pixel centres are at 0
        size = (SECOND_LOOK, SECOND_LOOK)
        part = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        found = self.detect(part)
        if not found:
            return face
        back = np.empty_like(face.landmarks)
        back[:, :2] = (found[0].landmarks[:, :2] - shift) @ np.linalg.inv(turn).T
        back[:, 2] = found[0].landmarks[:, 2] / scale
        if np.linalg.norm(back[:, :2].mean(0) - points.mean(0)) > 0.1 * face.height:
            return face  # it looked at somebody else
        return Face(landmarks=(face.landmarks + back) / 2, arkit=(face.arkit + found[0].arkit) / 2)

    def close(self) -> None:
        with quiet_stderr():
            self._task.close()

    def __enter__(self) -> Landmarker:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@contextmanager
def quiet_stderr() -> Generator[None]:
    """Send the process's standard error to nowhere: MediaPipe's C++ logs there and has no switch for it."""
    sys.stderr.flush()
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
