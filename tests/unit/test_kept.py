"""Kept steps of pipelines: other options are refused, costs add up over parts, and commits are those of the numbers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from avatar.data.run import ENVIRONMENT, TRAINING
from avatar.errors import AvatarError
from avatar.paths import read_json, write_json
from pipelines import kept

USED = {"seconds": 2.0, "cpu_seconds": 3.0, "peak_memory_bytes": 5}


def test_a_folder_takes_the_options_of_its_steps_alone(tmp_path: Path):
    folder = tmp_path / "out"
    for _ in range(2):
        kept.require(folder, {"quality": "draft", "steps": None})
    for other, told in (({"quality": "standard", "steps": None}, "quality draft, not standard"),
                        ({"quality": "draft", "steps": 5}, "steps None, not 5"),
                        ({"quality": "draft", "steps": None, "device": "cpu"}, "device None, not cpu")):  # fmt: skip
        with pytest.raises(AvatarError, match=told) as refused:
            kept.require(folder, other)
        assert "another --out" in refused.value.fix
    kept.require(folder, {"quality": "draft", "steps": None})


def test_a_person_who_was_prepared_anew_is_another(tmp_path: Path):
    (tmp_path / "person.json").write_text("{}")
    before = kept.person(tmp_path)
    kept.require(tmp_path / "out", before)
    (tmp_path / "person.json").write_text("{ }")
    with pytest.raises(AvatarError, match=r"made with person\.json"):
        kept.require(tmp_path / "out", kept.person(tmp_path))


def test_a_folder_that_does_not_say_what_its_steps_were_asked_for_is_refused(tmp_path: Path):
    (tmp_path / "gaussian.metrics.json").write_text("{}")
    with pytest.raises(AvatarError, match="does not say"):
        kept.require(tmp_path, {"quality": "draft"})
    assert not (tmp_path / kept.ASKED).exists()


def test_a_measurement_stands_for_its_own_options_once_it_is_done(tmp_path: Path):
    result = tmp_path / "a.metrics.json"
    write_json(result, {})
    assert not kept.stands(result, {"truth": None})
    with kept.measuring(result, {"truth": None}):
        assert not kept.stands(result, {"truth": None})
    assert kept.stands(result, {"truth": None}) and not kept.stands(result, {"truth": "subject"})
    with pytest.raises(AvatarError), kept.measuring(result, {"truth": "subject"}):
        write_json(result, {"views": {}})
        raise AvatarError("It failed after the file was written.")
    assert not kept.stands(result, {"truth": None}), "its file is no longer that of before"
    kept.forget([result])
    assert not list(tmp_path.iterdir())


def test_what_failed_and_interrupted_parts_took_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cost, wait = tmp_path / "cost.json", os.wait4
    with pytest.raises(AvatarError, match="avatar train failed"):
        kept.command("train", "--no-such-option", cost=cost)
    first = read_json(cost)
    assert first["cpu_seconds"] > 0 and first["seconds"] > 0 and first["peak_memory_bytes"] > 0
    assert not kept.is_done(cost) and kept.spent(cost) == first

    def pressed(*arguments: int):
        monkeypatch.setattr(kept.os, "wait4", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(kept.os, "wait4", pressed)
    with pytest.raises(KeyboardInterrupt):
        kept.command("train", "--no-such-option", cost=cost, resumes=True)
    both = kept.spent(cost)
    assert both is not None and both["cpu_seconds"] > 1.2 * first["cpu_seconds"] and both["ended"] == 2


def test_seconds_add_up_and_the_largest_memory_counts(tmp_path: Path):
    cost = tmp_path / "cost.json"
    for done, memory in ((False, 5), (True, 4)):
        kept.begin(cost)
        kept.end(cost, USED | {"peak_memory_bytes": memory}, done=done)
    found = kept.spent(cost)
    assert found is not None and kept.is_done(cost)
    assert [found[name] for name in USED] == [4.0, 6.0, 5]
    kept.begin(cost)
    assert not kept.is_done(cost)


@pytest.mark.parametrize("before", [True, False])
def test_what_a_part_took_that_was_killed_with_the_pipeline_is_not_known(tmp_path: Path, before: bool):
    cost = tmp_path / "cost.json"
    if before:  # its beginning is written down, its end is not
        kept.begin(cost)
    kept.begin(cost, resumes=True)
    kept.end(cost, USED)
    assert kept.is_done(cost) and kept.spent(cost) is None


def test_commits_are_those_of_all_parts_of_a_training_oldest_first(tmp_path: Path):
    write_json(tmp_path / TRAINING, {"seconds": 1.0})
    earlier = [{"date": "1", "commit": "a"}, {"date": "2", "commit": "b"}]
    write_json(tmp_path / ENVIRONMENT, {"date": "3", "commit": "c", "earlier": earlier})
    assert kept.trained_at(tmp_path) == [*earlier, {"date": "3", "commit": "c"}]
    assert kept.measured_at({"commit": "d", "date": "4", "psnr": 30.0}) == {"date": "4", "commit": "d"}
