"""What a training step is made of: weights of pixels, masks, each term of the loss, and steps that must not be made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from avatar.data import PersonDataset
from avatar.losses.lpips import LPIPS, MIN_SIZE
from avatar.methods.batch import Batch
from avatar.methods.gaussian.config import RegularizerConfig
from avatar.methods.options import LossConfig
from avatar.motion.face_channels import LIPS_OUTER
from avatar.native import l1_ssim
from avatar.train import perceptual
from avatar.train.batches import load
from avatar.train.run import open_run
from avatar.train.trainer import Trainer
from tests.person import make_person, small_config

FRAME, SIZE = 5, 128
FULL, HALF = (SIZE, SIZE), (SIZE // 2, SIZE // 2)
NOTHING = LossConfig(ssim=0, mouth=0, eyes=0, face=0, alpha=0, lpips=0, mouth_lpips=0)
FREE = RegularizerConfig(deformation=0, color_prior=0, scale_reg=0, smoothness=0, surface=0, thickness=0)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> PersonDataset:
    """A drawn person; in the picture behind it, left and right differ."""
    folder = make_person(tmp_path_factory.mktemp("person"), frames=20, size=SIZE)
    background = cv2.imread(str(folder / "background/background.png"))
    background[:, SIZE // 2 :] = (200, 30, 60)
    cv2.imwrite(str(folder / "background/background.png"), background)
    return PersonDataset(folder)


def at(data: PersonDataset, index: int, size: tuple[int, int]) -> tuple[int, int]:
    """Row and column of a landmark in a picture of ``size``."""
    x, y = np.asarray(data.landmarks[FRAME, index, :2]) * size[0] / SIZE
    return int(y), int(x)


def centre(data: PersonDataset, indices: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    x, y = np.asarray(data.landmarks[FRAME, list(indices), :2]).mean(0) * size[0] / SIZE
    return int(y), int(x)


# --- frames, masks and the weights of pixels ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [FULL, HALF])
def test_picture_masks_and_background_are_the_frames_own(data: PersonDataset, size: tuple[int, int]) -> None:
    batch = load(data, FRAME, size, LossConfig())
    width, height = size
    assert batch.index == FRAME
    for name, channels in {"image": 3, "weight": 1, "person": 1, "background": 3}.items():
        tensor = getattr(batch, name)
        assert tensor.shape == (height, width, channels) and tensor.dtype == torch.float32, name
    expected = cv2.resize(data.image(FRAME), size, interpolation=cv2.INTER_AREA)
    assert np.abs(batch.image.numpy() * 255 - expected).max() < 1
    other = cv2.resize(data.image(FRAME + 3), size, interpolation=cv2.INTER_AREA)
    assert np.abs(batch.image.numpy() * 255 - other).max() > 50
    person = cv2.resize(1 - data.masks(FRAME)["background"], size, interpolation=cv2.INTER_AREA)
    different = np.abs(batch.person[..., 0].numpy() - person) > 1e-3  # at the outline, where colours say more
    near = cv2.blur((np.abs(person - cv2.blur(person, (5, 5))) > 1e-3).astype(np.float32), (5, 5)) > 0
    assert not (different & ~near).any() and different.mean() < 0.1
    assert batch.person[at(data, 1, size)] > 0.99 and batch.person[0, 0] == 0  # the nose, and a corner
    assert batch.background[0, 0].tolist() == pytest.approx([40 / 255, 90 / 255, 140 / 255], abs=0.01)
    assert batch.background[0, -1].tolist() == pytest.approx([60 / 255, 30 / 255, 200 / 255], abs=0.01)


@pytest.mark.parametrize("size", [FULL, HALF])
def test_the_box_is_around_the_face(data: PersonDataset, size: tuple[int, int]) -> None:
    x0, y0, x1, y1 = load(data, FRAME, size, LossConfig()).face_box
    points = np.asarray(data.landmarks[FRAME, :468, :2]) * size[0] / SIZE
    assert (points >= (x0, y0)).all() and (points <= (x1, y1)).all()
    assert np.abs([x0, y0] - points.min(0)).max() <= 1 and np.abs([x1, y1] - points.max(0)).max() <= 1


@pytest.mark.parametrize("size", [FULL, HALF])
@pytest.mark.parametrize("part", ["face", "mouth", "eyes"])
def test_each_part_of_the_face_has_its_own_extra_weight(data: PersonDataset, size: tuple[int, int], part: str) -> None:
    places = {
        "forehead": at(data, 151, size), "mouth": centre(data, LIPS_OUTER, size),
        "right eye": centre(data, (33, 133), size), "left eye": centre(data, (362, 263), size),
        "wall": (1, 1), "clothes": (size[1] - 2, size[0] // 2),
    }  # fmt: skip
    weighted = {"face": {"forehead", "mouth", "right eye", "left eye"}, "mouth": {"mouth"},
                "eyes": {"right eye", "left eye"}}[part]  # fmt: skip
    batch = load(data, FRAME, size, replace(NOTHING, **{part: 3.0}))
    assert float(batch.weight.mean()) == pytest.approx(1, abs=1e-5)
    base = float(batch.weight.min())
    # The face's own mask stops where the lips and the eyes begin.
    inside = {"forehead"} if part == "face" else weighted
    for name, place in places.items():
        relative = float(batch.weight[place]) / base
        if name in inside:
            assert relative == pytest.approx(4, rel=0.05), name
        elif name not in weighted:
            assert relative == pytest.approx(1, rel=0.05), name


def test_without_extra_weights_all_pixels_count_alike(data: PersonDataset) -> None:
    assert torch.equal(load(data, FRAME, FULL, NOTHING).weight, torch.ones(SIZE, SIZE, 1))


# --- the terms of the loss ------------------------------------------------------------------------------------------


class Watched(LPIPS):
    """A stand-in for the network that is no network: it remembers the crops that it compares."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.crops: list[tuple[Tensor, Tensor]] = []

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        self.crops.append((a.detach(), b))
        return (a - b).square().mean()


