"""A face that is small in its frame: `avatar eval` looks where `avatar prepare` looked, and says where it sees none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from avatar.eval import facts, run
from avatar.eval.options import EvalOptions
from avatar.preprocess import face_tracker
from avatar.preprocess.face_tracker import WHOLE, FaceTracker, face_window
from avatar.preprocess.landmarker import Landmarker
from tests.media import need_landmarker, portrait
from tests.person import ingest_result, write_result
from tests.unit.test_eval import FIRST, FRAMES, FakePerson, measure, motion_of, talking

WIDTH, HEIGHT, SIDE, LEFT, TOP = 560, 912, 180, 200, 60  # a face of 70 pixels
FULL = ingest_result(
    width=WIDTH, height=HEIGHT, crop=(0, 0, WIDTH, HEIGHT), frame=(0, 0, WIDTH, HEIGHT), frame_size=(WIDTH, HEIGHT),
    head=(LEFT - 20, TOP - 20, SIDE + 40),
)  # fmt: skip


def small_face() -> np.ndarray:
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image[TOP : TOP + SIDE, LEFT : LEFT + SIDE] = cv2.resize(portrait(), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return image


def test_a_small_face_is_found_around_the_head_at_any_size_of_the_image() -> None:
    need_landmarker()
    image = small_face()
    with FaceTracker() as everywhere, FaceTracker(face_window(FULL)) as tracker:
        assert np.isnan(everywhere.track(image)[0]).all()
        points, scores = tracker.track(image)
        half, _ = tracker.track(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
    assert np.isfinite(scores).all() and points.shape == (478, 2)
    assert (points > (LEFT, TOP)).all() and (points < (LEFT + SIDE, TOP + SIDE)).all()
    np.testing.assert_allclose(2 * half, points, atol=6)


def test_square_persons_and_datasets_are_tracked_as_ever() -> None:
    need_landmarker()
    square, dataset = ingest_result(head=(0, 0, 96)), ingest_result()
    assert face_window(square) == face_window(dataset) == WHOLE
    image = portrait()
    with FaceTracker(face_window(square)) as tracker, Landmarker() as landmarker:
        face = landmarker.detect(image)[0]
        points, scores = tracker.track(image)
    assert np.array_equal(points, face.landmarks[:, :2]) and np.array_equal(scores, face.arkit)


def test_eval_looks_where_prepare_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_result(tmp_path, FULL)
    asked: list[Any] = []

    class Stop(Exception):
        pass

    def tracker(*arguments: Any) -> None:
        asked.extend(arguments)
        raise Stop

    monkeypatch.setattr(face_tracker, "FaceTracker", tracker)
    monkeypatch.setattr("avatar.infer.avatar.Avatar.load", lambda *_, **__: None)
    monkeypatch.setattr("avatar.data.run.open_person", lambda *_: SimpleNamespace(folder=tmp_path))
    monkeypatch.setattr("avatar.eval.settings.held_out", lambda *_: (0, 10))
    with pytest.raises(Stop):
        run.evaluate(tmp_path, EvalOptions())
    assert asked == [face_window(FULL)] != [WHOLE]


def test_a_face_that_only_prepare_sees_is_no_reason_for_a_longer_video(tmp_path: Path, monkeypatch) -> None:
    tracked = np.ones(100, bool)
    seen = np.arange(100) < 20
    (said,) = facts.unseen(seen, tracked)
    assert "in only 20% of the measured real frames" in said and "in 100% of them" in said and "--frame head" in said
    assert facts.unseen(~seen, tracked) == facts.unseen(seen, seen) == []  # seen, or hard for both

    person: Any = FakePerson(tmp_path)
    measured = measure(tmp_path, {"tracked": motion_of(talking()[FIRST:FRAMES])}, head_only=False)
    verdict = {"too_short": True, "speaking_seconds": 0.0}
    monkeypatch.setattr(run, "judge_lips", lambda *_: verdict)
    monkeypatch.setattr("avatar.data.run.RunInfo.read", lambda _: SimpleNamespace(training=dict))
    avatar: Any = SimpleNamespace(info={})

    def warnings() -> list[str]:
        return run.assemble(tmp_path, EvalOptions(), avatar, person, measured, {}, [])["warnings"]

    assert "longer video" in warnings()[0]
    measured.series["real"]["opening"][10:] = np.nan
    assert len(warnings()) == 1 and "longer video" not in warnings()[0] and "--frame head" in warnings()[0]
