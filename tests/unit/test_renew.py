"""Records are measured in lanes: in order, each once, and what fails holds up only what needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from avatar.data.run import CONFIG
from avatar.errors import AvatarError
from pipelines import renew
from pipelines.renew import Step


def says(path: Path, name: str) -> tuple[str, ...]:
    """A command that writes its name and its number of threads."""
    code = f"import os; open({str(path)!r}, 'a').write({name!r} + os.environ['OMP_NUM_THREADS'] + ' ')"
    return "timeit", "-n", "1", "-r", "1", code


def test_steps_run_in_order_and_once(tmp_path: Path):
    said = tmp_path / "said"
    steps = [
        Step("last", says(said, "last"), ("first", "second")),
        Step("first", says(said, "first")),
        Step("second", says(said, "second"), ("first",)),
    ]
    assert renew.work(steps, tmp_path, 2) == []
    assert said.read_text() == "first1 second1 last1 "
    assert renew.work(steps, tmp_path, 2) == [] and said.read_text().count("first") == 1
    assert all(renew.is_done(step, tmp_path) for step in steps)


def test_what_fails_holds_up_only_what_needs_it(tmp_path: Path):
    said = tmp_path / "said"
    steps = [
        Step("broken", ("no_such_module_anywhere",)),
        Step("needs it", says(said, "needs"), ("broken",)),
        Step("other", says(said, "other")),
    ]
    assert renew.work(steps, tmp_path, 1) == ["broken"]
    assert said.read_text() == "other1 "
    assert "no_such_module_anywhere" in (tmp_path / "logs" / "broken.txt").read_text()
    steps[0] = Step("broken", says(said, "mended"))
    assert renew.work(steps, tmp_path, 1) == [] and said.read_text() == "other1 mended1 needs1 "


def test_a_training_that_was_begun_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = []
    monkeypatch.setattr(renew.subprocess, "Popen", lambda words, **_: given.append(words))
    (tmp_path / "logs").mkdir()
    step = Step("train", ("avatar.cli.main", "train"), run=tmp_path / "run")
    renew._begun(step, tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / CONFIG).touch()
    renew._begun(step, tmp_path)
    assert [words[-1] for words in given] == ["train", "--resume"]


def test_only_what_is_asked_for_and_what_it_needs(tmp_path: Path):
    steps = renew.steps([Path("a.mp4"), Path("b.mp4")], tmp_path)
    assert len({step.name for step in steps}) == len(steps)
    assert {before for step in steps for before in step.after} <= {step.name for step in steps}
    names = [step.name for step in renew.chosen(steps, "a-yaw*standard")]
    assert names == ["a-prepare", "a-yaw-held-out-standard-train", "a-yaw-held-out-standard"]
    assert [step.name for step in renew.chosen(steps, "lips*")] == ["a-prepare", "b-prepare", "lips-blocks"]
    with pytest.raises(AvatarError, match="a-prepare"):
        renew.chosen(steps, "c-*")


def test_every_command_is_one(tmp_path: Path):
    """Options are those that the commands know."""
    import tyro

    from avatar.cli import eval as eval_command
    from avatar.cli import prepare, synth, train
    from pipelines import compare, lips_blocks

    configs = {"prepare": prepare.Config, "synth": synth.Config, "eval": eval_command.Config}
    for step in renew.steps([Path("a.mp4")], tmp_path):
        module, *words = step.words
        if words[0] == "train":
            train.parse(words[1:], "avatar train", "")
        elif module == "avatar.cli.main":
            tyro.cli(configs[words[0]], args=words[1:])
        else:
            tyro.cli({"pipelines.compare": compare, "pipelines.lips_blocks": lips_blocks}[module].Config, args=words)


def test_another_commit_needs_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(renew, "work", lambda *_: [])
    monkeypatch.setattr(renew, "commit", lambda: "a" * 40)
    config = renew.Config(videos=(), out=tmp_path / "work")
    renew.main(config)
    monkeypatch.setattr(renew, "commit", lambda: "b" * 40)
    with pytest.raises(AvatarError, match="commit"):
        renew.main(config)
