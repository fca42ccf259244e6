"""Face motion in the files of other programs: ARKit coefficients as CSV (as Live Link Face writes it) and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from avatar import log
from avatar.checks import Record, number
from avatar.errors import AvatarError
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.motion.arkit import ARKIT, INDEX
from avatar.motion.arkit_csv import MOST, Table, different, read_csv, write_csv
from avatar.motion.arkit_map import FaceMap
from avatar.motion.motion import Motion
from avatar.motion.statistics import MotionStats
from avatar.motion.timecode import time_code
from avatar.paths import read_json, write_json

FORMAT = "avatar-arkit-1"
UNIT = "degrees"
OPTIONAL = {"tongueOut"}  # younger than the others, and hardly a tracker measures it
ANGLES = ("headYaw", "headPitch", "headRoll", "eyeYaw", "eyePitch")  # positive: to the person's left, up

# Angles of Live Link Face, in radians, in its order: the angle of ours, and the sign of theirs. Recordings show that
# eyes look to the person's right and down, and heads turn to the left and up, as the eyes go against the head. That
# heads lean to the right shoulder is what other programs write and read. The roll of the eyes is not used.
_RADIANS: dict[str, tuple[int, int] | None] = {
    "HeadYaw": (0, 1), "HeadPitch": (1, 1), "HeadRoll": (2, -1),
    "LeftEyeYaw": (3, -1), "LeftEyePitch": (4, -1), "LeftEyeRoll": None,
    "RightEyeYaw": (3, -1), "RightEyePitch": (4, -1), "RightEyeRoll": None,
}  # fmt: skip
_HEAD, _EYES = (0, 1, 2), (3, 4)
_LOOK_FULL = 35.0  # degrees that an eyeLook coefficient of 1 stands for; of Live Link Face
_MOST_RADIANS = (1.6, 3.2)  # of yaw or pitch: no face is seen beyond the first, and no angle goes beyond the second
_STRAY = 0.05  # of the frames may be beyond the first, where a tracker loses the face; where more are, it is degrees
_MOST_COEFFICIENT = (10.0, 100.5)  # beyond the first, coefficients are per cent; beyond the second, they are nothing
_MOVES = (0.5, 0.02)  # standard deviation of an angle (degrees) and of its coefficients, from which they are compared
_CONTRADICT = -0.7  # correlation of an angle with its coefficients, below which its sign is another program's


def save(track: Motion, path: Path) -> None:
    """Write a track as ``.csv`` or ``.json``.

    The CSV is that of Live Link Face: 63 columns, its names in its order, angles in radians with its signs, and time
    codes in 60ths of a second. The JSON has Apple's order, and angles in degrees, positive to the person's left, up,
    and to the left shoulder.

    Raises:
        AvatarError: The track holds numbers that are not finite.
    """
    track.check_finite()
    if path.suffix.lower() == ".json":
        angles = _angles(track)
        numbers = zip(track.arkit.numpy().astype(float).round(5).tolist(), angles.round(4).tolist(), strict=True)
        frames = [{"time": round(i / track.fps, 6), "arkit": a, "angles": b} for i, (a, b) in enumerate(numbers)]
        content = {"format": FORMAT, "fps": track.fps, "names": ARKIT, "angles": ANGLES, "unit": UNIT}
        return write_json(path, content | {"frames": frames})
    order = [INDEX[name] for name in _live_link_order()]
    values = np.concatenate([track.arkit.numpy().astype(float)[:, order], live_link_angles(track)], 1)
    values = np.round(values, 10) + 0.0  # no negative zeros
    names = ["Timecode", "BlendshapeCount", *map(_pascal, _live_link_order()), *_RADIANS]
    rows = ([time_code(i, track.fps), str(len(row)), *(f"{v:.10f}" for v in row)] for i, row in enumerate(values))
    write_csv(path, names, rows)


def live_link_angles(track: Motion) -> Float[np.ndarray, "T 9"]:
    """Angles of head and eyes in radians, [T, 9], in the order and with the signs of Live Link Face."""
    angles = _angles(track)
    turns = [np.zeros(len(track)) if t is None else t[1] * np.radians(angles[:, t[0]]) for t in _RADIANS.values()]
    return np.stack(turns, 1)


def _angles(track: Motion) -> Float[np.ndarray, "T 5"]:
    """The angles of `ANGLES` in degrees, [T, 5]."""
    return np.concatenate([head_angles(track.head_rotation), np.degrees(track.gaze.numpy())], 1)


def _live_link_order() -> list[str]:
    """Apple's names in the order of Live Link Face: right before left for jaw and mouth."""
    names: list[str] = [*ARKIT]
    for left, right in (("jawLeft", "jawRight"), ("mouthLeft", "mouthRight")):
        names[INDEX[left]], names[INDEX[right]] = right, left
    return names


