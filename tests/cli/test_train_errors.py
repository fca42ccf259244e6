"""`avatar train`: a number out of range is one sentence and exit code 2, before anything is read or replaced."""

from __future__ import annotations

from pathlib import Path

import pytest

from avatar.cli.main import main


@pytest.mark.parametrize(
    "option",
    [
        "--steps=0", "--threads=0", "--preview-every=0", "--save-every=-1", "--schedule.steps=0", "--seed=-1",
        "--steps=1000000000000", "--threads=1000000", "--seed=9007199254740992", "--model.log2-table=60",
        "--model.hidden=1000000000", "--model.levels=-1", "--model.initial-gaussians=1000000000000",
        "--model.initial-gaussians=20", "--model.initial-gaussians=149",
        "--schedule.steps=1000000000000",
    ],
)  # fmt: skip
def test_numbers_out_of_range(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main(["train", str(tmp_path / "person"), "--out", str(out), option]) == 2
    shown = capsys.readouterr().err
    assert option.partition("=")[0] in shown and "Traceback" not in shown
    assert "out of range" in shown or "number from" in shown
    assert not out.exists()
