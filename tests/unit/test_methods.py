"""Every method trains, resumes, renders and is measured by the same commands; one file is enough to add one."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
import torch

from avatar import registry
from avatar.cli.main import main
from avatar.data import PersonDataset
from avatar.errors import AvatarError
from avatar.infer.avatar import Avatar
from avatar.infer.view_cone import ViewCone
from avatar.io.checkpoint import load_tensors, save_tensors
from avatar.methods import registry as methods
from avatar.methods.base import TrainCallback
from avatar.train import run as training
from avatar.train.batches import load
from avatar.train.config import from_preset
from avatar.train.trainer import Trainer
from tests.person import make_person

POINT = EntryPoint("dummy", "tests.unit.dummy_method:Dummy", methods.GROUP)


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    return make_person(tmp_path_factory.mktemp("person"), frames=30)


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """The package of the dummy is pretended to be installed; networks that speak are left out."""
    monkeypatch.setattr(registry, "entry_points", lambda group, **_: [POINT] if group == methods.GROUP else [])
    monkeypatch.setattr(methods._REGISTRY, "_known", {"gaussian": methods.method("gaussian")})
    for name in ("train_speech", "train_headmotion", "load_prior"):
        monkeypatch.setattr(training, name, lambda *_, **__: None)


@pytest.mark.parametrize("name", ["dummy", "gaussian"])
def test_two_steps_of_every_method(person, tmp_path, name):
    assert methods.method_names() == ["dummy", "gaussian", "nerf"]
    config = from_preset(name, "draft", person=person, out=tmp_path / "run", device="cpu")
    config = replace(config, schedule=replace(config.schedule, steps=2))
    trainer = Trainer(PersonDataset(person), config)
    before = {key: value.clone() for key, value in trainer.state().items()}
    trainer.run(training.open_run(config))
    training.describe(config.out, config, trainer.data)
    learned = [key for key in before if key.startswith("model.") and not torch.equal(before[key], trainer.state()[key])]
    groups = {group.name for group in trainer.model.param_groups()}
    assert learned and len(groups) == len(trainer.model.param_groups())
    avatar = Avatar.load(config.out, device="cpu", precision="float32")
    assert type(avatar.model) is type(trainer.model) and avatar.info["method"] == name
    camera = avatar.camera.resized(48, 48)
    shown = avatar.render(camera, trainer.data.motion, 3)
    with torch.no_grad():
        out = trainer.model.eval()(trainer.data.motion, 3, camera)
    assert shown.shape == (48, 48, 3) and out.rgb.shape == (48, 48, 3) and out.alpha.shape == (48, 48, 1)
    assert (shown.float() / 255 - out.rgb.clamp(0, 1)).abs().max() < 0.01
    assert out.depth is None and out.alpha.min() >= 0 and out.alpha.max() <= 1.001


def test_a_method_of_one_file_goes_through_every_command(person, tmp_path, monkeypatch, capsys):
    whole, run = tmp_path / "whole", tmp_path / "run"

    def train(out, *options):
        return main(["train", str(person), "--out", str(out), "--method", "dummy", "--steps", "4", "--device", "cpu",
                     "--model.cells", "16", *options])  # fmt: skip

    assert train(whole) == 0
    maintain = Trainer._maintain
    with monkeypatch.context() as patch:

        def stopped(self):
            maintain(self)
            if self.step == 2:
                raise KeyboardInterrupt

        patch.setattr(Trainer, "_maintain", stopped)
        assert train(run) == 130
    advice = " ".join(capsys.readouterr().err.split())
    assert "--method dummy" in advice and "--model.cells 16" in advice and "--resume" in advice
    assert train(run, "--resume") == 0
    expected, got = (load_tensors(folder / "checkpoints/last/state.safetensors")[0] for folder in (whole, run))
    assert expected.keys() == got.keys() and all(torch.equal(expected[key], got[key]) for key in expected)
    video = tmp_path / "said.mp4"
    motion = str(run / "motion.safetensors")
    assert ViewCone.of_run(run).measured
    assert main(["render", str(run), "--motion", motion, "--frames", "3", "--out", str(video), "--device", "cpu"]) == 0
    assert video.stat().st_size > 500
    record = tmp_path / "metrics.json"
    few = ["--frames", "3", "--drive", "tracked", "--no-ablations", "--device", "cpu"]
    assert main(["eval", str(run), "--json", str(record), *few]) == 0
    found = json.loads(record.read_text())
    assert found["model"]["method"] == "dummy" and found["full_frame"]["tracked"]["psnr"] > 5 and not found["head_only"]
    assert any("cannot draw the head alone" in note for note in found["notes"])
    assert main(["render", str(run), "--motion", motion, "--frames", "3", "--out", str(video), "--baked"]) == 2
    assert "The method dummy has no baked form" in capsys.readouterr().err
    assert main(["create", "none.mp4", "--out", str(tmp_path / "c"), "--method", "dummy", "--renderer", "gsplat"]) == 2
    assert "there is no option renderer" in " ".join(capsys.readouterr().err.split())


def test_help_shows_the_options_of_the_method(capsys):
    assert main(["train", "--method", "dummy", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--model.cells" in shown and "--model.densify" not in shown


def test_a_model_of_a_method_that_is_not_installed_is_one_sentence(person, tmp_path):
    config = from_preset("dummy", "draft", person=person, out=tmp_path, device="cpu")
    path = tmp_path / "model.safetensors"
    Trainer(PersonDataset(person), config).save_model(path)
    tensors, meta = load_tensors(path)
    save_tensors(path, tensors, meta | {"method": "voxels"})
    with pytest.raises(AvatarError, match=r"'voxels', which is not installed\. Installed are dummy, gaussian, nerf\."):
        methods.load_model(path)
    save_tensors(path, tensors, meta | {"format": "avatar-model-4"})
    with pytest.raises(AvatarError, match="another version"):
        methods.load_model(path)
    with pytest.raises(AvatarError, match=r"no method 'voxels'\. Known are dummy, gaussian, nerf"):
        methods.method("voxels")
    with pytest.raises(AvatarError, match=r"--quality best is not known\. Choose one of draft, standard, high"):
        from_preset("dummy", "best", person=person, out=tmp_path)


def test_callbacks_see_gradients_change_the_model_and_are_resumed(person, tmp_path):
    class Watching(TrainCallback):
        name = "watching"

        def __init__(self):
            self.seen = torch.zeros(1)
            self.changed: list[int] = []

        def due(self, step, steps):
            return step == 2

        def after_backward(self, out):
            self.seen += float(out.rgb.isfinite().all())

        def after_step(self, state):
            self.changed.append(state.step)
            assert state.optimizer.param_groups[0]["name"] == "all" and state.steps == 4

        def state(self):
            return {"seen": self.seen}

        def load_state(self, tensors):
            self.seen = tensors["seen"].clone()

    config = from_preset("dummy", "draft", person=person, out=tmp_path / "run", device="cpu")
    config = replace(config, schedule=replace(config.schedule, steps=4))
    trainer = Trainer(PersonDataset(person), config)
    trainer.callbacks = [Watching()]
    trainer.run(training.open_run(config))
    (watching,) = trainer.callbacks
    assert watching.changed == [2] and watching.seen == 4
    again = Trainer(PersonDataset(person), config)
    again.callbacks = [Watching()]
    again.resume(config.out)
    assert again.callbacks[0].seen == 4


def test_a_method_may_train_on_patches(person, tmp_path, monkeypatch):
    data = PersonDataset(person)
    config = from_preset("gaussian", "draft", person=person, out=tmp_path, device="cpu")
    config = replace(config, schedule=replace(config.schedule, steps=3, half_until=0.0), model=replace(
        config.model, initial_gaussians=300))  # fmt: skip
    kind, seen, boxes = methods.method("gaussian"), [], []

    def trained(patch):
        with monkeypatch.context() as patched:
            patched.setattr(kind, "sample", lambda self, frame, progress, rng: patch(frame, rng))
            trainer = Trainer(data, config)
            original = trainer._loss
            patched.setattr(trainer, "_loss", lambda out, batch: (seen.append((out, batch)), original(out, batch))[1])
            for trainer.step in range(3):
                batch = load(data, 3 + trainer.step, (data.width, data.height), config.loss)
                assert trainer.train_step(batch) is not None
            return trainer.state()

    whole = trained(lambda frame, _: frame)
    same = trained(lambda frame, _: frame.cropped(0, 0, data.width, data.height))
    assert all(torch.equal(whole[name], same[name]) for name in whole)
    full = seen[0][0]  # the first step draws the same model
    seen.clear()

    def corner(frame, rng):
        x, y = (int(v) for v in rng.integers(8, 24, 2))
        boxes.append((x, y, x + 40, y + 32))
        return frame.cropped(*boxes[-1])

    part = trained(corner)
    assert len(set(boxes)) == 3 and not torch.equal(part["model.gaussians.means"], whole["model.gaussians.means"])
    (x0, y0, x1, y1), (out, batch) = boxes[0], seen[0]
    assert out.rgb.shape == batch.image.shape == (32, 40, 3)
    assert (out.rgb - full.rgb[y0:y1, x0:x1]).abs().max() < 0.01
    assert torch.equal(batch.image, load(data, 3, (data.width, data.height), config.loss).image[y0:y1, x0:x1])
    assert 0 <= batch.face_box[0] < batch.face_box[2] <= 40 and 0 <= batch.face_box[1] < batch.face_box[3] <= 32


def test_a_picture_of_another_shape_is_refused(person, tmp_path, monkeypatch):
    config = from_preset("dummy", "draft", person=person, out=tmp_path, device="cpu")
    trainer = Trainer(PersonDataset(person), config)
    batch = load(trainer.data, 0, (96, 96), config.loss)
    kind, draw = type(trainer.model), type(trainer.model).forward

    def wrong(change):
        monkeypatch.setattr(kind, "forward", lambda *args, **more: change(draw(*args, **more)))

    wrong(lambda out: replace(out, rgb=out.rgb[::2, ::2], alpha=out.alpha[::2, ::2]))
    with pytest.raises(AvatarError, match=r"'dummy' drew rgb \[48, 48, 3\], not \[96, 96, 3\]"):
        trainer.train_step(batch)
    wrong(lambda out: (out.rgb, out.alpha))
    with pytest.raises(AvatarError, match="'dummy' returned a tuple"):
        trainer.train_step(batch)
    wrong(lambda out: replace(out, rgb=out.rgb.detach(), alpha=out.alpha.detach()))
    trainer.poses.knots.requires_grad_(False)
    with pytest.raises(AvatarError, match="none of its parameters"):
        trainer.train_step(batch)
    trainer.poses.knots.requires_grad_(True)
    trainer.align_held_out()  # a method that does not draw where the head is has nothing to align
