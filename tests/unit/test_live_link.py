"""Live Link Face: what the app writes is read, and what is written its readers take for the app's."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from avatar.errors import AvatarError
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.motion import Motion, arkit_files
from avatar.motion.arkit import ARKIT
from avatar.motion.statistics import MotionStats
from tests.talking import talking

# The header of a recording of the app, by hand.
HEADER = (
    "Timecode,BlendshapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,EyeSquintLeft,"
    "EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,EyeSquintRight,"
    "EyeWideRight,JawForward,JawRight,JawLeft,JawOpen,MouthClose,MouthFunnel,MouthPucker,MouthRight,MouthLeft,"
    "MouthSmileLeft,MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,MouthDimpleRight,MouthStretchLeft,"
    "MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,MouthShrugUpper,MouthPressLeft,MouthPressRight,"
    "MouthLowerDownLeft,MouthLowerDownRight,MouthUpperUpLeft,MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,"
    "BrowOuterUpLeft,BrowOuterUpRight,CheekPuff,CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,"
    "TongueOut,HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
)
NAMES = HEADER.split(",")[2:]
# Four looks as the app writes them: its eye angles are positive to the right and down.
LOOKS = {
    "left": {"EyeLookOutLeft": 0.8, "EyeLookInRight": 0.7, "LeftEyeYaw": -0.49, "RightEyeYaw": -0.43},
    "right": {"EyeLookInLeft": 0.7, "EyeLookOutRight": 0.8, "LeftEyeYaw": 0.43, "RightEyeYaw": 0.49},
    "up": {"EyeLookUpLeft": 0.6, "EyeLookUpRight": 0.6, "LeftEyePitch": -0.36, "RightEyePitch": -0.37},
    "down": {"EyeLookDownLeft": 0.6, "EyeLookDownRight": 0.6, "LeftEyePitch": 0.37, "RightEyePitch": 0.36},
}
GAZES = {"left": (0.46, 0.0), "right": (-0.46, 0.0), "up": (0.0, 0.365), "down": (0.0, -0.365)}


@pytest.fixture(scope="module")
def person() -> MotionStats:
    return MotionStats.of(talking()[0])


def take(path: Path, frames: list[tuple[str, dict[str, float]]], separator: str = ",", end: str = "\n") -> Path:
    """A recording: time codes, and what is not zero."""
    lines = [HEADER.replace(",", separator)]
    for code, values in frames:
        lines.append(separator.join([code, "61", *(f"{values.get(name, 0.0):.10f}" for name in NAMES)]))
    path.write_bytes((end.join(lines) + end).encode())
    return path


def code(frame: int, fps: float = 60.0, part: int = 60, start: float = 40_751.2) -> str:
    """HH:MM:SS:FF.mmm, counted by hand: a clock that starts at some time of the day."""
    seconds = start + frame / fps
    fraction = f"{(seconds % 1) * part:06.3f}"
    return f"{int(seconds) // 3600:02d}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}:{fraction}"


def by_position(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Seconds [T] and 61 values [T, 61], as an importer reads them that knows nothing but positions and 60ths."""
    seconds, values = [], []
    for line in path.read_text().split("\n")[1:-1]:
        cells = line.split(",")
        hours, minutes, whole, frames = cells[0].split(":")
        seconds.append(int(hours) * 3600 + int(minutes) * 60 + int(whole) + float(frames) / 60)
        assert len(cells) == 63 and int(cells[1]) == 61
        values.append([float(cell) for cell in cells[2:]])
    return np.array(seconds), np.array(values)


