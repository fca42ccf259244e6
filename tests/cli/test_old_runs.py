"""A RUN folder of another version is one sentence for every command, and stays as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from avatar.cli.main import main
from avatar.data.run import CONFIG, FORMAT, MODEL, PERSON
from avatar.io.checkpoint import save_tensors
from avatar.methods import model_file
from tests.person import make_person, person_info


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_person(tmp_path_factory.mktemp("made") / "person", frames=12)


def old_run(folder: Path, config: str, model: str) -> dict[Path, bytes]:
    """Files as an earlier version left them: other formats, and other names of what speaks."""
    folder.mkdir()
    (folder / CONFIG).write_text(f'format = "{config}"\nperson = "/somewhere/anna"\n')
    person_info().write(folder / PERSON)
    save_tensors(folder / MODEL, {"gaussians.rig": torch.zeros(3)}, {"format": model})
    save_tensors(folder / "checkpoints" / "last" / "state.safetensors", {"x": torch.zeros(1)}, {"step": 1})
    for name in ("speech", "prior", "live", "generator"):
        save_tensors(folder / f"{name}.safetensors", {"x": torch.zeros(1)}, {})
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "command",
    [
        "render {run} --idle 1", "render {run} --split test", "eval {run}", "view {run}", "export {run} --format baked",
        "export {run} --format motion --idle 1 --out {out}.safetensors", "export {run} --format dataset --out {out}",
        "train {person} --out {run} --resume", "create {out}.mp4 --out {run}",
    ],
)  # fmt: skip
def test_an_old_run_is_one_sentence(person: Path, tmp_path: Path, capsys, command: str) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    before = old_run(run, "avatar-run-1", model_file.FORMAT)
    assert main(command.format(run=run, out=out, person=person).split()) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "was written by another version" in said and "avatar train" in said and "Traceback" not in said
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before and not out.exists()


def test_an_old_model_alone_is_one_as_well(tmp_path: Path, capsys) -> None:
    old_run(tmp_path / "run", FORMAT, "avatar-model-4")
    assert main(["render", str(tmp_path / "run"), "--idle", "1"]) == 2
    assert "model.safetensors was written by another version" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("train {run} --out {out}", "is a RUN folder, not a prepared person"),
        ("render {person} --idle 1", "is a PERSON folder, not a RUN folder"),
        ("view {person}", "is a PERSON folder, not a RUN folder"),
    ],
)
def test_one_folder_in_place_of_the_other(person: Path, tmp_path: Path, capsys, command: str, says: str) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    old_run(run, FORMAT, model_file.FORMAT)
    assert main(command.format(run=run, out=out, person=person).split()) == 2
    assert says in " ".join(capsys.readouterr().err.split()) and not out.exists()


def test_a_bare_train_asks_for_its_folders(capsys) -> None:
    assert main(["train"]) == 2
    assert "PERSON" in capsys.readouterr().err
