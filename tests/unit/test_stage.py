"""Stages of `avatar prepare`: what is current is kept, what depends on a change is made again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from avatar.data.person import PersonFolder
from avatar.data.results import StageResult
from avatar.io.audio import write_wav
from avatar.preprocess import background, sync
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.stage import StageContext, run_stage
from tests.person import ingest_result, write_result


@dataclass(frozen=True)
class Nothing(StageResult):
    """Of a stage that finds nothing."""


def stage(name: str, ran: list[str], inputs: tuple[str, ...] = (), version: int = 1) -> Any:
    """A stage that writes down that it ran; its result depends on the option of its name."""

    def run(ctx: StageContext, out: Path) -> StageResult:
        ran.append(name)
        (out / "file.txt").write_text(name)
        return Nothing()

    return SimpleNamespace(
        NAME=name, INPUTS=inputs, VERSION=version, run=run, options=lambda ctx: {"value": getattr(ctx.config, name)}
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, []),
        ({"other": 2}, []),
        ({"first": 2}, ["first", "second"]),
        ({"second": 2}, ["second"]),
        ({"version": 2}, ["first", "second"]),
    ],
)
def test_a_stage_runs_again_when_what_it_depends_on_changes(tmp_path: Path, change: dict, expected: list[str]) -> None:
    def prepare(first: int = 1, second: int = 1, other: int = 1, version: int = 1) -> list[str]:
        ran: list[str] = []
        config: Any = SimpleNamespace(first=first, second=second, other=other)
        context = StageContext(person=PersonFolder(tmp_path), video=tmp_path / "v.mp4", config=config)
        for each in (stage("first", ran, version=version), stage("second", ran, ("first",))):
            run_stage(each, context)
        return ran

    assert prepare() == ["first", "second"]
    assert prepare(**change) == expected
    assert prepare(**change) == []


def context(folder: Path, **config: Any) -> StageContext:
    return StageContext(person=PersonFolder(folder), video=folder / "v.mp4", config=PrepareConfig(**config))


@pytest.mark.parametrize(("frames", "named", "first"), [(250, 200, 200), (250, 240, 240), (10, 99, 9)])
def test_a_dataset_keeps_its_split(tmp_path: Path, frames: int, named: int, first: int) -> None:
    write_result(tmp_path, ingest_result(num_frames=frames, test_start=named))
    assert context(tmp_path).test_start == first


def test_frames_without_a_face_or_speech_do_not_count_as_held_out(tmp_path: Path) -> None:
    """100 s that end with 4 s without a face, and with 10 s of silence."""
    frames = 2500
    write_result(tmp_path, ingest_result(num_frames=frames))
    (tmp_path / "track").mkdir()
    valid, voice = np.ones(frames, bool), np.tile(np.r_[np.full(8000, 0.2), np.zeros(8000)], 100).astype(np.float32)
    write_wav(tmp_path / "ingest/audio.wav", voice)
    np.save(tmp_path / "track/valid.npy", valid)
    assert context(tmp_path).test_start == frames - 15 * 25
    valid[-4 * 25 :] = False
    np.save(tmp_path / "track/valid.npy", valid)
    assert context(tmp_path).test_start == frames - 19 * 25
    voice[-10 * 16000 :] = 0
    write_wav(tmp_path / "ingest/audio.wav", voice)
    assert context(tmp_path).test_start == pytest.approx(frames - 25 * 25, abs=13)  # a pause reaches into the silence
    assert context(tmp_path, held_out_s=5).test_start == frames - 5 * 25
    assert background.options(context(tmp_path)) != background.options(context(tmp_path, held_out_s=5))
    assert sync.options(context(tmp_path)) != sync.options(context(tmp_path, held_out_s=5))
