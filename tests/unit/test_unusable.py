"""Frames that teach nothing: a photo with a voice, a frozen image, a covered mouth."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from avatar.assets import store as assets
from avatar.data.results import IngestResult, ParseResult, RefineResult
from avatar.errors import AvatarError
from avatar.preprocess import parse, pipeline, refine
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.landmarker import Landmarker
from avatar.preprocess.stage import StageContext
from avatar.preprocess.track import ImageChange
from avatar.preprocess.unusable import MOVING, covered_frames, runs, still_frames, teaching, within
from tests.media import need_landmarker, portrait
from tests.person import canonical_shape, make_person, write_result

FPS = 25.0


def talking_face(frames: int, motion: float = 1.0, noise: float = 0.15) -> np.ndarray:
    """Landmarks [T, 478, 3] of a face 200 pixels high; ``motion`` 1 moves lips and lids by about a percent of that."""
    rng = np.random.default_rng(0)
    shape = canonical_shape() * 11
    time = np.arange(frames) / FPS
    landmarks = np.tile(shape + [256, 256, 0], (frames, 1, 1))
    landmarks[:, MOVING, 1] += motion * 2.5 * np.sin(9 * time)[:, None]
    landmarks[..., :2] += noise * rng.standard_normal((frames, 478, 2))
    return landmarks.astype(np.float32)


def zoomed(landmarks: np.ndarray, zoom: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Landmarks of a picture that is enlarged by [T] about its corner, and moved by [T] pixels."""
    moved = landmarks * zoom[:, None, None]
    moved[..., 0] += x[:, None]
    return moved.astype(np.float32)


def test_a_photo_is_still_however_it_is_moved_and_zoomed() -> None:
    photo = talking_face(200, motion=0)
    time = np.linspace(0, 1, 200)
    every = np.ones(200, bool)
    assert still_frames(photo, every, [(0, 200)], FPS).all()
    assert still_frames(zoomed(photo, 1 + 0.3 * time, 40 * time), every, [(0, 200)], FPS).all()


def test_a_face_that_talks_or_hardly_moves_is_not_still() -> None:
    every = np.ones(200, bool)
    for motion in (1.0, 0.3):
        assert not still_frames(talking_face(200, motion), every, [(0, 200)], FPS).any()
    sways = zoomed(talking_face(200), 1 + 0.1 * np.sin(np.arange(200) / 9), 9 * np.sin(np.arange(200) / 7))
    assert not still_frames(sways, every, [(0, 90), (90, 200)], FPS).any()


def test_a_frozen_picture_is_found_where_it_is() -> None:
    landmarks = talking_face(250)
    landmarks[100:150] = landmarks[100]
    ((start, end),) = runs(still_frames(landmarks, np.ones(250, bool), [(0, 250)], FPS))
    assert abs(start - 100) <= 8 and abs(end - 150) <= 8  # a third of the second that is looked at


def test_a_bridged_gap_is_no_still_picture() -> None:
    """Where no face was found, landmarks are those of the frames around; so is a title before a talking face."""
    landmarks, valid = talking_face(200), np.ones(200, bool)
    landmarks[:60], valid[:60] = landmarks[60], False
    assert not still_frames(landmarks, valid, [(0, 200)], FPS).any()
    assert not still_frames(landmarks, np.zeros(200, bool), [(0, 200)], FPS).any()


def test_a_photo_with_a_voice_is_refused_in_one_sentence() -> None:
    still = np.ones(300, bool)
    with pytest.raises(AvatarError, match=r"me\.mp4 stands still like a photo for 12\.0 of 12\.0 s") as error:
        refine.check_moves(Path("me.mp4"), ~still, still, FPS)
    assert error.value.fix
    still[:160] = False
    refine.check_moves(Path("me.mp4"), ~still, still, FPS)  # more than half moves: told in the report
    refine.check_moves(Path("me.mp4"), np.zeros(300, bool), np.zeros(300, bool), FPS)  # no photo: not said here


def test_a_cover_reaches_from_key_frame_to_key_frame() -> None:
    covered = covered_frames([0, 4, 8, 12, 16], [1.0, 1.0, 0.3, 0.9, 1.0], 17)
    assert runs(covered) == [(5, 12)]
    assert not covered_frames([0, 4], [0.95, 1.0], 5).any()
    assert covered_frames([0, 4], [0.0, 0.0], 5).all()
    np.testing.assert_array_equal(within([(5, 12)], 17), covered)


def test_covered_frames_are_left_out_unless_most_are() -> None:
    valid = np.ones(10, bool)
    some, most = np.arange(10) < 3, np.arange(10) < 7
    np.testing.assert_array_equal(teaching(valid, some), ~some)
    np.testing.assert_array_equal(teaching(valid, most), valid)


def test_face_skin_tells_how_much_of_the_mouth_is_seen() -> None:
    points = canonical_shape()[:, :2] * 8 + 128
    skin = np.ones((256, 256), np.float32)
    assert parse.mouth_seen(skin, points) == pytest.approx(1)
    before_lips, before_chin = skin.copy(), skin.copy()
    x, y = points[[13, 14]].mean(0).astype(int)
    before_lips[y - 20 : y + 20, x - 30 : x + 30] = 0
    assert parse.mouth_seen(before_lips, points) < 0.2
    before_chin[y + 16 :] = 0
    assert 0.2 < parse.mouth_seen(before_chin, points) < 0.8
    above = skin.copy()
    above[: int(points[4, 1])] = 0  # hair, glasses
    assert parse.mouth_seen(above, points) == pytest.approx(1)


def test_a_microphone_before_a_real_mouth_is_seen() -> None:
    need_landmarker()
    if not assets.available("selfie_multiclass"):
        pytest.skip("selfie_multiclass is not on this machine (avatar assets --fetch selfie_multiclass)")
    picture = portrait()
    with Landmarker() as landmarker:
        points = landmarker.detect(picture)[0].landmarks[:, :2]
    hidden = picture.copy()
    middle = points[[13, 14]].mean(0)
    cv2.ellipse(hidden, (tuple(middle.tolist()), (50, 62), 12), (30, 30, 32), -1)
    cv2.rectangle(hidden, (int(middle[0]) - 8, int(middle[1])), (int(middle[0]) + 8, 255), (30, 30, 32), -1)
    with parse.open_parser() as (parser, _):
        assert parser(picture, points)[1] > 0.9
        assert parser(hidden, points)[1] < 0.5


def test_covered_frames_are_not_valid_in_the_motion_of_the_person(tmp_path, monkeypatch) -> None:
    folder = make_person(tmp_path / "p")
    ctx = StageContext(person=pipeline.PersonFolder(folder), video=tmp_path / "v.mp4", config=PrepareConfig())
    write_result(folder, RefineResult(camera=ctx.person.info().camera, still=[(0, 3)]))
    write_result(folder, ParseResult(keyframes=list(range(40)), method="drawn", covered=[(10, 14)]))
    assert ctx.person.result(RefineResult).still == [(0, 3)] and ctx.person.result(IngestResult).num_frames == 40
    monkeypatch.setattr(pipeline, "is_finished", lambda name, _: name == "parse")
    pipeline.assemble(ctx)
    from avatar.motion.motion import Motion

    assert runs(~Motion.load(ctx.person.motion_path).valid.numpy()) == [(10, 14)]


def test_change_is_measured_from_frame_to_frame() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    change = ImageChange()
    assert len(change.values) == 0
    for image in images:
        change.add(image)
    expected = [np.abs(b.astype(int) - a).mean() for a, b in pairwise(images)]
    np.testing.assert_allclose(change.values, expected, rtol=1e-6)
