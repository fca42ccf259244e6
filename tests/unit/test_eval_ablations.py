"""Ablations of the held-out drives: what they withhold really has no influence, and everything else stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avatar.data import PersonDataset
from avatar.errors import AvatarError
from avatar.eval import ablations
from avatar.eval.facts import count_clips, shortness
from avatar.motion import Motion
from tests.person import make_person

FRAMES, FIRST = 40, 36


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_person(tmp_path / "person", frames=FRAMES)


def corrected(folder: Path, **tracks: torch.Tensor) -> PersonDataset:
    """The person as `avatar eval` opens it: with the motion that training corrected."""
    path = folder.parent / "tracking.safetensors"
    motion = PersonDataset(folder).motion
    rng = np.random.default_rng(0)
    noise = {
        name: getattr(motion, name) + torch.from_numpy(rng.normal(0, 0.1, getattr(motion, name).shape)).float()
        for name in (*ablations.TORSO_TRACKS, *ablations.HEAD_TRACKS)
    }
    motion.map(**noise | tracks).save(path)
    return PersonDataset(folder, path)


def ablated(data: PersonDataset) -> dict[str, Motion]:
    held_out = data.motion[FIRST:FRAMES]
    drives = {"tracked": held_out, "audio": held_out, "shuffled": held_out}
    return ablations.ablated(data, drives, FIRST, FRAMES)


def test_each_ablation_withholds_what_its_name_says(folder: Path) -> None:
    data = corrected(folder)
    tracker = PersonDataset(folder).motion
    found = ablated(data)
    assert set(found) == set(ablations.TITLES)
    for name, motion in found.items():
        for track in ablations.TORSO_TRACKS:
            whole = getattr(data.motion, track)
            rest = whole[:FIRST].median(0).values.expand(FRAMES - FIRST, -1)
            assert torch.equal(getattr(motion, track), rest if "torso_at_rest" in name else whole[FIRST:])
        for track in ablations.HEAD_TRACKS:
            source = tracker if "tracker_poses" in name else data.motion
            assert torch.equal(getattr(motion, track), getattr(source, track)[FIRST:])
        for track in ("face", "gaze", "arkit"):
            assert torch.equal(getattr(motion, track), getattr(data.motion, track)[FIRST:])


def test_the_torso_at_rest_owes_nothing_to_the_held_out_frames(folder: Path) -> None:
    data = corrected(folder)
    before = ablated(data)["tracked_torso_at_rest"]
    other = {name: getattr(data.motion, name).clone() for name in ablations.TORSO_TRACKS}
    for track in other.values():
        track[FIRST:] = 7.0
    after = ablated(corrected(folder, **other))["tracked_torso_at_rest"]
    assert all(torch.equal(getattr(before, name), getattr(after, name)) for name in ablations.TORSO_TRACKS)


def test_motion_of_another_length_is_refused(folder: Path) -> None:
    data = corrected(folder)
    Motion.zeros(3, 25.0).save(folder / "motion.safetensors")
    with pytest.raises(AvatarError, match="3 frames of motion, the person 40"):
        ablated(data)


def test_little_held_out_video_is_said() -> None:
    data: Any = type("Person", (), {"segments": [(0, 1700), (1700, 1779)]})
    assert count_clips(data, 1601, 1700) == 1 and count_clips(data, 1601, 1779) == 2
    assert shortness(178, 25.0, 1)[0].startswith("178 frames of one clip are 7.1 s")
    assert shortness(675, 25.0, 9)[0].startswith("675 frames of 9 clips are 27.0 s")
    assert not shortness(750, 25.0, 1) and not shortness(100, 25.0, None)


def test_a_resumed_training_names_every_commit_that_trained_it(folder: Path, tmp_path: Path, monkeypatch) -> None:
    from avatar.data.run import RunInfo
    from avatar.train import run as command
    from tests.person import small_config

    run, data = tmp_path / "run", PersonDataset(folder)
    run.mkdir()
    for day, commit in ((1, "first"), (2, "second"), (3, "third")):
        place = {"date": f"2026-01-0{day}", "commit": commit, "hardware": {"cores": 2}}
        monkeypatch.setattr(command, "environment", lambda place=place: place)
        command.describe(run, small_config(folder, run), data)
    found = RunInfo.read(run).training()
    assert found["commit"] == "third" and [part["commit"] for part in found["earlier"]] == ["first", "second"]
