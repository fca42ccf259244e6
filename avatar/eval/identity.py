"""Is it the same person? dlib's face recognition network; an extra: ``pip install 'avatar-toolkit[identity]'``.

The network (King, 2017, a ResNet of 29 layers, CC0) gives a face 128 numbers; papers on talking heads report the cosine
similarity of such embeddings as CSIM, mostly with ArcFace, whose weights are not free. The numbers of two networks
cannot be compared. With this one, frames of one person were measured at 0.97 to 0.99, of different people at 0.83 to
0.87 (three people, two frames each); dlib's threshold for the same person (a distance of 0.6) is about 0.91.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np

EVERY_SECONDS = 0.5  # a face takes 0.1 s
POINTS = (263, 362, 33, 133, 2)  # outer and inner corner of the left and of the right eye, base of the nose
MODEL = "models/dlib_face_recognition_resnet_model_v1.dat"


class Recogniser(Protocol):
    """Tells people apart."""

    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """An embedding, any length, of a face in uint8 RGB [H, W, 3] at landmarks [478, 2] in pixels."""
        ...


def load_recogniser(notes: list[str]) -> Recogniser | None:
    """The network, or None with a note that says how to get it."""
    package = importlib.util.find_spec("face_recognition_models")  # found, not imported: it wants old setuptools
    found = package.submodule_search_locations if package else None
    model = Path(found[0]) / MODEL if found else None
    if model is None or not model.is_file() or importlib.util.find_spec("dlib") is None:
        notes.append("Identity was not measured: pip install 'avatar-toolkit[identity]'.")
        return None
    return _Dlib(model)


def similarity(a: np.ndarray | None, b: np.ndarray | None) -> float:
    """Cosine of two embeddings; NaN where one is missing."""
    if a is None or b is None:
        return math.nan
    return float(a @ b / max(float(np.linalg.norm(a) * np.linalg.norm(b)), 1e-12))


@final
class _Dlib:
    def __init__(self, model: Path) -> None:
        self._dlib: Any = importlib.import_module("dlib")
        self._network = self._dlib.face_recognition_model_v1(str(model))

    def embed(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        dlib = self._dlib
        pixels = landmarks.round().astype(int)
        box = dlib.rectangle(*pixels.min(0).tolist(), *pixels.max(0).tolist())
        points = dlib.points([dlib.point(x, y) for x, y in pixels[list(POINTS)].tolist()])
        face = dlib.full_object_detection(box, points)
        chip = dlib.get_face_chip(np.ascontiguousarray(image), face, size=150, padding=0.25)
        return np.array(self._network.compute_face_descriptor(chip))
