"""What person.json, the results of stages and the files of a run say, and that they come back as they were written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from avatar.checks import Record
from avatar.data.person import PersonFolder, PersonInfo, TrackingQuality
from avatar.data.results import (
    BackgroundResult,
    Finding,
    FlaggedSpan,
    IngestResult,
    Intrinsics,
    RefineResult,
    ReportResult,
    SyncResult,
    TorsoResult,
    TrackResult,
)
from avatar.data.run import CONFIG, ENVIRONMENT, FORMAT, TRAINING, RunInfo
from avatar.errors import AvatarError
from avatar.io.media import Treatment
from avatar.paths import read_json, write_json
from tests.person import ingest_result, person_info, write_result

RESULTS = (
    ingest_result(test_start=9, rotation=90, variable_rate=True, face=(1, 2, 3), recording=[Treatment("crop", "Cut.")]),
    TrackResult(segments=[(0, 4), (4, 9)], valid_share=0.5),
    RefineResult(camera=Intrinsics(focal=900.0, cx=250.0, cy=-3.5), rotation_range_deg=[1.0, 2.0, 3.0]),
    BackgroundResult(seen=0.5, moves=True, offset=(52, 36), alignment_gain=2.0),
    TorsoResult(pivot=[0.0, 20.0, 60.0], warp_box=[[-1.0, -2.0], [3.0, 4.0]], range_cm=[1.0, 2.0, 3.0]),
    SyncResult(has_audio=True, audio_delay_s=-0.08, trusted=False, doubt="why", z_score=4.2),
    ReportResult(
        findings=[Finding(level="bad", text="Dark.")], flagged=[FlaggedSpan(start=3, end=5, reason="no face")]
    ),
)


def test_person_json_comes_back(tmp_path: Path) -> None:
    quality = TrackingQuality(
        valid_share=1.0, reprojection_px=0.5, jitter_before_deg=0.1, jitter_after_deg=0.02, distance_cm=80.0,
        rotation_range_deg=[6.0, 20.0, 5.0],
    )  # fmt: skip
    segments, told = ((0, 40), (40, 100)), (Treatment("mirrored", "The picture was mirrored."),)
    written = person_info(
        segments=segments, audio_delay_s=0.2, source="me.mp4", crop=(1, 2, 96, 96), quality=quality, recording=told
    )
    written.write(tmp_path / "person.json")
    assert PersonInfo.read(tmp_path / "person.json") == written == PersonFolder(tmp_path).info()


def test_a_folder_of_another_version_says_what_to_do(tmp_path: Path) -> None:
    person_info().write(tmp_path / "person.json")
    for old in ("avatar-person-2", None):
        write_json(tmp_path / "person.json", read_json(tmp_path / "person.json") | {"format": old})
        with pytest.raises(AvatarError, match=r"written by another version.*avatar prepare"):
            PersonInfo.read(tmp_path / "person.json")


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: result.STAGE)
def test_results_of_stages_come_back(tmp_path: Path, result: Any) -> None:
    person = PersonFolder(tmp_path)
    with pytest.raises(AvatarError, match=f"no finished stage '{result.STAGE}'"):
        person.result(type(result))
    write_result(tmp_path, result)
    assert person.is_finished(result.STAGE) and person.result(type(result)) == result


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [
        (TrackResult, {"segments": [[3, 2]]}, "ends before"), (TrackResult, {}, "lacks segments"),
        (IngestResult, {"recording": [{"kind": "crop"}]}, "lacks|text"),
        (SyncResult, {"has_audio": True, "audio_delay_s": "0.2"}, "audio_delay_s is"),
        (TorsoResult, {"pivot": [0, 1], "warp_box": [[0, 0], [1, 1]]}, "pivot does not hold 3"),
        (TorsoResult, {"pivot": [0, 1, 2], "warp_box": [[0, 0]]}, "warp_box does not hold"),
        (RefineResult, {"camera": {"focal": 0, "cx": 1, "cy": 1}}, "focal is 0"),
        (ReportResult, {"findings": [{"level": "fine", "text": "x"}], "flagged": []}, "none of good, note, bad"),
    ],
)  # fmt: skip
def test_results_are_checked(kind: Any, change: dict[str, Any], says: str) -> None:
    with pytest.raises(AvatarError, match=says):
        kind.parse(Record(change, "stage.json"))


def test_a_run_says_what_it_is(tmp_path: Path) -> None:
    assert RunInfo.read(tmp_path) == RunInfo(folder=tmp_path)
    (tmp_path / CONFIG).write_text(f'format = "{FORMAT}"\nperson = "a/me"\n')
    write_json(tmp_path / ENVIRONMENT, {"commit": None, "device": "cpu"})
    begun = RunInfo.read(tmp_path)
    assert begun == RunInfo(folder=tmp_path, person=Path("a/me")) and begun.training() == {"commit": None}
    write_json(tmp_path / TRAINING, {"seconds": 1.5})
    assert RunInfo.read(tmp_path).finished and begun.training() == {"seconds": 1.5, "commit": None}
    write_json(tmp_path / TRAINING, {"seconds": 1e300})
    with pytest.raises(AvatarError, match=r"training\.json: seconds"):
        begun.training()
    for damaged, says in ((f'format = "{FORMAT}"\nperson = 3\n', r"config\.toml: person is 3"), ("x = 1", "version")):
        (tmp_path / CONFIG).write_text(damaged)
        with pytest.raises(AvatarError, match=says):
            RunInfo.read(tmp_path)
