"""The whole measurement on drawn faces: a stub tracker reads the mouth off the picture, so nothing is assumed."""

from __future__ import annotations

import io
import json
import os
import re
import time
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import pytest
import torch

from avatar.environment import environment, peak_memory
from avatar.eval import ablations, bootstrap, identity, report, report_html
from avatar.eval import driving as drives
from avatar.eval import images as pictures
from avatar.eval.head_only import composite, without_head
from avatar.eval.helpers import Helpers
from avatar.eval.image_metrics import mouth_box
from avatar.eval.measure import Measurement, Tools, measure_held_out, measure_novel
from avatar.eval.recorder import Recorder
from avatar.eval.speech_metrics import Speech
from avatar.eval.views import FRONTAL, Look, ViewMeasurement
from avatar.geometry.cameras import Camera
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import LIPS_INNER, LIPS_OUTER
from tests.media import need_landmarker, portrait, shifted
from tests.person import person_info

SIZE, FPS, FRAMES, FIRST = 96, 25.0, 160, 30


@pytest.fixture(autouse=True)
def blocks_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """The video of these tests has five seconds, too few for intervals from blocks of two."""
    monkeypatch.setattr(bootstrap.Bootstrap.__init__, "__defaults__", (bootstrap.SEED, 1.0))


def draw(opening: float, brightness: int = 170) -> np.ndarray:
    """A face whose dark mouth is ``opening`` pixels high."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.full((SIZE, SIZE, 3), 60, np.uint8)
    image[((x - 48) / 30) ** 2 + ((y - 48) / 40) ** 2 < 1] = (brightness, 130, 110)
    image[70 : 70 + round(opening), 36:60] = 0
    return image


class PictureTracker:
    """Measures the drawn mouth: the number of black rows under the lip."""

    def track(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points = np.zeros((478, 2), np.float32)
        points[list(LIPS_OUTER + LIPS_INNER)] = (48, 70)
        points[[14, 87, 317], 1] += (image[:, 48].mean(-1) < 20).sum()
        points[33], points[263] = (30, 40), (66, 40)
        return points, np.full(52, points[14, 1] / 100, np.float32)


def talking() -> np.ndarray:
    t = np.arange(FRAMES + 20) / FPS
    return 12 * np.abs(np.sin(6 * t) * np.sin(1.3 * t + 0.3))


class FakePerson:
    """What eval reads of a PersonDataset."""

    camera_moves = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.width, self.height, self.fps = folder, SIZE, SIZE, FPS
        self.num_frames, self.test_start, self.segments = FRAMES, FIRST, [(0, 70), (70, FRAMES)]
        self.info = person_info(fps=FPS)
        self.audio_path = folder / "no-sound.wav"
        self.opening = talking()[:FRAMES]
        tracker = PictureTracker()
        self.landmarks = np.stack([tracker.track(self.image(i))[0] for i in range(FRAMES)])
        self.motion = motion_of(self.opening)

    def image(self, index: int) -> np.ndarray:
        return draw(self.opening[index])

    def masks(self, index: int) -> dict[str, np.ndarray]:
        face = np.zeros((SIZE, SIZE), np.float32)
        face[8:88, 18:78] = 1
        masks = {name: np.zeros_like(face) for name in ("hair", "lips", "mouth", "eyes", "neck", "clothes")}
        return masks | {"face": face, "background": 1 - face}

    def background(self, index: int) -> np.ndarray:
        return np.full((SIZE, SIZE, 3), 60, np.uint8)


def motion_of(opening: np.ndarray) -> Motion:
    motion = Motion.zeros(len(opening), FPS)
    motion.arkit[:, INDEX["jawOpen"]] = torch.from_numpy(opening / 100).float()
    return motion


class FakeAvatar:
    camera = Camera.source(200.0, SIZE / 2, SIZE / 2, SIZE, SIZE)
    fps, pivot = FPS, torch.tensor([0.0, 0.0, 50.0])
    info: ClassVar = {"method": "drawn", "gaussians": 3, "bytes": 1000}

    def render(self, camera: Camera, motion: Motion, index: int, background=None) -> torch.Tensor:
        return torch.from_numpy(draw(float(motion.arkit[index, INDEX["jawOpen"]]) * 100, brightness=160))

    def render_head(self, camera: Camera, motion: Motion, index: int) -> torch.Tensor:
        image = self.render(camera, motion, index).float() / 255
        cover = torch.zeros(SIZE, SIZE, 1)
        cover[8:88, 18:78] = 1
        return torch.cat([image * cover, cover], -1)


def measure(folder: Path, moved: dict[str, Motion], files: dict[Path, list[str]] | None = None, **more) -> Measurement:
    person: Any = FakePerson(folder)
    avatar: Any = FakeAvatar()
    with Recorder(files or {}, (SIZE, SIZE), FPS, None, 0.0, Path()) as recorder:
        tools = Tools(tracker=PictureTracker(), recorder=recorder)
        return measure_held_out(avatar, person, moved, FIRST, FRAMES, tools, **more)


def test_drives_are_told_apart(tmp_path: Path) -> None:
    opening = talking()
    late = motion_of(opening[FIRST - 2 : FRAMES - 2])
    result = measure(
        tmp_path,
        {
            "tracked": motion_of(opening[FIRST:FRAMES]),
            "audio": late,
            "mute": motion_of(opening[FIRST:FRAMES] * 0),
        },
    ).result
    tracked, audio, mute = (result["full_frame"][n] for n in ("tracked", "audio", "mute"))
    assert tracked["mouth_lag_frames"] == 0 and tracked["mouth_correlation"] > 0.999 and tracked["lmd"] < 0.01
    assert audio["mouth_lag_frames"] == 2 and audio["mouth_correlation"] < 0.95 < audio["mouth_best_correlation"]
    assert audio["lmd"] > 10 * tracked["lmd"] and audio["mouth_range"] == pytest.approx(1, abs=0.15)
    assert mute["mouth_correlation"] is None and mute["mouth_range"] == 0
    assert mute["psnr_face"] < tracked["psnr_face"] < 40
    assert tracked["lpips"] is None and tracked["closure"] is None and tracked["sync_confidence"] is None
    assert tracked["lower_face_error"] < 1e-6 < audio["lower_face_error"]
    assert {"pose_jitter", "blinks", "frames_without_face", "mouth_gradient"} < set(result["real"])
    assert not {"psnr", "lmd", "mouth_correlation", "mouth_sharpness"} & set(result["real"])
    low, high = audio["intervals"]["mouth_correlation"]
    assert low < audio["mouth_correlation"] < high


def test_cuts_inside_the_held_out_part_are_no_motion(tmp_path: Path) -> None:
    """The face jumps at frame 70, where the other take begins."""

    class Jumping(PictureTracker):
        def __init__(self) -> None:
            self.seen = 0

        def track(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            points, scores = super().track(image)
            frame = FIRST + self.seen // 2  # the real one, then the rendered one
            self.seen += 1
            return points + (300 if frame >= 70 else 0), scores

    person: Any = FakePerson(tmp_path)
    avatar: Any = FakeAvatar()
    moved = {"tracked": motion_of(talking()[FIRST:FRAMES])}
    tools = Tools(tracker=Jumping())
    result = measure_held_out(avatar, person, moved, FIRST, FRAMES, tools, head_only=False).result
    assert result["real"]["pose_jitter"] == pytest.approx(0, abs=1e-6)
    assert result["full_frame"]["tracked"]["pose_jitter"] == pytest.approx(0, abs=1e-6)


def test_head_only_shows_nothing_but_the_rendered_head(tmp_path: Path) -> None:
    person = FakePerson(tmp_path)
    real, masks = person.image(40), person.masks(40)
    masks["hair"][4:8, 40:50] = 1  # above the face, with nothing below but the face
    masks["neck"][88:, 30:60], masks["background"][88:, 30:60] = 1, 0
    real[88:, 30:60] = (200, 10, 10)
    real[:88][masks["face"][:88] + masks["hair"][:88] > 0] = (0, 255, 0)
    plate = np.full((SIZE, SIZE, 3), 7, np.uint8)
    filled = without_head(real, masks, plate)
    assert not (filled == (0, 255, 0)).all(-1).any()
    assert (filled[82:88, 32:58] == (200, 10, 10)).all()  # the neck goes on under the chin
    assert (filled[82:87, 20:28] == 7).all() and (filled[4:60, 40:50] == 7).all()  # the plate beside and above it
    assert (filled[88:, 30:60] == real[88:, 30:60]).all() and (filled[:, :10] == real[:, :10]).all()
    head = np.zeros((SIZE, SIZE, 4), np.float32)
    head[20:40, 20:40] = (0.25, 0.25, 0.25, 0.5)  # half of a grey
    shown = composite(head, np.full((SIZE, SIZE, 3), 100, np.uint8))
    assert (shown[25, 25] == round(0.25 * 255 + 50)).all() and (shown[0, 0] == 100).all()


def a_head(size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Masks of a round head on a wide neck, and how far each pixel is outside of the head."""
    y, x = np.mgrid[:size, :size] + 0.5
    outside = np.hypot(x - size / 2, y - 0.4 * size) - 0.2 * size
    masks = {name: np.zeros((size, size), np.float32) for name in ("lips", "mouth", "eyes", "clothes")}
    masks["hair"] = ((outside < 0) & (y < 0.4 * size)).astype(np.float32)
    masks["face"] = ((outside < 0) & (y >= 0.4 * size)).astype(np.float32)
    masks["neck"] = ((outside >= 0) & (y > 0.55 * size) & (np.abs(x - size / 2) < 0.1 * size)).astype(np.float32)
    return masks, outside


