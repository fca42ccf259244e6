"""The whole measurement on drawn faces: a stub tracker reads the mouth off the picture, so nothing is assumed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import av
import numpy as np
import pytest
import torch

from avatar.environment import environment, peak_memory
from avatar.eval import command, pictures, report
from avatar.geometry.cameras import Camera
from avatar.motion import Motion
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import LIPS_INNER, LIPS_OUTER

SIZE, FPS, FRAMES, FIRST = 96, 25.0, 120, 30


def draw(opening: float, brightness: int = 170) -> np.ndarray:
    """A face whose dark mouth is ``opening`` pixels high."""
    y, x = np.mgrid[:SIZE, :SIZE]
    image = np.full((SIZE, SIZE, 3), 60, np.uint8)
    image[((x - 48) / 30) ** 2 + ((y - 48) / 40) ** 2 < 1] = (brightness, 130, 110)
    image[70 : 70 + round(opening), 36:60] = 0
    return image


class PictureTracker:
    """Measures the drawn mouth: the number of black rows under the lip."""

    def landmarks(self, image: np.ndarray) -> np.ndarray:
        points = np.zeros((478, 2), np.float32)
        points[list(LIPS_OUTER + LIPS_INNER)] = (48, 70)
        points[[14, 87, 317], 1] += (image[:, 48].mean(-1) < 20).sum()
        points[33], points[263] = (30, 40), (66, 40)
        return points


def talking() -> np.ndarray:
    t = np.arange(FRAMES + 20) / FPS
    return 12 * np.abs(np.sin(6 * t) * np.sin(1.3 * t + 0.3))


class FakePerson:
    """What eval reads of a PersonDataset."""

    camera_moves = False

    def __init__(self, folder: Path) -> None:
        self.folder, self.width, self.height, self.fps = folder, SIZE, SIZE, FPS
        self.num_frames, self.test_start, self.segments = FRAMES, FIRST, [(0, 70), (70, FRAMES)]
        self.info: dict[str, Any] = {"av_offset_frames": 0}
        self.audio_path = folder / "no-sound.wav"
        self.opening = talking()[:FRAMES]
        tracker = PictureTracker()
        self.landmarks = np.stack([tracker.landmarks(self.image(i)) for i in range(FRAMES)])
        self.motion = motion_of(self.opening)

    def image(self, index: int) -> np.ndarray:
        return draw(self.opening[index])

    def masks(self, index: int) -> dict[str, np.ndarray]:
        face = np.zeros((SIZE, SIZE), np.float32)
        face[8:88, 18:78] = 1
        zero = np.zeros_like(face)
        return {"face": face, "lips": zero, "mouth": zero, "eyes": zero}


def motion_of(opening: np.ndarray) -> Motion:
    motion = Motion.zeros(len(opening), FPS)
    motion.arkit[:, INDEX["jawOpen"]] = torch.from_numpy(opening / 100).float()
    return motion


class FakeAvatar:
    camera = Camera.source(200.0, SIZE / 2, SIZE / 2, SIZE, SIZE)
    fps, head_pivot = FPS, torch.tensor([0.0, 0.0, 50.0])
    info: ClassVar = {"method": "drawn", "gaussians": 3, "bytes": 1000}

    def render(self, camera: Camera, motion: Motion, index: int, background=None) -> torch.Tensor:
        return torch.from_numpy(draw(float(motion.arkit[index, INDEX["jawOpen"]]) * 100, brightness=160))


def measure(tmp_path: Path, drives: dict[str, Iterable[Motion]], save: Path | None = None) -> dict[str, Any]:
    person: Any = FakePerson(tmp_path)
    avatar: Any = FakeAvatar()
    return command.evaluate(avatar, person, drives, FIRST, FRAMES, PictureTracker(), None, save)


def test_drives_are_told_apart(tmp_path: Path) -> None:
    opening = talking()
    late = motion_of(opening[FIRST - 2 : FRAMES - 2])
    result = measure(
        tmp_path,
        {
            "tracked": [motion_of(opening[FIRST:FRAMES])],
            "audio": [late[:13], late[13:]],
            "mute": [motion_of(opening[FIRST:FRAMES] * 0)],
        },
    )
    tracked, audio, mute = (result["drives"][n] for n in ("tracked", "audio", "mute"))
    assert tracked["mouth_lag_frames"] == 0 and tracked["mouth_correlation"] > 0.999 and tracked["lmd"] < 0.01
    assert audio["mouth_lag_frames"] == 2 and audio["mouth_correlation"] < 0.95 < audio["mouth_best_correlation"]
    assert audio["lmd"] > 10 * tracked["lmd"] and audio["mouth_range"] == pytest.approx(1, abs=0.15)
    assert mute["mouth_correlation"] is None and mute["mouth_range"] == 0
    assert mute["psnr_face"] < tracked["psnr_face"] < 40
    assert tracked["lpips"] is None
    assert set(result["real"]) == {"pose_jitter", "blinks", "frames_without_face"}


def test_videos_and_pictures_are_saved(tmp_path: Path) -> None:
    opening = talking()[FIRST:FRAMES]
    save = tmp_path / "out"
    measure(tmp_path, {"audio": [motion_of(opening)], "tracked": [motion_of(opening)]}, save)
    frames = {}
    for path in save.glob("*.mp4"):
        with av.open(str(path)) as file:
            frames[path.name] = (sum(1 for _ in file.decode(video=0)), file.streams.video[0].width)
    count = FRAMES - FIRST
    assert frames == {
        "pred.mp4": (count, SIZE),
        "pred_tracked.mp4": (count, SIZE),
        "real.mp4": (count, SIZE),
        "side_by_side.mp4": (count, 3 * SIZE),
    }
    assert {p.name for p in save.iterdir()} == {*frames, "contact.jpg", "mouth.png"}


def test_a_drive_that_ends_early_is_not_silently_short(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended after 5 of 90"):
        measure(tmp_path, {"audio": [motion_of(talking()[:5])]}, tmp_path / "out")
    assert not list(tmp_path.rglob("*.mp4"))


def test_the_sheet_shows_open_and_closed_mouths() -> None:
    opening = talking()
    chosen = pictures.pick_frames(opening, 8)
    assert len(chosen) == 8 and chosen == sorted(chosen)
    assert min(opening[chosen[1::2]]) > max(opening[chosen[0::2]])
    points = PictureTracker().landmarks(draw(5))
    x0, y0, x1, y1 = pictures.mouth_box(points, (SIZE, SIZE))
    assert x1 - x0 == y1 - y0 and 0 <= x0 < 48 < x1 <= SIZE and 0 <= y0 < 70 < y1 <= SIZE
    assert pictures.mouth_box(points * np.nan, (SIZE, SIZE))[2] <= SIZE


def test_the_report_is_json_and_a_table(tmp_path: Path) -> None:
    from rich.console import Console

    result = measure(tmp_path, {"tracked": [motion_of(talking()[FIRST:FRAMES])]})
    result |= {
        "frames": FRAMES - FIRST,
        "speed": {"render_fps": 20.0, "end_to_end_fps": 12.5, "with_speech": True},
        "notes": ["No sound."],
    }
    result |= {"model": FakeAvatar.info, "peak_memory_bytes": peak_memory(), **environment()}
    text = json.dumps(result, allow_nan=False)
    assert json.loads(text)["hardware"]["cores"] >= 1
    assert result["peak_memory_bytes"] > 20e6
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(report.table(result))
    shown = console.export_text()
    assert "PSNR, face (dB)" in shown and "driven by tracked" in shown and "real" in shown
    assert any("12.5 frames/s" in line for line in report.summary_lines(result))


def test_with_the_real_tracker_on_a_synthetic_person(tmp_path: Path) -> None:
    """A late copy of the video has a late mouth, found by tracking the pictures; its blink is there, only later."""
    if not Path(os.environ.get("AVATAR_ASSETS", ""), "face_landmarker.task").is_file():
        pytest.skip("AVATAR_ASSETS with face_landmarker.task is not set")
    from avatar.eval import metrics
    from avatar.eval.retrack import FaceTracker
    from avatar.synth.make import make_subject

    subject = make_subject(tmp_path, seconds=2.4, size=160, supersample=1)
    with av.open(str(subject.video)) as file, FaceTracker() as tracker:
        frames = [f.to_ndarray(format="rgb24") for f in file.decode(video=0)]
        points = np.stack([tracker.landmarks(f) for f in frames])
        empty = tracker.landmarks(np.full((160, 160, 3), 90, np.uint8))
    assert np.isnan(empty).all() and np.isfinite(points).all()
    real, late = points[2:], points[:-2]
    result = metrics.face_metrics(late, real, 160, 25.0, [(0, len(real))])
    assert result["mouth_lag_frames"] == 2 and result["mouth_best_correlation"] == pytest.approx(1, abs=0.02)
    truth = metrics.face_metrics(points, subject.landmarks, 160, 25.0, [(0, len(points))])
    assert truth["mouth_correlation"] is not None and truth["mouth_correlation"] > 0.8
    assert truth["mouth_lag_frames"] in (-1, 0, 1)
    assert truth["blinks"] == len(subject.blinks)
