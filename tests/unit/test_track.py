"""Cuts, gaps, the choice of the main face, and the landmarker on a real portrait."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from avatar.geometry.mesh import STEADY
from avatar.motion.arkit import INDEX
from avatar.preprocess import track
from avatar.preprocess.landmarker import Face, Landmarker
from tests.media import need_landmarker, portrait, shifted
from tests.person import ingest_result


def moving_head(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Picture change [T - 1] and landmarks [T, 478, 3] of somebody talking without cuts."""
    rng = np.random.default_rng(seed)
    path = gaussian_filter1d(rng.standard_normal((frames, 2)), 4, axis=0) * 8
    face = rng.uniform(100, 300, (478, 3))
    landmarks = face[None] + np.concatenate([path, np.zeros((frames, 1))], 1)[:, None]
    landmarks = landmarks + 0.4 * rng.standard_normal(landmarks.shape)
    change = 0.5 + np.linalg.norm(np.diff(path, axis=0), axis=1) + 0.05 * rng.random(frames - 1)
    return change.astype(np.float32), landmarks.astype(np.float32)


def test_talking_is_not_cut() -> None:
    for seed in range(5):
        change, landmarks = moving_head(300, seed)
        assert track.find_segments(change, landmarks) == [(0, 300)]


def test_cuts_between_similar_pictures_are_found() -> None:
    change, landmarks = moving_head(300)
    for cut in (75, 150, 225):
        change[cut - 1] += 9
        landmarks[cut:, :, 0] += 12
    assert track.find_segments(change, landmarks) == [(0, 75), (75, 150), (150, 225), (225, 300)]


def test_cut_before_a_plain_wall_is_found_by_the_jump_of_the_face() -> None:
    change, landmarks = moving_head(200)
    change[:] = 0.3 + 0.02 * np.random.default_rng(1).random(199)
    change[99] = 0.9  # the wall is the same, only the face is elsewhere
    landmarks[100:, :, 0] += 40
    assert track.find_segments(change, landmarks) == [(0, 100), (100, 200)]


def test_flash_is_not_a_cut() -> None:
    change, landmarks = moving_head(100)
    change[49:51] += 60
    assert track.find_segments(change, landmarks) == [(0, 100)]


def test_gaps_are_bridged_inside_their_segment() -> None:
    values = np.arange(10, dtype=np.float32)[:, None].copy()
    values[5:] += 100
    filled = values.copy()
    filled[[2, 3]] = np.nan  # inside
    filled[[4]] = np.nan  # at the end of the first segment
    filled[[5]] = np.nan  # at the start of the second
    result = track.fill_gaps(filled, [(0, 5), (5, 10)])
    np.testing.assert_allclose(result[[2, 3, 4, 5], 0], [1, 1, 1, 106])
    middle = values.copy()
    middle[[7]] = np.nan
    np.testing.assert_allclose(track.fill_gaps(middle, [(0, 5), (5, 10)]), values)


def test_segment_without_any_face_takes_the_nearest_rows() -> None:
    values = np.array([[1.0], [1.0], [np.nan], [np.nan], [4.0]], np.float32)
    result = track.fill_gaps(values, [(0, 2), (2, 4), (4, 5)])
    assert np.isfinite(result).all()


def blob(x: float, y: float, height: float) -> Face:
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (478, 3)) * height + [x, y, 0]
    return Face(landmarks=points.astype(np.float32), arkit=np.zeros(52, np.float32))


def test_main_face_is_followed() -> None:
    before = blob(100, 100, 80)
    other, same = blob(300, 100, 90), blob(110, 104, 82)
    assert track.pick_face(before, [other, same]) is same
    assert track.pick_face(before, [other]) is None
    assert track.pick_face(None, [other, same]) is other


def test_the_chosen_face_is_followed_from_the_start_beside_a_larger_one() -> None:
    """The crop is a part of the frame, and stored at half its size."""
    assert track.usual_place(ingest_result()) is None
    found = track.usual_place(ingest_result(usual=(700, 300, 160), crop=(400, 100, 600, 600), width=300, height=300))
    assert found is not None and found.centre.tolist() == [150, 100] and found.height == 80
    larger, chosen, other = (shape_at(*where) for where in ((60, 90, 120), (155, 140, 80), (240, 100, 80)))
    assert track.pick_face(found, [larger, other, chosen]) is chosen
    assert track.pick_face(chosen, [larger, chosen]) is chosen


def followed(main: track.MainFace, shown: list[list[Face]]) -> list[bool]:
    """In which frames a face is taken for the main one."""
    taken = []
    for faces in shown:
        main.go_on(face := main.among(faces))
        taken.append(face is not None)
    return taken


