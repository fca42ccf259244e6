"""Frame rates of a radiance field: what is compared with the film has the background that the film shows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pipelines import field_rates


@pytest.mark.parametrize("moves", [True, False])
def test_frames_of_a_moving_camera_are_compared_before_their_own_background(moves: bool):
    """The person covers nothing here: all that is drawn is the background, and the film is that of the frame."""
    rest, size = np.full((8, 8, 3), 40, np.uint8), SimpleNamespace(width=8)

    def background(index: int) -> np.ndarray:
        return rest + np.uint8(index) if moves else rest

    def draw(camera: object, motion: object, index: int, behind: torch.Tensor | None = None) -> torch.Tensor:
        return torch.from_numpy(rest) if behind is None else behind

    data = SimpleNamespace(width=8, motion=None, camera_moves=moves, background=background, image=background)
    avatar = SimpleNamespace(render=draw, draw=draw)
    found = field_rates.left_out(avatar, avatar, data, size, np.array([20, 30]))  # type: ignore[arg-type]
    assert found["psnr"] > 90 and found["psnr_with_all_samples"] > 90
