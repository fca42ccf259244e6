"""What a radiance field does beyond its training frames, at its outline, and where Gaussians take over."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from avatar.backends import nerfacc
from avatar.data import PersonDataset
from avatar.errors import AvatarError
from avatar.fields.gaussians import REGIONS
from avatar.methods.nerf import composite, sampling
from avatar.methods.nerf.composite import smoothed_outline
from avatar.methods.nerf.config import NerfConfig, RegularizerConfig
from avatar.methods.nerf.head_shape import _skull
from avatar.methods.nerf.method import NerfAvatar
from avatar.methods.nerf.model import _BEYOND
from avatar.motion.face_channels import CHANNEL_INDEX
from avatar.preprocess.sweep import Sweep
from avatar.train.batches import load
from tests.nerf import nerf_config, nerf_trainer, untrained
from tests.person import make_person, small_config, train


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_person(tmp_path_factory.mktemp("person"), frames=40)


@pytest.fixture(scope="module")
def made(person: Path) -> NerfAvatar:
    return untrained(person).eval()


def test_the_mesh_at_rest_is_the_mean_face(person: Path, tmp_path: Path):
    """That of somebody whose mouth is open most of the time has it open."""
    data = PersonDataset(person)
    face = data.motion.face.clone()
    face[:, CHANNEL_INDEX["jaw_y"]] += 1.0
    data.motion = data.motion.map(face=face)
    model = NerfAvatar.from_person(data, nerf_config(person, tmp_path).model, 0)
    warp, basis, train_frames = model.warp, model.torso.basis, data.train_frames
    shape = torch.from_numpy(data.shape).float()
    rest = shape + basis(warp.face, data.motion.gaze[train_frames].mean(0))
    assert (rest - shape).abs().amax() > 0.1  # centimetres
    torch.testing.assert_close(warp.rest, rest[: len(warp.rest)])


def test_faces_beyond_the_training_frames_are_held_at_their_edge(made: NerfAvatar):
    """Nothing of a frame in range changes; a jaw that opens twice as far opens no further than cells were kept for."""
    motion, jaw = made.filmed.motion, CHANNEL_INDEX["jaw_y"]  # type: ignore[union-attr]
    conditioner = made.torso.conditioner
    low, high = (conditioner.mean + _BEYOND * x / conditioner.scale for x in (conditioner.low, conditioner.high))
    same, at = made._in_range(motion, 3)
    inside = (motion.face[3] > low[: motion.face.shape[1]]) & (motion.face[3] < high[: motion.face.shape[1]])
    assert at == 0 and len(same) == 1 and torch.equal(same.face[0][inside], motion.face[3][inside])
    wide, wider = (motion.map(face=motion.face.clone().index_fill_(1, torch.tensor([jaw]), v)) for v in (50.0, 500.0))
    assert float(made._in_range(wide, 3)[0].face[0, jaw]) == pytest.approx(float(high[jaw]))
    camera = made.filmed.camera  # type: ignore[union-attr]
    with torch.no_grad():
        assert torch.equal(made(wide, 3, camera).rgb, made(wider, 3, camera).rgb)
        assert torch.equal(made.draw(camera, wide, 3), made.draw(camera, wider, 3))
    whole = copy.deepcopy(made).train()
    assert whole._in_range(wide, 3)[0] is wide  # training frames are in range


def test_an_outline_gets_more_rays_than_the_inside():
    """A straight edge across pixels: each gets the share that is covered, and no other pixel is drawn again."""

    def solid(places: Tensor) -> Tensor:
        inside = (places[:, 0] - 100 < 4.3 + 0.3 * (places[:, 1] - 200)).float()
        asked.append(places)
        return torch.stack([0.5 * inside, 0 * inside, 0 * inside, inside], 1)

    asked: list[Tensor] = []
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    middles = torch.stack([x + 100.5, y + 200.5], -1).view(-1, 2)
    one = solid(middles).view(12, 16, 4)
    smooth = smoothed_outline(one, (100, 200, 116, 212), solid)
    fine = (torch.arange(8) + 0.5) / 8
    many = solid(
        (middles[:, None, None] - 0.5 + torch.stack(torch.meshgrid(fine, fine, indexing="xy"), -1)).view(-1, 2)
    )
    exact = many.view(12, 16, 64, 4).mean(2)
    assert (smooth - exact).abs()[..., 3].amax() < 0.26 and (one - exact).abs()[..., 3].amax() > 0.45
    assert (smooth - exact).square().mean() < 0.25 * (one - exact).square().mean()
    assert len(asked[1]) < 4 * 60 and torch.equal(smooth[:, -3:], one[:, -3:])
    flat = torch.full((5, 5, 4), 0.7)
    assert smoothed_outline(flat, (0, 0, 5, 5), lambda places: pytest.fail("nothing is steep")) is flat


def test_a_fuzzy_image_is_drawn_in_parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(composite, "RAYS_AT_ONCE", 1000)
    image = torch.rand(40, 50, 5, generator=torch.Generator().manual_seed(0))
    asked = []

    def draw(places: Tensor) -> Tensor:
        asked.append(len(places))
        return places[:, :1].expand(-1, 5)

    smooth = smoothed_outline(image, (0, 0, 50, 40), draw)
    assert max(asked) == 1000 and sum(asked) > 4 * 1500 and smooth.shape == image.shape
    torch.testing.assert_close(smooth[7, 9], torch.full((5,), 9.5))


def test_the_outline_has_the_depth_of_what_it_shows(made: NerfAvatar):
    """Where half of a pixel's rays miss the head, its depth is that of the others."""
    motion, camera = made.filmed.motion, made.filmed.camera  # type: ignore[union-attr]
    real = made._draw_head

    def solid(rays: Any, face: Any) -> Any:
        drawn = real(rays, face)
        hit = (drawn.alpha > 0).float()
        return drawn._replace(alpha=hit, depth=60 * hit)

    made._draw_head = solid  # type: ignore[method-assign]
    try:
        with torch.no_grad():
            head = made.head_image(motion, 3, camera)
    finally:
        del made._draw_head
    shown = head.alpha > 0
    assert ((head.alpha > 0.1) & (head.alpha < 0.9)).any()
    torch.testing.assert_close(head.aux["depth"][shown], torch.full_like(head.aux["depth"][shown], 60.0))