def test_a_face_that_another_shot_shows_larger_is_taken_up_again() -> None:
    far, near, moved = (shape_at(*where) for where in ((100, 90, 40), (100, 120, 90), (190, 120, 90)))
    usual = track.Place(centre=near.centre, height=near.height)
    opening = followed(track.MainFace(usual, alone=True, fps=10), [[far]] * 20 + [[near]] * 40 + [[far]] * 10)
    assert opening == [False] * 5 + [True] * 15 + [False] * 5 + [True] * 35 + [False] * 10
    cut = followed(track.MainFace(usual, alone=True, fps=10), [[moved]] * 20 + [[]] * 10 + [[near]] * 20)
    assert cut == [True] * 20 + [False] * 10 + [True] * 20, "it comes back a face's height away"


def test_nobody_else_is_taken_for_the_face_that_is_gone() -> None:
    main, guest = shape_at(100, 120, 90), shape_at(260, 120, 90)
    usual = track.Place(centre=main.centre, height=main.height)
    for alone in (True, False):
        seen = followed(track.MainFace(usual, alone=alone, fps=10), [[main]] * 5 + [[guest]] * 30 + [[main]] * 5)
        assert seen == [True] * 5 + [False] * 30 + [True] * 5
    begins = followed(track.MainFace(usual, alone=False, fps=10), [[guest]] * 30)
    assert not any(begins), "of several the chosen one is waited for"


def test_a_driving_video_is_of_one_person() -> None:
    """Of it nothing is known before: whoever is there first is followed, and nobody else."""
    main, guest = shape_at(100, 120, 90), shape_at(260, 120, 90)
    begins = [[]] * 10 + [[main]] * 5 + [[guest]] * 30 + [[main]] * 5
    seen = followed(track.MainFace(None, alone=True, fps=10), begins)
    assert seen == [False] * 10 + [True] * 5 + [False] * 30 + [True] * 5


def shape_at(x: float, y: float, height: float) -> Face:
    """A face whose middle and height are these."""
    shape = np.random.default_rng(0).uniform(-0.5, 0.5, (478, 3))
    shape[:2] = [[-0.5, -0.5, 0], [0.5, 0.5, 0]]
    return Face(landmarks=(shape * height + [x, y, 0]).astype(np.float32), arkit=np.zeros(52, np.float32))


@pytest.fixture(scope="module")
def landmarker():
    need_landmarker()
    with Landmarker(num_faces=2) as found:
        yield found


def test_landmarks_follow_the_picture_in_pixels(landmarker: Landmarker) -> None:
    picture = portrait()
    here = landmarker.detect(picture)[0]
    there = landmarker.detect(shifted(picture, 12, -7))[0]
    moved = (there.landmarks - here.landmarks)[:, :2].mean(0)
    np.testing.assert_allclose(moved, [12, -7], atol=1.0)
    assert here.arkit.shape == (52,) and here.arkit.min() >= 0 and here.arkit.max() <= 1
    assert here.arkit[INDEX["mouthSmileLeft"]] > 0.2  # the portrait smiles


def test_landmarks_of_a_wide_picture_are_not_stretched(landmarker: Landmarker) -> None:
    picture = portrait()
    wide = np.zeros((256, 480, 3), np.uint8)
    wide[:, 112:368] = picture
    square, found = landmarker.detect(picture)[0], landmarker.detect(wide)[0]
    np.testing.assert_allclose(found.landmarks[:, :2] - [112, 0], square.landmarks[:, :2], atol=3.0)


def test_second_look_agrees_and_steadies(landmarker: Landmarker) -> None:
    picture = portrait()
    steady = list(STEADY)
    once, twice = [], []
    for k in range(12):
        offset = np.array([0.37 * k, 0.21 * k])
        moved = shifted(picture, *offset)
        face = landmarker.detect(moved)[0]
        once.append(face.landmarks[steady, :2] - offset)
        again = landmarker.look_again(moved, face)
        twice.append(again.landmarks[steady, :2] - offset)
        assert np.abs(again.landmarks - face.landmarks)[:, :2].mean() < 0.4
    assert np.std(twice, axis=0).mean() < np.std(once, axis=0).mean()


def test_tilted_face_keeps_its_tilt_after_the_second_look(landmarker: Landmarker) -> None:
    matrix = cv2.getRotationMatrix2D((128, 128), 20, 1.0)
    picture = cv2.warpAffine(portrait(), matrix, (256, 256), borderMode=cv2.BORDER_REPLICATE)
    face = landmarker.detect(picture)[0]
    again = landmarker.look_again(picture, face)
    assert np.abs(again.landmarks - face.landmarks)[:, :2].max() < 1.2