@pytest.mark.parametrize("head", [False, True])
def test_eyes_look_where_they_looked(tmp_path: Path, person: MotionStats, head: bool):
    pose = {"HeadYaw": 0.2, "HeadPitch": -0.1, "HeadRoll": 0.15} if head else {}
    frames = [(code(i), LOOKS[name] | pose) for i, name in enumerate(LOOKS)]
    back = arkit_files.load(take(tmp_path / "take.csv", frames), person)
    torch.testing.assert_close(back.gaze, torch.tensor([GAZES[name] for name in LOOKS]))
    said = back.arkit[:, [ARKIT.index(n) for n in ("eyeLookOutLeft", "eyeLookUpLeft")]]
    said = said - back.arkit[:, [ARKIT.index(n) for n in ("eyeLookInLeft", "eyeLookDownLeft")]]
    assert float((said * back.gaze).sum(1).min()) > 0.1  # as the coefficients say
    if head:  # turned to the left, down, and leaning to the right shoulder; x is the left, y down
        nose = axis_angle_to_matrix(back.head_rotation)[0] @ torch.tensor([0.0, 0.0, -1.0])
        crown = axis_angle_to_matrix(back.head_rotation)[0] @ torch.tensor([0.0, -1.0, 0.0])
        assert nose[0] > 0.19 and nose[1] > 0.09 and crown[0] < -0.1
    else:  # the app writes zeros where it is told not to follow the head
        torch.testing.assert_close(back.head_rotation, person.rest.head_rotation.repeat(4, 1))


def test_files_without_the_roll_of_the_eyes_are_read(tmp_path: Path, person: MotionStats):
    path = take(tmp_path / "take.csv", [(code(i), look) for i, look in enumerate(LOOKS.values())])
    rows = [line.split(",") for line in path.read_text().splitlines()]
    kept = [i for i, name in enumerate(rows[0]) if not name.endswith("EyeRoll")]
    path.write_text("".join(",".join(row[i] for i in kept) + "\n" for row in rows))
    assert len(kept) == 61
    torch.testing.assert_close(arkit_files.load(path, person).gaze, torch.tensor([GAZES[name] for name in LOOKS]))


def test_eyes_of_other_programs_follow_their_coefficients(
    tmp_path: Path, person: MotionStats, capsys: pytest.CaptureFixture[str]
):
    """Such as write angles to the left and up, or in degrees."""
    for flip, unit in ((-1, 1.0), (1, 180 / np.pi), (-1, 180 / np.pi)):
        turned = {name: {k: v * (flip * unit if "Eye" in k[4:] and "Look" not in k else 1) for k, v in look.items()}
                  for name, look in LOOKS.items()}  # fmt: skip
        frames = [(code(i), turned[name]) for i, name in enumerate(LOOKS)]
        back = arkit_files.load(take(tmp_path / "take.csv", frames), person)
        torch.testing.assert_close(back.gaze, torch.tensor([GAZES[name] for name in LOOKS]))
        told = " ".join(capsys.readouterr().err.split())
        assert ("the other way round" in told) == (flip < 0) and ("as degrees" in told) == (unit > 1)


def test_a_lost_face_does_not_make_degrees_of_radians(tmp_path: Path, person: MotionStats):
    frames = [(code(i), {"HeadYaw": 2.0 if i == 40 else 0.3}) for i in range(80)]
    back = arkit_files.load(take(tmp_path / "take.csv", frames), person)
    assert arkit_files.head_angles(back.head_rotation)[0, 0] == pytest.approx(np.degrees(0.3), abs=1e-3)


def test_eyes_that_were_not_measured_follow_their_coefficients(tmp_path: Path, person: MotionStats):
    frames = [(code(i), {k: v for k, v in look.items() if "Look" in k}) for i, look in enumerate(LOOKS.values())]
    back = arkit_files.load(take(tmp_path / "take.csv", frames), person)
    expected = torch.tensor([[0.75, 0.0], [-0.75, 0.0], [0.0, 0.6], [0.0, -0.6]]) * np.radians(35)
    torch.testing.assert_close(back.gaze, expected)


