"""The measurement of avatars of one photo: what it makes of a clip is read by training and metrics like a person."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from avatar.data import PersonDataset
from avatar.data.run import ENVIRONMENT, TRAINING
from avatar.errors import AvatarError
from avatar.methods.options import LossConfig
from avatar.paths import read_json, write_json
from avatar.preprocess.landmarker import Face
from avatar.train import batches
from pipelines import kept, photo_check
from pipelines.records import Record
from tests.person import make_person


def show(monkeypatch: pytest.MonkeyPatch, person: PersonDataset, seen: Collection[int]) -> None:
    """Let every video be four frames of a person, whose face is found in those that are ``seen``."""
    looked = iter(range(4))

    class Looks:
        def __init__(self, **_: object) -> None: ...
        def __enter__(self) -> Looks:
            return self

        def __exit__(self, *_: object) -> None: ...
        def detect(self, _: np.ndarray) -> list[Face]:
            found = next(looked)
            face = Face(landmarks=np.asarray(person.landmarks[found]), arkit=np.zeros(52, np.float32))
            return [face] if found in seen else []

        def look_again(self, _: np.ndarray, face: Face) -> Face:
            return face

    monkeypatch.setattr(photo_check, "Landmarker", Looks)
    monkeypatch.setattr(photo_check, "read_info", lambda _: SimpleNamespace(num_frames=4, fps=Fraction(25)))
    monkeypatch.setattr(photo_check, "read_frames", lambda _: map(person.image, range(4)))


def test_frames_of_a_clip_are_loaded_like_those_of_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    person = PersonDataset(make_person(tmp_path / "person", frames=4))
    show(monkeypatch, person, range(4))
    monkeypatch.setattr(photo_check.Clip, "_parsed", lambda _: SimpleNamespace(masks=lambda k, _: person.masks(k)))
    avatar = SimpleNamespace(camera=person.camera, person=person.info)
    clip = photo_check.Clip(tmp_path / "clip.mp4", avatar, person, tmp_path, photo=0)  # type: ignore[arg-type]
    size = (person.width, person.height)
    for index in clip.test_frames:
        found = batches.load(clip, int(index), size, LossConfig())  # type: ignore[arg-type]
        assert np.array_equal(found.image, batches.load(person, int(index), size, LossConfig()).image)


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Measure a clip of as many faces as are asked for, with quick stand-ins; and what was compared and created."""
    person = make_person(tmp_path / "person", frames=8)
    data = PersonDataset(person)
    compared: list[tuple[str, list[int]]] = []
    created: list[str] = []

    def command(*words: object, cost: Path, resumes: bool) -> None:
        created.append(str(words[0]))
        kept.begin(cost, resumes=resumes)
        run = tmp_path / "out/clip/run"
        write_json(run / TRAINING, {})
        write_json(run / ENVIRONMENT, {"commit": "trained"})
        shutil.copytree(person, run.with_name("run.person"), dirs_exist_ok=True)
        kept.end(cost, {"seconds": 20.04, "cpu_seconds": 18.0, "peak_memory_bytes": 5})

    def compare(_avatar: object, _clip: object, motion: object, frames: list[int], _lpips: object) -> dict[str, float]:
        compared.append((str(motion), frames))
        return {}

    def measure(brighter: int = 0) -> dict:
        photo = photo_check.Chosen(0, data.image(0) + np.uint8(brighter), "first")
        monkeypatch.setattr(photo_check, "choose_photo", lambda _: photo)
        return photo_check.measure(Path("clip.mp4"), tmp_path / "out/clip", None)  # type: ignore[arg-type]

    clip = SimpleNamespace(test_frames=np.arange(1, 8), motion="tracker's")
    aligned = SimpleNamespace(head_rotation=data.motion.head_rotation)
    avatar = SimpleNamespace(camera=data.camera)
    for name, stand_in in {
        "command": command, "compare": compare, "Clip": lambda *_: clip, "aligned": lambda *_: aligned,
        "Avatar": SimpleNamespace(load=lambda *_, **__: avatar), "sheets": lambda *_: None,
        "holes": lambda *_: (0.0, [data.image(0)]),
    }.items():  # fmt: skip
        monkeypatch.setattr(photo_check, name, stand_in)
    return measure, compared, created


def test_aligned_and_tracked_poses_are_compared_on_the_same_frames(measured):
    measure, compared, _ = measured
    measure()
    (before, first), (_, second) = compared
    assert before == "tracker's" and first == second == list(range(1, 8))


def test_a_kept_avatar_keeps_what_it_took_and_its_commit_and_is_of_its_photo(measured):
    measure, _, created = measured
    for _ in range(2):
        found = measure()
        assert found["processor_s"] == 18.0 and found["clock_s"] == 20.0
        assert [part["commit"] for part in found["training"]] == ["trained"]
    assert created == ["create"]
    with pytest.raises(AvatarError, match="made with photo "):
        measure(brighter=1)


def test_the_record_names_the_commits_of_kept_avatars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = {"video": "clip.mp4", "training": [{"date": "1", "commit": "trained"}]}
    monkeypatch.setattr(photo_check, "measure", lambda *_: dict(found))
    monkeypatch.setattr(photo_check.LPIPS, "load", lambda: None)
    file = tmp_path / "photo.json"
    monkeypatch.setattr(sys, "argv", ["photo_check", "clip.mp4", "--out", str(tmp_path), "--json", str(file)])
    photo_check.main()
    assert Record(path=file, content=read_json(file)).trained == ["trained"]


@pytest.mark.parametrize(("frames", "intervals"), [(1, False), (2, False), (60, True)])
def test_few_frames_have_no_interval(monkeypatch: pytest.MonkeyPatch, frames: int, intervals: bool):
    class Meter:
        def compare(self, *_: object) -> None: ...
        def series(self) -> dict[str, np.ndarray]:
            return {"psnr": np.linspace(20, 30, frames)}

    class Tracker:
        def __enter__(self) -> Tracker:
            return self

        def __exit__(self, *_: object) -> None: ...
        def track(self, image: object) -> tuple[object]:
            return (image,)

    monkeypatch.setattr(photo_check, "ImageMeter", Meter)
    monkeypatch.setattr(photo_check, "FaceTracker", Tracker)
    monkeypatch.setattr(photo_check, "RealFrame", lambda *_: None)
    drawn = SimpleNamespace(numpy=lambda: None)
    avatar = SimpleNamespace(camera=None, draw=lambda *_: drawn)
    data = SimpleNamespace(image=lambda _: None, masks=lambda _: None, numbers=[5 * k for k in range(frames + 1)],
                           motion=SimpleNamespace(fps=25.0))  # fmt: skip
    found = photo_check.compare(avatar, data, None, list(range(1, frames + 1)), None)  # type: ignore[arg-type]
    assert found["psnr"] == round(float(np.linspace(20, 30, frames).mean()), 4)
    assert (found["intervals"]["psnr"] is not None) == intervals


@pytest.mark.parametrize(
    ("seen", "told"), [((), "No face was found in the photo"), ((0,), "in no frame but the photo")]
)
def test_a_clip_without_faces_to_compare_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen, told: str):
    person = PersonDataset(make_person(tmp_path / "person", frames=4))
    show(monkeypatch, person, seen)
    avatar = SimpleNamespace(camera=person.camera, person=person.info)
    with pytest.raises(AvatarError, match=told):
        photo_check.Clip(tmp_path / "clip.mp4", avatar, person, tmp_path, photo=0)  # type: ignore[arg-type]