def step_of(data: PersonDataset, folder: Path, loss: LossConfig, step: int = 0) -> tuple[Trainer, Batch]:
    config = replace(small_config(data.folder, folder, steps=10, loss=FREE), loss=loss)
    trainer = Trainer(data, config)
    trainer.step = step
    return trainer, load(data, FRAME, FULL, LossConfig())


def loss_of(trainer: Trainer, batch: Batch) -> tuple[float, dict[str, float], Tensor]:
    """The loss, its parts, and the picture that it is of."""
    with torch.no_grad():
        out = trainer._render(batch.index, batch.background, augment=False)
        loss, parts = trainer._loss(out, batch)
    return float(loss), {name: float(value) for name, value in parts.items()}, out.rgb


@pytest.mark.parametrize(("step", "wanted"), [(0, False), (4, False), (5, True), (9, True)])
def test_lpips_counts_with_its_weight_from_its_start_on(data, tmp_path, monkeypatch, step, wanted) -> None:
    network = Watched()
    monkeypatch.setattr(LPIPS, "load", lambda: network)
    trainer, batch = step_of(data, tmp_path, replace(NOTHING, lpips=3.0, lpips_start=0.5), step)
    loss, parts, image = loss_of(trainer, batch)
    picture = float(l1_ssim(image, batch.image, 0.0, batch.weight).loss)
    assert ("lpips" in parts) == wanted == bool(network.crops)
    if not wanted:
        assert loss == pytest.approx(picture, rel=1e-5)
        return
    assert parts["lpips"] > 1e-4 and loss == pytest.approx(picture + 3.0 * parts["lpips"], rel=1e-5)
    ((rendered, real),) = network.crops  # the same place of both pictures, on the face
    side = real.shape[0]
    assert side >= 64 and real.shape == rendered.shape == (side, side, 3)
    places = [(y, x) for y in range(SIZE - side + 1) for x in range(SIZE - side + 1)
              if torch.equal(batch.image[y : y + side, x : x + side], real)]  # fmt: skip
    assert any(torch.equal(image[y : y + side, x : x + side], rendered) for y, x in places)
    nose = at(data, 1, FULL)
    assert any(y <= nose[0] < y + side and x <= nose[1] < x + side for y, x in places)


