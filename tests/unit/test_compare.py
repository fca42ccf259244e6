"""Methods side by side: what is kept, what is on the page."""

from __future__ import annotations

import json
import os

import pytest

from avatar.data.run import TRAINING
from avatar.errors import AvatarError
from avatar.paths import write_json
from avatar.train.run import save_tracking
from pipelines import compare
from tests.person import make_person, small_config, train

METRICS = {"full_frame": {"tracked": {"psnr": 31.25}}, "model": {"bytes": 2_500_000}}


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A comparison whose commands are quick stand-ins, and the list of those that ran."""
    config = compare.Config(person=make_person(tmp_path / "person"), out=tmp_path / "out", methods=("gaussian",))
    ran = []

    def command(*words):
        ran.append([str(word) for word in words])
        if words[0] == "train":
            run = config.out / "gaussian"
            write_json(run / TRAINING, save_tracking(train(small_config(config.person, run, steps=2)), run))
        else:
            (config.out / "gaussian.metrics.json").write_text(json.dumps(METRICS))
            (config.out / "gaussian.frames.csv").touch()
        return {"seconds": 1.0, "cpu_seconds": 90.0, "peak_memory_bytes": 5e8}

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


def test_intervals_and_differences_are_shown():
    def found(psnr: float, against: dict) -> dict:
        drive = {"psnr": psnr, "intervals": {"psnr": [psnr - 1, psnr + 1]}}
        metrics = {"full_frame": {"tracked": drive}, "head_only": {"audio": drive}, "model": {"bytes": 2e6}}
        return {"metrics": metrics | against, "training": {}, "cost": {}}

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
    (config.out / "gaussian.cost.json").write_text('{"cpu_seconds": 30.0}')
    with pytest.raises(AvatarError):  # the stand-in does not resume
        compare.measured(config, "gaussian")
    assert "--resume" in ran[0]
    assert {"--method", "gaussian", "--quality", "draft"} <= set(ran[0])  # other options than before would be refused


def test_unknown_method_is_refused_before_anything_is_done(asked):
    config, ran = asked
    with pytest.raises(AvatarError, match="no method 'mesh'"):
        compare.main(compare.Config(person=config.person, out=config.out, methods=("mesh",)))
    assert not ran and not config.out.exists()


def test_failed_command_ends_the_comparison():
    with pytest.raises(AvatarError, match="avatar train failed"):
        compare.command("train", "--no-such-option")
