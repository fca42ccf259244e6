"""Where a person's surfaces lie: heads beside the camera's axis, and the torso under a head that leans."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from avatar.data import PersonDataset
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.motion import Motion
from avatar.preprocess import bust
from tests.person import make_person

SIZE, AWAY, RADIUS = 700, 60.0, 8.0
MIDDLE = np.array([0, 0, bust.SKULL_MIDDLE])


class Ball:
    """Footage of a head that is a ball about its middle, cropped from a wide frame; it turns while it is filmed.

    Args:
        aside, above: Degrees of the middle from the camera's axis.
        facing: Mean yaw of the head in the world, degrees.
    """

    def __init__(self, aside: float, above: float, facing: float) -> None:
        focal, away = 1660.0, np.tan(np.radians([aside, -above]))
        centre = AWAY * np.array([*away, 1])
        self.width = self.height = SIZE
        self.camera = Camera.source(focal, SIZE / 2 - focal * away[0], SIZE / 2 - focal * away[1], SIZE, SIZE)
        yaws = np.radians(facing + np.linspace(-10, 10, 7))
        turns = axis_angle_to_matrix(torch.from_numpy(np.outer(yaws, [0, 1, 0])))
        places = torch.from_numpy(centre - turns.numpy() @ MIDDLE)
        self.motion = Motion.zeros(len(yaws), 25.0).map(
            head_rotation=matrix_to_axis_angle(turns).float(), head_translation=places.float()
        )
        self.train_frames = np.arange(len(yaws))
        self.shape = np.zeros((478, 3), np.float32)
        self.shape[152, 1] = RADIUS
        self.landmarks = np.zeros((len(yaws), 478, 3), np.float32)
        y, x = (np.mgrid[:256, :256] + 0.5) * SIZE / 256
        ray = np.stack([(x - self.camera.cx) / focal, (y - self.camera.cy) / focal, np.ones_like(x)], -1)
        ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
        self._ball = (centre @ centre - (ray @ centre) ** 2 < RADIUS**2).astype(np.float32)

    def image(self, index: int) -> np.ndarray:
        raise NotImplementedError

    def masks(self, index: int, size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
        empty = np.zeros_like(self._ball)
        return {"face": empty, "neck": empty, "clothes": empty, "hair": self._ball, "background": 1 - self._ball}


@pytest.mark.parametrize(("aside", "above", "facing"), [(0, 0, 0), (25, 0, 25), (-15, 0, -15), (0, 20, 0), (20, 0, 0)])
def test_a_ball_is_a_ball_wherever_it_is_in_the_image(aside, above, facing):
    """Beside the axis the outline is seen along the line of sight, not along the camera's axis."""
    data = Ball(aside, above, facing)
    outlines = [bust._outline(data, index) for index in range(len(data.motion))]
    row = int(np.abs(bust.ROWS).argmin())
    for side, sign in (("left", 1), ("right", -1)):
        width, depth = (float(part[row]) for part in bust._supports(outlines, side))
        seen = np.radians(aside - facing)  # there the line of sight touches the ball
        assert np.hypot(width, depth) == pytest.approx(RADIUS, abs=0.15)
        assert depth == pytest.approx(-sign * RADIUS * np.sin(seen), abs=0.8)


def test_extents_of_a_nodding_head_are_measured_across_it():
    """The plane that faces the camera is tilted in a nodding head; its depth is no width."""
    data = Ball(0, 30, 0)
    outline = bust._outline(data, len(data.motion) // 2)
    rows = np.abs(bust.ROWS) < 5
    expected = np.sqrt(RADIUS**2 - (bust.ROWS[rows] / np.cos(np.radians(30))) ** 2)
    np.testing.assert_allclose(outline.left[rows], expected, atol=0.35)


def test_a_torso_stays_where_it_is_when_the_head_leans(tmp_path):
    """The reference frame may show a head that is nearer than usual, or whose distance is off."""
    data = PersonDataset(make_person(tmp_path))
    frame, usual = int(data.train_frames[7]), data.motion

    def ridge(head: float, torso: float) -> tuple[float, float]:
        """Depths of the ridge and of the lower neck when both were moved in the frame, centimetres."""
        moved, there = copy.copy(data), [part.clone() for part in (usual.head_translation, usual.torso_translation)]
        there[0][frame] *= 1 + head / there[0][frame, 2]
        there[1][frame, 2] += torso
        moved.motion = usual.map(head_translation=there[0], torso_translation=there[1])
        neck, body = bust._body(moved, frame)
        origin = float(there[0][frame, 2])
        return origin + float(body.middle[0]), origin + float(neck.middle[-1])

    still = ridge(0, 0)
    assert still[0] == pytest.approx(62 + bust.TORSO_MIDDLE, abs=1e-4)
    assert ridge(-1.2, 0) == pytest.approx(still, abs=0.15)
    assert ridge(-1.2, 0)[0] == pytest.approx(still[0], abs=1e-4)
    assert ridge(0, 0.8)[0] == pytest.approx(still[0] + 0.8, abs=1e-4)
    assert ridge(0.8, 0.8)[0] == pytest.approx(still[0] + 0.8, abs=1e-4)
