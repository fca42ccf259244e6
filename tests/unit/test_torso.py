"""The torso stage on a drawn body whose motion is known."""

import numpy as np
import pytest

from avatar.data.results import TorsoResult
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.io.images import write_png
from avatar.preprocess import torso
from avatar.preprocess.affine import transform
from avatar.preprocess.stage import run_stage
from tests.unit.drawn_person import DEPTH, FOCAL, SIZE, Person, similarity_about

CHEST = np.array([80.0, 140.0])


def project(points: np.ndarray) -> np.ndarray:
    return points[:, :2] / points[:, 2:] * FOCAL + SIZE / 2


def moved_pixels(motion: np.ndarray, pivot: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Pixels of the flat body at the pivot's depth after a motion, by the definition in Motion's documentation."""
    import torch

    points = np.column_stack([(pixels - SIZE / 2) / FOCAL * pivot[2], np.full(len(pixels), pivot[2])])
    rotation = axis_angle_to_matrix(torch.from_numpy(motion[:3])).numpy()
    return project((points - pivot) @ rotation.T + pivot + motion[3:])


def test_rigid_motion_reproduces_the_similarity():
    matrix = similarity_about(CHEST, np.array([4.0, -3.0]), 0.07, 1.05)
    principal = np.array([SIZE / 2, SIZE / 2])
    pivot = torso.back_project(CHEST, principal, FOCAL, DEPTH)
    motion = torso.rigid_motion(matrix[None], CHEST, principal, FOCAL, DEPTH)[0]
    assert motion[5] == pytest.approx(DEPTH / 1.05 - DEPTH)  # larger means nearer
    assert motion[2] == pytest.approx(0.07)
    pixels = np.array([[80.0, 140], [40, 150], [130, 120]])
    np.testing.assert_allclose(moved_pixels(motion, pivot, pixels), transform(matrix, pixels[0])[None]
                               + (pixels - pixels[0]) @ matrix[:, :2].T, atol=1e-9)  # fmt: skip


def test_body_is_followed_through_a_cut(tmp_path):
    frames = 24
    time = np.arange(frames)
    body = np.stack(
        [
            similarity_about(
                CHEST, np.array([3 * np.sin(t / 4), 2 * np.cos(t / 5)]) + (t >= 12) * np.array([10, -3]),
                0.03 * np.sin(t / 6), 1 + 0.02 * np.sin(t / 5),
            )
            for t in time
        ]
    )  # fmt: skip
    head = np.stack([5 * np.sin(time / 2) + (time >= 12) * 10, 2 * np.sin(time / 3)], -1)  # not with the body
    person = Person(tmp_path / "p", head=head, body=body, segments=[[0, 12], [12, 24]], frames=frames)
    person.write_masks(stride=3)
    run_stage(torso, person.context)
    result = person.context.person.result(TorsoResult)
    assert result.tracked_share == 1 and result.alignment_gain > 15
    motion = np.load(person.folder / "torso" / "torso.npy")
    assert len(motion) == frames and motion.dtype == np.float32
    motion = motion[:, :6]  # rotation and translation
    pivot = np.array(result.pivot)
    assert pivot[2] == pytest.approx(DEPTH, abs=1e-3)
    pixels = np.array([[50.0, 140], [110, 140], [80, 150]])
    ours = np.stack([moved_pixels(m.astype(float), pivot, pixels) for m in motion])
    true = np.stack([pixels @ m[:, :2].T + m[:, 2] for m in body])
    # Rest is a matter of definition: compare the motion since the first frame.
    error = (ours - ours[:1]) - (true - true[:1])
    assert np.abs(error).max() < 1.0
    assert np.sqrt((error**2).mean()) < 0.4
    assert np.abs(np.median(motion, 0)).max() < 0.1  # and rest is the middle of the motion


def test_plain_clothes_stand_still_and_it_is_said(tmp_path, capsys):
    person = Person(tmp_path / "p", frames=3)
    person.write_masks()
    for index in range(3):
        write_png(person.context.person.frame_path(index), np.full((SIZE, SIZE, 3), 60, np.uint8))
    run_stage(torso, person.context)
    assert "stand still" in " ".join(capsys.readouterr().err.split())
    assert (np.load(person.folder / "torso" / "torso.npy") == 0).all()
    assert len(person.context.person.result(TorsoResult).pivot) == 3


def test_untracked_frames_take_their_neighbours_motion():
    matrices = np.tile(np.eye(2, 3), (6, 1, 1))
    matrices[:3, 0, 2] = [0, 99, 4]
    tracked = np.array([True, False, True, False, False, False])
    filled = torso.fill_untracked(matrices, tracked, [[0, 3], [3, 6]])
    np.testing.assert_allclose(filled[:, 0, 2], [0, 2, 4, 2, 2, 2])


def test_body_is_followed_into_an_enlarged_part(tmp_path):
    person = Person(tmp_path / "p", segments=[[0, 12], [12, 20]], frames=20)
    person.write_masks(stride=3)
    person.enlarge(range(12, 20), similarity_about(np.array([80.0, 60]), np.zeros(2), 0, 1.35))
    run_stage(torso, person.context)
    result = person.context.person.result(TorsoResult)
    assert result.tracked_share == 1
    depth = np.load(person.folder / "torso" / "torso.npy")[:, 5] + result.pivot[2]
    assert depth[5] / depth[15] == pytest.approx(1.35, rel=0.02)  # larger means nearer


def test_what_shows_no_face_does_not_move_the_body(tmp_path):
    person = Person(tmp_path / "p", frames=20)  # a title that fades in and out makes no cut
    person.write_masks(stride=2)
    person.blacken(range(12))
    run_stage(torso, person.context)
    assert person.context.person.result(TorsoResult).tracked_share == pytest.approx(8 / 20)
    assert np.abs(np.load(person.folder / "torso" / "torso.npy")[:, :6]).max() < 0.05


@pytest.mark.parametrize("moved", [(0.0, 0.0), (40.0, -6.0)])
def test_who_comes_back_to_another_place_is_followed_there(tmp_path, monkeypatch, moved):
    """Somebody leaves and returns in one take; what is not seen for half a second may be anywhere."""
    returned = np.arange(48) >= 40
    body = np.stack([similarity_about(CHEST, np.array(moved) * late) for late in returned])
    person = Person(tmp_path / "p", head=returned[:, None] * np.array(moved), body=body, frames=48)
    person.write_masks()
    person.blacken(range(26, 40))  # the reference is of before
    starts = list[np.ndarray]()

    def fit(cloth: torso.ClothWarp, image: np.ndarray, from_rest: np.ndarray, start: np.ndarray):
        starts.append(start)
        return np.ones_like(start), 1.0

    monkeypatch.setattr(torso.ClothWarp, "fit", fit)
    run_stage(torso, person.context)
    motion = np.load(person.folder / "torso" / "torso.npy")
    shift = (motion[41:47, 3:5] - motion[4:20, 3:5].mean(0)) / DEPTH * FOCAL
    np.testing.assert_allclose(shift, np.tile(moved, (6, 1)), atol=0.5)
    assert person.context.person.result(TorsoResult).tracked_share == pytest.approx(34 / 48, abs=1e-3)
    # Frames 24, 25 and 40 come first: the warp of before is not that of after.
    assert [bool(start.any()) for start in starts[:4]] == [False, True, False, True]


def test_only_half_a_second_without_a_face_is_a_return():
    valid = np.ones(60, bool)
    valid[10:22] = valid[30:43] = False
    assert torso.returns(valid, range(60), 12) == {43}
    assert torso.returns(valid, range(59, -1, -1), 12) == {29}
