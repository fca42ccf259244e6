"""The measurement of avatars of one photo: what it makes of a clip is read by training and metrics like a person."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from avatar.data import PersonDataset
from avatar.methods.options import LossConfig
from avatar.preprocess.landmarker import Face
from avatar.train import batches
from pipelines import photo_check
from tests.person import make_person


def test_frames_of_a_clip_are_loaded_like_those_of_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    person = PersonDataset(make_person(tmp_path / "person", frames=4))
    looked = iter(range(4))

    class Looks:
        def __init__(self, **_: object) -> None: ...
        def __enter__(self) -> Looks:
            return self

        def __exit__(self, *_: object) -> None: ...
        def detect(self, _: np.ndarray) -> list[Face]:
            return [Face(landmarks=np.asarray(person.landmarks[next(looked)]), arkit=np.zeros(52, np.float32))]

        def look_again(self, _: np.ndarray, face: Face) -> Face:
            return face

    monkeypatch.setattr(photo_check, "Landmarker", Looks)
    monkeypatch.setattr(photo_check, "read_info", lambda _: SimpleNamespace(num_frames=4, fps=Fraction(25)))
    monkeypatch.setattr(photo_check, "read_frames", lambda _: map(person.image, range(4)))
    monkeypatch.setattr(photo_check.Clip, "_parsed", lambda _: SimpleNamespace(masks=lambda k, _: person.masks(k)))
    avatar = SimpleNamespace(camera=person.camera, person=person.info)
    clip = photo_check.Clip(tmp_path / "clip.mp4", avatar, person, tmp_path, photo=0)  # type: ignore[arg-type]
    size = (person.width, person.height)
    for index in clip.test_frames:
        found = batches.load(clip, int(index), size, LossConfig())  # type: ignore[arg-type]
        assert np.array_equal(found.image, batches.load(person, int(index), size, LossConfig()).image)
