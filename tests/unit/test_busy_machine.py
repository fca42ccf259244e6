"""The record of `python -m pipelines.busy_machine`; what it times is made small here, and no time is judged."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from pipelines import busy_machine, records


def test_the_record_has_the_form_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(busy_machine, "GAUSSIANS", 50)
    monkeypatch.setattr(busy_machine, "SIZE", 48)
    monkeypatch.setattr(busy_machine, "FRAMES", 4)
    monkeypatch.setattr(busy_machine, "STARTED", {"bare_python": ["-c", "pass"]})
    monkeypatch.setattr(busy_machine, "steps", lambda count: ([20.0] * count, [50.0] * count))  # its load is for real
    monkeypatch.setattr(sys, "argv", ["/x/pipelines/busy_machine.py", "--turns", "1"])
    path = tmp_path / "benchmarks" / "here" / "busy-machine.json"
    path.parent.mkdir(parents=True)
    busy_machine.main(busy_machine.Config(turns=1, json=path))
    found = json.loads(path.read_text())
    assert {"date", "commit", "hardware", "command", "versions", "load_before"} < found.keys()
    assert found["command"] == "python -m pipelines.busy_machine --turns 1"
    for name in ("bare_python", "frame_processor_time", "step_cores_free", "step_cores_busy"):
        assert found[name]["turns"] == 1 and 0 < found[name]["least_ms"] <= found[name]["most_ms"]
    assert found["busy_over_free"] == 2.5 and "busy_over_free: 2.5" in capsys.readouterr().out
    (record,) = records.find(tmp_path)
    assert record.measured == ([found["commit"]] if found["commit"] else [])


def test_every_command_that_is_timed_starts() -> None:
    assert set(busy_machine.STARTED) == {"bare_python", "import_avatar", "avatar_help"}
    assert busy_machine.starts(busy_machine.STARTED["avatar_help"], 1)[0] > 0
