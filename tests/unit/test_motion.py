"""The Motion track and its file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from avatar.errors import AvatarError
from avatar.io.checkpoint import save_tensors
from avatar.motion import Motion
from avatar.motion.face_channels import CHANNEL_INDEX, LIPS_INNER, LIPS_OUTER, encode, mouth_opening
from tests.shapes import unchecked


def _track(frames: int = 20, fps: float = 25.0) -> Motion:
    generator = torch.Generator().manual_seed(0)
    zero = Motion.zeros(frames, fps)
    return zero.map(arkit=torch.rand(zero.arkit.shape, generator=generator), face=torch.randn(zero.face.shape))


def test_file_round_trip_keeps_every_number(tmp_path):
    track = _track(fps=29.97)
    track.save(tmp_path / "m.safetensors")
    back = Motion.load(tmp_path / "m.safetensors")
    assert back.fps == 29.97
    assert torch.equal(back.arkit, track.arkit) and torch.equal(back.face, track.face)


def test_wrong_shape_is_named():
    with unchecked(), pytest.raises(AvatarError, match=r"Motion\.gaze has shape \(20, 3\)"):
        _track().map(gaze=torch.zeros(20, 3))


def test_foreign_and_damaged_files_are_refused(tmp_path):
    save_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {})
    with pytest.raises(AvatarError, match="not a motion file"):
        Motion.load(tmp_path / "other.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x00" * 10)
    with pytest.raises(AvatarError, match="cannot be read"):
        Motion.load(tmp_path / "broken.safetensors")
    with pytest.raises(AvatarError, match="does not exist"):
        Motion.load(tmp_path / "none.safetensors")


def test_resample_follows_time():
    track = Motion.zeros(26, 25.0)
    ramp = torch.arange(26.0)[:, None].expand(-1, 3) / 25
    track = track.map(head_translation=ramp.contiguous())
    fast = track.resample(50.0)
    assert len(fast) == 52
    torch.testing.assert_close(fast.head_translation[:50, 0], torch.arange(50) / 50)


def test_what_lies_beside_an_untracked_frame_is_not_measured():
    valid = torch.ones(26, dtype=torch.bool)
    valid[10] = False
    fast = Motion.zeros(26, 25.0).map(valid=valid).resample(50.0)
    assert torch.nonzero(~fast.valid)[:, 0].tolist() == [18, 19, 20, 21]  # all that 10 has a part in, or stands beside
    assert len(fast) == 52


def test_channels_are_matched_by_name(tmp_path):
    track = _track()
    track.save(tmp_path / "m.safetensors")
    with safe_open(str(tmp_path / "m.safetensors"), "pt") as file:
        metadata, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for name in ("arkit", "face"):
        tensors[name] = tensors[name].flip(1).contiguous()
        metadata[name] = json.dumps(json.loads(metadata[name])[::-1])
    save_file(tensors, str(tmp_path / "turned.safetensors"), metadata)
    back = Motion.load(tmp_path / "turned.safetensors")
    assert torch.equal(back.arkit, track.arkit) and torch.equal(back.face, track.face)


@pytest.mark.parametrize("kind", ["motion", "tensors"])
def test_a_kill_while_writing_leaves_the_old_file(tmp_path, monkeypatch, kind):
    """Half of the new file is there when it happens."""

    class Killed(BaseException):
        pass

    def write() -> None:
        if kind == "motion":
            _track().save(tmp_path / "file.safetensors")
        else:
            save_tensors(tmp_path / "file.safetensors", {"a": torch.ones(3)}, {})

    def half(tensors: object, path: str, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise Killed

    write()
    before = (tmp_path / "file.safetensors").read_bytes()
    monkeypatch.setattr("avatar.io.checkpoint.save_file", half)
    with pytest.raises(Killed):
        write()
    assert (tmp_path / "file.safetensors").read_bytes() == before


def test_opening_the_lower_lip_shows_in_the_channels():
    displacement = np.zeros((1, 478, 3), np.float32)
    lower = [*LIPS_INNER[1:10], *LIPS_OUTER[1:10]]
    displacement[0, lower, 1] = 1.0
    channels = encode(displacement)[0]
    assert channels[CHANNEL_INDEX["lip_inner_y_cos0"]] > 0.3
    assert channels[CHANNEL_INDEX["lip_inner_y_sin1"]] > 0.3  # lower lip down, upper lip still
    assert abs(channels[CHANNEL_INDEX["lip_inner_x_cos0"]]) < 1e-6
    assert abs(channels[CHANNEL_INDEX["brow_left_inner_y"]]) < 1e-6
    face = np.zeros((1, 478, 3), np.float32)
    assert mouth_opening(face)[0] == 0
    assert mouth_opening(face + displacement)[0] == pytest.approx(1.0)


def test_modes_reconstruct_a_smooth_lip_shape():
    phase = 2 * np.pi * np.arange(20) / 20
    wave = 0.3 + 0.5 * np.cos(2 * phase) - 0.2 * np.sin(3 * phase)
    displacement = np.zeros((1, 478, 3), np.float32)
    displacement[0, list(LIPS_OUTER), 1] = wave
    c = encode(displacement)[0]
    parts = {"cos0": 0.3, "cos1": 0, "sin1": 0, "cos2": 0.5, "sin2": 0, "cos3": 0, "sin3": -0.2}
    for name, value in parts.items():
        assert c[CHANNEL_INDEX[f"lip_outer_y_{name}"]] == pytest.approx(value, abs=1e-5)