def test_in_half_of_the_steps_lpips_also_looks_at_the_enlarged_mouth(data) -> None:
    batch = load(data, FRAME, FULL, LossConfig())
    lips = np.asarray(data.landmarks[FRAME, list(LIPS_OUTER), :2])
    x0, y0, x1, y1 = batch.mouth_box
    assert (lips > (x0, y0)).all() and (lips < (x1, y1)).all() and abs((x1 - x0) - (y1 - y0)) <= 1
    where = torch.zeros_like(batch.image)
    where[y0:y1, x0:x1] = 1
    marked, draws = batch._replace(image=where), np.random.default_rng(0).random((200, 3))
    found = [perceptual.parts(where, marked, 4.0, draw) for draw in draws]
    assert all(weight == 1.0 and real.min() == 0 for (_, real, weight), *_ in found)  # the face, in every step
    mouths = [mouth for _, *rest in found for mouth in rest]
    assert 80 < len(mouths) < 120
    for drawn, real, weight in mouths:
        assert drawn.shape == real.shape and min(drawn.shape[:2]) == perceptual.MOUTH
        assert torch.equal(drawn, real) and real.min() > 0.999 and weight == 4.0  # nothing but the mouth
    assert all(len(perceptual.parts(where, marked, 0.0, draw)) == 1 for draw in draws)
    part = batch.cropped(0, 0, SIZE, y0 + 4)  # of the frame, with hardly any of it
    assert all(len(perceptual.parts(part.image, part, 4.0, draw)) == 1 for draw in draws)


@pytest.mark.parametrize(("side", "seen"), [(16, MIN_SIZE), (30, MIN_SIZE), (31, 31), (48, 48)])
def test_a_part_that_is_too_small_for_lpips_is_enlarged(data, side: int, seen: int) -> None:
    part = load(data, FRAME, FULL, LossConfig()).cropped(40, 50, 40 + side, 50 + side + 1)
    ((drawn, real, _),) = perceptual.parts(part.image, part, 0.0, np.array([0.0, 0.0, 0.0]))
    assert drawn.shape == real.shape == (seen, seen, 3) and torch.equal(drawn, real)
    assert float((real.mean() - part.image.mean()).abs()) < 0.02
    assert side < MIN_SIZE or torch.equal(real, part.image[:side, :side])


def test_the_mouth_counts_with_its_own_weight(data, tmp_path, monkeypatch) -> None:
    network = Watched()
    monkeypatch.setattr(LPIPS, "load", lambda: network)
    found = {}
    for mouth in (0.0, 1.0, 4.0):
        trainer, batch = step_of(data, tmp_path, replace(NOTHING, lpips=1.0, lpips_start=0.0, mouth_lpips=mouth))
        found[mouth] = []
        for trainer.step in range(8):
            found[mouth].append(loss_of(trainer, batch)[1]["lpips"])
    none, once, fourfold = (np.array(found[mouth]) for mouth in (0.0, 1.0, 4.0))
    assert 0 < ((once - none) > 1e-4).sum() < 8
    np.testing.assert_allclose(fourfold - none, 4 * (once - none), atol=1e-6)


