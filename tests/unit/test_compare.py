"""Methods side by side: what is kept, what is on the page."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from avatar.data.run import ENVIRONMENT, TRAINING
from avatar.errors import AvatarError
from avatar.paths import read_json, write_json
from avatar.train.run import save_tracking
from pipelines import compare, kept
from pipelines.records import Record
from tests.person import make_person, small_config, train

METRICS = {"full_frame": {"tracked": {"psnr": 31.25}}, "model": {"bytes": 2_500_000}, "commit": "measured"}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A comparison whose commands are quick stand-ins, and the list of those that ran."""
    config = compare.Config(person=make_person(tmp_path / "person"), out=tmp_path / "out", methods=("gaussian",))
    ran = []

    def command(*words, cost=None, resumes=False):
        ran.append([str(word) for word in words])
        if words[0] == "train":
            kept.begin(cost, resumes=resumes)
            run = config.out / "gaussian"
            write_json(run / TRAINING, save_tracking(train(small_config(config.person, run, steps=2)), run))
            write_json(run / ENVIRONMENT, {"commit": "trained"})
            kept.end(cost, {"seconds": 1.0, "cpu_seconds": 90.0, "peak_memory_bytes": 5e8})
        else:
            (config.out / "gaussian.metrics.json").write_text(json.dumps(METRICS))
            (config.out / "gaussian.frames.csv").touch()

    monkeypatch.setattr(compare, "command", command)
    return config, ran


def test_page_shows_numbers_and_images_and_finished_steps_are_kept(asked):
    config, ran = asked
    compare.main(config)
    compare.main(config)
    assert [words[0] for words in ran] == ["train", "eval"]
    assert {"--method", "gaussian", "--views"} <= {word for words in ran for word in words}
    rows = json.loads((config.out / "compare.json").read_text())["methods"]["gaussian"]
    assert rows["tracked lips: PSNR, dB"] == 31.25 and rows["model, MB"] == 2.5
    assert rows["training, speech included, minutes of processor time"] == 1.5
    page = (config.out / "index.html").read_text()
    assert '<td class="n">31.25</td>' in page and all(
        (config.out / name).is_file() for name in ("frames.jpg", "views.jpg")
    )
    assert "head-only, lips from audio: PSNR, dB" not in page  # nobody measured it
    record = Record(path=config.out / "compare.json", content=json.loads((config.out / "compare.json").read_text()))
    assert record.trained == ["trained"] and "measured" in record.measured, "kept steps are of their own commits"
    assert "Trained at commit trained" in page


def test_other_options_are_refused_and_another_truth_is_measured(asked, tmp_path):
    config, ran = asked
    compare.main(config)
    for other in ({"quality": "standard"}, {"steps": 9}, {"device": "cpu"}):
        with pytest.raises(AvatarError, match=f"made with {next(iter(other))}"):
            compare.main(replace(config, **other))
    with pytest.raises(AvatarError, match="made with person"):
        compare.main(replace(config, person=make_person(tmp_path / "somebody")))
    for truth in (tmp_path / "subject", tmp_path / "subject", None):
        compare.main(replace(config, truth=truth))
    assert [words[0] for words in ran] == ["train", "eval", "eval", "eval"]
    assert [words[words.index("--truth") + 1] for words in ran if "--truth" in words] == [str(tmp_path / "subject")]


def test_intervals_and_differences_are_shown():
    def found(psnr: float, against: dict) -> dict:
        drive = {"psnr": psnr, "intervals": {"psnr": [psnr - 1, psnr + 1]}}
        metrics = {"full_frame": {"tracked": drive}, "head_only": {"audio": drive}, "model": {"bytes": 2e6}}
        return {"metrics": metrics | against, "training": {}, "trained": [], "cost": {}}

    file = {"file": "gaussian.frames.csv"}
    videos = {
        "tracked": {"psnr": -0.5, "intervals": {"psnr": [-0.6, -0.4]}},
        "audio, head-only": {"psnr": 0.25, "intervals": {}},  # too few frames for an interval
    }
    first, second = found(31, {}), found(30.5, {"against": file | {"videos": videos}})
    table = compare.Table({"gaussian": first, "nerf": second})
    record = table.record()
    label = "tracked lips: PSNR, dB"
    assert record["intervals"]["nerf"][label] == [29.5, 31.5]
    assert record["minus gaussian"]["nerf"] == {
        label: {"value": -0.5, "interval": [-0.6, -0.4]},
        "head-only, lips from audio: PSNR, dB": {"value": 0.25, "interval": None},
    }
    text = compare.markdown(table)
    assert "| | gaussian | nerf | nerf minus gaussian |" in text
    assert f"| {label} | 31.00 (30.00 to 32.00) | 30.50 (29.50 to 31.50) | -0.50 (-0.60 to -0.40) |" in text
    assert "| model, MB | 2.0 | 2.0 | - |" in text
    other = found(30.5, {"against": {"file": "old.frames.csv", "videos": videos}})
    assert compare.Table({"gaussian": first, "nerf": other}).record()["minus gaussian"]["nerf"] == {}


