"""The parse stage: key frames, masks for every frame, polygons, and the way without a network."""

import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from avatar.assets import store as assets
from avatar.data.masks import SIZE as MASK_SIZE
from avatar.data.masks import bare_shoulders, polygon, read_mask
from avatar.data.results import ParseResult
from avatar.errors import AvatarError
from avatar.preprocess import parse
from avatar.preprocess.stage import run_stage
from tests.unit.drawn_person import HEAD, SIZE, Person, face

PARTS = ("hair", "face", "neck", "clothes", "background")


@pytest.fixture
def no_segmenter(monkeypatch):
    def fail(name, quiet=False):
        raise AvatarError(f"{name} cannot be had.")

    monkeypatch.setattr(assets, "fetch", fail)


def test_keyframes_never_cross_a_cut():
    assert parse.choose_keyframes([(0, 10), (10, 11), (11, 16)], 4) == [0, 4, 8, 9, 10, 11, 15]


def test_stride_grows_with_the_video_up_to_a_quarter_second():
    assert parse.choose_stride(250, 25) == 1
    assert parse.choose_stride(1800, 25) == 3
    assert parse.choose_stride(100_000, 25) == 6


def test_saved_masks_sum_to_255_and_come_back(tmp_path):
    shares = np.random.default_rng(0).dirichlet([0.3] * 4, (MASK_SIZE, MASK_SIZE)).transpose(2, 0, 1)
    parse.save_mask(tmp_path / "m.png", shares)
    back = read_mask(tmp_path / "m.png")
    np.testing.assert_allclose(back.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(back, shares.transpose(1, 2, 0), atol=2.1 / 255)


def test_polygon_has_the_right_area_and_place():
    square = np.array([[10.25, 20], [30.25, 20], [30.25, 40], [10.25, 40]])
    mask = polygon(square, (64, 48))
    assert mask.shape == (48, 64)
    y, x = np.mgrid[0:48, 0:64] + 0.5
    assert mask.sum() == pytest.approx(400, rel=0.06)
    assert (mask * x).sum() / mask.sum() == pytest.approx(20.25, abs=0.3)
    assert (mask * y).sum() / mask.sum() == pytest.approx(30, abs=0.3)
    assert polygon(np.full((4, 2), np.nan), 16).sum() == 0


def test_masks_of_every_frame(tmp_path):
    head = np.stack([np.linspace(-8, 8, 9), np.zeros(9)], -1)
    person = Person(tmp_path / "p", head=head, frames=9)
    person.write_masks(stride=4)
    for index in range(9):
        masks = person.context.person.masks(index, SIZE)
        assert all(m.shape == (SIZE, SIZE) and m.dtype == np.float32 for m in masks.values())
        np.testing.assert_allclose(sum(masks[k] for k in PARTS), 1, atol=1e-5)
        true_hair, true_skin = person.masks(index)[:2] > 0
        found = masks["face"] + masks["neck"]
        # Between key frames the head has moved by up to 4 pixels; carried along, the masks fit all the same.
        for ours, true, least in ((found > 0.5, true_skin, 0.92), (masks["hair"] > 0.5, true_hair, 0.8)):
            assert (ours & true).sum() / (ours | true).sum() > least
        middle = HEAD + head[index]
        assert masks["mouth"][int(middle[1] + 15), int(middle[0])] == 1
        assert masks["lips"][int(middle[1] + 15), int(middle[0])] == 0
        assert masks["lips"][int(middle[1] + 20), int(middle[0])] > 0.5
        assert masks["eyes"][int(middle[1] - 6), int(middle[0] + 9)] > 0.5
        assert masks["face"][int(middle[1]), int(middle[0])] > 0.95
        assert masks["neck"][int(middle[1] + 36), int(middle[0])] > 0.9
        assert masks["face"][int(middle[1] + 36), int(middle[0])] < 0.1


def skin_below_the_jaw(neck: float, shoulders: float, collar: float = np.inf) -> np.ndarray:
    """[SIZE, SIZE] skin of a neck of half a width, that from 35 pixels below the mouth on is as wide as shoulders;
    below ``collar`` are clothes."""
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5 - HEAD[:, None, None][::-1]
    half = np.where(y < 50, neck, shoulders)
    return ((np.abs(x) < half) & (y > 12) & (np.hypot(x / 22, y / 30) > 1) & (y < collar)).astype(np.float32)


def test_bare_shoulders_are_no_neck():
    points = face(np.zeros(2))[:, :2]
    rows = HEAD[1] + np.array([40, 49, 58, 70])
    share = bare_shoulders(skin_below_the_jaw(16, 40), points)[rows.astype(int), 0]
    assert share[:2].max() == 0 and share[2:].min() == 1  # from where the neck widens
    for skin in (skin_below_the_jaw(16, 16), skin_below_the_jaw(16, 40, collar=50), skin_below_the_jaw(26, 30)):
        assert bare_shoulders(skin, points).max() == 0  # a neck in a collar, and one as wide as the face
    hand = skin_below_the_jaw(16, 16)
    hand[int(HEAD[1]) + 40 :, : int(HEAD[0]) - 62] = 1
    assert bare_shoulders(hand, points).max() == 0
    assert bare_shoulders(skin_below_the_jaw(16, 40), np.full((478, 2), np.nan)).max() == 0


def test_bare_shoulders_count_as_clothes(tmp_path, monkeypatch):
    person = Person(tmp_path / "p", frames=2)
    person.write_masks()
    before = person.context.person.masks(0, SIZE)
    monkeypatch.setattr("avatar.data.masks.bare_shoulders", lambda skin, points: np.ones((len(skin), 1), np.float32))
    after = person.context.person.masks(0, SIZE)
    assert after["neck"].max() == 0
    np.testing.assert_allclose(after["clothes"], before["clothes"] + before["neck"], atol=1e-6)


def test_masks_between_key_frames_follow_the_head(tmp_path):
    head = np.stack([np.linspace(-14, 14, 5), np.zeros(5)], -1)
    person = Person(tmp_path / "p", head=head, frames=5)
    person.write_masks(stride=4)
    true = person.masks(1)[0]
    ours = person.context.person.masks(1, SIZE)["hair"]
    first, last = (person.context.person.masks(i, SIZE)["hair"] for i in (0, 4))
    unmoved = 0.75 * first + 0.25 * last
    assert np.abs(ours - true).mean() < 0.85 * np.abs(unmoved - true).mean()


def test_masks_do_not_mix_across_a_cut(tmp_path):
    head = np.array([[-20.0, 0]] * 5 + [[20.0, 0]] * 5)
    person = Person(tmp_path / "p", head=head, segments=[(0, 5), (5, 10)], frames=10)
    person.write_masks(stride=3)
    for index in (4, 5):
        hair = person.context.person.masks(index, SIZE)["hair"]
        x = (hair * (np.arange(SIZE) + 0.5)).sum() / hair.sum()
        assert x == pytest.approx(HEAD[0] + head[index, 0], abs=1.5)


def test_rectangular_sizes_and_bad_frames(tmp_path):
    person = Person(tmp_path / "p", frames=2)
    with pytest.raises(AvatarError, match="parse"):
        person.context.person.masks(0, MASK_SIZE)
    person.write_masks()
    assert person.context.person.masks(0, (96, 64))["hair"].shape == (64, 96)
    with pytest.raises(AvatarError, match="frame 2"):
        person.context.person.masks(2, MASK_SIZE)


def test_without_the_model_it_says_so_and_still_finds_the_person(tmp_path, no_segmenter, capsys):
    person = Person(tmp_path / "p", frames=2)
    assert run_stage(parse, person.context)
    assert "guessed" in capsys.readouterr().err
    assert person.context.person.result(ParseResult).method == "shapes"
    masks = person.context.person.masks(0, SIZE)
    hair, skin, clothes, background = person.masks(0) > 0
    for name, true, least in (("background", background, 0.97), ("clothes", clothes, 0.75), ("hair", hair, 0.9)):
        ours = masks[name] > 0.5
        assert (ours & true).sum() / (ours | true).sum() > least, name
    assert (masks["face"] > 0.5)[skin & (np.arange(SIZE)[:, None] < HEAD[1] + 20)].mean() > 0.9


def test_masks_are_the_same_in_several_threads(tmp_path, monkeypatch):
    opened = []

    class Network:
        """Says how bright a picture is; must not be asked twice at the same time."""

        def __init__(self):
            self.busy = threading.Lock()
            self.asked = 0

        def __call__(self, picture, points):
            assert self.busy.acquire(blocking=False)
            self.asked += 1
            time.sleep(0.02)
            share = np.full((MASK_SIZE, MASK_SIZE), picture.mean() / 255)
            self.busy.release()
            return np.stack([share, 1 - share, 0 * share, 0 * share]), 1.0

    @contextmanager
    def open_parser():
        opened.append(Network())
        yield opened[-1], "segmenter"

    monkeypatch.setattr(parse, "open_parser", open_parser)
    masks = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        person = Person(tmp_path / str(threads), frames=9)
        assert run_stage(parse, person.context)
        folder = person.folder / "parse" / "masks"
        masks.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    assert masks[0] == masks[1] and len(masks[0]) == 9
    assert len(opened) == 4 and all(network.asked for network in opened) and opened[0].asked == 9


def test_a_picture_that_cannot_be_parsed_ends_the_stage(tmp_path, monkeypatch):
    @contextmanager
    def open_parser():
        def fail(picture, points):
            raise RuntimeError("out of memory")

        yield fail, "segmenter"

    monkeypatch.setattr(parse, "open_parser", open_parser)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    person = Person(tmp_path / "p", frames=9)
    with pytest.raises(RuntimeError, match="out of memory"):
        run_stage(parse, person.context)
    assert not (person.folder / "parse").exists()


def test_shapes_survive_a_face_at_the_edge_and_a_flat_picture():
    for shift in ((-300, 0), (0, 400), (0, 0)):
        shares, seen = parse.parse_by_shape(np.full((256, 256, 3), 90, np.uint8), face(np.array(shift))[:, :2])
        assert seen == 1  # it cannot tell
        assert shares.shape == (4, 256, 256)
        np.testing.assert_allclose(shares.sum(0), 1, atol=1e-4)


def test_segmenter_separates_a_real_head(tmp_path):
    if not assets.available("selfie_multiclass"):
        pytest.skip("selfie_multiclass is not on this machine (avatar assets --fetch selfie_multiclass)")
    skimage = pytest.importorskip("skimage.data")
    try:
        picture = skimage.astronaut()[:256, 96:352]
    except OSError:
        pytest.skip("the sample portrait is not installed")
    points = np.zeros((478, 2))
    points[152] = [128, 190]
    with parse.open_parser() as (parser, method):
        shares, _ = parser(np.ascontiguousarray(picture), points)
    assert method == "segmenter"
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-4)
    assert shares[1, 110, 128] > 0.95  # the nose
    assert shares[2, 250, 128] > 0.95  # the suit
    assert shares.max(0).mean() > 0.9  # decided almost everywhere