def test_without_its_weight_lpips_is_never_asked_for(data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(LPIPS, "load", lambda: pytest.fail("the network was loaded"))
    trainer, batch = step_of(data, tmp_path, replace(NOTHING, lpips=0.0, lpips_start=0.0), 9)
    assert "lpips" not in loss_of(trainer, batch)[1]


def test_every_other_term_counts_with_its_weight(data, tmp_path) -> None:
    trainer, batch = step_of(data, tmp_path, NOTHING)
    with torch.no_grad():  # so that each term has something to say
        g = trainer.model.gaussians
        g.colors += 0.05
        g.scales[g.region >= 4] += 2
        g.means += 0.3 * g.normal
        for parameter in trainer.model.field.parameters():
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    plain = loss_of(trainer, batch)[0]
    for name in ("alpha", "deformation", "color_prior", "scale_reg", "surface", "thickness", "smoothness"):
        added = []
        for weight in (1.0, 4.0):
            if name == "alpha":
                trainer.config = replace(trainer.config, loss=replace(NOTHING, alpha=weight))
            else:
                trainer.config = replace(trainer.config, loss=NOTHING)
                trainer.model.config = replace(trainer.model.config, loss=replace(FREE, **{name: weight}))
            added.append(loss_of(trainer, batch)[0] - plain)
        assert added[0] > 1e-6, name
        assert added[1] == pytest.approx(4 * added[0], rel=2e-2), name
    trainer.model.config = replace(trainer.model.config, loss=FREE)
    trainer.config = replace(trainer.config, loss=replace(NOTHING, ssim=1.0))
    loss, parts, _ = loss_of(trainer, batch)
    assert loss == pytest.approx(1 - parts["ssim"], abs=1e-5) and 0 < parts["ssim"] < 1


def test_uncertain_edges_of_the_mask_say_nothing_about_coverage(data, tmp_path) -> None:
    trainer, batch = step_of(data, tmp_path, replace(NOTHING, alpha=1.0))
    unsure = batch._replace(person=torch.full_like(batch.person, 0.5))
    assert loss_of(trainer, unsure)[1]["alpha"] == 0
    inverted = batch._replace(person=1 - batch.person)
    assert loss_of(trainer, inverted)[1]["alpha"] > 4 * loss_of(trainer, batch)[1]["alpha"]


def test_pixels_of_large_weight_decide(data, tmp_path) -> None:
    trainer, batch = step_of(data, tmp_path, NOTHING)
    weight = torch.zeros_like(batch.weight)
    weight[:20] = SIZE / 20
    with torch.no_grad():
        image = trainer._render(FRAME, batch.background, augment=False).rgb
    expected = float((image - batch.image)[:20].abs().mean())
    assert loss_of(trainer, batch._replace(weight=weight))[0] == pytest.approx(expected, rel=1e-4)


# --- gradients that are not numbers -----------------------------------------------------------------------------------


def with_broken_gradient(trainer: Trainer, name: str, step: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Once, at a step, the gradient of one parameter is NaN while the loss stays what it was; returns its frame."""
    original, poisoned = trainer._loss, []

    def loss(out, batch):
        value, parts = original(out, batch)
        if trainer.step == step and not poisoned:
            poisoned.append(batch.index)
            broken = {
                "means": trainer.model.gaussians.means,
                "network": trainer.model.field.head.weight,
                "encoding": next(iter(trainer.model.field.encoding.parameters())),
                "poses": trainer.poses.knots,
            }[name]
            value = value + (broken - broken.detach()).square().sum().sqrt()  # adds 0, and its slope is 0 / 0
            assert torch.isfinite(value)
        return value, parts

    monkeypatch.setattr(trainer, "_loss", loss)
    return poisoned


@pytest.mark.parametrize("name", ["means", "network", "encoding", "poses"])
def test_a_finite_loss_with_a_gradient_that_is_not_changes_nothing(data, tmp_path, monkeypatch, name) -> None:
    trainer = Trainer(data, small_config(data.folder, tmp_path / "run", steps=8))
    batch = load(data, FRAME, FULL, LossConfig())
    for trainer.step in (3, 4):  # poses are corrected from a fifth of the training on
        assert trainer.train_step(batch) is not None
    before = {key: value.clone() for key, value in trainer.state().items()}
    trainer.step = 5
    poisoned = with_broken_gradient(trainer, name, 5, monkeypatch)
    assert trainer.train_step(batch) is None and poisoned == [FRAME]
    after = trainer.state()
    assert before.keys() == after.keys()
    assert [key for key in before if not torch.equal(before[key], after[key])] == []


@pytest.mark.parametrize("name", ["means", "network", "poses"])
def test_a_gradient_that_is_not_a_number_rolls_back_and_leaves_the_frame_out(data, tmp_path, monkeypatch, name) -> None:
    config = small_config(data.folder, tmp_path / "run", steps=8)
    trainer = Trainer(data, config)
    poisoned = with_broken_gradient(trainer, name, 4, monkeypatch)
    trainer.run(open_run(config))
    assert trainer.step == 8 and len(poisoned) == 1 and trainer._banned == set(poisoned)
    assert all(bool(torch.isfinite(value).all()) for value in trainer.state().values())
