"""Face motion in the files of other programs: ARKit coefficients as CSV (as Live Link Face writes it) and JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from avatar import log
from avatar.checks import Record, frame_rate, number, read_text, reading
from avatar.errors import AvatarError
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.motion.arkit import ARKIT, INDEX
from avatar.motion.arkit_map import FaceMap
from avatar.motion.motion import Motion
from avatar.motion.statistics import MotionStats
from avatar.paths import read_json, write_json
from avatar.writing import atomic_file

FORMAT = "avatar-arkit-1"
OPTIONAL = {"tongueOut"}  # younger than the others, and hardly a tracker measures it
ANGLES = ("headYaw", "headPitch", "headRoll", "eyeYaw", "eyePitch")  # positive: to the person's left, up
# Angles that Live Link Face writes, in radians; the eyes' are averaged.
_RADIANS = {"headyaw": 0, "headpitch": 1, "headroll": 2, "lefteyeyaw": 3, "righteyeyaw": 3, "lefteyepitch": 4,
            "righteyepitch": 4}  # fmt: skip
_SILENT = {"timecode", "blendshapecount", "time", "lefteyeroll", "righteyeroll"}
_LOOK_FULL = 30.0  # degrees that an eyeLook coefficient of 1 stands for, where a file has no eye angles
_MOST = 1e6  # of any number in a file: seconds, degrees or coefficients
_RATES = (24, 25, 30, 48, 50, 60, 100, 120)


def save(track: Motion, path: Path) -> None:
    """Write a track as ``.csv`` or ``.json``.

    Coefficients have Apple's names; head and eye angles are in degrees, positive to the person's left and up, tilt
    positive to the left shoulder. The CSV begins like one of Live Link Face, with a time code (HH:MM:SS:FF.mmm).
    """
    angles = np.concatenate([head_angles(track.head_rotation), np.degrees(track.gaze.numpy())], 1)
    if path.suffix.lower() == ".json":
        numbers = zip(track.arkit.numpy().astype(float).round(5).tolist(), angles.round(4).tolist(), strict=True)
        frames = [{"time": round(i / track.fps, 6), "arkit": a, "angles": b} for i, (a, b) in enumerate(numbers)]
        content = {"format": FORMAT, "fps": track.fps, "names": ARKIT, "angles": ANGLES, "unit": "degrees"}
        return write_json(path, content | {"frames": frames})
    with atomic_file(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        names = [*map(_pascal, ARKIT), *(f"{_pascal(name)}Degrees" for name in ANGLES)]
        writer.writerow(["Timecode", "BlendshapeCount", *names, "Time"])
        for i, (row, turn) in enumerate(zip(track.arkit.tolist(), angles.tolist(), strict=True)):
            values = [*(f"{v:.5f}" for v in row), *(f"{v:.4f}" for v in turn)]
            writer.writerow([time_code(i, track.fps), len(ARKIT), *values, f"{i / track.fps:.6f}"])


def load(path: Path, person: MotionStats) -> Motion:
    """Read a ``.csv`` or ``.json`` of coefficients as motion of a person.

    Names are matched whatever their capitals. Face channels are what the coefficients mean on this person's face; the
    head is at the person's mean place.

    Raises:
        AvatarError: The file is missing, damaged, or lacks channels; unknown ones are named and left out.
    """
    path = Path(path)
    table, fps = _read(path)
    return _motion(path, table, fps, person)


def coefficients(path: Path) -> tuple[Float32[np.ndarray, "T 52"], float]:
    """What a ``.csv`` or ``.json`` says about the face, and nothing about whose it is.

    Returns:
        [T, 52] float32, 0 to 1, NaN in the columns of channels that the file lacks; frames per second.

    Raises:
        AvatarError: The file is missing or damaged, or none of its channels is ARKit's.
    """
    path = Path(path)
    table, fps = _read(path)
    arkit, _ = _sorted_out(path, table)
    if np.isnan(arkit).all():
        raise AvatarError(f"{path} has no channel of ARKit's.")
    return arkit, fps


def _read(path: Path) -> tuple[dict[str, np.ndarray], float]:
    """Columns by name, and frames per second."""
    if not path.is_file():
        raise AvatarError(f"The motion file {path} does not exist.")
    return _read_json(path) if path.suffix.lower() == ".json" else _read_csv(path)


def head_angles(rotation: Float[Tensor, "T 3"]) -> Float[np.ndarray, "T 3"]:
    """Yaw, pitch and roll in degrees, [T, 3], of head rotations [T, 3]; roll first, then pitch, then yaw."""
    m = axis_angle_to_matrix(rotation.double()).numpy()
    yaw = np.arctan2(m[:, 0, 2], m[:, 2, 2])
    pitch = np.arcsin(np.clip(-m[:, 1, 2], -1, 1))
    roll = np.arctan2(m[:, 1, 0], m[:, 1, 1])
    return np.degrees(np.stack([-yaw, -pitch, roll], 1))


def head_rotation(angles: Float[np.ndarray, "T 3"]) -> Float[Tensor, "T 3"]:
    """The inverse of :func:`head_angles`."""
    yaw, pitch, roll = torch.from_numpy(np.radians(np.asarray(angles, np.float64))).unbind(1)
    zero = torch.zeros_like(yaw)
    about = [torch.stack(axis, 1) for axis in ((zero, -yaw, zero), (-pitch, zero, zero), (zero, zero, roll))]
    turn, nod, tilt = map(axis_angle_to_matrix, about)
    return matrix_to_axis_angle(turn @ nod @ tilt).float()


def time_code(frame: int, fps: float) -> str:
    """HH:MM:SS:FF.mmm; frames of the whole second, and thousandths of a frame where the rate is not a whole number."""
    seconds = frame / fps + 1e-9
    whole = math.floor(seconds)
    part = max(0.0, (seconds - whole) * fps)
    thousandths = min(999, round((part - math.floor(part + 1e-4)) * 1000)) if fps != round(fps) else 0
    clock = f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}"
    return f"{clock}:{math.floor(part + 1e-4):02d}.{max(thousandths, 0):03d}"


def _pascal(name: str) -> str:
    return name[0].upper() + name[1:]


def _read_csv(path: Path) -> tuple[dict[str, np.ndarray], float]:
    text = read_text(path, "a CSV file")
    with reading(path, "a CSV file"):
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    if len(rows) < 2:
        raise AvatarError(f"{path} holds no frames.")
    header, body = [name.strip() for name in rows[0]], rows[1:]
    for line, row in enumerate(body, 2):
        if len(row) != len(header):
            raise AvatarError(f"{path}, line {line} has {len(row)} values, the header has {len(header)} names.")
    text_of = dict(zip(_different(path, header), zip(*body, strict=True), strict=True))
    table = {name: _numbers(path, name, column) for name, column in text_of.items() if name.lower() != "timecode"}
    lower = {name.lower(): name for name in header}
    if "time" in lower:
        return table, _rate(path, np.diff(table[lower["time"]]))
    if "timecode" in lower:
        return table, _time_code_rate(path, text_of[lower["timecode"]])
    raise AvatarError(f"{path} does not say when its frames are.", fix="Add a column Time, in seconds.")


def _read_json(path: Path) -> tuple[dict[str, np.ndarray], float]:
    content = Record(read_json(path, "Correct the file or its path."), path)
    if content.value("format", None) != FORMAT:
        raise AvatarError(f"{path} is not a file of ARKit coefficients:", why="format is missing or wrong.")
    names = [*content.names("names"), *(f"{name}Degrees" for name in content.names("angles", []))]
    rows = []
    for i, frame in enumerate(content.records("frames")):
        row = [*frame.list("arkit"), *frame.list("angles", [])]
        if len(row) != len(names):
            raise AvatarError(f"{path}: frame {i} has {len(row)} numbers for {len(names)} names.")
        rows.append(
            [number(v, f"{path}, frame {i}: {name}", -_MOST, _MOST) for name, v in zip(names, row, strict=True)]
        )
    if not rows:
        raise AvatarError(f"{path} holds no frames.")
    table = np.array(rows, np.float64).reshape(len(rows), len(names))
    return dict(zip(_different(path, names), table.T, strict=True)), content.frame_rate()


def _different(path: Path, names: Sequence[str]) -> Sequence[str]:
    """The names, if no two are the same."""
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise AvatarError(f"{path} names the channel {name!r} more than once.")
        seen.add(name.lower())
    return names


def _numbers(path: Path, name: str, column: Sequence[str]) -> np.ndarray:
    out = np.empty(len(column))
    for i, value in enumerate(column):
        try:
            out[i] = float(value)
        except ValueError:
            out[i] = np.nan
        if not abs(out[i]) <= _MOST:  # false for NaN
            raise AvatarError(f"{path}, line {i + 2}: {name} is {value[:80]!r}, not a number to {_MOST:g}.")
    return out


def _rate(path: Path, steps: np.ndarray) -> float:
    if len(steps) == 0:
        return 25.0
    step = float(np.mean(steps))
    if not (step > 0 and np.abs(steps - step).max() <= 0.5 * step):
        raise AvatarError(f"{path}: the times of the frames must increase evenly.")
    fps = frame_rate(1 / max(step, 1e-9), f"{path}: the number of frames per second")
    return float(round(fps)) if abs(fps - round(fps)) < 0.005 else fps


def _time_code_rate(path: Path, codes: Sequence[str]) -> float:
    try:
        parts = np.array([[float(v) for v in code.replace(";", ":").split(":")] for code in codes])
        hours, minutes, seconds, frames = parts.T
        if not (np.abs(parts) <= _MOST).all():  # false for NaN
            raise ValueError
    except ValueError:
        raise AvatarError(f"{path}: a Timecode is not HH:MM:SS:FF.", fix="Add a column Time, in seconds.") from None
    nominal = next((rate for rate in _RATES if rate > frames.max()), None)
    if nominal is None or (len(codes) > nominal and frames.max() < nominal - 2):
        raise AvatarError(f"{path}: its time codes fit no frame rate.", fix="Add a column Time, in seconds.")
    return _rate(path, np.diff(3600 * hours + 60 * minutes + seconds + frames / nominal))


def _sorted_out(path: Path, table: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Coefficients [T, 52], 0 to 1, NaN in the columns that are not there; and angles [T] in degrees by their number
    in `ANGLES`."""
    if not table:
        raise AvatarError(f"{path} has no channel.")
    known = {name.lower(): name for name in ARKIT}
    arkit = np.full((len(next(iter(table.values()))), len(ARKIT)), np.nan, np.float32)
    angles: dict[int, list[np.ndarray]] = {}
    strange = []
    for name, values in table.items():
        lower = name.lower()
        if lower.endswith(("_l", "_r")):  # Apple's names as other programs write them: eyeBlink_L
            lower = lower[:-2] + ("left" if lower.endswith("_l") else "right")
        if lower in known:
            arkit[:, INDEX[known[lower]]] = values.clip(0, 1)
        elif lower in _RADIANS:
            angles.setdefault(_RADIANS[lower], []).append(np.degrees(values))
        elif lower.removesuffix("degrees") in [a.lower() for a in ANGLES]:
            index = [a.lower() for a in ANGLES].index(lower.removesuffix("degrees"))
            angles[index] = [values]
        elif lower not in _SILENT:
            strange.append(name)
    if strange:
        log.warn(f"{path}: unknown channels are left out: {', '.join(strange)}.")
    return arkit, {k: np.mean(v, 0) for k, v in angles.items()}