def test_head_only_leaves_no_rim_of_the_real_head_and_takes_nothing_far_from_it() -> None:
    """Masks are a few pixels off, and soft: what they miss of the head must not show beside the rendered one."""
    size = 500
    masks, outside = a_head(size)
    plate = np.full((size, size, 3), 7, np.uint8)
    real = np.full((size, size, 3), 90, np.uint8)
    real[outside < 4] = (0, 255, 0)  # hair is 4 pixels wider than its mask: 0.8 % of the width
    filled = without_head(real, masks, plate)
    assert not (filled == (0, 255, 0)).all(-1).any()
    assert (filled[outside > 8] == real[outside > 8]).all()
    # A soft edge: up to 2 % of the width from the mask, pixels that hold a little of the head are the head's.
    real[outside < 9] = (0, 255, 0)
    soft = masks | {"hair": np.where((outside >= 0) & (outside < 9), 0.08, masks["hair"]).astype(np.float32)}
    filled = without_head(real, soft, plate)
    assert not (filled == (0, 255, 0)).all(-1).any()
    # The same little share far from the head is a mistake of the mask's, and stays the video's own.
    haze = masks | {"hair": np.where(outside > 60, 0.08, masks["hair"]).astype(np.float32)}
    filled = without_head(np.where(outside[..., None] < 4, 0, real), haze, plate)
    assert (filled[outside > 20] == real[outside > 20]).all()


