"""The background stage and the alignment it rests on, on pictures with known motion."""

import cv2
import numpy as np
import pytest
import torch

from avatar.data import PersonDataset
from avatar.data.background import Background, warp_affine
from avatar.data.results import BackgroundResult, Intrinsics
from avatar.errors import AvatarError
from avatar.io.images import read_grey, read_rgb, write_png
from avatar.motion import Motion
from avatar.preprocess import background, median_image
from avatar.preprocess.affine import compose, invert, transform
from avatar.preprocess.align import Aligner
from avatar.preprocess.stage import run_stage
from tests.person import canonical_shape, person_info, write_result
from tests.unit.drawn_person import DEPTH, FOCAL, HEAD, SIZE, Person, similarity_about, texture


@pytest.fixture(autouse=True)
def few_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask few frames whether the camera moves: those that are asked say it as clearly."""
    monkeypatch.setattr(background, "PROBE_FRAMES", 8)


@pytest.mark.parametrize(("shift", "roll", "scale"), [((0, 0), 0, 1), ((3.3, -2.1), 0, 1), ((-9, 5), -0.05, 0.96)])
def test_alignment_finds_a_known_similarity_under_another_light(shift, roll, scale):
    wall = texture(3, 260, 260, (120, 120, 120))
    at_rest = np.column_stack([np.eye(2), [50, 50]])
    reference = warp_affine(wall, at_rest, (160, 160))[..., 0]
    true = similarity_about(np.array([80.0, 100]), np.array(shift), roll, scale)
    moved = warp_affine(wall, compose(at_rest, invert(true)), (160, 160))[..., 0]
    moved = (moved * 0.85 + 12).astype(np.uint8)
    moved[90:110, 60:80] = 255  # something in the way
    part = np.zeros((160, 160), bool)
    part[70:, 20:140] = True
    found = Aligner(reference, part, "similarity").align(moved)
    corners = np.array([[20, 70], [140, 70], [20, 160], [140, 160.0]])
    error = corners @ (found.matrix[:, :2] - true[:, :2]).T + found.matrix[:, 2] - true[:, 2]
    assert np.abs(error).max() < 0.04
    assert found.support > 0.7


def test_alignment_of_nothing_does_not_fail():
    flat = np.full((64, 64), 100, np.uint8)
    aligner = Aligner(flat, np.ones((64, 64), bool), "similarity")
    assert aligner.definite == 0
    found = aligner.align(flat)
    assert found.support == 0
    np.testing.assert_array_equal(found.matrix, np.eye(2, 3))


def test_background_is_the_wall_where_it_was_seen_and_smooth_elsewhere(tmp_path):
    frames = 24
    head = np.stack([12 * np.sin(np.arange(frames)), np.zeros(frames)], -1)
    person = Person(tmp_path / "p", head=head, frames=frames)
    person.write_masks(stride=3)
    assert run_stage(background, person.context)
    result = person.context.person.result(BackgroundResult)
    assert not result.moves and 0.3 < result.seen < 0.95
    assert not (person.folder / "background" / "warp.npy").exists()
    found = Background.read(person.folder / "background")
    assert found.warp is None and found.image.shape == (SIZE, SIZE, 3)
    seen = read_grey(person.folder / "background" / "coverage.png") == 255
    error = np.abs(found.image.astype(float) - person.background(0))
    assert error[seen].mean() < 2
    # Behind the head nothing is known, but it is wall-coloured: no hair, no skin, no black.
    assert not seen[68, 80]
    assert np.abs(found.image[68, 80].astype(float) - person.wall.mean((0, 1))).max() < 50


def test_held_out_frames_do_not_reach_the_background(tmp_path):
    person = Person(tmp_path / "p", frames=20)
    person.write_masks(stride=2)
    first = person.context.test_start
    assert first == 18
    for index in range(first, 20):
        path = person.context.person.frame_path(index)
        write_png(path, np.full((SIZE, SIZE, 3), 255, np.uint8))
    warps = np.tile(np.eye(2, 3), (20, 1, 1))
    run_stage(background, person.context)
    image = Background.read(person.folder / "background").image
    without, _ = background.build_background(
        background.part_of(person.context, background.MARGIN), np.arange(first), warps, (SIZE, SIZE)
    )
    np.testing.assert_array_equal(image, without)


def test_moving_camera_is_found_and_followed(tmp_path):
    frames = 20
    centre = np.array([80.0, 80])
    camera = np.stack(
        [
            similarity_about(centre, np.array([0.4 * t, -0.3 * t]) + (t >= 10) * 14, 0, 1 + (t >= 10) * 0.02)
            for t in range(20)
        ]
    )  # a slow pan, then a cut to another crop
    person = Person(tmp_path / "p", camera=camera, segments=[[0, 10], [10, 20]], frames=frames)
    person.write_masks(stride=3)
    run_stage(background, person.context)
    result = person.context.person.result(BackgroundResult)
    assert result.moves and result.largest_shift_px > 4
    found = Background.read(person.folder / "background")
    assert found.warp is not None and found.warp.shape == (frames, 2, 3)
    # Relative motion between any two frames is the camera's.
    ours = compose(invert(found.warp[17].astype(float)), found.warp[2].astype(float))
    true = compose(camera[17], invert(camera[2]))
    for corner in ([0, 0], [160, 0], [80, 100]):
        error = transform(ours, np.array(corner)) - transform(true, np.array(corner))
        assert np.abs(error).max() < 0.03
    for index in (0, 9, 10, 19):
        wall = person.masks(index)[3] > 0
        wall[:25] = wall[:, :25] = wall[:, -25:] = False  # the rim is seen in a part of the frames only
        error = np.abs(found.frame(index, SIZE, SIZE).astype(float) - person.background(index))[wall]
        still = np.abs(read_rgb(person.folder / "background" / "background.png").astype(float)
                       - person.background(index))[wall]  # fmt: skip
        assert error.mean() < 4 < still.mean()
    shift = np.load(person.folder / "background" / "shift.npy")
    np.testing.assert_allclose(shift[9] - shift[0], [3.6, -2.7], atol=0.3)


def swaying(frames: int, shift: float = 4.0) -> np.ndarray:
    """A camera that somebody holds, at 25 frames per second: 1.5 times a second to the side, oftener up and down."""
    time, centre = np.arange(frames) / 25, np.array([80.0, 80])
    side, up, roll = (np.sin(2 * np.pi * rate * time) for rate in (1.5, 1.8, 1.5))
    return np.stack([
        similarity_about(centre, shift * np.array([x, 0.5 * y]), 0.004 * turn)
        for x, y, turn in zip(side, up, roll, strict=True)
    ])  # fmt: skip


def distance(person: Person) -> np.ndarray:
    """Pixels [T] by which the measured motion of the camera is off, at most, in any of four places."""
    warp = Background.read(person.folder / "background").warp
    assert warp is not None
    there = compose(warp.astype(float), person.camera)  # the same in all frames where the measurement is right
    places = np.stack([transform(there, np.array(place)) for place in ([20, 20], [140, 20], [20, 100], [140, 100])], 1)
    return np.linalg.norm(places - np.median(places, 0), axis=-1).max(1)


def test_camera_that_sways_between_key_frames_is_followed(tmp_path):
    camera = swaying(60)
    camera[30:, :, 2] += 14  # a cut to another crop
    person = Person(tmp_path / "p", camera=camera, segments=[[0, 30], [30, 60]], frames=60)
    person.write_masks(stride=6)  # as `choose_stride` takes them of four minutes
    person.blacken(range(30, 32))
    run_stage(background, person.context)
    assert person.context.person.result(BackgroundResult).moves
    # With key frames alone it is more than the camera moved: 5 pixels.
    assert np.delete(distance(person), (30, 31)).max() < 0.15


@pytest.mark.parametrize("leaning", [range(18, 32), range(6, 40)])  # a part of the take, and most of it
def test_head_that_leans_in_is_no_zoom_of_a_camera_in_the_hand(tmp_path, leaning):
    person = Person(tmp_path / "p", camera=swaying(40), frames=40)
    person.write_masks(stride=3)
    path = person.folder / "track" / "landmarks.npy"
    landmarks = np.load(path)
    landmarks[leaning, :, :2] = (landmarks[leaning, :, :2] - HEAD) * 1.15 + HEAD
    np.save(path, landmarks)
    run_stage(background, person.context)
    result = person.context.person.result(BackgroundResult)
    assert result.moves and result.largest_zoom < 0.02
    assert distance(person).max() < 0.15


def test_a_frame_that_shows_something_else_does_not_throw_off_those_after_it(tmp_path):
    person = Person(tmp_path / "p", camera=swaying(40), frames=40)
    person.write_masks(stride=6)
    for index in (24, 25):  # the first of them is a key frame
        write_png(person.context.person.frame_path(index), texture(7, SIZE, SIZE, (90, 90, 90)))
    run_stage(background, person.context)
    off = distance(person)
    assert np.delete(off, (24, 25)).max() < 0.15 and off.max() < 3


def test_black_intro_does_not_reach_the_background(tmp_path):
    head = np.stack([12 * np.sin(np.arange(16)), np.zeros(16)], -1)
    found = []
    for intro in (range(0), range(6)):
        person = Person(tmp_path / str(len(intro)), head=head, segments=[[0, 6], [6, 16]], frames=16)
        person.write_masks(stride=2)
        person.blacken(intro)
        assert run_stage(background, person.context)
        assert not person.context.person.result(BackgroundResult).moves
        found.append(Background.read(person.folder / "background").image.astype(float))
    assert np.abs(found[1] - found[0]).mean() < 3  # other frames, and so other noise
    assert found[1].min(axis=(0, 1)).max() > 20  # nothing is black, not even behind the person


def test_enlarged_part_of_the_video_keeps_its_background(tmp_path):
    person = Person(tmp_path / "p", segments=[[0, 10], [10, 20]], frames=20)
    person.write_masks(stride=3)
    zoom = similarity_about(np.array([80.0, 60]), np.zeros(2), 0, 1.35)
    person.enlarge(range(10, 20), zoom)
    assert run_stage(background, person.context)
    assert person.context.person.result(BackgroundResult).moves
    found = Background.read(person.folder / "background")
    assert found.warp is not None
    ours = compose(invert(found.warp[15].astype(float)), found.warp[4].astype(float))
    for corner in ([20, 20], [140, 20], [80, 70]):
        assert np.abs(transform(ours, np.array(corner)) - transform(zoom, np.array(corner))).max() < 0.3


def test_camera_that_only_cuts_move_is_measured_at_key_frames_alone(tmp_path, monkeypatch):
    person = Person(tmp_path / "p", segments=[[0, 10], [10, 20]], frames=20)
    person.write_masks(stride=3)
    person.enlarge(range(10, 20), similarity_about(np.array([80.0, 60]), np.zeros(2), 0, 1.35))
    follow, followed = background.follow, []
    monkeypatch.setattr(background, "follow", lambda *given: followed.append(follow(*given)) or followed[-1])
    run_stage(background, person.context)
    assert followed == [{}]


def test_person_stands_where_it_was_filmed_before_the_background_of_a_camera_at_rest(tmp_path):
    person = Person(tmp_path / "p", segments=[[0, 8], [8, 20]], frames=20)
    person.write_masks(stride=3)
    person.enlarge(range(8, 20), similarity_about(np.array([80.0, 40]), np.zeros(2), 0, 1.25))
    run_stage(background, person.context)
    motion = Motion.zeros(20, 25.0).map(head_translation=torch.tensor([2.0, -1.0, DEPTH]).repeat(20, 1))
    motion.save(person.folder / "motion.safetensors")
    np.save(person.folder / "refine" / "shape.npy", canonical_shape())
    person_info(
        width=SIZE, height=SIZE, num_frames=20, segments=((0, 8), (8, 20)),
        camera=Intrinsics(focal=FOCAL, cx=SIZE / 2, cy=SIZE / 2),
    ).write(person.folder / "person.json")  # fmt: skip
    wide, still = (read_rgb(person.folder / "background" / name) for name in ("wide.png", "background.png"))
    rest = np.array(cv2.minMaxLoc(cv2.matchTemplate(wide, still, cv2.TM_SQDIFF))[2])  # x, y of the one in the other
    middle = (np.array(wide.shape[1::-1]) - SIZE) // 2
    assert np.abs(rest - middle).max() > 5

    def error(rest: np.ndarray) -> float:
        data = PersonDataset(person.folder)
        filmed = data.camera.project(data.motion.head_translation).numpy()
        seen = data.camera.project(data.steady_motion(data.motion).head_translation).numpy()
        warp = Background.read(person.folder / "background").warp
        assert warp is not None
        there = np.einsum("tij,tj->ti", warp[:, :, :2], filmed) + warp[:, :, 2]  # in wide.png
        return float(np.abs(there - rest - seen).max())

    assert error(rest) < 0.01
    write_result(person.folder, BackgroundResult(seen=0.5, moves=True))  # as the version before left it
    assert error(middle) < 0.01


def test_changing_light_is_not_motion(tmp_path, monkeypatch):
    person = Person(tmp_path / "p", frames=12)
    ramp = np.linspace(-20, 20, SIZE)[None, :, None]
    for index in range(12):
        picture = (person.picture(index) + ramp * (index % 3)).clip(0, 255).astype(np.uint8)
        write_png(person.context.person.frame_path(index), picture)
    person.write_masks(stride=3)
    run_stage(background, person.context)
    assert not person.context.person.result(BackgroundResult).moves


def test_fill_keeps_what_was_seen_and_never_overshoots():
    rng = np.random.default_rng(0)
    image = rng.uniform(60, 200, (37, 50, 3)).astype(np.float32)
    seen = rng.random((37, 50)) < 0.2
    filled = median_image.fill_unseen(image, seen)
    np.testing.assert_array_equal(filled[seen], image[seen])
    assert filled.min() >= image[seen].min() - 1e-3 and filled.max() <= image[seen].max() + 1e-3
    assert (median_image.fill_unseen(image, np.zeros_like(seen)) == 128).all()


def test_reading_before_the_stage_has_run_is_a_sentence(tmp_path):
    with pytest.raises(AvatarError, match=r"background\.png"):
        Background.read(tmp_path)
