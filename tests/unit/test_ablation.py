"""The ablation recipe: its rows are options that exist, and its table tells the spread over seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avatar.cli import eval as evaluate
from avatar.data.run import CONFIG, ENVIRONMENT
from avatar.errors import AvatarError
from avatar.eval.summary import METRICS
from avatar.methods.registry import DEFAULT
from avatar.paths import read_json, write_json
from avatar.train import config as options
from pipelines import ablation
from pipelines.records import Record
from tests.person import make_person


@pytest.mark.parametrize("name", [name for name in ablation.ROWS if name != "default"])
def test_each_row_changes_options_that_exist(name: str):
    base = options.from_preset(DEFAULT, "draft", person=Path("person"), out=Path("run"))
    changed = options.with_values(base, ablation.ROWS[name], name)
    differences = options.differences(options.settings(changed), options.settings(base))
    assert differences and not any(option.startswith("seed") for option in differences)


def test_the_table_has_means_and_the_range_over_seeds():
    runs = [dict.fromkeys(ablation.COLUMNS, value) | {"seconds": 1.0, "bytes": 2_000_000} for value in (1.0, 2.0, 6.0)]
    several, single = ablation.row(runs), ablation.row(runs[:1])
    assert several["psnr"] == 3.0 and several["seeds"] == runs
    head, _, first, second = ablation.table({"a": several, "b": single}).splitlines()
    assert head.startswith("| | PSNR |") and head.endswith("| MB |")
    assert first.startswith("| a | 3.00 (1.00 to 6.00) |") and first.endswith("| 2.0 |")
    assert second.startswith("| b | 1.00 | 1.00 |")


def test_seeds_are_apart_and_what_cannot_be_run_is_refused(tmp_path: Path):
    config = ablation.Config(person=tmp_path, out=tmp_path)
    folders = {ablation.row_folder(config, name, seed) for name in ablation.ROWS for seed in range(3)}
    assert len(folders) == 3 * len(ablation.ROWS)
    with pytest.raises(AvatarError, match="no row 'nothing'"):
        ablation.main(ablation.Config(person=tmp_path, out=tmp_path, rows=("nothing",)))
    with pytest.raises(AvatarError, match="--seeds"):
        ablation.main(ablation.Config(person=tmp_path, out=tmp_path, seeds=0))


def test_a_row_is_trained_once_and_its_numbers_are_those_of_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    trained, asked = [], []

    def train(config: options.TrainConfig):
        trained.append(config)
        write_json(config.out / "training.json", {"seconds": 7.0})
        (config.out / CONFIG).touch()
        if len(trained) == 1:
            raise KeyboardInterrupt

    def measure(config: evaluate.Config):
        asked.append((config.drive, config.protocol))
        tracked = {name: float(i) for i, name in enumerate(METRICS)}
        metrics = {"full_frame": {"tracked": tracked}, "head_only": {}, "model": {"bytes": 3_000_000}}
        write_json(config.run / "metrics.json", metrics)

    monkeypatch.setattr(ablation, "train", train)
    monkeypatch.setattr(evaluate, "main", measure)
    config = ablation.Config(person=tmp_path / "person", out=tmp_path, steps=30)
    with pytest.raises(KeyboardInterrupt):
        ablation.run_once(config, "coarse tri-plane (32)", 1)
    for _ in range(2):
        row = ablation.run_once(config, "coarse tri-plane (32)", 1)
    assert [c.resume for c in trained] == [False, True] and asked == [("tracked", "full-frame")]
    assert trained[0].seed == 1 and trained[0].schedule.steps == 30 and trained[0].model.finest == 32
    names = list(METRICS)
    assert row == {key: names.index(key) for key in ablation.COLUMNS} | {"seconds": 7.0, "bytes": 3_000_000}


def test_other_steps_are_refused_and_the_record_names_the_commits_of_its_runs(tmp_path, monkeypatch):
    person = make_person(tmp_path / "person")

    def train(config: options.TrainConfig):
        write_json(config.out / "training.json", {"seconds": 7.0})
        write_json(config.out / ENVIRONMENT, {"commit": "trained"})

    def measure(config: evaluate.Config):
        tracked = dict.fromkeys(ablation.COLUMNS, 1.0) | {"lpips": None}  # its network is not installed
        found = {"full_frame": {"tracked": tracked}, "model": {"bytes": 3_000_000}, "commit": "measured"}
        write_json(config.run / "metrics.json", found)

    monkeypatch.setattr(ablation, "train", train)
    monkeypatch.setattr(evaluate, "main", measure)
    monkeypatch.setattr(ablation, "sheet", lambda *_: np.zeros((8, 8, 3), np.uint8))
    config = ablation.Config(person=person, out=tmp_path / "out", rows=("default",), seeds=2)
    ablation.main(config)
    found = read_json(config.out / "ablation.json")
    record = Record(path=config.out / "ablation.json", content=found)
    assert record.trained == ["trained"] and "measured" in record.measured
    assert found["rows"]["default"]["psnr"] == 1.0 and found["rows"]["default"]["lpips"] is None
    assert "| default | 1.00 (1.00 to 1.00) | 1.00 (1.00 to 1.00) | - |" in (config.out / "ablation.md").read_text()
    with pytest.raises(AvatarError, match="made with steps 2000, not 30"):
        ablation.main(replace(config, steps=30))
