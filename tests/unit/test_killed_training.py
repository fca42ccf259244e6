"""A training is lost at no moment: real kills of a tiny one, and what `train` and `create` make of what is left."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from avatar.cli.main import main
from avatar.data import PersonDataset
from avatar.data.run import CHECKPOINT, CONFIG
from avatar.errors import AvatarError
from avatar.train.run import open_run
from avatar.train.trainer import Trainer
from avatar.writing import WHOLE, WORKING
from tests.person import make_person, small_config, train

ROOT = Path(__file__).resolve().parents[2]
ATTACK = """
    import json, random, sys
    from dataclasses import replace
    from pathlib import Path
    import torch, torch._dynamo, scipy.spatial, avatar.train.trainer
    from pipelines import kills
    from avatar.data import PersonDataset
    from avatar.infer import view_measure
    from avatar.methods.gaussian import coverage
    from avatar.methods.gaussian.method import GaussianAvatar
    from avatar.train import run as command
    from tests.person import make_person, small_config

    place = Path(sys.argv[1])
    command.load_prior = lambda path: None
    command.train_speech = command.train_headmotion = lambda *_, **__: None
    view_measure.AZIMUTHS, view_measure.ELEVATIONS, coverage.FRAMES = (-30.0, 0.0, 30.0), (0.0,), 4

    def begin():
        data = PersonDataset(make_person(place / "person", frames=20))
        model = GaussianAvatar.from_person(data, small_config(place / "person", place).model, 0)
        torch.save(model, place / "untrained.pt")

    assert kills.run(begin, place / "output.txt").code == 0
    # Every training begins with it: what is killed is what comes after.
    GaussianAvatar.from_person = lambda *_: torch.load(place / "untrained.pt", weights_only=False)

    def task(**options):
        config = small_config(place / "person", place / "case" / "run", steps=8)
        return lambda: command.train(replace(config, save_every=2, preview_every=4, **options))

    again = kills.follow_advice(task(resume=True), task(), place / "case" / "run")
    case = kills.Case(name="train", first=task(), again=again, check=kills.resumable("run"))
    print(json.dumps(kills.attack(case, place / "case", 4, random.Random(4))))

    def careless():
        out = place / "case" / "out"
        if not out.exists():
            out.mkdir()
            (out / "inner").mkdir()

    case = kills.Case(name="careless", first=careless, again=careless)
    print(json.dumps(kills.attack(case, place / "case", 6, random.Random(4))))
"""


def test_killed_trainings_go_on_to_the_same_end(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ATTACK), str(tmp_path)],
        capture_output=True, text=True, cwd=ROOT, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counts, careless = map(json.loads, done.stdout.splitlines()[-2:])
    assert "out/inner" in careless["failures"][0]["problem"]  # what is lost is found
    assert counts["failures"] == []
    assert counts["killed aimed"] + counts["killed at random"] == 4 and counts["undisturbed"]["changes"] > 50


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_person(tmp_path_factory.mktemp("made") / "person", frames=20)


def test_a_checkpoint_that_has_not_got_its_name_yet_is_resumed(person: Path, tmp_path: Path) -> None:
    config = small_config(person, tmp_path / "run", steps=2)
    train(config)
    last = tmp_path / "run" / "checkpoints" / "last"
    working = last.with_name(f"{WORKING}0{WHOLE}")
    working.mkdir()
    last.rename(working / "last")  # killed between the two renames of a system that cannot exchange
    assert open_run(replace(config, resume=True)) == config.out
    assert (config.out / CHECKPOINT).is_file() and not working.exists()
    Trainer(PersonDataset(person), config).resume(config.out)


def test_the_checkpoint_is_written_before_the_model(
    person: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise RuntimeError("power cut")

    monkeypatch.setattr(Trainer, "save_model", killed)
    with pytest.raises(RuntimeError):
        train(small_config(person, tmp_path / "run", steps=1))
    assert (tmp_path / "run" / CHECKPOINT).is_file()


def test_create_removes_nothing_that_could_hold_a_training(
    person: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    """What a kill of an older version left: the model, and the checkpoint under a hidden name."""
    monkeypatch.setattr("avatar.preprocess.pipeline.prepare", lambda *_, **__: None)
    make_person(tmp_path / "run.person", frames=20)
    train(small_config(tmp_path / "run.person", tmp_path / "run", steps=1))
    last = tmp_path / "run" / "checkpoints" / "last"
    last.rename(last.with_name(".last.x7k2"))
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    arguments = ["create", str(tmp_path / "v.mp4"), "--out", str(tmp_path / "run"), "--quality", "draft", "--no-eval"]
    for gone in ("", "model.safetensors"):
        (tmp_path / "run" / gone).unlink() if gone else None
        before.pop(tmp_path / "run" / gone, None)
        assert main(arguments) == 2
        shown = " ".join(capsys.readouterr().err.split())
        assert "holds no checkpoint to resume, but checkpoints/.last.x7k2" in shown and "Traceback" not in shown
        assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_resume_before_the_first_checkpoint_begins_anew(person: Path, tmp_path: Path, capsys) -> None:
    config = small_config(person, tmp_path / "run", steps=1)
    with pytest.raises(AvatarError, match="no checkpoint"):
        open_run(replace(config, resume=True))
    (open_run(config) / CONFIG).touch()
    (config.out / "checkpoints").mkdir()
    with pytest.raises(AvatarError, match="--resume"):
        open_run(config)
    assert open_run(replace(config, resume=True)) == config.out
    assert "begins anew" in capsys.readouterr().err


def test_overwrite_can_be_given_again_after_a_kill(
    person: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small_config(person, tmp_path / "run", steps=1)
    train(config)

    def killed(*_: object) -> None:
        raise RuntimeError("power cut")

    for place in ("shutil.rmtree", "pathlib.Path.unlink"):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError):
            patch.setattr(place, killed)
            open_run(replace(config, overwrite=True))
    assert list(open_run(replace(config, overwrite=True)).iterdir()) == []
