"""What `avatar render` does with what is behind the person."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

from avatar.geometry.cameras import Camera
from avatar.infer.avatar import Avatar
from avatar.infer.camera_path import CameraPath
from avatar.infer.video import Job, render_file, resize
from avatar.motion import Motion
from avatar.provenance.disclosure import Disclosure
from tests.fake_avatar import FPS, SIZE, FakeAvatar


@pytest.mark.parametrize("size", [SIZE, 32])
def test_the_background_of_a_moving_camera_comes_at_the_size_of_the_video(tmp_path: Path, size: int) -> None:
    """Else every frame is scaled as floats by the model."""
    seen = list[np.ndarray]()

    class Watched(FakeAvatar):
        def render(
            self, camera: Camera, motion: Motion, index: int, background: torch.Tensor | None = None
        ) -> torch.Tensor:
            assert background is not None
            seen.append(background.numpy())
            return background.clone()

    wall = np.random.default_rng(0).integers(0, 255, (3, SIZE, SIZE, 3)).astype(np.uint8)
    avatar = cast(Avatar, Watched(tmp_path))
    job = Job(motions=[Motion.zeros(3, FPS)], frames=3, background=lambda n: wall[n])
    camera = resize(avatar.view_camera, size)
    render_file(avatar, job, camera, CameraPath.parse(None), tmp_path / "out.mp4", Disclosure(without="a test"))
    assert [image.shape for image in seen] == [(size, size, 3)] * 3
    assert all(image.dtype == np.uint8 for image in seen)
    assert size != SIZE or all(np.array_equal(*pair) for pair in zip(seen, wall, strict=True))
