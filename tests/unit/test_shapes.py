"""The check of annotated shapes that all tests run under is at work."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix


def test_a_wrong_shape_is_found_in_arguments_and_fields():
    assert axis_angle_to_matrix(torch.zeros(5, 2, 3)).shape == (5, 2, 3, 3)
    with pytest.raises(TypeCheckError, match="axis_angle"):
        axis_angle_to_matrix(torch.zeros(5, 4))
    with pytest.raises(TypeCheckError, match="viewmat"):
        Camera(focal=1.0, cx=1.0, cy=1.0, width=2, height=2, viewmat=torch.eye(3))