def test_a_method_is_measured_again_where_the_first_one_was_measured_anew(tmp_path):
    metrics, own, first = (tmp_path / name for name in ("b.metrics.json", "b.frames.csv", "a.frames.csv"))
    assert not compare._is_current(metrics, own, first)
    first.touch()
    own.touch()
    write_json(metrics, {"against": {"file": "a.frames.csv"}})
    assert compare._is_current(metrics, own, first) and not compare._is_current(metrics, own, tmp_path / "c.frames.csv")
    os.utime(first, ns=(0, metrics.stat().st_mtime_ns + 1))
    assert not compare._is_current(metrics, own, first) and compare._is_current(metrics, own, own)


def test_interrupted_training_is_resumed_and_its_time_added(asked):
    config, ran = asked
    (config.out / "gaussian").mkdir(parents=True)
    (config.out / "gaussian" / "config.toml").write_text("")
    cost = config.out / "gaussian.cost.json"
    kept.begin(cost)
    kept.end(cost, {"seconds": 1.0, "cpu_seconds": 30.0, "peak_memory_bytes": 9e8}, done=False)
    with pytest.raises(AvatarError):  # the stand-in does not resume
        compare.measured(config, "gaussian")
    assert "--resume" in ran[0] and read_json(cost)["cpu_seconds"] == 30.0
    assert {"--method", "gaussian", "--quality", "draft"} <= set(ran[0])  # other options than before would be refused


def test_unknown_method_is_refused_before_anything_is_done(asked):
    config, ran = asked
    with pytest.raises(AvatarError, match="no method 'mesh'"):
        compare.main(compare.Config(person=config.person, out=config.out, methods=("mesh",)))
    assert not ran and not config.out.exists()


def test_failed_command_ends_the_comparison():
    with pytest.raises(AvatarError, match="avatar train failed"):
        compare.command("train", "--no-such-option")


def test_what_a_training_took_is_left_out_where_a_part_of_it_was_lost(asked, capsys):
    config, ran = asked
    compare.main(config)
    (config.out / "gaussian.cost.json").unlink()
    kept.begin(config.out / "gaussian.cost.json", resumes=True)
    kept.end(config.out / "gaussian.cost.json", {"seconds": 1.0, "cpu_seconds": 9.0, "peak_memory_bytes": 5e8})
    compare.main(config)
    assert [words[0] for words in ran] == ["train", "eval"]
    told = "What the training of gaussian took is not known"
    assert told in capsys.readouterr().out and told in (config.out / "index.html").read_text()
    rows = read_json(config.out / "compare.json")["methods"]["gaussian"]
    assert "tracked lips: PSNR, dB" in rows and not [row for row in rows if "processor time" in row or "memory" in row]


def test_numbers_of_lips_of_too_little_speech_are_not_shown():
    def found(verdict: dict | None, frames: int) -> dict:
        drive = {"psnr": 30.0, "lmd": 1.5, "intervals": {"psnr": [29.0, 31.0], "lmd": [1.0, 2.0]}}
        metrics = {"full_frame": {"tracked": drive, "audio": drive}, "lips": verdict, "frames": frames, "fps": 25.0}
        less = {"psnr": -1.0, "lmd": 0.5, "intervals": {}}
        metrics |= {"against": {"file": "a.frames.csv", "videos": {"audio": less}}}
        return {"metrics": metrics, "training": {}, "trained": [], "cost": {"cpu_seconds": 1.0}}

    for verdict, frames in (({"too_short": True}, 500), (None, 249)):
        table = compare.Table({name: found(verdict, frames) for name in "ab"})
        text, record = compare.markdown(table), table.record()
        assert "| lips from audio: LMD, pixels of 512 | too short | too short | too short |" in text
        assert "| tracked lips: LMD, pixels of 512 | 1.50 (1.00 to 2.00) |" in text, "its lips are not from audio"
        assert "| lips from audio: PSNR, dB | 30.00 (29.00 to 31.00) |" in text
        label = "lips from audio: LMD, pixels of 512"
        assert record["too short"] == {name: [label] for name in "ab"}
        numbers = (record["methods"]["b"], record["intervals"]["b"], record["minus a"]["b"])
        assert not any(label in of for of in numbers)
    table = compare.Table({name: found({"too_short": False}, 249) for name in "ab"})
    assert "| lips from audio: LMD, pixels of 512 | 1.50 (1.00 to 2.00)" in compare.markdown(table)