@pytest.mark.parametrize("fps", [24, 25, 30000 / 1001, 30, 50, 60])
def test_the_file_is_the_app_s(tmp_path: Path, person: MotionStats, fps: float):
    track = person.track[:60].resample(fps)
    path = tmp_path / "face.csv"
    arkit_files.save(track, path)
    assert path.read_text().split("\n")[0] == HEADER
    seconds, values = by_position(path)
    np.testing.assert_allclose(np.diff(seconds), 1 / fps, atol=2e-5)
    np.testing.assert_allclose(seconds, np.arange(len(track)) / fps, atol=1e-5)
    for at, name in ((15, "jawRight"), (16, "jawLeft"), (21, "mouthRight"), (22, "mouthLeft"), (17, "jawOpen")):
        np.testing.assert_allclose(values[:, at], track.arkit[:, ARKIT.index(name)], atol=1e-9)
    head = np.radians(arkit_files.head_angles(track.head_rotation)) * [1, 1, -1]
    np.testing.assert_allclose(values[:, 52:55], head, atol=1e-9)
    eyes = np.concatenate([-track.gaze.numpy(), np.zeros((len(track), 1))], 1)
    np.testing.assert_allclose(values[:, 55:61], np.tile(eyes, 2), atol=1e-9)
    assert "-0.0000000000" not in path.read_text()
    back = arkit_files.load(path, person)
    assert back.fps == pytest.approx(fps, rel=1e-9) and len(back) == len(track)
    torch.testing.assert_close(back.head_rotation, track.head_rotation, atol=1e-6, rtol=0)
    torch.testing.assert_close(back.gaze, track.gaze, atol=1e-6, rtol=0)
    torch.testing.assert_close(back.arkit, track.arkit, atol=1e-6, rtol=0)


def ramp(count: int, name: str = "JawOpen") -> list[dict[str, float]]:
    return [{name: i / count, "EyeBlinkLeft": 0.5} for i in range(count)]


@pytest.mark.parametrize(
    ("fps", "part"),
    [(60.0, 60), (59.9044, 60), (30.0041, 60), (30.0, 30), (29.97, 30), (25.0, 60)],
)
def test_dropped_frames_are_interpolated(
    tmp_path: Path, person: MotionStats, capsys: pytest.CaptureFixture[str], fps: float, part: int
):
    frames = [(code(i, fps, part), values) for i, values in enumerate(ramp(200))]
    gone = {40, 41, 42, 43, 44, 90, 150, 151}
    path = take(tmp_path / "take.csv", [frame for i, frame in enumerate(frames) if i not in gone])
    back = arkit_files.load(path, person)
    assert len(back) == 200 and back.fps == pytest.approx(fps, rel=2e-5)
    np.testing.assert_allclose(back.arkit[:, ARKIT.index("jawOpen")], np.arange(200) / 200, atol=2e-5)
    assert set(np.flatnonzero(~back.valid.numpy())) == gone
    assert "8 of 200 frames are missing" in " ".join(capsys.readouterr().err.split())
    arkit, measured, rate = arkit_files.coefficients(path)
    assert len(arkit) == 200 and rate == back.fps and set(np.flatnonzero(~measured)) == gone


def test_frames_without_a_face_are_interpolated(tmp_path: Path, person: MotionStats):
    """The app counts 0 channels where it lost the face, and may leave them out."""
    path = take(tmp_path / "take.csv", [(code(i), values) for i, values in enumerate(ramp(100))])
    lines = path.read_text().split("\n")
    for row, kept in ((1, 2), (2, 2), (51, 2), (52, 1), (53, 63), (99, 2), (100, 2)):
        cells = lines[row].split(",")[:kept]
        lines[row] = ",".join([*cells[:1], *["0"] * (kept - 1)])
    path.write_text("\n".join(lines))
    back = arkit_files.load(path, person)
    assert len(back) == 100 and back.fps == 60 and int((~back.valid).sum()) == 7
    expected = np.clip(np.arange(100), 2, 97) / 100  # held at the ends
    np.testing.assert_allclose(back.arkit[:, ARKIT.index("jawOpen")], expected, atol=1e-5)


