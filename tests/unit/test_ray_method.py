"""A radiance field trains on random rays and patches, refreshes its occupancy grid, and is rendered and measured."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import EntryPoint

import pytest
import torch

from avatar import registry
from avatar.cli.main import main
from avatar.data import PersonDataset
from avatar.geometry.cameras import Camera
from avatar.losses.lpips import LPIPS
from avatar.methods import registry as methods
from avatar.train import run as training
from avatar.train.batches import load
from avatar.train.config import from_preset
from avatar.train.trainer import Trainer
from tests.person import make_person

POINT = EntryPoint("cloud", "tests.unit.dummy_rays:Cloud", methods.GROUP)


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    return make_person(tmp_path_factory.mktemp("person"), frames=30)


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr(registry, "entry_points", lambda group, **_: [POINT] if group == methods.GROUP else [])
    monkeypatch.setattr(methods._REGISTRY, "_known", {})
    for name in ("train_speech", "train_headmotion", "load_prior"):
        monkeypatch.setattr(training, name, lambda *_, **__: None)


def config_of(person, out, steps):
    config = from_preset("cloud", "draft", person=person, out=out, device="cpu")
    schedule = replace(config.schedule, steps=steps, half_until=0.0, align_passes=1)
    return replace(config, schedule=schedule, loss=replace(config.loss, lpips=0.05, lpips_start=0.0))


def test_rays_and_patches_are_trained_on(person, tmp_path, monkeypatch):
    lpips, seen = [], []
    monkeypatch.setattr(LPIPS, "load", lambda: _Lpips(lpips))
    config = config_of(person, tmp_path / "run", 8)
    trainer = Trainer(PersonDataset(person), config)
    original = trainer._loss

    def loss(out, batch):
        found, parts = original(out, batch)
        seen.append((out, batch, parts))
        return found, parts

    monkeypatch.setattr(trainer, "_loss", loss)
    before = trainer.state()["model.grid"].clone()
    trainer.run(training.open_run(config))
    rays = [(out, batch, parts) for out, batch, parts in seen if batch.pixels is not None]
    patches = [(out, batch, parts) for out, batch, parts in seen if batch.pixels is None]
    assert 0 < len(patches) < len(rays) and len(lpips) == len(patches)
    for out, batch, parts in rays:
        assert out.rgb.shape == batch.image.shape == (64, 3) and out.alpha.shape == batch.person.shape == (64, 1)
        assert "ssim" not in parts and "lpips" not in parts and parts["l1"] > 0 and "entropy" in parts
        frame = load(trainer.data, batch.index, (trainer.data.width, trainer.data.height), config.loss)
        x, y = batch.pixels[7].tolist()
        assert torch.equal(batch.image[7], frame.image[y, x]) and torch.equal(batch.weight[7], frame.weight[y, x])
    for out, batch, parts in patches:
        assert out.rgb.shape == batch.image.shape == (16, 16, 3) and {"ssim", "lpips"} <= parts.keys()
    assert not torch.equal(trainer.state()["model.grid"], before)
    again = Trainer(PersonDataset(person), config)
    again.run(training.open_run(replace(config, out=tmp_path / "again")))
    assert all(torch.equal(value, again.state()[name]) for name, value in trainer.state().items())


def test_a_radiance_field_goes_through_the_commands(person, tmp_path):
    run, record = tmp_path / "run", tmp_path / "metrics.json"
    options = ["--method", "cloud", "--steps", "2", "--device", "cpu", "--loss.lpips", "0"]
    assert main(["train", str(person), "--out", str(run), *options]) == 0
    few = ["--frames", "3", "--drive", "tracked", "--no-ablations", "--device", "cpu"]
    assert main(["eval", str(run), "--json", str(record), *few]) == 0
    assert json.loads(record.read_text())["full_frame"]["tracked"]["psnr"] > 5
    model = methods.load_model(run / "model.safetensors")[0]
    data = PersonDataset(person)
    out = model(data.motion, 3, data.camera, with_depth=True)
    hit = out.alpha > 0.1
    assert out.rgb.shape == (data.height, data.width, 3) and out.depth is not None
    assert hit.any() and (out.depth[hit] - data.motion.head_translation[3, 2]).abs().max() < 20  # centimetres


def test_an_occupancy_grid_is_refreshed_by_a_callback(person, tmp_path):
    trainer = Trainer(PersonDataset(person), config_of(person, tmp_path / "run", 4))
    with torch.no_grad():
        trainer.state()["model.grid"][:, 3, :4] = -20  # the half in front is empty
    trainer.step = 2
    trainer._maintain()
    occupied = trainer.state()["model.occupied"][0, 0]
    assert occupied[:3].sum() == 0 < occupied[4:].sum() == occupied[4:].numel()


def test_rays_go_through_the_centres_of_their_pixels():
    camera = Camera.source(90.0, 30.0, 20.0, 64, 48).orbit(torch.tensor([1.0, 2.0, 50.0]), 20, -10)
    pixels = torch.tensor([[0, 0], [63, 47], [30, 7]])
    origin, directions = camera.rays(pixels)
    assert torch.allclose(camera.project(origin + 37 * directions), pixels + 0.5, atol=1e-3)
    assert torch.allclose(directions @ camera.viewmat[2, :3], torch.ones(3), atol=1e-5)


class _Lpips:
    """Stands in for the network; counts what it is shown."""

    def __init__(self, seen):
        self.seen = seen

    def to(self, device):
        return self

    def __call__(self, image, target):
        self.seen.append(image.shape)
        return (image - target).square().mean()
