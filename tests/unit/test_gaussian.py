"""Method ``gaussian``: what a user relies on in training, resuming, rendering."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from avatar.data import PersonDataset
from avatar.errors import AvatarError
from avatar.fields.gaussians import REGIONS, Gaussians
from avatar.infer.avatar import Avatar
from avatar.methods.gaussian.config import TRAINING, RegularizerConfig
from avatar.methods.gaussian.init import blink_frame
from avatar.methods.gaussian.losses import oversize, roughness
from avatar.methods.gaussian.method import GaussianAvatar
from avatar.motion.face_channels import CHANNELS, IRIS
from avatar.native.library import multiplies_bfloat16
from avatar.train.batches import FrameSampler
from avatar.train.run import describe, open_run
from avatar.train.trainer import Trainer
from tests.person import make_person, new_trainer, small_config, train


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    return make_person(tmp_path_factory.mktemp("person"))


def test_two_steps_and_render(person, tmp_path):
    trainer = train(small_config(person, tmp_path / "run", steps=2))
    avatar = Avatar.load(tmp_path / "run", device="cpu")
    data = trainer.data
    image = avatar.render(avatar.camera, data.motion, 5)
    assert image.shape == (96, 96, 3) and image.dtype == torch.uint8
    with torch.no_grad():
        direct = trainer.model.eval()(data.motion, 5, data.camera).rgb
    assert (image.float() / 255 - direct.clamp(0, 1)).abs().max() < 0.004


@pytest.mark.parametrize(
    "model", [{"levels": 0, "embedding": 8}, {"embedding": 8}, {"deforms": ("means", "opacities")}]
)
def test_other_fields_train_and_are_rendered_from_their_file(person, tmp_path, model):
    trainer = train(small_config(person, tmp_path / "run", steps=6, **model))
    avatar = Avatar.load(tmp_path / "run", device="cpu")
    image = avatar.render(avatar.camera, trainer.data.motion, 5)
    with torch.no_grad():
        direct = trainer.model.eval()(trainer.data.motion, 5, trainer.data.camera)
    assert (image.float() / 255 - direct.rgb.clamp(0, 1)).abs().max() < 0.004
    if "embedding" in model:
        assert trainer.model.gaussians.embedding.abs().max() > 0
    if "deforms" in model:
        change = direct.aux["deformation"]
        assert change.colors.abs().max() == 0 < change.means.abs().max()


def test_the_network_runs_in_bfloat16_where_that_is_faster(person, tmp_path, monkeypatch):
    trainer = train(small_config(person, tmp_path / "run", steps=6))
    motion = trainer.data.motion
    dtype = torch.bfloat16 if multiplies_bfloat16() else torch.float32
    assert Avatar.load(tmp_path / "run", device="cpu").model.code_dtype == dtype
    exact, half = (Avatar.load(tmp_path / "run", device="cpu", precision=p) for p in ("float32", "bfloat16"))
    for avatar, expected in ((exact, torch.float32), (half, torch.bfloat16)):
        assert avatar.model.spatial_code().dtype == expected
    for avatar in (exact, half):  # six steps hardly move anything: so that rounding shows
        with torch.no_grad():
            avatar.model.field.head.weight.mul_(1000)
    one, other = (avatar.render(avatar.camera, motion, 5).float() for avatar in (exact, half))
    assert 0 < (one - other).square().mean() < 0.03  # 63 dB, where the field changes the picture at 36 dB
    monkeypatch.setattr("avatar.methods.gaussian.method.multiplies_bfloat16", lambda: False)
    assert Avatar.load(tmp_path / "run", device="cpu").model.code_dtype == torch.float32
    with pytest.raises(AvatarError, match='Precision "half" is not understood'):
        Avatar.load(tmp_path / "run", device="cpu", precision="half")  # pyright: ignore[reportArgumentType]


def test_a_field_that_is_told_nothing_is_refused(person, tmp_path):
    with pytest.raises(AvatarError, match="tell Gaussians apart"):
        Trainer(PersonDataset(person), small_config(person, tmp_path / "run", levels=0))


def test_neighbours_that_move_apart_are_penalised_also_after_the_set_changed(person, tmp_path):
    trainer = train(small_config(person, tmp_path / "run", steps=6, loss=RegularizerConfig(smoothness=1.0)))
    means, neighbours = trainer.model.gaussians.means.detach(), trainer.model.train_state()["neighbours"]
    assert len(neighbours) == len(means) > 600
    assert roughness(torch.ones_like(means), neighbours) == 0
    alike = (means - means.mean(0)) / means.std()
    assert roughness(alike, neighbours) < 0.3 * roughness(torch.randn_like(means), neighbours)


def test_the_head_alone_is_part_of_the_picture(person, tmp_path):
    trainer = train(small_config(person, tmp_path / "run", steps=2))
    avatar = Avatar.load(tmp_path / "run", device="cpu")
    data, model = trainer.data, avatar.model
    head = avatar.render_head(avatar.camera, data.motion, 5)
    with torch.no_grad():
        everything = model(data.motion, 5, data.camera, part="person")
        frame = model(data.motion, 5, data.camera).rgb
    assert torch.allclose(everything.rgb + (1 - everything.alpha) * model.background, frame, atol=1e-4)
    cover = head[..., 3]
    assert cover.min() >= 0 and (cover <= everything.alpha[..., 0] + 1e-5).all()
    x, y = np.asarray(data.landmarks[5, 1, :2]).astype(int)
    assert cover[y, x] > 0.9 and cover[-3:].max() < 0.2 < everything.alpha[-3:].max()
    inside = int((model.head()[:, 0] > 0).nonzero()[0])
    model.gaussians.region[inside] = 4  # called neck, amid the face
    assert model.eval().head()[inside] == 1


def test_training_learns_the_person_and_its_mouth(person, tmp_path):
    trainer = train(small_config(person, tmp_path / "run", steps=120))
    data = trainer.data
    real = np.stack([data.image(i) for i in (2, 5)]).astype(np.float32) / 255
    with torch.no_grad():
        trainer.model.eval()
        shown = np.stack([trainer.model(data.motion, i, data.camera).rgb.numpy() for i in (2, 5)])
    assert -10 * np.log10(np.square(shown - real).mean()) > 25
    # The two frames differ in mouth opening: rendering the wrong one must be worse.
    assert np.square(shown - real).mean() < np.square(shown[::-1] - real).mean()


@pytest.mark.parametrize("model", [{}, {"levels": 0, "embedding": 4, "loss": RegularizerConfig(smoothness=0.5)}])
def test_resume_is_bit_identical(person, tmp_path, model):
    def configure(out):
        return small_config(person, out, steps=9, **model)

    whole = train(configure(tmp_path / "whole"))
    config = configure(tmp_path / "parts")
    data = PersonDataset(person)
    first = Trainer(data, config)
    first.steps, folder = 9, open_run(config)
    describe(folder, config, data)
    maintain = first._maintain

    def stop_after_five():
        maintain()
        if first.step == 5:
            raise KeyboardInterrupt

    first._maintain = stop_after_five
    with pytest.raises(KeyboardInterrupt):
        first.run(folder)
    second = new_trainer(config)
    second.resume(folder)
    assert second.step == 5
    second.run(folder)
    expected, got = whole.state(), second.state()
    assert expected.keys() == got.keys()
    different = [name for name in expected if not torch.equal(expected[name], got[name])]
    assert not different


def test_resume_refuses_other_settings(person, tmp_path):
    train(small_config(person, tmp_path / "run", steps=2))
    other = Trainer(PersonDataset(person), replace(small_config(person, tmp_path / "run", steps=2), seed=5))
    with pytest.raises(AvatarError, match="other settings"):
        other.resume(tmp_path / "run")


def test_the_field_leaves_the_torso_alone_also_after_the_set_changed(person, tmp_path):
    trainer = new_trainer(small_config(person, tmp_path / "run", steps=12))
    trainer.model.gaussians.region[-60:] = REGIONS.index("torso")  # the drawn person has no clothes
    trainer.run(tmp_path / "run")
    model, count = trainer.model.eval(), len(trainer.model.gaussians)
    region, first = model.gaussians.region, model.gaussians.before_torso
    assert (region.diff().int() >= 0).all() and 0 < first < count
    with torch.no_grad():
        change = model.deformation(model.condition(trainer.motion, 3))
    assert all(len(part) == count and not part[first:].any() for part in change)
    assert change.means[:first].any()


def test_irises_turn_with_the_gaze_and_nothing_else_does(person, tmp_path):
    model = new_trainer(small_config(person, tmp_path / "run", steps=1)).model
    face, gaze = torch.zeros(len(CHANNELS)), model.basis.gaze
    turned = gaze + torch.tensor([0.2, 0.1])  # to the person's left, and up
    moved = model.basis(face, turned) - model.basis(face, gaze)
    assert not moved[:468].any()
    assert (moved[468:, 0] > 0.2).all() and (moved[468:, 1] < -0.1).all()  # centimetres; y points down
    g = model.gaussians
    shift = g.displacement(moved)
    irises = (g.bind_index == IRIS["left"][0]).all(1) | (g.bind_index == IRIS["right"][0]).all(1)
    bound = irises & (g.bind_weight.sum(1) > 0.9)
    assert bound.any() and torch.allclose(shift[bound], moved[-1].expand(int(bound.sum()), 3))
    assert not shift[~bound].any()


def test_eyes_turn_as_they_are_and_the_field_moves_the_lids_before_them(person, tmp_path):
    trainer = train(small_config(person, tmp_path / "run", steps=12))
    model = trainer.model.eval()
    eye, lid = (model.gaussians.rows(name) for name in ("eye", "lid"))
    assert eye.stop - eye.start > 8 and lid.stop - lid.start > 8
    with torch.no_grad():
        condition = model.condition(trainer.motion, 3)
        drawn, trained = model.changes(condition), torch.cat(model.train().deformation(condition), -1)
    for changes in (drawn, trained):
        assert not changes[eye].any() and changes[lid].abs().amax(0).all()


def test_lids_have_gaussians_enough_to_cover_the_eye_when_they_close(person, tmp_path):
    data, config = PersonDataset(person), small_config(person, tmp_path / "run", initial_gaussians=6000).model
    frame, count = blink_frame(data), []
    for closed in (False, True):
        data.landmarks = np.array(data.landmarks)
        for upper, lower in ((159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373)) if closed else ():
            data.landmarks[frame, upper] = data.landmarks[frame, lower]
        lids = GaussianAvatar.from_person(data, config, 0).gaussians.rows("lid")
        count.append(lids.stop - lids.start)
    assert count[1] > 1.04 * count[0]


def test_the_fewest_gaussians_that_are_taken_make_every_part_of_the_face(person, tmp_path):
    fewest, _ = TRAINING["initial_gaussians"]
    config = small_config(person, tmp_path / "run", initial_gaussians=fewest, max_gaussians=fewest).model
    config.check()
    made = GaussianAvatar.from_person(PersonDataset(person), config, 0).gaussians.region.tolist()
    parts = ("face", "lid", "eye", "mouth_upper", "mouth_lower", "hair", "neck")
    assert {REGIONS.index(part) for part in parts} <= set(made)


def test_density_control_respects_the_budget_and_inherits_bindings(person, tmp_path):
    trainer = train(small_config(person, tmp_path / "run", steps=12))
    gaussians = trainer.model.gaussians
    assert 600 < len(gaussians) <= 800
    for tensor in (gaussians.bind_index, gaussians.bind_weight, gaussians.region, gaussians.skinning_weight):
        assert tensor.shape[0] == len(gaussians)
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            assert trainer.optimizer.state[parameter]["exp_avg"].shape == parameter.shape


def test_what_hardly_any_frame_shows_hardly_moves(person, tmp_path):
    trainer = new_trainer(small_config(person, tmp_path / "run", steps=2))
    gaussians = trainer.model.gaussians
    before = {name: getattr(gaussians, name).detach().clone() for name in ("means", "scales", "quats", "colors")}
    for name in before:  # gradients as they are in a training, of Gaussians that frames show and that they do not
        gradient = torch.full_like(before[name], 5e-6)
        gradient[::2] = 5e-9
        getattr(gaussians, name).grad = gradient
    for _ in range(5):
        trainer.optimizer.step()
    for name, value in before.items():
        moved = (getattr(gaussians, name).detach() - value).abs()
        assert 0 < moved[::2].max() < 0.1 * moved[1::2].min(), name


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_short_training_that_gives_no_numbers_is_no_success(person, tmp_path, monkeypatch, steps):
    """As many steps as frames may be left out: each of them is, and nothing is learnt."""
    config = small_config(person, tmp_path / "run", steps=steps)
    trainer = new_trainer(config)
    original = trainer._loss
    monkeypatch.setattr(trainer, "_loss", lambda out, batch: (original(out, batch)[0] * float("nan"), {}))
    folder = open_run(config)
    with pytest.raises(AvatarError, match=r"not finite|no longer finite"):
        trainer.run(folder)
    assert not (folder / "model.safetensors").exists() and not (folder / "checkpoints").exists()


def test_a_last_step_that_breaks_the_model_is_taken_back(person, tmp_path, monkeypatch):
    config = small_config(person, tmp_path / "run", steps=4)
    trainer = new_trainer(config)
    original, broken = trainer.optimizer.step, []

    def step() -> None:
        original()
        if trainer.step == 3 and not broken:
            broken.append(trainer.sampler(3))
            next(iter(trainer.model.parameters())).data.fill_(float("nan"))

    monkeypatch.setattr(trainer.optimizer, "step", step)
    trainer.run(open_run(config))
    assert trainer.step == 4 and trainer._banned == set(broken) and len(broken) == 1
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_held_out_poses_stay_as_tracked_where_alignment_gives_no_numbers(person, tmp_path, monkeypatch):
    trainer = new_trainer(small_config(person, tmp_path / "run", steps=1))
    before = trainer.poses.knots.detach().clone()
    original = trainer._render_part

    def render(*args, **options):
        out = original(*args, **options)
        return replace(out, rgb=out.rgb * float("nan"))

    monkeypatch.setattr(trainer, "_render_part", render)
    trainer.align_held_out()
    assert torch.equal(trainer.poses.knots, before)


def test_not_a_number_rolls_back_and_leaves_the_frame_out(person, tmp_path, monkeypatch):
    config = small_config(person, tmp_path / "run", steps=8)
    trainer = new_trainer(config)
    original, poisoned = trainer._loss, []

    def loss(out, batch):
        value, parts = original(out, batch)
        if trainer.step == 4 and not poisoned:
            poisoned.append(batch.index)
            value = value * float("nan")
        return value, parts

    monkeypatch.setattr(trainer, "_loss", loss)
    folder = open_run(config)
    trainer.run(folder)
    assert trainer.step == 8 and trainer._banned == set(poisoned)
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())


def test_held_out_frames_are_never_sampled(person):
    data = PersonDataset(person)
    sampler = FrameSampler(data, seed=0)
    drawn = {sampler(step) for step in range(2000)}
    assert max(drawn) < data.test_start
    assert len(drawn) > 0.9 * data.test_start


def test_the_seed_decides_about_frames(person):
    data = PersonDataset(person)
    drawn = {seed: [FrameSampler(data, seed)(step) for step in range(50)] for seed in (0, 1)}
    assert drawn[0] == [FrameSampler(data, 0)(step) for step in range(50)] != drawn[1]


def test_rare_open_mouths_are_drawn_more_often(person):
    data = PersonDataset(person)
    landmarks = np.array(data.landmarks)
    landmarks[:] = landmarks[0]
    wide = [3, 20]
    landmarks[wide, 14, 1] += 9
    data.landmarks = landmarks
    sampler = FrameSampler(data, seed=0)
    drawn = np.array([sampler(step) for step in range(4000)])
    # Half of all draws are uniform, the other half is shared by closed and open mouths.
    assert np.isin(drawn, wide).mean() == pytest.approx(0.5 * 2 / data.test_start + 0.25, abs=0.03)


def test_a_given_background_is_behind_the_person(person, tmp_path):
    trainer = train(small_config(person, tmp_path / "run", steps=2))
    avatar = Avatar.load(tmp_path / "run", device="cpu")
    motion, wall = trainer.data.motion, torch.tensor([200, 10, 60], dtype=torch.uint8)
    shown = avatar.render(avatar.camera, motion, 5, background=wall.expand(96, 96, 3))
    plain = avatar.render(avatar.camera, motion, 5)
    assert torch.equal(shown[:3, :3], wall.expand(3, 3, 3)) and plain[0, 0].tolist() == [40, 90, 140]
    x, y = np.asarray(trainer.data.landmarks[5, :, :2]).astype(int).clip(0, 95).T
    assert (shown[y, x].float() - plain[y, x].float()).abs().mean(0).max() < 8  # five hundred Gaussians leave gaps


def test_the_torso_stays_where_it_is_when_the_head_turns(person, tmp_path):
    model = new_trainer(small_config(person, tmp_path / "run", steps=1)).model.eval()
    with torch.no_grad():
        g, motion = model.gaussians, PersonDataset(person).motion[:2]
        rotation = motion.head_rotation.clone()
        rotation[1, 1] = rotation[0, 1] + 0.4
        turned = motion.map(head_rotation=rotation, face=motion.face[[0, 0]], gaze=motion.gaze[[0, 0]])
        camera = PersonDataset(person).camera
        moved = (model(turned, 1, camera).aux["means2d"] - model(turned, 0, camera).aux["means2d"]).norm(dim=-1)
    assert moved[g.region == REGIONS.index("face")].mean() > 4  # pixels
    lowest = g.means[:, 1] > g.means[:, 1].quantile(0.95)  # y points down
    assert moved[lowest].median() < 1.5


def test_run_folder_is_protected(person, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(AvatarError, match="already holds"):
        open_run(small_config(person, tmp_path / "run"))
    with pytest.raises(AvatarError, match="not a run"):
        open_run(replace(small_config(person, tmp_path / "run"), overwrite=True))
    assert (tmp_path / "run" / "thesis.txt").read_text() == "mine"
    with pytest.raises(AvatarError, match="no checkpoint"):
        open_run(replace(small_config(person, tmp_path / "run"), resume=True))


def test_missing_person_is_a_sentence(tmp_path):
    with pytest.raises(AvatarError, match="avatar prepare"):
        PersonDataset(tmp_path / "nobody")
    with pytest.raises(AvatarError, match="There is no run folder"):
        Avatar.load(tmp_path / "nothing")


def test_only_large_gaussians_of_neck_and_clothes_are_pulled_small():
    gaussians = Gaussians.empty(len(REGIONS) * 2)
    gaussians.region[:] = torch.arange(len(REGIONS)).repeat_interleave(2).to(torch.uint8)
    with torch.no_grad():
        gaussians.scales[0::2], gaussians.scales[1::2] = math.log(2.0), math.log(0.3)
    oversize(gaussians, 0.6).backward()
    pulled = gaussians.scales.grad.amin(1) > 0
    around = gaussians.region >= REGIONS.index("neck")
    assert torch.equal(pulled, around & (torch.arange(len(pulled)) % 2 == 0))
    with torch.no_grad():
        gaussians.scales[:] = math.log(0.59)
    assert oversize(gaussians, 0.6).item() == 0