def load(path: Path, person: MotionStats) -> Motion:
    """Read a ``.csv`` or ``.json`` of coefficients as motion of a person.

    Names are matched whatever their capitals. Face channels are what the coefficients mean on this person's face; the
    head is at the person's mean place.

    Raises:
        AvatarError: The file is missing, damaged, or lacks channels; unknown ones are named and left out.
    """
    path = Path(path)
    return _motion(path, _read(path), person)


def coefficients(path: Path) -> tuple[Float32[np.ndarray, "T 52"], Bool[np.ndarray, " T"], float]:
    """What a ``.csv`` or ``.json`` says about the face, and nothing about whose it is.

    Returns:
        [T, 52] float32, 0 to 1, NaN in the columns of channels that the file lacks; [T] which frames were measured, and
        not interpolated; frames per second.

    Raises:
        AvatarError: The file is missing or damaged, or none of its channels is ARKit's.
    """
    path = Path(path)
    table = _read(path)
    arkit, _ = _sorted_out(path, table.columns)
    if np.isnan(arkit).all():
        raise AvatarError(f"{path} has no channel of ARKit's.")
    return arkit, table.measured, table.fps


def _read(path: Path) -> Table:
    if not path.is_file():
        raise AvatarError(f"The motion file {path} does not exist.")
    if path.suffix.lower() == ".json":
        return _read_json(path)
    return read_csv(path, angles=[name.lower() for name in _RADIANS])


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


def _pascal(name: str) -> str:
    return name[0].upper() + name[1:]


def _read_json(path: Path) -> Table:
    content = Record(read_json(path, "Correct the file or its path."), path)
    if content.value("format", None) != FORMAT:
        raise AvatarError(f"{path} is not a file of ARKit coefficients:", why="format is missing or wrong.")
    if (unit := content.value("unit", UNIT)) != UNIT:
        raise AvatarError(f"{path} has angles in {str(unit)[:40]!r},", why=f"not in {UNIT}.")
    names = [*content.names("names"), *(f"{name}Degrees" for name in content.names("angles", []))]
    rows = []
    for i, frame in enumerate(content.records("frames")):
        row = [*frame.list("arkit"), *frame.list("angles", [])]
        if len(row) != len(names):
            raise AvatarError(f"{path}: frame {i} has {len(row)} numbers for {len(names)} names.")
        rows.append([number(v, f"{path}, frame {i}: {name}", -MOST, MOST) for name, v in zip(names, row, strict=True)])
    if not rows:
        raise AvatarError(f"{path} holds no frames.")
    values = np.array(rows, np.float64).reshape(len(rows), len(names))
    columns = dict(zip(different(path, names), values.T, strict=True))
    return Table(columns, content.frame_rate(), np.ones(len(rows), bool))


# --- what the channels mean -------------------------------------------------------------------------------------------