@pytest.mark.parametrize("part", ["hair", "face", "lips", "mouth", "eyes"])
def test_head_only_shows_no_part_of_the_real_head(part: str) -> None:
    size = 100
    masks = {name: np.zeros((size, size), np.float32) for name in ("hair", "face", "lips", "mouth", "eyes", "neck",
                                                                  "clothes")}  # fmt: skip
    masks[part][20:40, 30:60] = 1
    real, plate = np.full((size, size, 3), 90, np.uint8), np.full((size, size, 3), 7, np.uint8)
    real[20:40, 30:60] = (0, 255, 0)
    filled = without_head(real, masks, plate)
    assert (filled[20:40, 30:60] == 7).all() and (filled[45:] == 90).all()


def test_head_only_is_measured_beside_the_full_frame(tmp_path: Path) -> None:
    opening = talking()[FIRST:FRAMES]
    measured = measure(tmp_path, {"tracked": motion_of(opening)}, keep=frozenset({3}))
    full, head = measured.result["full_frame"]["tracked"], measured.result["head_only"]["tracked"]
    assert head["lmd"] == full["lmd"] and head["psnr"] == pytest.approx(full["psnr"], abs=0.5)
    assert list(measured.samples[3]) == ["real", "tracked", "tracked, head-only"]
    assert measure(tmp_path, {"tracked": motion_of(opening)}, head_only=False).result["head_only"] == {}


def test_ablations_are_pictures_of_the_full_frame_with_intervals(tmp_path: Path) -> None:
    opening = talking()[FIRST:FRAMES]
    moved = {"tracked": motion_of(opening)}
    result = measure(tmp_path, moved, ablated={"tracked_torso_at_rest": motion_of(opening * 0.5)}).result
    ablated, tracked = result["ablations"]["tracked_torso_at_rest"], result["full_frame"]["tracked"]
    assert set(ablated) == {*ablations.METRICS, "intervals"}
    assert set(ablated["intervals"]) == {"psnr", "psnr_face", "ssim", "ssim_face"}  # LPIPS was not at hand
    assert ablated["psnr"] < tracked["psnr"] and ablated["intervals"]["psnr"][1] < tracked["intervals"]["psnr"][0]
    assert tracked == measure(tmp_path, moved).result["full_frame"]["tracked"]


