"""The kit for a GPU machine: what is packed comes out again, and the driver loses nothing to a step that fails."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from avatar.data import PersonDataset
from avatar.data.results import IngestResult
from pipelines import gpu_check, gpu_kit
from tests.person import make_person


@pytest.fixture
def person(tmp_path) -> Path:
    folder = make_person(tmp_path / "mia", frames=6, size=64)
    result = IngestResult(
        width=64,
        height=64,
        fps=25.0,
        num_frames=6,
        source="gone.mp4",
        source_size=(64, 64),
        crop=(0, 0, 64, 64),
        has_audio=False,
    )
    (folder / "ingest" / "stage.json").write_text(json.dumps({"result": result.to_json()}))
    (folder / "report").mkdir()
    (folder / "report" / "report.html").write_text("page")
    return folder


def test_a_person_without_its_video_comes_out_as_it_went_in(person, tmp_path):
    packed = gpu_kit.pack_person(person, tmp_path / "kit")
    assert packed == {"name": "mia"}
    out = tmp_path / "out"
    assert gpu_kit.unpack_person(packed, tmp_path / "kit", out)
    before, after = PersonDataset(person), PersonDataset(out)
    assert np.abs(np.asarray(before.landmarks) - np.asarray(after.landmarks)).max() <= gpu_kit.LANDMARK_STEP / 2 + 1e-4
    assert (before.image(3) == after.image(3)).all()
    assert not (out / "report").exists()


def test_a_run_travels_without_its_checkpoints(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints" / "last").mkdir(parents=True)
    (run / "checkpoints" / "last" / "state.safetensors").write_bytes(b"large")
    (run / "eval").mkdir()
    (run / "eval" / "pred.mp4").write_bytes(b"large")
    (run / "model.safetensors").write_bytes(b"model")
    kit = tmp_path / "kit"
    assert gpu_kit.pack_run(run, kit) == "run"
    (kit / "kit.json").write_text(json.dumps({"wheels": {}, "persons": [], "runs": ["run"], "commit": "abc"}))
    environment: dict[str, str] = {}
    taken = gpu_check.unpack([kit], tmp_path / "work", environment)
    assert taken["runs"] == ["run"] and taken["commit"] == "abc"
    assert [p.name for p in (tmp_path / "work" / "runs" / "run").iterdir()] == ["model.safetensors"]
    assert str(tmp_path / "work" / "site") in environment["PYTHONPATH"]


STEPS = """
import json, os, subprocess, sys, time
step, out, seconds = sys.argv[1:]
open(f"{out}/{step}.json", "w").write(json.dumps({"measured": 1}))
if step == "crash":
    print("what went wrong", flush=True)
    os.kill(os.getpid(), 11)
if step == "hang":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    open(f"{out}/child", "w").write(str(child.pid))
    time.sleep(60)
"""


@pytest.fixture
def steps(tmp_path, monkeypatch) -> Path:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").touch()
    (tmp_path / "pipelines" / "gpu_stages.py").write_text(STEPS)
    monkeypatch.setattr(gpu_check, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_check, "STEPS", {"crash": 10.0, "hang": 1.0, "fine": 10.0})
    return tmp_path


def test_a_crash_and_a_hang_cost_one_step_each(steps, monkeypatch):
    out = steps / "out"
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(out), "--seconds", "60"])
    assert gpu_check.main() == 1
    record = json.loads((out / "gpu_check.json").read_text())["steps"]
    assert record["crash"]["failed"] == "exit code -11" and "what went wrong" in record["crash"]["end_of_log"]
    assert record["crash"]["measured"] == 1  # what it had written before
    assert "given up after 1 s" in record["hang"]["failed"]
    assert "failed" not in record["fine"]
    child = int((out / "child").read_text())
    for _ in range(100):  # what a step started ends with it
        if not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]:
            break
        time.sleep(0.02)
    else:
        pytest.fail("the step's own process is still there")


def test_without_time_steps_are_left_out(steps, monkeypatch):
    out = steps / "out"
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(out), "--seconds", "3"])
    assert gpu_check.main() == 0
    record = json.loads((out / "gpu_check.json").read_text())["steps"]
    assert {result["skipped"] for result in record.values()} == {"no time was left"}