@pytest.mark.parametrize("lost", [range(100), range(200, 300), range(100, 200)])
def test_a_face_that_comes_late_or_leaves_early_is_held(tmp_path: Path, person: MotionStats, lost: range):
    """More than a second in the middle cannot be bridged."""
    path = take(tmp_path / "take.csv", [(code(i), values) for i, values in enumerate(ramp(300))])
    lines = path.read_text().split("\n")
    for i in lost:
        lines[i + 1] = ",".join([lines[i + 1].split(",")[0], *["0"] * 62])
    path.write_text("\n".join(lines))
    if lost.start == 100:
        with pytest.raises(AvatarError, match=r"line 202: 1\.7 s are missing"):
            arkit_files.load(path, person)
        return
    back = arkit_files.load(path, person)
    assert len(back) == 300 and np.flatnonzero(~back.valid.numpy()).tolist() == list(lost)
    expected = np.clip(np.arange(300), 100 if lost.start == 0 else 0, 299 if lost.start == 0 else 199) / 300
    np.testing.assert_allclose(back.arkit[:, ARKIT.index("jawOpen")], expected, atol=1e-5)


def test_a_recording_that_was_cut_off_is_read(tmp_path: Path, person: MotionStats, capsys: pytest.CaptureFixture[str]):
    path = take(tmp_path / "take.csv", [(code(i), values) for i, values in enumerate(ramp(80))])
    path.write_bytes(path.read_bytes()[:-300])
    assert len(arkit_files.load(path, person)) == 79
    assert "last line is cut off" in " ".join(capsys.readouterr().err.split())


def test_a_head_is_interpolated_across_half_a_turn(tmp_path: Path, person: MotionStats):
    """A phone that lies on its head: roll goes from pi to -pi."""
    rolls = [3.05, 3.10, 3.1416, -3.10, -3.05]
    frames = [(code(i), {"HeadRoll": r, "HeadYaw": 0.1}) for i, r in enumerate(rolls) if i != 2]
    frames += [(code(i), {"HeadRoll": -3.05, "HeadYaw": 0.1}) for i in range(5, 9)]
    back = arkit_files.load(take(tmp_path / "take.csv", frames), person)
    assert abs(float(arkit_files.head_angles(back.head_rotation)[2, 2])) > 179


def test_an_uneven_recording_keeps_its_time(tmp_path: Path, person: MotionStats):
    rng = np.random.default_rng(0)
    times = np.arange(300) / 30 + rng.uniform(0, 0.02, 300)
    frames = [(code(0, start=36_000 + t), {"JawOpen": t / 20}) for t in times]
    back = arkit_files.load(take(tmp_path / "take.csv", frames), person)
    assert back.fps == 30
    expected = (times[0] + np.arange(len(back)) / 30) / 20
    np.testing.assert_allclose(back.arkit[:, ARKIT.index("jawOpen")], expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["bom", "utf-16", "crlf", "semicolons", "tabs", "commas", "quoted", "sep", "empty"])
def test_what_spreadsheets_make_of_it_is_read(tmp_path: Path, person: MotionStats, kind: str):
    path = tmp_path / "take.csv"
    plain = arkit_files.load(take(path, [(code(i), values) for i, values in enumerate(ramp(80))]), person)
    text = path.read_text()
    semicolons = text.replace(",", ";")
    written = {
        "bom": ("\ufeff" + text).encode(),
        "utf-16": text.encode("utf-16"),
        "crlf": text.replace("\n", "\r\n").encode(),
        "semicolons": semicolons.encode(),
        "tabs": text.replace(",", "\t").replace(".", ",").encode(),
        "commas": semicolons.replace(".", ",").encode(),
        "quoted": ('"' + text.strip().replace(",", '","').replace("\n", '"\n"').replace("0.", "0,") + '"\n').encode(),
        "sep": ("sep=;\r\n" + semicolons.replace("\n", "\r\n")).encode(),
        "empty": ("\n" + text.replace("\n", ",,\n") + "\n,,,\n  \n").encode(),
    }[kind]
    path.write_bytes(written)
    back = arkit_files.load(path, person)
    assert back.fps == plain.fps and len(back) == 80
    torch.testing.assert_close(back.arkit, plain.arkit)


