"""What generated head motion depends on can be changed while a session runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from avatar.infer.controls import Controls
from tests.unit.test_live_pose import folder, made, motions

__all__ = ["folder"]  # the fixture


@pytest.mark.parametrize("change", [{"pose_noise": 0.0}, {"pose_guidance": 3.0}])
def test_guidance_and_noise_take_effect_while_it_plays(folder: Path, change: dict[str, float]) -> None:
    session = made(folder, pose=("generated",))
    plain = made(folder, pose=("generated",))
    torch.testing.assert_close(motions(session, 40).head_rotation, motions(plain, 40).head_rotation)
    session.set(Controls(pose=("generated",), **change))  # type: ignore[arg-type]
    plain.set(Controls(pose=("generated",)))
    changed, same = motions(session, 60, 40), motions(plain, 60, 40)
    assert (changed.head_rotation - same.head_rotation)[20:].abs().max() > 0.01
    assert torch.rad2deg(changed.head_rotation.diff(dim=0)).norm(dim=1).max() < 4, "it fades"


def test_what_did_not_change_goes_on(folder: Path) -> None:
    session, plain = (made(folder, pose=("generated",), pose_noise=0.5) for _ in range(2))
    for each in (session, plain):
        motions(each, 40)
    session.set(Controls(pose=("generated",), pose_noise=0.5, lip_scale=("1.5",)))
    torch.testing.assert_close(motions(session, 60, 40).head_rotation, motions(plain, 60, 40).head_rotation)
