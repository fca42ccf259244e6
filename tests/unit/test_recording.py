"""What was done to a recording is told in the terminal, on the page and in person.json."""

from __future__ import annotations

from pathlib import Path

import pytest

from avatar.data.person import PersonFolder
from avatar.data.results import ReportResult
from avatar.io.media import Treatment
from avatar.preprocess.config import PrepareConfig
from avatar.preprocess.report import tell
from avatar.preprocess.report_page import recording_list
from avatar.preprocess.stage import StageContext
from tests.person import ingest_result, write_result

DONE = [Treatment("mirrored", "The picture was mirrored."), Treatment("face", "Of 2 faces, <one> is learned.")]


@pytest.mark.parametrize("done", [DONE, []], ids=["some", "none"])
def test_the_terminal_tells_what_was_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], done: list[Treatment]
) -> None:
    for result in (ReportResult(findings=[], flagged=[]), ingest_result(recording=done)):
        write_result(tmp_path, result)
    tell(StageContext(person=PersonFolder(tmp_path), video=tmp_path / "v.mp4", config=PrepareConfig()))
    said = capsys.readouterr().err
    assert ("What was done to the recording:" in said) is bool(done)
    assert all(f"* {treatment.text}" in said for treatment in done)


def test_the_page_tells_what_was_done() -> None:
    assert recording_list([]) == ""
    listed = recording_list(DONE)
    assert listed.count("<li>") == 2 and "&lt;one&gt;" in listed