def test_frames_are_counted_from_the_end_too(made: NerfAvatar):
    motion, camera = made.filmed.motion, made.filmed.camera  # type: ignore[union-attr]
    with torch.no_grad():
        assert torch.equal(made(motion, -1, camera).rgb, made(motion, len(motion) - 1, camera).rgb)


def test_hanging_hair_is_left_to_gaussians(person: Path):
    """Hair that is far wider than the face and looks at the camera: the field's beside the eyes, not beside the jaw."""
    y = np.linspace(-9, 9, 37)
    same = np.ones_like(y)
    wide = Sweep(y, left=20 * same, right=20 * same, centre=0 * same, middle=9 * same, front=12 * same, back=9 * same)
    skull = _skull(wide, PersonDataset(person).shape)
    high, low = skull.points[:, 1] < 1.9, skull.points[:, 1] > 2.1
    beside = (np.abs(skull.points[:, 0]) < 15) & (skull.normals[:, 2] < -0.6)
    assert skull.own[high & beside].all() and (low & beside).any() and not skull.own[low].any()


def test_rays_of_a_frame_without_a_head_count_as_any(person: Path, tmp_path: Path):
    trainer = nerf_trainer(person, tmp_path / "run")
    data = trainer.data
    frame = load(data, 3, (data.width, data.height), trainer.config.loss)
    bare = frame._replace(head=torch.zeros_like(frame.head))
    rays = sampling._rays(bare, np.random.default_rng(0), 500)
    assert rays.weight.mean() < 2 * frame.weight.mean()


def test_gaussians_of_a_run_have_normals(person: Path, tmp_path: Path):
    train(small_config(person, tmp_path / "gaussian", 2))
    (tmp_path / "gaussian" / "training.json").write_text("{}")
    model = nerf_trainer(person, tmp_path / "run", torso=tmp_path / "gaussian").model
    g = model.torso.gaussians
    hair = g.region == REGIONS.index("hair")
    assert hair.any() and (g.normal[hair].norm(dim=1) > 0.99).double().mean() > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": 32, "features": 16}, "1536 features"),
        ({"loss": RegularizerConfig(hidden=-1.0)}, r"--model.loss.hidden is -1"),
        ({"loss": RegularizerConfig(random_background=1.5)}, r"--model.loss.random-background is 1.5"),
        ({"lr": replace(NerfConfig().lr, network=float("nan"))}, r"--model.lr.network is"),
    ],
)
def test_options_that_cannot_work_are_refused(change, message):
    NerfConfig().check()
    with pytest.raises(AvatarError, match=message):
        replace(NerfConfig(), **change).check()


def test_nerfacc_without_samples_has_a_gradient(monkeypatch):
    monkeypatch.setattr(nerfacc.importlib, "import_module", lambda name: None)
    monkeypatch.setattr(nerfacc, "_DEVICE", torch.device("cpu"))
    densities, colors = torch.zeros(0, requires_grad=True), torch.zeros(0, 3, requires_grad=True)
    none = torch.zeros(0)
    image, opacity, _ = nerfacc.march_rays(torch.zeros(5, dtype=torch.int32), none, none, densities, colors)
    assert image.shape == (4, 3) and opacity.shape == (4,)
    assert torch.autograd.grad(image.sum() + opacity.sum(), colors)[0].shape == (0, 3)