def test_per_cent_are_read(tmp_path: Path, person: MotionStats, capsys: pytest.CaptureFixture[str]):
    frames = [(code(i), {"JawOpen": v}) for i, v in enumerate((0.0, 40.0, 100.0))]
    back = arkit_files.load(take(tmp_path / "take.csv", frames), person)
    np.testing.assert_allclose(back.arkit[:, ARKIT.index("jawOpen")], [0, 0.4, 1])
    assert "per cent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([(code(i), {}) for i in (0, 1, 2, 62, 63)], r"line 5: 1\.0 s are missing, from .* to "),
        ([(code(i), {}) for i in (0, 1, 2, 1, 4)], "line 5: the times must increase, but "),
        ([("12:00:00:00.000", {})] * 4, "times of its frames are all the same"),
        ([(f"12:00:00:00.{i % 2}.0", {}) for i in range(4)], "line 2: the Timecode '12:00:00:00.0.0' is not HH"),
        ([(f"12:61:00:0{i}", {}) for i in range(4)], "line 2: the Timecode '12:61:00:00' is not HH"),
        ([(f"12:00:00:{i}00000", {}) for i in range(4)], "counts more frames in a second"),
        ([(code(i), {"JawOpen": 250.0}) for i in range(4)], "jawOpen goes up to 250; coefficients go from 0 to 1"),
        ([(code(i), {"JawOpen": np.nan}) for i in range(4)], "line 2: JawOpen is 'nan', not a number"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, person: MotionStats, frames: list[tuple[str, dict[str, float]]], says: str
):
    with pytest.raises(AvatarError, match=rf"take\.csv.*{says}"):
        arkit_files.load(take(tmp_path / "take.csv", frames), person)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (".", ",", "line 2 has 125 values, the header has 63 names. Write decimal points, or"),
        ("0.5000000000", "1.234,5", "line 2: EyeBlinkLeft is '1.234,5', not a number"),
        ("0.5000000000", "", "line 2: EyeBlinkLeft is '', not a number"),
        (",JawForward", ",", "its column 17 has no name"),
        ("BlendshapeCount", "JawOpen", "names the channel 'JawOpen' more than once"),
        (",61,", ",0,", None),  # another program that counts nothing
        (",61,", ",0\n", "no frame in which a face was tracked"),
    ],
)
def test_damaged_tables_are_refused(tmp_path: Path, person: MotionStats, old: str, new: str, says: str | None):
    frames = [(code(i), values) for i, values in enumerate(ramp(4))]
    path = take(tmp_path / "take.csv", frames, ";" if "," in new and new != "," and "0" not in new[:1] else ",")
    text = path.read_text()
    if new == ",0\n":
        text = "\n".join([HEADER, *(f"{code(i)},0" for i in range(4))])
    path.write_text(text.replace(old, new))
    if says is None:
        assert len(arkit_files.load(path, person)) == 4
        return
    with pytest.raises(AvatarError, match=says):
        arkit_files.load(path, person)


def test_the_writer_writes_what_csv_readers_read(tmp_path: Path):
    track = Motion.zeros(3, 25.0)
    arkit_files.save(track, tmp_path / "face.csv")
    with open(tmp_path / "face.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert [row[0] for row in rows[1:]] == ["00:00:00:00.000", "00:00:00:02.400", "00:00:00:04.800"]
    assert {len(row) for row in rows} == {63} and rows[1][2] == "0.0000000000"
