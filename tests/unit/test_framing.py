"""What is trained of a frame and what rendering shows of it: `prepare --frame`."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from avatar.assets import store as assets
from avatar.cli.main import main
from avatar.data.masks import SIZE as MASK_SIZE
from avatar.data.masks import MaskReader
from avatar.data.person import PersonFolder, PersonInfo
from avatar.data.results import FrameView, IngestResult
from avatar.errors import AvatarError
from avatar.infer.avatar import Avatar
from avatar.io.video import read_frames, read_info
from avatar.preprocess import background, framing, ingest, learned_face, parse, track
from avatar.preprocess.config import PrepareConfig, check
from avatar.preprocess.framing import Rect
from avatar.preprocess.learned_face import LearnedFace
from avatar.preprocess.report_findings import judge_frame
from avatar.preprocess.stage import StageContext
from tests.media import need_landmarker, portrait, shifted, with_open_mouth, write_video
from tests.person import ingest_result, make_person, person_info, small_config, train, write_result
from tests.unit.test_ingest import video_of

FULL = PrepareConfig(frame="full")


def face_at(x: float, y: float, height: float, views: int = 5) -> LearnedFace:
    box = [x - 0.4 * height, y - height / 2, x + 0.4 * height, y + height / 2]
    return LearnedFace(boxes=np.tile(np.array(box), (views, 1)), height=height, usual=(0, 0, 1))


# --- the trained part ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "size", "face"),
    [
        ((600, 190, 1320, 1080), (1920, 1080), 250), ((0, 300, 1080, 1920), (1080, 1920), 400),
        ((2, 0, 358, 288), (360, 288), 130), ((700, 100, 1000, 1080), (1920, 1080), 90),
    ],
)  # fmt: skip
def test_the_trained_part_holds_the_person_at_one_scale(
    box: tuple[int, int, int, int], size: tuple[int, int], face: float
) -> None:
    frame = Rect(0, 0, *size)
    crop, stored = framing.blocks(box, frame, face, 512)
    assert stored[0] * crop.height == stored[1] * crop.width and stored[0] % 16 == stored[1] % 16 == 0
    assert stored[0] <= crop.width and stored[0] * stored[1] <= 2 * 512**2
    unit = 16 * crop.width // stored[0]
    assert 0 <= crop.x <= box[0] and 0 <= crop.y <= box[1]
    assert box[2] <= crop.x + crop.width < size[0] + unit and box[3] <= crop.y + crop.height < size[1] + unit


def test_a_small_face_gets_more_pixels_and_a_large_one_does_not() -> None:
    box, frame = (300.0, 100.0, 1500.0, 1080.0), Rect(0, 0, 1920, 1080)
    small, large = (framing.blocks(box, frame, face, 512)[1] for face in (150, 600))
    assert large[0] * large[1] <= 512**2 < 1.5 * 512**2 < small[0] * small[1]


def test_beyond_the_frame_its_edge_is_repeated() -> None:
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert np.array_equal(Rect(1, 1, 3, 2).cut(image), image[1:3, 1:4])
    part = Rect(2, 1, 5, 4).cut(image)
    assert part.shape == (4, 5, 3) and (part[3] == part[2]).all() and (part[:, 4] == part[:, 2]).all()


def test_of_two_people_only_the_learned_one_is_in_the_mask() -> None:
    share = np.zeros((256, 256), np.float32)
    share[40:256, 20:100] = share[60:256, 150:230] = 0.9
    hers = framing.person_mask(share, Rect(0, 0, 1280, 720), face_at(300, 250, 150))
    assert hers[:, :128].sum() == 216 * 80 and not hers[:, 128:].any()


def test_a_face_that_becomes_small_is_said_and_a_smaller_one_refused(caplog: pytest.LogCaptureFixture) -> None:
    frame = Rect(0, 0, 1920, 1080)
    sizes = (frame, (1920, 1080), Rect(0, 0, 1020, 1080), (510, 540))
    assert [t.kind for t in framing.frame_treatments(FULL, *sizes, face=250)] == ["frame"]
    assert [t.kind for t in framing.frame_treatments(FULL, *sizes, face=180)] == ["frame", "small-face"]
    with pytest.raises(AvatarError, match=r"60 pixels high.*--frame bust or --frame head, or a larger --size"):
        framing.frame_treatments(FULL, *sizes, face=120)


def test_a_bust_shows_the_shoulders_and_stays_in_the_picture() -> None:
    info = video_of(1920, 1080)
    shown = framing.bust(info, face_at(900, 400, 160))
    assert abs(shown.x + shown.width / 2 - 900) < 3 and shown.width > 3.5 * 160
    assert shown.y < 400 - 160 and shown.y + shown.height > 400 + 2 * 160
    assert framing.bust(info, face_at(900, 500, 600))[2:] == (1920, 1080)


@pytest.mark.parametrize(
    ("options", "text"),
    [({"frame": "full", "crop": "0,0,100"}, "exclude each other"), ({"frame": "wide"}, "not known.*head, bust, full")],
)
def test_options_that_cannot_work_are_refused(options: dict[str, str], text: str) -> None:
    with pytest.raises(AvatarError, match=text):
        check(PrepareConfig(**options))  # pyright: ignore[reportArgumentType]


# --- where it lies ---------------------------------------------------------------------------------------------------


def test_the_placement_comes_back_and_the_two_cameras_agree(tmp_path: Path) -> None:
    """A 4K source that is shown at 1080p and trained at a third of that scale, 100 pixels from its corner."""
    ingest = ingest_result(
        width=320, height=480, source_size=(3840, 2160), crop=(1000, 200, 1280, 1920), frame=(0, 0, 3840, 2160),
        frame_size=(1920, 1080),
    )  # fmt: skip
    view = ingest.view()
    assert view == FrameView(width=1920, height=1080, x=500, y=100, scale=2) and ingest_result().view() is None
    info = person_info(width=320, height=480, view=view, crop=ingest.crop)
    info.write(tmp_path / "person.json")
    assert PersonInfo.read(tmp_path / "person.json") == info
    point = torch.tensor([[3.0, -2.0, 60.0]])
    part, shown = info.source_camera().project(point), info.view_camera().project(point)
    torch.testing.assert_close(shown, part * 2 + torch.tensor([500.0, 100.0]))
    assert info.view_camera().eps2d == pytest.approx(4 * info.source_camera().eps2d)


def test_the_face_is_looked_for_around_the_head() -> None:
    assert track.head_window(ingest_result()) == (0, 0, 96, 96)
    ingest = ingest_result(width=300, height=400, crop=(100, 50, 600, 800), head=(300, 0, 200))
    assert track.head_window(ingest) == (100, 0, 200, 75)


def test_masks_of_a_rectangle_follow_the_head_in_both_directions(tmp_path: Path) -> None:
    """The head moves by 20 pixels each way in a frame twice as wide as high, which the stored mask shows square."""
    landmarks = np.zeros((2, 478, 3), np.float32)
    rng = np.random.default_rng(0)
    landmarks[0, :, :2] = rng.uniform([180, 50], [220, 90], (478, 2))
    landmarks[0, 152, 1], landmarks[0, 10, 1] = 95, 45
    landmarks[1] = landmarks[0] + [20, 20, 0]
    mask = np.zeros((4, MASK_SIZE, MASK_SIZE), np.float32)
    mask[3], mask[0, 80:96, 120:136], mask[3, 80:96, 120:136] = 1, 1, 0
    parse.save_mask(tmp_path / "000000.png", mask)
    hair = MaskReader(tmp_path, [0], [(0, 2)], (400, 200), landmarks).masks(1, (400, 200))["hair"]
    y, x = np.mgrid[:200, :400] + 0.5
    at = np.array([(hair * x).sum(), (hair * y).sum()]) / hair.sum()
    assert at == pytest.approx(np.array([128 * 400 / 256 + 10, 88 * 200 / 256 + 10]), abs=1.0)  # half of the motion


def test_a_rectangle_is_not_stretched_for_the_segmenter() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[20:60, 100:140] = 255
    part, restore = parse.square(image)
    assert part.shape == (MASK_SIZE, MASK_SIZE, 3)
    rows, columns = (np.flatnonzero((part[..., 0] > 127).any(axis)) for axis in (1, 0))
    assert abs(len(rows) - len(columns)) <= 1
    back = restore(part.transpose(2, 0, 1).astype(np.float32))[0]
    assert np.abs(back - cv2.resize(image[..., 0], (MASK_SIZE, MASK_SIZE))).mean() < 2


def test_leaving_the_trained_part_counts_only_inside_of_the_frame() -> None:
    ingest = ingest_result(source_size=(192, 96), crop=(48, 0, 96, 96), frame=(0, 0, 192, 96), frame_size=(192, 96))
    edges = parse.inner_edges(ingest)
    assert edges == (True, False, True, False) and parse.inner_edges(ingest_result()) == (False,) * 4
    shares = np.zeros((4, 64, 64), np.float32)
    shares[3], shares[2, 40:], shares[3, 40:] = 1, 0, 1
    assert not parse.leaves(shares, edges)
    shares[3, 50:, 20:40] = 0  # the body, over the frame's own lower edge
    assert not parse.leaves(shares, edges)
    shares[3, 30:36, :9] = 0  # a hand
    assert parse.leaves(shares, edges)
    assert not judge_frame(0.01) and "Cut these parts of the video out" in judge_frame(0.3)[0].text


# --- the background --------------------------------------------------------------------------------------------------


def wide_person(folder: Path, view: FrameView) -> Path:
    """A drawn person of 96x96 pixels in a larger picture, whose background is coloured noise."""
    make_person(folder, frames=12)
    noise = np.random.default_rng(5).integers(0, 255, (view.height, view.width, 3)).astype(np.uint8)
    size = round(96 * view.scale)
    noise[int(view.y) : int(view.y) + size, int(view.x) : int(view.x) + size] = (40, 90, 140)
    cv2.imwrite(str(folder / "background/whole_background.png"), noise[..., ::-1])
    info = PersonFolder(folder).info()
    person_info(**{name: getattr(info, name) for name in info.__dataclass_fields__} | {"view": view}).write(
        folder / "person.json"
    )
    return folder


@pytest.mark.parametrize(
    "view",
    [FrameView(width=320, height=180, x=64, y=0, scale=1.5), FrameView(width=120, height=210, x=12, y=114, scale=1.0)],
    ids=["landscape", "portrait"],
)
def test_rendering_has_the_frame_as_filmed_and_its_background_to_the_bit(tmp_path: Path, view: FrameView) -> None:
    person, run = wide_person(tmp_path / "person", view), tmp_path / "run"
    data = train(small_config(person, run, steps=2)).data
    avatar = Avatar.load(run, device="cpu")
    behind = avatar.view_background(avatar.view_camera)
    assert behind is not None and behind.shape == (view.height, view.width, 3)
    shown = avatar.render(avatar.view_camera, data.motion, 3, torch.from_numpy(behind)).numpy()
    part = avatar.render(avatar.camera, data.motion, 3).numpy()
    x, y, size = int(view.x), int(view.y), round(96 * view.scale)
    with torch.no_grad():
        empty = avatar.model(data.motion, 3, avatar.view_camera, part="person").alpha[..., 0].numpy() == 0
    changed = (shown != behind).any(-1)
    assert 0.4 < empty.mean() < 0.95 and not changed[empty].any() and changed[~empty].mean() > 0.9
    cut = cv2.resize(np.ascontiguousarray(shown[y : y + size, x : x + size]), (96, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(cut.astype(int) - part)[: min(96, cut.shape[0])].mean() < 3
    turned = avatar.render(avatar.view_camera.orbit(avatar.pivot, 20, 0), data.motion, 3, torch.from_numpy(behind))
    assert np.array_equal(turned[: view.height // 10, :10].numpy(), behind[: view.height // 10, :10])

    out = tmp_path / "out.mp4"
    assert main(["render", str(run), "--split", "test", "--device", "cpu", "--out", str(out)]) == 0
    info = read_info(out)
    assert (info.width, info.height, info.fps) == (view.width, view.height, 25)
    (run / "background.png").unlink()
    assert main(["render", str(run), "--split", "test", "--device", "cpu", "--out", str(out)]) == 2


def test_the_background_of_the_whole_frame_is_what_is_seen_around_the_person(tmp_path: Path) -> None:
    """A camera that moves over a wall: the person covers the left half of the stored part of each frame."""
    person = PersonFolder(make_person(tmp_path / "person", frames=8))
    wall = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 255, (140, 240, 3)).astype(np.float32), (0, 0), 4)
    wall = np.clip((wall - 127) * 6 + 127, 0, 255).astype(np.uint8)
    ingest = ingest_result(
        width=64, height=48, num_frames=8, source_size=(200, 100), crop=(60, 20, 128, 96), frame=(0, 0, 200, 100),
        frame_size=(200, 100), whole=list(range(8)),
    )  # fmt: skip
    write_result(person.path, ingest)
    view = ingest.view()
    assert view is not None
    (person.stage("ingest") / "whole").mkdir()
    shifts = np.array([[2 * k - 6, k - 3] for k in range(8)])
    mask = np.zeros((4, MASK_SIZE, MASK_SIZE), np.float32)
    mask[2, :, :128], mask[3, :, 128:] = 1, 1
    motion = np.tile(np.eye(2, 3), (8, 1, 1))
    for k, (x, y) in enumerate(shifts):
        image = wall[20 + y : 120 + y, 20 + x : 220 + x].copy()
        image[20:, 60:124] = (255, 0, 255)
        cv2.imwrite(str(person.stage("ingest") / f"whole/{k:06d}.jpg"), image[..., ::-1])
        parse.save_mask(person.stage("parse") / f"masks/{k:06d}.png", mask)
        motion[k, :, 2] = np.array([x, y]) / view.scale
    ctx = StageContext(person=person, video=tmp_path, config=FULL)
    (out := person.stage("background")).mkdir(exist_ok=True)
    for name in ("warp.npy", "wide.png"):
        (out / name).write_bytes(b"")  # they say that the camera moves
    background.write_whole(ctx, view, motion, np.arange(8), out)
    found = person.background(8, whole=True)
    for k, (x, y) in enumerate(shifts):
        seen = found.frame(k, 200, 100).astype(int)
        error = np.abs(seen - wall[20 + y : 120 + y, 20 + x : 220 + x]).mean(-1)
        assert error[:, :50].mean() < 4 and error[:, 135:].mean() < 4
        assert (np.abs(seen - (255, 0, 255)).sum(-1) > 60)[:, :50].all()


# --- the whole path --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(416, 256)])
def test_a_video_is_stored_around_the_person_and_as_filmed(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    need_landmarker()
    monkeypatch.setattr(learned_face, "PROBE_FRAMES", 12)
    if not assets.available("selfie_multiclass"):
        pytest.skip("the segmenter is not on this machine (avatar assets --fetch selfie_multiclass)")
    width, height = size
    faces = [with_open_mouth(portrait(), pixels) for pixels in (0.0, 6.0, 9.0, 3.0)]
    wall = np.full((height, width, 3), (60, 70, 80), np.uint8)
    frames = []
    for k in range(52):
        frame = wall.copy()
        frame[height - 256 :, width - 256 :] = shifted(faces[k % 4], 3 * np.sin(k / 7), 0)
        frames.append(frame)
    film = write_video(tmp_path / "film.mp4", frames, None)
    person = tmp_path / "person"
    command = ["prepare", str(film), "--out", str(person), "--no-audio", "--stages", "ingest", "--frame", "full"]
    assert main(command) == 0
    found = PersonFolder(person)
    ingest, source = found.result(IngestResult), list(read_frames(read_info(film)))
    x, y, across, down = ingest.crop
    assert ingest.frame == (0, 0, *size) and ingest.frame_size == size
    assert x + across <= width + 16 and y + down <= height + 16 and across * ingest.height == down * ingest.width
    stored, whole = found.frame(7), found.whole_frame(ingest.whole[1])
    assert stored.shape == (ingest.height, ingest.width, 3)
    assert np.abs(whole.astype(int) - source[ingest.whole[1]]).mean() < 3
    cut = Rect(*ingest.crop).cut(source[7])
    assert np.abs(cv2.resize(cut, stored.shape[1::-1]).astype(int) - stored).mean() < 3
    before = found.frame_path(7).stat().st_mtime_ns
    assert main(command) == 0 and found.frame_path(7).stat().st_mtime_ns == before


# --- where the person is ---------------------------------------------------------------------------------------------


def coarse_segmenter(fails: bool = False) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]:
    """A segmenter that finds what is red, but nothing narrower than nine of its pixels."""

    def parse_red(image: np.ndarray, _points: np.ndarray) -> tuple[np.ndarray, float]:
        red = ((image[..., 0] > 127) & (image[..., 2] < 90)).astype(np.uint8) * (not fails)
        red = cv2.morphologyEx(red, cv2.MORPH_OPEN, np.ones((9, 9), np.uint8)).astype(np.float32)
        return np.stack([0 * red, 0 * red, red, 1 - red]), 1.0

    return parse_red


def found_box(
    monkeypatch: pytest.MonkeyPatch, *body: tuple[int, int, int, int], fails: bool = False
) -> tuple[tuple[float, float, float, float], bool]:
    """The box around a drawn person whose face of 100 pixels is in the middle of 1920x1080 pixels."""
    image = np.full((1080, 1920, 3), 90, np.uint8)
    for x0, y0, x1, y1 in ((920, 420, 1000, 540), *body):
        image[y0:y1, x0:x1] = (200, 40, 40)

    @contextmanager
    def opened() -> Generator[tuple[object, str]]:
        yield coarse_segmenter(fails), "segmenter"

    monkeypatch.setattr(parse, "open_parser", opened)
    film = SimpleNamespace(sample_frames=lambda info, count: [image] * 2)
    monkeypatch.setattr(framing, "reader", lambda path: film)
    return framing.person_box(video_of(1920, 1080), Rect(0, 0, 1920, 1080), face_at(960, 480, 100))


def test_the_arms_of_a_small_person_are_found_in_a_wide_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the size at which the segmenter sees the whole frame they are six pixels wide."""
    box, missed = found_box(monkeypatch, (880, 540, 1040, 1080), (840, 600, 885, 1000), (1035, 600, 1080, 1000))
    assert not missed
    assert box == pytest.approx((840 - 30, 420 - 30, 1080 + 30, 1080), abs=5)


