"""Sliders to motion: what jaw, smile, blink and head angles mean in ARKit numbers and in face geometry."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.motion import Motion, arkit
from avatar.motion.face_channels import (
    CHEEK,
    CHIN,
    EYE_LOWER,
    EYE_UPPER,
    LIPS_INNER,
    LIPS_OUTER,
    NUM_LANDMARKS,
    encode,
)

# What a slider at 1 does, in centimetres of the canonical face (15.5 cm wide).
JAW_DROP = 1.6
CORNER_OUT, CORNER_UP, CHEEK_UP = 0.45, 0.5, 0.15
LID_TRAVEL = 0.9
ARKIT_AMOUNT = {"jaw": {"jawOpen": 0.7}, "smile": {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8},
                "blink": {"eyeBlinkLeft": 0.9, "eyeBlinkRight": 0.9}}  # fmt: skip
RANGES = {"jaw": (0.0, 1.0), "smile": (0.0, 1.0), "blink": (0.0, 1.0),
          "yaw": (-30.0, 30.0), "pitch": (-20.0, 20.0), "roll": (-20.0, 20.0)}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sliders:
    """Positions of the sliders; all zero leaves a motion as it is.

    Attributes:
        jaw, smile, blink: 0 to 1.
        yaw, pitch, roll: Degrees; positive turns to the person's left, looks up, tilts to the person's left.
    """

    jaw: float = 0.0
    smile: float = 0.0
    blink: float = 0.0
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0


def apply_controls(
    motion: Motion,
    jaw: float = 0.0,
    smile: float = 0.0,
    blink: float = 0.0,
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
) -> Motion:
    """Add the sliders' effect to every frame of a motion; see :class:`Sliders` for the units.

    The head turns about the origin of its own axes, inside the head. ARKit values stay within 0..1.
    """
    amounts = {"jaw": jaw, "smile": smile, "blink": blink}
    coefficients, face = motion.arkit.clone(), motion.face.clone()
    for name, amount in amounts.items():
        face += amount * _face_direction(name)
        for channel, full in ARKIT_AMOUNT[name].items():
            coefficients[:, arkit.INDEX[channel]] += amount * full
    turn = head_turn(yaw, pitch, roll)
    rotation = matrix_to_axis_angle(axis_angle_to_matrix(motion.head_rotation) @ turn)
    return motion.map(arkit=coefficients.clamp(0, 1), face=face, head_rotation=rotation)


def head_turn(yaw: float, pitch: float, roll: float) -> Tensor:
    """Rotation [3, 3] in head axes: roll first, then pitch, then yaw; degrees as in :class:`Sliders`.

    The nose points along -z: turning it to the person's left (+x) is a negative turn about y (down), raising it a
    negative turn about x; moving the crown (-y) to the left is a positive turn about z.
    """
    x, y, z = -math.radians(pitch), -math.radians(yaw), math.radians(roll)
    axes = torch.tensor([[0.0, y, 0.0], [x, 0.0, 0.0], [0.0, 0.0, z]])
    by_yaw, by_pitch, by_roll = axis_angle_to_matrix(axes)
    return by_yaw @ by_pitch @ by_roll


@functools.cache
def _face_direction(name: str) -> Tensor:
    """Change of the face channels [38] by a slider at 1, through the landmarks it would move."""
    move = np.zeros((1, NUM_LANDMARKS, 3), np.float32)
    if name == "jaw":
        move[0, list(CHIN), 1] = JAW_DROP
        for contour in (LIPS_OUTER, LIPS_INNER):  # the lower lip is the first half of the contour, corner to corner
            drop = np.clip(np.sin(_phase(contour)), 0, None)
            move[0, list(contour), 1] = JAW_DROP * (0.1 + 0.9 * drop) * (_phase(contour) <= np.pi)
    elif name == "smile":
        for contour in (LIPS_OUTER, LIPS_INNER):
            side = -np.cos(_phase(contour))  # -1 at the person's right corner, +1 at the left one
            move[0, list(contour), 0] = CORNER_OUT * side
            move[0, list(contour), 1] = -CORNER_UP * side**2
        for points in CHEEK.values():
            move[0, list(points), 1] = -CHEEK_UP
    elif name == "blink":
        for side in ("right", "left"):
            move[0, list(EYE_UPPER[side]), 1] = 0.85 * LID_TRAVEL
            move[0, list(EYE_LOWER[side]), 1] = -0.15 * LID_TRAVEL
    return torch.from_numpy(encode(move)[0])


def _phase(contour: tuple[int, ...]) -> np.ndarray:
    return 2 * np.pi * np.arange(len(contour)) / len(contour)