def _motion(path: Path, table: dict[str, np.ndarray], fps: float, person: MotionStats) -> Motion:
    arkit, turns = _sorted_out(path, table)
    missing = [name for name in ARKIT if np.isnan(arkit[:, INDEX[name]]).all()]
    needed = [name for name in missing if name not in OPTIONAL]
    if needed:
        more = f" and {len(needed) - 5} more" if len(needed) > 5 else ""
        raise AvatarError(f"{path} lacks the channels {', '.join(needed[:5])}{more}.",
                          fix="Fill them with zeros if they were not measured.")  # fmt: skip
    arkit[:, [INDEX[name] for name in missing]] = 0
    values = torch.from_numpy(arkit)
    tensors: dict[str, Any] = {"arkit": values, "face": FaceMap.fit(person.track)(values)}
    still = person.rest[torch.zeros(len(arkit), dtype=torch.long)]
    if {0, 1, 2} <= set(turns):
        tensors["head_rotation"] = head_rotation(np.stack([turns[k] for k in range(3)], 1))
    tensors["gaze"] = torch.from_numpy(np.radians(_gaze(turns, arkit)).astype(np.float32))
    return replace(still.map(**tensors), fps=fps)


def _gaze(turns: dict[int, np.ndarray], arkit: np.ndarray) -> np.ndarray:
    """[T, 2] degrees."""
    if 3 in turns and 4 in turns:
        return np.stack([turns[3], turns[4]], 1)

    def look(*names: str) -> np.ndarray:
        return np.mean([arkit[:, INDEX[f"eyeLook{name}"]] for name in names], 0)

    yaw = look("OutLeft", "InRight") - look("InLeft", "OutRight")
    pitch = look("UpLeft", "UpRight") - look("DownLeft", "DownRight")
    return _LOOK_FULL * np.stack([yaw, pitch], 1)