def test_what_reaches_out_of_the_window_is_found_in_a_larger_one(monkeypatch: pytest.MonkeyPatch) -> None:
    box, missed = found_box(monkeypatch, (880, 540, 1040, 1080), (400, 600, 900, 700))
    assert not missed and box == pytest.approx((400 - 30, 420 - 30, 1040 + 30, 1080), abs=9)


def test_where_the_segmenter_finds_nobody_shoulders_are_guessed_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    box, missed = found_box(monkeypatch, fails=True)
    assert missed and box == (920 - 130, 430 - 80, 1000 + 130, 1080)
    framed = framing.frame_person(video_of(1920, 1080), face_at(960, 480, 100), FULL)
    assert [t.kind for t in framed.treatments] == ["frame", "person-not-found"]
    assert framed.crop.x <= box[0] and framed.crop.x + framed.crop.width >= box[2]


def test_only_whole_frames_are_framed_anew(tmp_path: Path) -> None:
    """A folder that an older version prepared with --frame head stays as it is."""
    (video := tmp_path / "v.mp4").write_bytes(b"video")
    chosen = {
        frame: ingest.options(
            StageContext(person=PersonFolder(tmp_path), video=video, config=PrepareConfig(frame=frame))
        )
        for frame in ("head", "bust", "full")
    }
    assert "framing" not in chosen["head"] and chosen["bust"]["framing"] == chosen["full"]["framing"] == framing.VERSION
