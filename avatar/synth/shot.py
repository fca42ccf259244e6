"""One frame of the synthetic person: where everything is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Shot:
    """One frame: where everything is.

    Attributes:
        arkit: [52].
        head_rotation: [3, 3] head axes to world.
        head_translation: [3] centimetres.
        gaze: [2] yaw to the person's left and pitch up, radians.
        torso_rotation: [3, 3] about the pivot.
        torso_translation: [3].
    """

    arkit: np.ndarray
    head_rotation: np.ndarray
    head_translation: np.ndarray
    gaze: np.ndarray
    torso_rotation: np.ndarray
    torso_translation: np.ndarray


def gaze_matrix(gaze: np.ndarray) -> np.ndarray:
    """Rotation [3, 3] of an eye in head axes: yaw to the person's left, pitch up, radians."""
    yaw, pitch = float(gaze[0]), float(gaze[1])
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    # the eye looks along -z; +yaw turns that towards +x, +pitch towards -y
    turn_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    turn_x = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    return turn_y @ turn_x
