"""Face motion of other programs: read, written, and read back."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.motion import Motion, arkit_files
from avatar.motion.arkit import ARKIT, INDEX
from avatar.motion.face_channels import opening_change
from avatar.motion.statistics import MotionStats
from tests.talking import talking

EMPTY = {"format": arkit_files.FORMAT, "fps": 25, "names": ARKIT, "frames": []}


@pytest.fixture(scope="module")
def motion() -> Motion:
    return talking()[0]


@pytest.fixture(scope="module")
def profile(motion: Motion) -> MotionStats:
    return MotionStats.of(motion)


def write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("fps", [25.0, 30000 / 1001, 59.94, 12.5, 240.0])
def test_what_is_written_is_read_back(tmp_path: Path, motion: Motion, profile: MotionStats, suffix: str, fps: float):
    path = tmp_path / f"face{suffix}"
    track = motion[:100].resample(fps)
    arkit_files.save(track, path)
    back = arkit_files.load(path, profile)
    assert len(back) == len(track) and back.fps == pytest.approx(fps, rel=2e-6) and bool(back.valid.all())
    torch.testing.assert_close(back.arkit, track.arkit, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.head_rotation, track.head_rotation, atol=2e-5, rtol=0)
    torch.testing.assert_close(back.gaze, track.gaze, atol=2e-5, rtol=0)
    assert np.corrcoef(opening_change(back.face), opening_change(track.face))[0, 1] > 0.99
    assert float((back.face - track.face).abs().mean()) < 0.02


def test_angles_are_to_the_left_and_up_and_in_degrees():
    turned = arkit_files.head_rotation(np.array([[20.0, 0, 0], [0, 15.0, 0], [0, 0, 10.0], [-7.0, 5.0, 3.0]]))
    from avatar.geometry.se3 import axis_angle_to_matrix

    nose = axis_angle_to_matrix(turned) @ torch.tensor([0.0, 0.0, -1.0])
    crown = axis_angle_to_matrix(turned) @ torch.tensor([0.0, -1.0, 0.0])
    assert nose[0, 0] > 0.3 and nose[1, 1] < -0.2 and crown[2, 0] > 0.1  # x is the person's left, y down
    np.testing.assert_allclose(arkit_files.head_angles(turned)[3], [-7, 5, 3], atol=1e-4)


def test_without_eye_angles_the_coefficients_say_where_they_look(tmp_path: Path, profile: MotionStats):
    values = [0.0] * 52
    for name in ("eyeLookOutLeft", "eyeLookInRight", "eyeLookUpLeft", "eyeLookUpRight"):
        values[INDEX[name]] = 0.5
    rows = [[i / 30, *values] for i in range(5)]
    back = arkit_files.load(write(tmp_path / "a.csv", ["Time", *ARKIT], rows), profile)
    assert back.fps == 30
    np.testing.assert_allclose(np.degrees(back.gaze.numpy()), 17.5, atol=1e-4)  # half of 35 degrees
    torch.testing.assert_close(back.head_rotation, profile.rest.head_rotation.repeat(5, 1))


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_what_is_no_motion_is_not_written(tmp_path: Path, motion: Motion, suffix: str):
    with pytest.raises(AvatarError, match="gaze holds NaN"):
        arkit_files.save(motion.map(gaze=motion.gaze * np.nan), tmp_path / f"face{suffix}")
    assert not list(tmp_path.iterdir())


def test_degrees_are_to_the_left_and_up(tmp_path: Path, profile: MotionStats):
    """Whatever the app's radians beside them say."""
    names = ["HeadYawDegrees", "headPitchDegrees", "HeadRollDegrees", "EyeYawDegrees", "EyePitchDegrees", "HeadYaw"]
    rows = [[i / 25, *[0.0] * 52, 20.0, 10.0, 5.0, 8.0, 4.0, 0.1] for i in range(4)]
    back = arkit_files.load(write(tmp_path / "a.csv", ["Time", *ARKIT, *names], rows), profile)
    np.testing.assert_allclose(arkit_files.head_angles(back.head_rotation)[2], [20, 10, 5], atol=1e-4)
    np.testing.assert_allclose(np.degrees(back.gaze[2].numpy()), [8, 4], atol=1e-4)


def test_a_head_that_is_only_turned_is_turned(tmp_path: Path, profile: MotionStats, capsys):
    rows = [[i / 25, *[0.0] * 52, 20.0, 8.0] for i in range(4)]
    path = write(tmp_path / "a.csv", ["Time", *ARKIT, "HeadYawDegrees", "EyeYawDegrees"], rows)
    back = arkit_files.load(path, profile)
    assert "lacks headPitch and headRoll. Missing angles are taken as 0" in " ".join(capsys.readouterr().err.split())
    np.testing.assert_allclose(arkit_files.head_angles(back.head_rotation)[2], [20, 0, 0], atol=1e-4)
    np.testing.assert_allclose(np.degrees(back.gaze[2].numpy()), [8, 0], atol=1e-4)


def _lacks_two(rows: list[list[object]], header: list[str]) -> None:
    for name in ("jawOpen", "mouthClose"):
        at = header.index(name)
        for row in [header, *rows]:
            del row[at]


def _no_times(rows: list[list[object]], header: list[str]) -> None:
    for row in [header, *rows]:
        del row[0]


def _not_a_number(rows: list[list[object]], header: list[str]) -> None:
    rows[1][3] = "much"


def _short_line(rows: list[list[object]], header: list[str]) -> None:
    del rows[1][-1]


def _no_frames(rows: list[list[object]], header: list[str]) -> None:
    rows.clear()


def _times_go_back(rows: list[list[object]], header: list[str]) -> None:
    rows[2][0] = 0.0


def _milliseconds(rows: list[list[object]], header: list[str]) -> None:
    for i, row in enumerate(rows):
        row[0] = 40 * i


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_lacks_two, "lacks the channels jawOpen, mouthClose"),
        (_no_times, "when its frames are"),
        (_not_a_number, "line 3: eyeLookInLeft is 'much'"),
        (_short_line, "line 3 has 52 values"),
        (_no_frames, "no frames"),
        (_milliseconds, r"frames per second is 0\.025, not from 1 to 1000\. Give its Time in seconds"),
        (_times_go_back, "line 4: the times must increase, but 0.0 comes after 0.04"),
    ],
)
def test_bad_csv(tmp_path: Path, profile: MotionStats, spoil: Callable[..., None], says: str):
    header, rows = ["Time", *ARKIT], [[i / 25, *[0.0] * 52] for i in range(4)]
    spoil(rows, header)
    with pytest.raises(AvatarError, match=says) as caught:
        arkit_files.load(write(tmp_path / "bad.csv", header, rows), profile)
    assert "bad.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{}", "format"), ("[]", "wrong"), ("{", "damaged"),
        (json.dumps(EMPTY), "no frames"), (json.dumps(EMPTY | {"frames": [{"arkit": [1]}]}), "1 numbers"),
        (json.dumps(EMPTY | {"unit": "radians"}), "'radians', not in degrees"),
    ],
)  # fmt: skip
def test_bad_json(tmp_path: Path, profile: MotionStats, content: str, says: str):
    path = tmp_path / "bad.json"
    path.write_text(content)
    with pytest.raises(AvatarError, match=says):
        arkit_files.load(path, profile)


def test_a_binary_file_is_no_csv(tmp_path: Path, profile: MotionStats):
    path = tmp_path / "bad.csv"
    path.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(AvatarError, match=r"bad\.csv"):
        arkit_files.load(path, profile)