def test_closure_and_stillness_are_measured_where_they_can_be(tmp_path: Path) -> None:
    opening = talking()[FIRST:FRAMES]
    closures = np.flatnonzero((opening[1:-1] < opening[2:]) & (opening[1:-1] < opening[:-2])) + 1.0
    samples = np.repeat(opening > 2, 640).astype(np.float32) * 0.1
    speech = Speech(samples=samples, closures=closures)
    moved = {"tracked": motion_of(opening), "shuffled": motion_of(np.roll(opening, 45))}
    result = measure(tmp_path, moved, speech=speech).result
    tracked, shuffled = result["full_frame"]["tracked"], result["full_frame"]["shuffled"]
    assert result["real"]["closure"] == tracked["closure"] > shuffled["closure"]


def test_the_same_twice(tmp_path: Path) -> None:
    opening = talking()[FIRST:FRAMES]
    moved = {"audio": motion_of(opening * 0.9), "tracked": motion_of(opening)}
    first, second = (measure(tmp_path, moved).result for _ in range(2))
    assert json.dumps(first) == json.dumps(second)


def test_novel_audio_is_measured_against_the_persons_own_video(tmp_path: Path) -> None:
    person: Any = FakePerson(tmp_path)
    avatar: Any = FakeAvatar()
    opening = talking()[:80]
    moved = {"audio": motion_of(opening), "shuffled": motion_of(np.roll(opening, 40))}
    speech = Speech(samples=np.ones(51200, np.float32))
    tools = Tools(tracker=PictureTracker())
    measured = measure_novel(avatar, person, moved, speech, tools, keep=frozenset({0, 9}))
    audio = measured.result["full_frame"]["audio"]
    assert audio["mouth_sharpness"] == pytest.approx(1, abs=0.3) and audio["psnr"] is None and audio["lmd"] is None
    assert measured.result["real"]["mouth_gradient"] > 0
    assert list(measured.samples) == [0, 9] and set(measured.samples[0]) == {"audio", "shuffled"}


def test_another_person_is_noticed(tmp_path: Path) -> None:
    class Recogniser:
        asked = 0

        def embed(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
            self.asked += 1
            return np.array([1.0, 1.0 if image[..., 0].max() > 165 else 0.0])  # brighter than FakeAvatar draws

    person: Any = FakePerson(tmp_path)
    avatar: Any = FakeAvatar()
    tools = Tools(tracker=PictureTracker(), recogniser=Recogniser())
    moved = {"tracked": motion_of(talking()[FIRST:FRAMES])}
    result = measure_held_out(avatar, person, moved, FIRST, FRAMES, tools).result
    assert result["full_frame"]["tracked"]["identity"] == pytest.approx(0.5**0.5) and "identity" not in result["real"]
    assert tools.recogniser is not None and tools.recogniser.asked == 3 * 11  # twice a second


def test_identity_without_its_extra_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity.importlib.util, "find_spec", lambda name: None)
    notes: list[str] = []
    assert identity.load_recogniser(notes) is None and "[identity]" in notes[0]


def test_faces_are_recognised(tmp_path: Path) -> None:
    notes: list[str] = []
    recogniser = identity.load_recogniser(notes)
    if recogniser is None:
        pytest.skip(notes[0])
    need_landmarker()
    from avatar.preprocess.face_tracker import FaceTracker

    face = portrait()
    with FaceTracker() as tracker:
        a, b = (recogniser.embed(p, tracker.track(p)[0]) for p in (face, shifted(face, 5, 3, 1.1)))
    assert identity.similarity(a, b) > 0.96 and np.isnan(identity.similarity(a, None))


def test_videos_are_saved(tmp_path: Path) -> None:
    opening = talking()[FIRST:FRAMES]
    save = tmp_path / "out"
    files = {save / "pred.mp4": ["audio"], save / "beside.mp4": ["real", "audio", "audio, head-only"]}
    measure(tmp_path, {"audio": motion_of(opening)}, files)
    frames = {}
    for path in save.glob("*.mp4"):
        with av.open(str(path)) as file:
            frames[path.name] = (sum(1 for _ in file.decode(video=0)), file.streams.video[0].width)
    assert frames == {"pred.mp4": (FRAMES - FIRST, SIZE), "beside.mp4": (FRAMES - FIRST, 3 * SIZE)}


def test_a_drive_that_ends_early_is_not_silently_short() -> None:
    with pytest.raises(RuntimeError, match="has 5 of 90"):
        drives.whole([motion_of(talking()[:2]), motion_of(talking()[:3])], 90)