def _sorted_out(path: Path, table: Mapping[str, np.ndarray]) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Sort columns by what they mean.

    Returns:
        Coefficients [T, 52], 0 to 1, NaN in the columns that are not there; angles [T] in degrees by their number in
        `ANGLES`.
    """
    if not table:
        raise AvatarError(f"{path} has no channel.")
    known = {name.lower(): name for name in ARKIT}
    ours = {f"{name.lower()}degrees": i for i, name in enumerate(ANGLES)}
    theirs = {name.lower(): angle for name, angle in _RADIANS.items()}
    arkit = np.full((len(next(iter(table.values()))), len(ARKIT)), np.nan, np.float64)
    degrees: dict[int, np.ndarray] = {}
    radians: list[tuple[int, np.ndarray]] = []
    strange = []
    for name, values in table.items():
        lower = name.lower()
        if lower.endswith(("_l", "_r")):  # Apple's names as other programs write them: eyeBlink_L
            lower = lower[:-2] + ("left" if lower.endswith("_l") else "right")
        if lower in known:
            arkit[:, INDEX[known[lower]]] = values
        elif lower in ours:
            degrees[ours[lower]] = values
        elif lower not in theirs:
            strange.append(name)
        elif (angle := theirs[lower]) is not None:
            radians.append((angle[0], angle[1] * values))
    if strange:
        log.warn(f"{path}: unknown channels are left out: {', '.join(strange)}.")
    arkit = _coefficients_of(path, arkit)
    return arkit, _live_link_angles(path, radians, arkit) | degrees


def _coefficients_of(path: Path, arkit: np.ndarray) -> Float32[np.ndarray, "T 52"]:
    """Coefficients 0 to 1, from such or from per cent."""
    highest = np.nan_to_num(arkit).max(0)
    most = float(highest.max())
    per_cent, nothing = _MOST_COEFFICIENT
    if most > nothing:
        name = ARKIT[int(highest.argmax())]
        raise AvatarError(f"{path}: {name} goes up to {most:g};", why="coefficients go from 0 to 1, or to 100.")
    if most > per_cent:
        log.warn(f"{path}: its coefficients go up to {most:g} and are taken as per cent.")
        arkit = arkit / 100
    return arkit.clip(0, 1).astype(np.float32)


def _live_link_angles(
    path: Path, columns: Sequence[tuple[int, np.ndarray]], arkit: np.ndarray
) -> dict[int, np.ndarray]:
    """Angles in degrees, positive to the left and up, of columns in radians; the eyes' are averaged.

    A head or eyes that are always at 0 were not measured. Where eyes contradict their eyeLook coefficients, these are
    right: other programs write other signs.
    """
    head = any(values.any() for i, values in columns if i not in _EYES)
    eyes = any(values.any() for i, values in columns if i in _EYES)
    measured = [(i, values) for i, values in columns if (eyes if i in _EYES else head)]
    if _are_degrees([values for i, values in measured if ANGLES[i] != "headRoll"]):  # a phone may stand on its head
        log.warn(f"{path}: its angles are too large for radians and are taken as degrees.")
    else:
        measured = [(i, np.degrees(values)) for i, values in measured]
    angles = {i: np.mean([v for j, v in measured if j == i], 0) for i in dict.fromkeys(i for i, _ in measured)}
    for i, look in zip(_EYES, _looks(arkit).T, strict=True):
        if i in angles and _contradict(angles[i], look):
            log.warn(f"{path}: {ANGLES[i]} is the other way round than its eyeLook coefficients, which are followed.")
            angles[i] = -angles[i]
    return angles


def _are_degrees(columns: Sequence[np.ndarray]) -> bool:
    """Whether yaws and pitches are too large to be radians."""
    largest = np.max(np.abs(columns), 0, initial=0.0)
    seen, most = _MOST_RADIANS
    return bool((largest > most).any() or (largest > seen).mean() > _STRAY)


def _contradict(angle: np.ndarray, look: np.ndarray) -> bool:
    """Whether an angle in degrees goes against its coefficients; false where one of them hardly moves."""
    if not (angle.std() > _MOVES[0] and look.std() > _MOVES[1]):  # NaN where there are no coefficients
        return False
    return float(np.corrcoef(angle, look)[0, 1]) < _CONTRADICT


def _looks(arkit: np.ndarray) -> Float[np.ndarray, "T 2"]:
    """Where the coefficients say that the eyes look: to the left and up, -1 to 1."""

    def look(*names: str) -> np.ndarray:
        return np.mean([arkit[:, INDEX[f"eyeLook{name}"]] for name in names], 0)

    yaw = look("OutLeft", "InRight") - look("InLeft", "OutRight")
    pitch = look("UpLeft", "UpRight") - look("DownLeft", "DownRight")
    return np.stack([yaw, pitch], 1)


def _motion(path: Path, table: Table, person: MotionStats) -> Motion:
    arkit, turns = _sorted_out(path, table.columns)
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
    if any(k in turns for k in _HEAD):
        if lacks := [ANGLES[k] for k in _HEAD if k not in turns]:
            log.warn(f"{path} lacks {' and '.join(lacks)}. Missing angles are taken as 0.")
        zero = np.zeros(len(arkit))
        tensors["head_rotation"] = head_rotation(np.stack([turns.get(k, zero) for k in _HEAD], 1))
    gaze = _LOOK_FULL * _looks(arkit)
    for column, i in enumerate(_EYES):
        if i in turns:
            gaze[:, column] = turns[i]
    tensors["gaze"] = torch.from_numpy(np.radians(gaze).astype(np.float32))
    tensors["valid"] = torch.from_numpy(table.measured)
    return replace(still.map(**tensors), fps=table.fps)
