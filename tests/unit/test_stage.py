"""Stages of `avatar prepare`: what is current is kept, what depends on a change is made again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from avatar.data.person import PersonFolder
from avatar.data.results import StageResult
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


@pytest.mark.parametrize(("frames", "named", "first"), [(250, None, 225), (95, None, 86), (250, 200, 200), (10, 99, 9)])
def test_the_last_tenth_is_held_out_or_what_the_dataset_says(
    tmp_path: Path, frames: int, named: int | None, first: int
) -> None:
    write_result(tmp_path, ingest_result(num_frames=frames, test_start=named))
    assert (
        StageContext(person=PersonFolder(tmp_path), video=tmp_path / "v.mp4", config=PrepareConfig()).test_start
        == first
    )
