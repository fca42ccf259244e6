"""The comparison of two runs finds any bit that differs, and nothing where only times do."""

from __future__ import annotations

import json

import pytest
import torch

from avatar.errors import AvatarError
from avatar.io.checkpoint import save_tensors
from avatar.paths import write_json
from pipelines.equal import Config, compare, main


def test_every_difference_is_found(tmp_path):
    ones = torch.ones(3)
    runs = (("a", "rig.x", ones, 20.0), ("b", "skin.x", ones, 20.0), ("c", "skin.x", ones.nextafter(2 * ones), 21.0))
    for run, name, values, psnr in runs:
        save_tensors(tmp_path / run / "model.safetensors", {name: values, "n": torch.tensor(float("nan"))}, {})
        write_json(tmp_path / run / "training.json", {"psnr": psnr, "seconds": ord(run)})
        write_json(tmp_path / f"{run}.json", {"drives": {"tracked": {"psnr": psnr}}, "date": run})
    metrics = {name: tmp_path / f"{name}.json" for name in "abc"}
    same = Config(runs=(tmp_path / "a", tmp_path / "b"), metrics=(metrics["a"], metrics["b"]), renamed=("rig=skin",))
    assert compare(same) == ([], 4)
    found, _ = compare(Config(runs=(tmp_path / "a", tmp_path / "b")))
    assert found == ["model.safetensors:rig.x: only before", "model.safetensors:skin.x: only after"]
    found, _ = compare(Config(runs=(tmp_path / "b", tmp_path / "c"), metrics=(metrics["b"], metrics["c"])))
    assert found == [
        "model.safetensors:skin.x: 3 of 3 numbers differ, by 1.19e-07 at most",
        "psnr: 20.0 before, 21.0 after",
        "drives.tracked.psnr: 20.0 before, 21.0 after",
    ]


def test_a_proof_names_two_commits_and_is_kept_only_where_nothing_differs(tmp_path):
    for run, commit, psnr in (("a", "aa", 20.0), ("b", "bb", 20.0), ("c", "cc", 21.0), ("d", "dd+", 20.0)):
        save_tensors(tmp_path / run / "model.safetensors", {"x": torch.ones(3)}, {})
        write_json(tmp_path / run / "environment.json", {"commit": commit})
        write_json(tmp_path / f"{run}.json", {"psnr": psnr, "commit": commit})
    kept = tmp_path / "proofs.jsonl"

    def prove(run: str, metrics: str) -> int:
        runs, files = (tmp_path / "a", tmp_path / run), (tmp_path / "a.json", tmp_path / f"{metrics}.json")
        return main(Config(runs=runs, metrics=files, proof=kept, records=("*-draft",)))

    assert prove("c", "c") == 1 and not kept.exists()
    for run, metrics in (("b", "d"), ("d", "d")):
        with pytest.raises(AvatarError, match="at one commit without changes"):
            prove(run, metrics)
    assert prove("b", "b") == 0
    (line,) = kept.read_text().splitlines()
    assert json.loads(line) == {"before": "aa", "after": "bb", "compared": 2, "run": "b", "records": ["*-draft"]}


def test_folders_without_tensors_are_refused(tmp_path):
    for run in "ab":
        (tmp_path / run).mkdir()
        write_json(tmp_path / run / "training.json", {"psnr": 20.0})
    for runs in (("a", "b"), ("mistyped", "also mistyped")):
        with pytest.raises(AvatarError, match="no tensors"):
            main(Config(runs=(tmp_path / runs[0], tmp_path / runs[1])))


def test_a_record_that_one_run_lacks_is_a_difference(tmp_path):
    for run in "ab":
        save_tensors(tmp_path / run / "model.safetensors", {"x": torch.ones(3)}, {})
    write_json(tmp_path / "b/training.json", {"psnr": 20.0})
    assert compare(Config(runs=(tmp_path / "a", tmp_path / "b"))) == (["training.json: only after"], 1)
    assert compare(Config(runs=(tmp_path / "b", tmp_path / "a"))) == (["training.json: only before"], 1)