def test_the_floor_hears_another_part_of_the_sound() -> None:
    person: Any = FakePerson(Path())
    person.audio_path = Path()

    class Speaking:
        fps, look_ahead = FPS, 0.0

        def open(self):
            return self

        def push(self, samples):
            return motion_of(talking()[:0])

        def finish(self):
            return motion_of(talking()[:FRAMES])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("avatar.infer.replay.stream_audio", lambda *_, **__: iter([np.zeros(16000 * 6, np.float32)]))
        moved = drives.driven_held_out(person, Speaking(), FIRST, FRAMES - 10)
    jaw = {name: motion.arkit[:, INDEX["jawOpen"]] for name, motion in moved.items()}
    assert torch.equal(jaw["shuffled"], jaw["audio"].roll(60)) and not torch.equal(jaw["shuffled"], jaw["audio"])
    assert torch.equal(moved["audio"].head_rotation, moved["shuffled"].head_rotation)


def test_the_sheet_shows_open_and_closed_mouths() -> None:
    opening = talking()
    chosen = pictures.pick_frames(opening, 8)
    assert len(chosen) == 8 and chosen == sorted(chosen)
    assert min(opening[chosen[1::2]]) > max(opening[chosen[0::2]])
    points, _ = PictureTracker().track(draw(5))
    x0, y0, x1, y1 = mouth_box(points, (SIZE, SIZE))
    assert x1 - x0 == y1 - y0 and 0 <= x0 < 48 < x1 <= SIZE and 0 <= y0 < 70 < y1 <= SIZE
    assert mouth_box(points * np.nan, (SIZE, SIZE))[2] <= SIZE


PICTURES = ("side_by_side.mp4", "frames.jpg", "views.jpg", "views_geometry.jpg")


def some_views() -> ViewMeasurement:
    """One view of one frame."""
    image = np.full((SIZE, SIZE, 3), 128, np.uint8)
    look = Look(image, np.ones((SIZE, SIZE)), np.full((SIZE, SIZE), 50.0))
    result = {"quick": True, "frames": [FIRST], "width": SIZE, "height": SIZE, "groups": {"frontal": {"holes": 0.5}}}
    return ViewMeasurement(result, FakeAvatar.camera, FakeAvatar.pivot, FPS, {FIRST: {FRONTAL: look}})


def test_the_report_is_json_a_table_and_a_page(tmp_path: Path) -> None:
    from rich.console import Console

    moved = {"audio": motion_of(talking()[FIRST:FRAMES]), "shuffled": motion_of(talking()[FIRST:FRAMES] * 0)}
    withheld = {"audio_torso_at_rest_tracker_poses": moved["audio"]}
    measured = measure(tmp_path, moved, keep=frozenset({5, 50}), ablated=withheld)
    result: dict[str, Any] = {
        "run": "run & son", "person": "<b>", "setting": "self-reconstruction", "frames": FRAMES - FIRST, "fps": FPS,
        "first_frame": FIRST, "width": SIZE, "height": SIZE, **environment(), **measured.result,
        "commit": "0123456789abcdef+changes", "date": "2026-02-03T04:05:06Z",
        "training": {
            "commit": "fedcba9876543210", "date": "2026-02-01T00:00:00Z",
            "earlier": [{"commit": "aaaaaaaaaaaaaa", "date": "2026-01-31T00:00:00Z"}],
        },
        "speed": {"render_fps": 20.0, "end_to_end_fps": 12.5, "with_speech": True}, "model": FakeAvatar.info,
        "peak_memory_bytes": peak_memory(), "notes": ["No <sound>."], "speech": "personal+shared",
        "lips": None, "warnings": ["Too <short>."],
    }  # fmt: skip
    text = json.dumps(result, allow_nan=False)
    assert json.loads(text)["hardware"]["cores"] >= 1
    assert result["peak_memory_bytes"] > 20e6
    console = Console(record=True, width=100, file=io.StringIO())
    for table in report.tables(result, 100):
        console.print(table)
    shown = " ".join(console.export_text().split())
    assert all(word in shown for word in ("PSNR, face (dB)", "audio", "shuffled", "real", "protocol head-only", "±"))
    measured_when = "130 frames, 5.2 s, of held-out video; evaluated 2026-02-03 at commit 0123456789"
    stamped = f"{measured_when} with uncommitted changes, trained 2026-02-01 at commit fedcba9876"
    stamped += ", begun 2026-01-31 at commit aaaaaaaaaa"
    tables = len([key for key in ("full_frame", "head_only", "ablations") if result[key]])
    assert tables == 3 and shown.count(stamped) == shown.count("± half of the 95 % interval") == tables
    assert any("12.5 frames/s" in line for line in report.summary_lines(result))
    around = some_views()
    whole = {"drive": "tracked", "frames": [30, 60], "width": 320, "height": 180}
    whole |= {"psnr_whole": 31.26, "psnr_edge": 27.04}
    result |= {"views": around.result, "whole_frame": whole}
    path = report_html.write(tmp_path / "report", result, measured, around)
    page = path.read_text()
    assert "2 held-out frames at 320x180" in page and "31.26" in page and "27.04" in page
    assert {p.name for p in path.parent.iterdir()} == {"report.html", "frames.jpg", "views.jpg", "views_geometry.jpg"}
    assert '<p class="warning">Too &lt;short&gt;.</p>' in page
    assert "No &lt;sound&gt;." in page and "run &amp; son" in page and "<b></p>" not in page
    assert "<script src" not in page
    assert page.count(stamped) == 1 + tables  # once at the top, and over each table
    assert page.count("; small print: 95% intervals.") == tables
    novel = report.scope(result | {"first_frame": None, "real_frames": 50, "training": {}})
    assert novel.startswith(
        "130 frames, 5.2 s, of audio that nobody filmed (real: 50 held-out frames, 2.0 s); evaluated"
    )
    assert "audio, both" in shown and ">audio, both</th>" in page and "Torso at rest:" in page
    low, high = measured.result["full_frame"]["audio"]["intervals"]["psnr"]
    assert f"{low:.2f} to {high:.2f}" in page
    sources = re.findall(r'(?:src|href)="([^"]{1,60})', page)
    assert all(s.startswith(("data:image/png;base64,", "#")) or s in ("data:,", *PICTURES) for s in sources)


