"""The radiance field of the head: training, poses, occupancy, composite, what is behind it, files and refusals."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from avatar.cli.main import main
from avatar.data import PersonDataset
from avatar.errors import AvatarError
from avatar.export import fusion, mesh
from avatar.fields.gaussians import REGIONS
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.io.checkpoint import load_tensors
from avatar.methods.base import TrainState
from avatar.methods.nerf import method as nerf_method
from avatar.methods.nerf import occupancy, sampling
from avatar.methods.nerf import refresh as refreshing
from avatar.methods.nerf.composite import enlarged
from avatar.methods.nerf.head_shape import CELLS, below_neck, cell_centres, measure_head
from avatar.methods.nerf.method import NerfAvatar
from avatar.methods.nerf.model import GROUPS, Face
from avatar.methods.nerf.rays import head_rays, pixels_in
from avatar.methods.registry import load_model
from avatar.motion import Motion
from avatar.motion.face_channels import CHANNEL_INDEX
from avatar.native import pack_occupancy
from avatar.train import run as training
from avatar.train.batches import load
from avatar.train.trainer import Trainer
from tests.nerf import nerf_config, nerf_trainer, untrained
from tests.person import make_person, small_config, train


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_person(tmp_path_factory.mktemp("person"), frames=40)


@pytest.fixture(scope="module")
def run(person: Path, made: NerfAvatar, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of a few steps."""
    folder = tmp_path_factory.mktemp("run") / "run"
    train(nerf_config(person, folder, 6), copy.deepcopy(made))
    (folder / "training.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def gaussian_run(person: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training of the other method."""
    folder = tmp_path_factory.mktemp("gaussian") / "run"
    train(small_config(person, folder, 2))
    (folder / "training.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def made(person: Path) -> NerfAvatar:
    """An untrained model, which no test changes."""
    return untrained(person)


@pytest.fixture
def model(made: NerfAvatar) -> NerfAvatar:
    """An untrained model."""
    return copy.deepcopy(made)


def face_of(model: NerfAvatar, frame: int = 0) -> Face:
    """The face of a training frame."""
    assert model.filmed is not None
    return model.face(model.filmed.motion, frame)


def frame_of(trainer: Trainer, index: int = 3):
    data = trainer.data
    return load(data, index, (data.width, data.height), trainer.config.loss)


def test_two_steps_train_field_and_gaussians(person, model, tmp_path, monkeypatch):
    trainer = nerf_trainer(person, tmp_path / "run", model)
    before = {name: value.clone() for name, value in trainer.state().items()}
    monkeypatch.setattr(sampling, "BODY", 0.0)
    rays = trainer.train_step(frame_of(trainer))
    after_rays = {name: value.clone() for name, value in trainer.state().items()}
    trainer.step = 1
    monkeypatch.setattr(sampling, "BODY", 1.0)
    part = trainer.train_step(frame_of(trainer, 5))
    after = trainer.state()

    def changed(name, first, second):
        return not torch.equal(first[name], second[name])

    field, gaussians = "model.field.encoding.table", "model.torso.gaussians.colors"
    assert rays is not None and "ssim" not in rays and {"entropy", "distortion", "head"} <= rays.keys()
    assert changed(field, before, after_rays) and not changed(gaussians, before, after_rays)
    assert part is not None and {"ssim", "surface"} <= part.keys()
    assert changed(field, after_rays, after) and changed(gaussians, after_rays, after)


def test_gradients_reach_the_head_pose_through_rays_and_through_the_image(person, model):
    data = PersonDataset(person)
    for draw in ("pixels", "image"):
        pose = data.motion.head_translation[3:4].clone().requires_grad_()
        motion = data.motion[3:4].map(head_translation=pose)
        if draw == "pixels":
            pixels = torch.stack(torch.meshgrid(torch.arange(30, 60), torch.arange(30, 60), indexing="xy"), -1)
            out = model.forward_pixels(motion, 0, data.camera, pixels.view(-1, 2), background=torch.zeros(900, 3))
        else:
            out = model(motion, 0, data.camera)
        out.rgb.square().sum().backward()
        assert pose.grad is not None and pose.grad.abs().min() > 0


def test_pixels_are_those_of_the_image(person, model):
    data = PersonDataset(person)
    model.eval()
    background = torch.rand(data.height, data.width, 3)
    pixels = torch.tensor([[48, 40], [20, 70], [50, 60], [2, 3]])
    x, y = pixels.unbind(-1)
    with torch.no_grad():
        image = model(data.motion, 3, data.camera, background=background, with_depth=True)
        some = model.forward_pixels(data.motion, 3, data.camera, pixels, background=background[y, x])
    assert torch.allclose(some.rgb, image.rgb[y, x], atol=1e-5)
    assert torch.allclose(some.alpha, image.alpha[y, x], atol=1e-5)
    assert image.depth is not None and 50 < float(image.depth[40, 48]) < 70


def test_the_head_is_composited_over_what_is_behind_it(person, model):
    data = PersonDataset(person)
    model.eval()
    with torch.no_grad():
        head = model.head_image(data.motion, 3, data.camera)
        with_hair = model(data.motion, 3, data.camera, part="head")
        hair = model.torso(data.motion, 3, data.camera, part="head")
        whole = model(data.motion, 3, data.camera)
        person_alone = model(data.motion, 3, data.camera, part="person")
        behind = model.torso(data.motion, 3, data.camera)
    assert torch.allclose(whole.rgb, head.rgb + (1 - head.alpha) * behind.rgb, atol=1e-6)
    assert torch.allclose(whole.alpha, head.alpha + (1 - head.alpha) * behind.alpha, atol=1e-6)
    assert hair.alpha.sum() > 1  # Gaussians of the head's sides and of hanging hair, which the field leaves to them
    assert torch.allclose(with_hair.rgb, head.rgb + (1 - head.alpha) * hair.rgb, atol=1e-6)
    background = model.background_at(data.camera)
    assert torch.allclose(whole.rgb, person_alone.rgb + (1 - whole.alpha) * background, atol=1e-5)
    with pytest.raises(AvatarError, match="no part 'nose'"):
        model(data.motion, 3, data.camera, part="nose")


def test_the_head_moves_rigidly_with_its_pose(person, model):
    """A camera that moves along sees the same."""
    data = PersonDataset(person)
    model.eval()
    motion, index = data.motion, 3
    world = torch.eye(4)
    world[:3, :3] = torch.linalg.matrix_exp(torch.tensor([[0, -0.1, 0.2], [0.1, 0, -0.05], [-0.2, 0.05, 0]]))
    world[:3, 3] = torch.tensor([2.0, -1.0, 5.0])
    turn = world[:3, :3] @ axis_angle_to_matrix(motion.head_rotation[index])
    moved = motion.map(
        head_rotation=matrix_to_axis_angle(turn)[None].expand(len(motion), 3),
        head_translation=(world[:3, :3] @ motion.head_translation[index] + world[:3, 3])[None].expand(len(motion), 3),
    )
    camera = replace(data.camera, viewmat=data.camera.viewmat @ torch.linalg.inv(world))
    condition = model.torso.condition(motion, index)
    model.torso.condition = lambda *_: condition  # of the same face: a turned head has another one
    with torch.no_grad():
        one = model.head_image(motion, index, data.camera)
        other = model.head_image(moved, index, camera)
    assert one.alpha.sum() > 100 and (one.rgb - other.rgb).abs().mean() < 1e-3


def test_each_group_of_the_condition_has_its_channels():
    mouth, eyes, pose = GROUPS
    assert CHANNEL_INDEX["jaw_y"] in mouth and CHANNEL_INDEX["eye_left_open"] in eyes and len(pose) == 3
    assert sorted([*mouth, *eyes, *pose]) == list(range(len(CHANNEL_INDEX) + 5))


def test_the_field_begins_at_the_face_and_ends_above_the_neck(person, model):
    grid = model.occupancy
    points = cell_centres(grid.box)
    held = grid.holds(points) > 0
    shape = torch.from_numpy(PersonDataset(person).shape)
    front = shape[:468][shape[:468, 0].abs() < 5]  # the sides are left to Gaussians
    away = torch.cdist(front, points[held]).amin(1)
    assert len(front) > 300 and float(away.quantile(0.98)) < 0.5  # centimetres: a cell is next to every landmark
    assert below_neck(points[held], grid.neck).max() < 1.6
    low = torch.tensor([[0.0, 25.0, 5.0]])
    with torch.no_grad():
        assert float(model.evaluate(low, face_of(model))[0][0]) == 0.0
    kept = model.torso.gaussians
    assert 50 < len(kept) < 480 and REGIONS.index("neck") in kept.region.tolist()


def test_the_head_fades_out_where_the_neck_begins(person, model):
    """No density below the plane through chin and earlobes, whatever the field says: the neck moves on its own."""
    model.eval()
    grid = model.occupancy
    grid.bits.fill_(255)  # every cell of the box is sampled
    grid.measure_front()
    with torch.no_grad():
        model.field.density.bias[0] = 4.0  # and full
        points = cell_centres(grid.box)
        density, _ = model.evaluate(points, face_of(model))
    below = below_neck(model.warp.at_rest(points, face_of(model).moved), grid.neck)
    assert (density[below > 1.6] == 0).all() and (density[below < 0] > 10).all()
    data = PersonDataset(person)
    rays = head_rays(data.motion, 3, data.camera, pixels_in((0, 0, data.width, data.height), data.camera))
    with torch.no_grad():
        samples, densities, _ = model.samples(rays, face_of(model))
    below = below_neck(model.warp.at_rest(samples.positions, face_of(model).moved), grid.neck)
    assert (densities[below > 1.6] == 0).all() and (densities[below < 0] > 10).all()
    assert (below < 0).any() and (below > 1.6).any()


def test_refreshing_empties_what_is_empty_and_keeps_what_only_some_frames_show(person, model, tmp_path, monkeypatch):
    monkeypatch.setattr(refreshing, "SHARE", 2)  # as many looks in fewer refreshes
    trainer = nerf_trainer(person, tmp_path / "run", model)
    grid = model.occupancy
    points = cell_centres(grid.box)
    lower = points[:, 1] > float(points[:, 1].mean())
    grid.density *= torch.where(lower, 0.12, 0.104).view_as(grid.density)
    assert model.filmed is not None
    opened = model.filmed.motion.face[:, CHANNEL_INDEX["jaw_y"]] > 0
    assert 0 < int(opened.sum()) < len(opened)
    model.face = lambda motion, frame: bool(opened[frame])  # pyright: ignore[reportAttributeAccessIssue]

    def evaluate(at, is_open):  # the lower half is there while the mouth is open, the upper half never
        return ((at[:, 1] > float(points[:, 1].mean())) & is_open).float() * 3, at

    model.evaluate = evaluate  # pyright: ignore[reportAttributeAccessIssue]
    (refresh, *_) = model.callbacks()
    refresh._look = lambda *_: None  # pyright: ignore[reportAttributeAccessIssue]  # another test's
    assert refresh.due(16, 100) and not refresh.due(17, 100)
    began = grid.holds(points).bool()
    for step in range(16, 16 * 25, 16):
        refresh.after_step(TrainState(step, 10_000, 0, trainer.optimizer))
    left = grid.holds(points).bool()
    # One look empties the upper half, and four looks in which the mouth is shut would empty the lower one. A cell in
    # ten millions is drawn in none of 24 refreshes.
    assert (left & ~lower).sum() < 5 and (left & lower).sum() > 0.9 * (began & lower).sum()
    assert not (left & ~grid.hull.view(-1)).any()


def test_the_field_reaches_no_farther_than_masks_and_not_before_the_face(person, model):
    """What no ray is trained on would stay as it began; a flat face near the camera looks the same from the front."""
    data, grid = PersonDataset(person), model.occupancy
    points = cell_centres(grid.box)
    hull = points[grid.hull.view(-1)]
    assert len(hull) > 1000 and not (grid.cavity & ~grid.hull).any() and grid.cavity.any()
    motion, camera = data.motion, data.camera
    inside = torch.zeros(len(hull))
    frames = data.train_frames[::8].tolist()
    for index in frames:
        rotated = hull @ axis_angle_to_matrix(motion.head_rotation[index]).T + motion.head_translation[index]
        x, y = (rotated[:, :2] / rotated[:, 2:] * camera.focal + torch.tensor([camera.cx, camera.cy])).long().unbind(-1)
        masks = data.masks(index)
        head = torch.from_numpy(masks["face"] + masks["hair"])
        near = sampling._dilated(head, 5) > 0.5
        there = (x >= 0) & (x < data.width) & (y >= 0) & (y < data.height)
        inside[there] += near[y[there], x[there]].float()
        inside[~there] += 1
    assert float((inside >= 0.4 * len(frames)).float().mean()) > 0.999
    nose = torch.from_numpy(data.shape[4])
    before = hull[(hull[:, :2] - nose[:2]).norm(dim=1) < 1]
    assert float(before[:, 2].min()) > float(nose[2]) - 1.2  # centimetres


def test_ears_and_sides_are_gaussians_that_are_trained(person, model, tmp_path, monkeypatch):
    data = PersonDataset(person)
    torso, grid = model.torso, model.occupancy
    sides = measure_head(data, 0, torso.basis).sides
    assert len(sides) > 1000 and float(sides[:, 2].max()) > 10  # centimetres: the back of the head
    hull = cell_centres(grid.box)[grid.hull.view(-1)]
    assert float(torch.cdist(hull[::50], sides).amin(1).quantile(0.1)) > 0.5
    places = torso.skinning.to_head(torso.gaussians.means.detach())
    hair = (torso.gaussians.region == REGIONS.index("hair")) & (below_neck(places, grid.neck) <= 0)
    away = torch.cdist(places[hair], sides).amin(1)
    assert int(hair.sum()) > 50 and float(away.max()) < 3.05  # they go on under the field, and no further
    monkeypatch.setattr(sampling, "BODY", 1.0)
    trainer = nerf_trainer(person, tmp_path / "run", model)
    before = torso.gaussians.colors.detach().clone()
    for step in range(4):
        trainer.step = step
        trainer.train_step(frame_of(trainer, 5 + step))
    assert (torso.gaussians.colors.detach() != before).any(1)[hair].float().mean() > 0.2


def test_parts_of_the_body_are_around_the_outline_of_the_head(person, model, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "BODY", 1.0)
    monkeypatch.setattr(sampling, "BODY_SIDE", 0.25)  # 16 pixels
    frame = frame_of(nerf_trainer(person, tmp_path / "run", model))
    above = frame.person[: frame.person.shape[0] // 3]  # hair, and neither neck nor clothes
    frame = frame._replace(person=torch.cat([above, torch.zeros_like(frame.person[len(above) :])]))
    head = frame.head[..., 0]
    inner = sampling._inner(frame.head)[..., 0]
    assert 0 < float(inner.sum()) < float(head.sum()) and (inner <= head).all()
    within = 0
    for seed in range(8):
        part = sampling.choose(frame, 0.0, np.random.default_rng(seed), rays=64, patch=64, random_background=0.0)
        assert part.pixels is None and float(part.head.min()) < 0.5 < float(part.head.max())
        middle = len(part.head) // 2
        within += float(part.head[middle, middle]) > 0.95
    assert within > 3  # of the parts are around pixels of the head


def test_what_no_frame_shows_is_not_sampled(person, model, tmp_path):
    """Behind a solid surface nothing is learnt; the surface itself stays."""
    trainer = nerf_trainer(person, tmp_path / "run", model)
    grid = model.occupancy
    with torch.no_grad():
        model.field.density.bias[0] = 3.0  # solid everywhere
    (refresh, *_) = model.callbacks()
    began = int(grid.holds(cell_centres(grid.box)).sum())
    grid.shown.fill_(0.015)
    model.eval()
    with torch.no_grad():
        before = model.head_image(trainer.data.motion, 3, trainer.data.camera).alpha
    for step in range(16, 16 * 14, 16):
        refresh.after_step(TrainState(step, 10_000, 0, trainer.optimizer))
    with torch.no_grad():
        after = model.head_image(trainer.data.motion, 3, trainer.data.camera).alpha
    left = grid.holds(cell_centres(grid.box))
    assert int(left.sum()) < 0.8 * began
    assert (after[before > 0.9] > 0.8).float().mean() > 0.97


def test_a_field_that_is_solid_ends_in_smaller_steps(model):
    """Cells hide their steps from the camera that filmed, and from no other."""
    grid, columns = model.occupancy, range(30, 66)
    held = torch.zeros(CELLS, CELLS, CELLS, dtype=torch.bool)
    for column in columns:  # a cheek: two cells deeper with each cell across
        held[2 * column - 50 :, :, column] = True
    grid.bits = pack_occupancy(held)
    grid.measure_front()
    across, depth = torch.linspace(40, 56, 161)[:-1] + 0.05, torch.linspace(20, 70, 2001)
    z, x = torch.meshgrid(depth, across, indexing="ij")
    points = grid.box[0] + torch.stack([x, torch.full_like(x, 48.2), z], -1).view(-1, 3) * (
        (grid.box[1] - grid.box[0]) / CELLS
    )
    counts = (grid.behind_front(points) * grid.holds(points)).view(z.shape)
    assert float(counts.min()) == 0 and float(counts.max()) == 1
    surface, cells = depth[(counts > 0.5).float().argmax(0)], 2 * across.floor() - 50
    slope = 2 * across - 51  # what the cells stand for
    assert float((slope - cells).max()) > 0.85 and float((slope - surface).max()) < 0.35  # cells that stick out
    assert float((surface - cells).min()) > -0.05 and float((surface - cells).max()) < 0.8  # nothing is added


def test_the_front_of_a_model_file_is_that_of_the_training(person, run, model):
    stored, _ = load_model(run / "model.safetensors")
    assert "occupancy.front" not in stored.state_dict()
    front = stored.occupancy.front.clone()
    stored.occupancy.measure_front()
    assert torch.equal(front, stored.occupancy.front) and float(front.std()) > 0.1


def test_what_stands_before_the_front_is_not_drawn_and_not_exported(person, model):
    model.eval()
    data, grid = PersonDataset(person), model.occupancy
    with torch.no_grad():
        model.field.density.bias[0] = 4.0
        rays = head_rays(data.motion, 3, data.camera, pixels_in((0, 0, data.width, data.height), data.camera))
        grid.front += 0.4  # centimetres
        samples, densities, _ = model.samples(rays, face_of(model))
        before = grid.behind_front(samples.positions) == 0
        assert 0.02 < float(before.float().mean()) < 0.5 and (densities[before] == 0).all()
        density, _ = model.volume(data.motion, 3).evaluate(samples.positions)
        assert (density[before] == 0).all() and float(density.max()) > 10


def test_the_front_of_a_solid_field_stays_where_it_is(person, model, tmp_path, monkeypatch):
    """What is cut off the front is looked at no more; the next front must not be cut off what is left."""
    monkeypatch.setattr(occupancy, "FORGET", 0.1)  # after two looks, not fifty
    monkeypatch.setattr(refreshing, "SHARE", 64)
    monkeypatch.setattr(refreshing, "LOOKS", 8192)  # so few steps would else miss cells along the edge
    trainer = nerf_trainer(person, tmp_path / "run", model)
    with torch.no_grad():
        model.field.density.bias[0] = 5.0
    model.eval()
    (refresh, *_) = model.callbacks()
    with torch.no_grad():
        began = model.head_image(trainer.data.motion, 3, trainer.data.camera)
    for step in range(16, 16 * 10, 16):
        refresh.after_step(TrainState(step, 10_000, 0, trainer.optimizer))
    with torch.no_grad():
        after = model.head_image(trainer.data.motion, 3, trainer.data.camera)
    both = ((began.alpha > 0.9) & (after.alpha > 0.9))[..., 0]
    moved = (after.depth - began.depth)[..., 0][both]
    assert float(both.float().sum()) > 0.95 * float((began.alpha > 0.9).sum())
    assert float(moved.mean()) < 0.05 and float(moved.quantile(0.95)) < 0.15  # centimetres


def test_rays_go_to_the_head_and_a_random_background_stays_behind_it(person, model, tmp_path):
    trainer = nerf_trainer(person, tmp_path / "run", model)
    frame = frame_of(trainer)
    batch = sampling.choose(frame, 0.0, np.random.default_rng(5), rays=4000, patch=48, random_background=0.5)
    assert batch.pixels is not None and len(batch.pixels) == 4000
    assert float((batch.head > 0.05).float().mean()) > 0.8
    x, y = batch.pixels.unbind(-1)
    changed = (batch.background != frame.background[y, x]).any(-1)
    assert 0.4 < float(changed.float().mean()) < 0.6
    surely = sampling._surely(frame.person)[y, x]
    assert torch.allclose(batch.image, frame.image[y, x] + (1 - surely) * (batch.background - frame.background[y, x]))
    assert (surely <= batch.person + 1e-6).all() and 0.02 < float((surely < batch.person - 0.2).float().mean()) < 0.5
    # Weights undo how often pixels are drawn: their mean error is that of all pixels that are drawn from.
    assert float((frame.weight[y, x] / batch.weight).max()) > 1.5
    values = torch.rand(frame.weight.shape[:2], generator=torch.Generator().manual_seed(1))
    wide = sampling._dilated(frame.head[..., 0], 3) > 0.05
    every = (frame.weight[..., 0] * values)[wide].mean()
    assert float((batch.weight[:, 0] * values[y, x]).mean()) == pytest.approx(float(every), rel=0.1)


def test_parts_of_the_face_are_trained_on_late_only(person, model, tmp_path):
    frame = frame_of(nerf_trainer(person, tmp_path / "run", model))

    def kinds(progress):
        made = [
            sampling.choose(frame, progress, np.random.default_rng(i), rays=64, patch=64, random_background=0.0)
            for i in range(60)
        ]
        faces = [part for part in made if part.pixels is None and part.head.mean() > 0.5]
        return sum(part.pixels is None for part in made), len(faces)

    early, late = kinds(0.1), kinds(0.9)
    assert 0 < early[0] < 20 and early[1] < late[1] and late[0] > early[0] + 5


def test_a_resumed_training_is_the_same_bit_for_bit(person, made, tmp_path, monkeypatch):
    monkeypatch.setattr(refreshing, "EVERY", 2)
    whole = Trainer(PersonDataset(person), nerf_config(person, tmp_path / "whole", 5), copy.deepcopy(made))
    whole.run(training.open_run(whole.config))
    config = nerf_config(person, tmp_path / "parts", 5)
    first = Trainer(PersonDataset(person), replace(config, save_every=4), copy.deepcopy(made))
    folder = training.open_run(config)

    def killed(at):
        Trainer.save(first, at)
        raise RuntimeError("power cut")

    first.save = killed  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(RuntimeError, match="power cut"):
        first.run(folder)
    second = Trainer(PersonDataset(person), config, copy.deepcopy(made))
    second.resume(folder)
    assert second.step == 4
    second.run(folder)
    expected = whole.state()
    assert expected.keys() == second.state().keys()
    assert all(torch.equal(value, second.state()[name]) for name, value in expected.items())


def test_the_jitter_of_rays_follows_from_the_seed(person, model, monkeypatch):
    data = PersonDataset(person)
    rays = head_rays(data.motion, 3, data.camera, torch.tensor([[48, 40], [50, 60], [40, 50]]))

    def starts(seed, drawn):
        model.seed, model.drawn = seed, drawn
        return model.samples(rays, face_of(model))[0].starts

    first = starts(0, 2)
    assert torch.equal(first, starts(0, 2)) and torch.equal(starts(1, 2), starts(1, 2))
    assert not torch.equal(first, starts(1, 2)) and not torch.equal(first, starts(0, 3))
    made = {name: getattr(model, name) for name in ("torso", "warp")}  # what takes long
    monkeypatch.setattr(nerf_method, "make_torso", lambda *_: made["torso"])
    monkeypatch.setattr(nerf_method, "leave_to_field", lambda *_: None)
    assert NerfAvatar.from_person(data, model.config, 7).seed == 7


def test_a_model_file_draws_what_was_trained(person, run, model):
    trained = nerf_trainer(person, run, model, steps=6)
    model, about = load_model(run / "model.safetensors")
    assert isinstance(model, NerfAvatar) and about["method"] == "nerf"
    data = PersonDataset(person)
    trained.resume(run)
    model.eval(), trained.model.eval()
    with torch.no_grad():
        one, other = (m(data.motion, 2, data.camera).rgb for m in (model, trained.model))
    assert (one - other).abs().max() < 0.01  # the hash grids are stored as half floats
    assert (run / "model.safetensors").stat().st_size < 0.75e6
    stored = load_tensors(run / "model.safetensors")[0]
    assert "torso.background" not in stored and stored["torso.gaussians.quats"].dtype == torch.float16


def test_what_was_never_filmed_is_known(person, run):
    model, _ = load_model(run / "model.safetensors")
    data = PersonDataset(person)
    model.eval()
    reference = model.reference_motion(25.0)
    with torch.no_grad():
        front = model.seen(reference, 0, data.camera)
        side = model.seen(reference, 0, data.camera.orbit(model.pivot, 75, 0))
        alpha = model(reference, 0, data.camera).alpha[..., 0] > 0.5
        side_alpha = model(reference, 0, data.camera.orbit(model.pivot, 75, 0)).alpha[..., 0] > 0.5
    assert front is not None and side is not None
    assert float(front[alpha].mean()) > 0.7 > float(side[side_alpha].mean())
    assert float(front.min()) >= 0 and float(front.max()) <= 1 + 1e-5


def test_a_head_that_is_outside_of_the_image_is_no_error(person, model):
    data = PersonDataset(person)
    model.eval()
    for place in ([300.0, 0.0, 62.0], [0.0, 0.0, 0.0], [0.0, 0.0, -80.0]):
        motion = data.motion.map(head_translation=torch.tensor(place).expand(len(data.motion), 3))
        with torch.no_grad():
            out = model(motion, 0, data.camera, with_depth=True)
        assert torch.isfinite(out.rgb).all() and out.rgb.shape == (data.height, data.width, 3)
        for camera in (data.camera, data.camera.resized(2 * data.width, 2 * data.height)):
            fast, slow = (draw(camera, motion, 0).int() for draw in (model.playback("float32"), model.draw))
            assert fast.shape == slow.shape and (fast - slow).abs().float().mean() < 1


def test_from_behind_the_back_of_the_head_hides_the_face(person, model):
    """Rays from behind meet the field as well: without an order, a face would show on the back of the head."""
    data = PersonDataset(person)
    model.eval()
    with torch.no_grad():
        model.field.density.bias[0] = 4.0  # solid
        model.torso.gaussians.colors.copy_(torch.tensor([0.0, 1.0, 0.0]))
        model.field.rgb.bias.copy_(torch.tensor([9.0, -9.0, 9.0]))  # and not green
        greens = {}
        for azimuth in (0.0, 180.0):
            camera = data.camera.orbit(model.pivot, azimuth, 0.0)
            field = model.head_image(data.motion, 3, camera).alpha[..., 0] > 0.9
            others = model.torso(data.motion, 3, camera, part="head").alpha[..., 0] > 0.9
            assert int((field & others).sum()) > 50
            drawn = model(data.motion, 3, camera).rgb
            green = (drawn[..., 1] > drawn[..., 0])[field & others]
            greens[azimuth] = float(green.float().mean())
            played = model.playback("float32")(camera, data.motion, 3).float() / 255
            assert float((played - drawn).abs().max()) < 0.02
    assert greens[0.0] < 0.1 and greens[180.0] > 0.9


def test_playback_draws_what_the_model_draws(person, run):
    model, _ = load_model(run / "model.safetensors")
    data = PersonDataset(person)
    model.eval()
    wall = torch.randint(0, 255, (data.height, data.width, 3), dtype=torch.uint8)
    view = data.camera.orbit(model.pivot, 10, 0)
    for precision, most in (("float32", 1), ("bfloat16", 12)):
        play = model.playback(precision)
        for camera, background in ((data.camera, wall), (view, None), (view.resized(50, 50), wall[:50, :50])):
            fast, slow = (draw(camera, data.motion, 3, background).int() for draw in (play, model.draw))
            assert fast.shape == slow.shape and (fast - slow).abs().max() <= most
    assert torch.equal(model.playback("float32")(data.camera, data.motion, 3, wall)[0, 0], wall[0, 0])


def test_playback_of_a_large_frame_draws_the_head_as_large_as_it_was_filmed(person, run, monkeypatch):
    model, _ = load_model(run / "model.safetensors")
    data = PersonDataset(person)
    model.eval()
    camera = data.camera.resized(3 * data.width, 3 * data.height)
    wall = torch.full((camera.height, camera.width, 3), 90, dtype=torch.uint8)
    slow = model.draw(camera, data.motion, 3, wall).float()
    drawn, head_drawn = [], model._head_drawn

    def small(motion, index, at):
        drawn.append(at.width)
        return head_drawn(motion, index, at)

    monkeypatch.setattr(model, "_head_drawn", small)
    fast = model.playback("float32")(camera, data.motion, 3, wall).float()
    assert drawn == [data.width] and fast.shape == slow.shape
    assert (fast - slow).abs().mean() < 2 and torch.equal(fast[0, 0], slow[0, 0])
    whole = data.camera.resized(2 * data.width, 2 * data.height).cropped(-data.width, 0, 3 * data.width, data.height)
    model.playback("float32")(whole, data.motion, 3, wall[: whole.height, : whole.width])
    assert drawn[1:] == [2 * data.width]  # twice as wide, because it shows twice as much


@pytest.mark.parametrize("sizes", [(288, 288, 512, 512), (96, 72, 192, 144), (301, 200, 505, 336)])
def test_a_part_is_enlarged_as_the_whole_would_be(sizes):
    width, height, *large = sizes
    small = Camera.source(900, width / 2, height / 2, width, height)
    for box in ((30, 20, 80, 70), (0, 0, width, height), (0, 5, width - 1, height), (width, 3, width, 3)):
        head = torch.rand(box[3] - box[1], box[2] - box[0], 4)
        whole, found = torch.zeros(height, width, 4), torch.zeros(large[1], large[0], 4)
        whole[box[1] : box[3], box[0] : box[2]] = head
        (x0, y0, x1, y1), part = enlarged(box, head, small, small.resized(*large))
        found[y0:y1, x0:x1] = part
        expected = torch.nn.functional.interpolate(whole.permute(2, 0, 1)[None], large[::-1], mode="bilinear")[0]
        torch.testing.assert_close(found, expected.permute(1, 2, 0), rtol=0, atol=1e-6)


def test_the_torso_of_a_gaussian_run_is_taken(person, run, gaussian_run, tmp_path):
    gaussian = gaussian_run
    trainer = nerf_trainer(person, tmp_path / "run", torso=gaussian)
    model = trainer.model
    assert isinstance(model, NerfAvatar)
    trained = load_tensors(gaussian / "model.safetensors")[0]["gaussians.means"]
    means = model.torso.gaussians.means
    assert len(means) < len(trained) and all((trained == mean).all(1).any() for mean in means[:5])
    g, data = model.torso.gaussians, PersonDataset(person)
    colors = g.colors.detach().clone()
    terms = model.torso.regularizers(model.torso(data.motion, 3, data.camera), frame_of(trainer), 0.5)
    assert terms["color_prior"].item() == terms["surface"].item() == 0  # nothing pulls them to black or to the camera
    model.torso.finish(data.motion, data.camera)
    assert float((g.colors.detach() - colors).abs().max()) < 0.1
    with pytest.raises(AvatarError, match="is a run of the method nerf"):
        nerf_trainer(person, tmp_path / "run", torso=run)
    other = make_person(tmp_path / "other", frames=16)
    with pytest.raises(AvatarError, match="another person"):
        nerf_trainer(other, tmp_path / "run", torso=gaussian)


def test_overwrite_keeps_the_run_that_the_torso_comes_from(person, run, gaussian_run, tmp_path, capsys):
    out, unfinished = tmp_path / "run", tmp_path / "unfinished"
    shutil.copytree(gaussian_run, out)
    shutil.copytree(gaussian_run, unfinished)
    (unfinished / "training.json").unlink()
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for torso, said in ((out, "lies in"), (run, "is a run of the method nerf"), (unfinished, "has not finished"),
                        (tmp_path / "typo", "There is no run folder")):  # fmt: skip
        command = ["train", str(person), "--out", str(out), "--method", "nerf", "--torso", str(torso), "--overwrite"]
        assert main([*command, "--device", "cpu"]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_run_of_one_method_is_never_read_by_the_other(person, run, capsys):
    before = (run / "model.safetensors").read_bytes()
    again = ["train", str(person), "--out", str(run), "--resume", "--device", "cpu", "--method", "gaussian"]
    assert main(again) == 2
    said = capsys.readouterr().err
    assert "is a run of the method nerf, not gaussian" in said and "--method nerf" in said
    assert (run / "model.safetensors").read_bytes() == before


def test_backends_that_cannot_run_say_so(person, tmp_path, capsys):
    for option in (["--marcher", "nerfacc"], ["--encoding", "tinycudann"], ["--renderer", "gsplat"]):
        assert main(["train", str(person), "--out", str(tmp_path / "x"), "--method", "nerf", *option]) == 2
        said = capsys.readouterr().err
        assert " ".join(option) in said and "CUDA" in said and not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("hidden", 32, "of the shape"), ("coarsest", 128, "larger than finest"), ("encoding", "other", "not known")],
)
def test_a_model_file_with_wrong_options_is_refused(run, tmp_path, name, value, said):
    from avatar.io.checkpoint import save_tensors

    tensors, meta = load_tensors(run / "model.safetensors")
    meta["config"]["field"][name] = value
    save_tensors(tmp_path / "model.safetensors", tensors, meta)
    with pytest.raises(AvatarError, match=said):
        load_model(tmp_path / "model.safetensors")


def test_options_out_of_range_are_refused(person, tmp_path, capsys):
    for option in (["--model.hidden", "0"], ["--model.step-cm", "0"], ["--model.samples", "1"]):
        assert main(["train", str(person), "--out", str(tmp_path / "x"), "--method", "nerf", *option]) == 2
        assert option[0] in capsys.readouterr().err


def test_a_camera_from_anywhere_draws_finite_images(person, run):
    model, _ = load_model(run / "model.safetensors")
    data, motion = PersonDataset(person), Motion.zeros(1, 25.0)
    model.eval()
    camera = Camera.source(120.0, 20.0, 30.0, 40, 56)
    with torch.no_grad():
        for azimuth in (0, 90, 180):
            view = camera.orbit(model.pivot, azimuth, 20)
            image = model.draw(view, model.reference_motion(25.0), 0)
            assert image.shape == (56, 40, 3) and image.dtype == torch.uint8
        assert torch.isfinite(model(motion, 0, data.camera).rgb).all()


def test_both_protocols_measure_a_run(run, tmp_path):
    record = tmp_path / "metrics.json"
    few = ["--frames", "3", "--drive", "tracked", "--no-ablations", "--device", "cpu"]
    assert main(["eval", str(run), "--json", str(record), *few]) == 0
    found = json.loads(record.read_text())
    assert found["full_frame"]["tracked"]["psnr"] > 5 and found["head_only"]["tracked"]["psnr"] > 5


def test_a_mesh_is_written_of_a_field(run, tmp_path, capsys, monkeypatch):
    pytest.importorskip("skimage")
    out = tmp_path / "head.ply"
    export = ["export", str(run), "--format", "mesh", "--out", str(out), "--device", "cpu"]
    assert main([*export, "--resolution", "24", "--level", "0.5"]) == 0
    header, _, body = out.read_bytes().partition(b"end_header\n")
    vertices, faces = (int(line.split()[-1]) for line in header.decode().splitlines() if line.startswith("element"))
    assert vertices > 100 and faces > 100 and len(body) == 15 * vertices + 13 * faces
    rows = np.frombuffer(body[: 15 * vertices], [("place", "<f4", 3), ("color", "u1", 3)])
    assert 0.03 < np.abs(rows["place"]).max() < 0.3  # metres
    whole = mesh_of_the_whole_head(run, tmp_path, monkeypatch)
    assert rows["place"][:, 2].min() > whole[:, 2].min() + 0.03  # the back of the head is Gaussians
    capsys.readouterr()
    monkeypatch.setattr(mesh, "find_spec", lambda name: None)
    assert main(export) == 2
    assert "needs scikit-image" in capsys.readouterr().err


def mesh_of_the_whole_head(run: Path, folder: Path, monkeypatch) -> np.ndarray:
    """Vertices [V, 3] in metres, y up, of field and Gaussians."""
    monkeypatch.setattr(fusion, "AZIMUTHS", range(-180, 180, 90))
    monkeypatch.setattr(fusion, "ELEVATIONS", (0,))
    out = folder / "whole.ply"
    command = ["export", str(run), "--format", "mesh", "--out", str(out), "--device", "cpu", "--resolution", "24"]
    assert main(command) == 0
    header, _, body = out.read_bytes().partition(b"end_header\n")
    count = next(int(line.split()[-1]) for line in header.decode().splitlines() if line.startswith("element vertex"))
    return np.frombuffer(body[: 15 * count], [("place", "<f4", 3), ("color", "u1", 3)])["place"]


@pytest.mark.parametrize("kind", ["ply", "spz", "glb", "ply-sequence"])
def test_a_field_is_not_exported_as_gaussians(run, tmp_path, capsys, kind):
    motion = ["--motion", str(run / "motion.safetensors")]
    out = ["--out", str(tmp_path / f"a.{kind}"), "--device", "cpu"]
    assert main(["export", str(run), "--format", kind, *motion, *out]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "nerf does not draw the person as Gaussians" in said and "--format mesh" in said
    assert "avatar bake RUN" in said
    assert not [*tmp_path.iterdir()]


def test_a_field_is_exported_as_images_with_alpha(run, tmp_path):
    motion = ["--motion", str(run / "motion.safetensors"), "--frames", "2"]
    out = tmp_path / "frames"
    assert main(["export", str(run), "--format", "frames", *motion, "--out", str(out), "--device", "cpu"]) == 0
    image = cv2.imread(str(out / "000001.png"), cv2.IMREAD_UNCHANGED)
    assert image.shape[2] == 4 and image[..., 3].min() == 0 and image[..., 3].max() > 100