def test_with_the_real_tracker_on_a_synthetic_person(tmp_path: Path) -> None:
    """A late copy of the video has a late mouth, found by tracking the pictures; its blink is there, only later."""
    if not Path(os.environ.get("AVATAR_ASSETS", ""), "face_landmarker.task").is_file():
        pytest.skip("AVATAR_ASSETS with face_landmarker.task is not set")
    from avatar.eval import bootstrap, face_metrics
    from avatar.preprocess.face_tracker import FaceTracker
    from avatar.synth.make import make_subject

    subject = make_subject(tmp_path, seconds=2.4, size=160, supersample=1)
    with av.open(str(subject.video)) as file, FaceTracker() as tracker:
        frames = [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]
        points, scores = (np.stack(part) for part in zip(*map(tracker.track, frames), strict=True))
        assert all(np.array_equal(a, b) for a, b in zip(tracker.track(frames[3]), (points[3], scores[3]), strict=True))
        empty = tracker.track(np.full((160, 160, 3), 90, np.uint8))
    assert all(np.isnan(part).all() for part in empty) and np.isfinite(points).all() and scores.shape[1] == 52
    opening = face_metrics.relative_opening(points)
    late = face_metrics.lag_correlation(opening[:-2], opening[2:], [(0, len(points) - 2)], 10)
    assert late.lag == 2 and late.best_correlation == pytest.approx(1, abs=0.02)
    truth = face_metrics.relative_opening(subject.landmarks)
    correlation = bootstrap.value(bootstrap.correlation, opening, truth)
    assert correlation is not None and correlation > 0.8
    assert face_metrics.lag_correlation(opening, truth, [(0, len(points))], 10).lag in (-1, 0, 1)
    blinks = face_metrics.blink_onsets(face_metrics.eye_openness(points), 25.0, [(0, len(points))])
    assert blinks.sum() == len(subject.blinks)


@pytest.mark.parametrize("threads", [1, 3])
def test_helpers_keep_the_order_of_frames_and_pass_errors_on(threads: int, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    seen: dict[str, list[int]] = {"a": [], "b": []}

    def note(name: str, frame: int) -> None:
        time.sleep(0.002 if name == "a" else 0.0)
        seen[name].append(frame)

    with Helpers() as helpers:
        for frame in range(20):
            helpers.start([partial(note, name, frame) for name in seen])
    assert seen == {"a": list(range(20)), "b": list(range(20))}
    with pytest.raises(KeyError), Helpers() as helpers:
        helpers.start([partial(note, "c", 0)])
        helpers.start([])
