"""What a view from aside shows of the radiance field and no training frame does: its edge, and what it hides."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch

from avatar.data import PersonDataset
from avatar.methods.nerf.head_shape import CELLS
from avatar.methods.nerf.hidden import SOLID, hidden_error
from avatar.methods.nerf.method import NerfAvatar
from avatar.methods.nerf.model import HIDDEN
from avatar.methods.nerf.occupancy import _walls
from avatar.native import RaySamples, pack_occupancy
from avatar.train.batches import load
from tests.nerf import nerf_trainer, untrained
from tests.person import make_person


@pytest.fixture(scope="module")
def person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_person(tmp_path_factory.mktemp("person"), frames=40)


@pytest.fixture(scope="module")
def made(person: Path) -> NerfAvatar:
    return untrained(person)


@pytest.fixture
def model(made: NerfAvatar) -> NerfAvatar:
    return copy.deepcopy(made)


def test_the_outline_of_the_field_has_no_steps(model: NerfAvatar):
    """An oblique edge of cells, one aside with every fourth down: the field ends along a line, and near the cells."""
    grid = model.occupancy
    held = torch.zeros(CELLS, CELLS, CELLS, dtype=torch.bool)
    for row in range(20, 76):
        held[40:44, row, 20 : 40 + row // 4] = True
    grid.bits = pack_occupancy(held)
    grid.measure_front()
    across, down = torch.linspace(40, 62, 441), torch.arange(32, 64) + 0.5
    y, x = torch.meshgrid(down, across, indexing="ij")
    points = grid.box[0] + torch.stack([x, y, torch.full_like(x, 43.5)], -1).view(-1, 3) * (
        (grid.box[1] - grid.box[0]) / CELLS
    )
    share = (grid.behind_front(points) * grid.holds(points)).view(y.shape)
    ends, edge = across[(share > 0.5).float().cumsum(1).argmax(1)], 40 + down / 4 - 0.5
    steps = 40 + down.floor().div(4).floor()  # where the cells end
    assert float((steps - edge).std()) > 0.25 and float((ends - edge).std()) < 0.12
    assert -1.0 < float((ends - edge).mean()) < 0  # cells: little of the field is lost, and nothing is added
    blunt = (grid.behind_front(points, blunt=True) * grid.holds(points)).view(y.shape)
    assert torch.equal((blunt > 0.5).sum(1), (grid.holds(points).view(y.shape) > 0).sum(1))


def test_no_slit_opens_between_columns_of_cells(model: NerfAvatar):
    """Hair before a forehead, and an island before nothing: the step between them is closed, nothing else is added."""
    held = torch.zeros(CELLS, CELLS, CELLS, dtype=torch.bool)
    held[30:33, 20:40, 20:60] = True
    held[44:47, 40:60, 20:60] = True
    held[50:52, 80, 80] = True
    walls = _walls(held)
    assert walls[30:45, 39, 30].all() and not walls[:30].any() and not walls[45:, :60].any()
    added = walls & ~held
    assert set(added.nonzero()[:, 1].tolist()) == {39} and int(added.sum()) == 12 * 40

    grid = model.occupancy
    grid.hull.fill_(True)
    grid.hull[40] = False  # nothing is added where the field may not be
    grid.shown.fill_(1.0)
    grid.density = held.float()
    grid._mark()
    bits = grid.holds(grid.places(torch.arange(CELLS**3), torch.zeros(CELLS**3, 3))).view(held.shape) > 0
    assert torch.equal(bits[:40, 39, 30], walls[:40, 39, 30]) and not bits[40].any() and bits[44, 39, 30]


def test_what_is_hidden_follows_what_hides_it():
    """Two rays of three samples: the first is opaque, the second empty up to its last sample."""
    starts = torch.arange(3.0).repeat(2)
    samples = RaySamples(torch.zeros(6, 3), starts, starts + 1, torch.tensor([0, 3, 6], dtype=torch.int32), 2)
    densities = torch.tensor([50.0, 50.0, 2.0, 0.0, 0.0, 50.0], requires_grad=True)
    colors = torch.full((6, 3), 0.2, requires_grad=True)
    shown = torch.tensor([[0.7] * 3, [0.3] * 3], requires_grad=True)
    error = hidden_error(samples, densities, colors, shown)
    hollow = 0.1 * math.log(SOLID / 2.01) / math.log(SOLID / 0.01)
    assert torch.allclose(error, torch.tensor([2 * 3 * 0.25 + hollow, 0.0]), atol=1e-5)
    error.sum().backward()
    assert colors.grad is not None and densities.grad is not None and shown.grad is None
    assert (colors.grad[[1, 2]] < -0.9).all() and (colors.grad[[0, 3, 4, 5]].abs() < 1e-6).all()
    assert densities.grad[2] < 0 and (densities.grad[[0, 1, 3, 4, 5]] == 0).all()


def test_training_reaches_what_is_hidden(person: Path, model: NerfAvatar, tmp_path: Path):
    trainer = nerf_trainer(person, tmp_path / "run", model)
    data, motion = trainer.data, trainer.data.motion
    frame = load(data, 3, (data.width, data.height), trainer.config.loss)
    with torch.no_grad():
        model.field.density.bias[0] = 5.0
    out = model(motion, 3, data.camera)
    assert float(out.aux[HIDDEN].detach().max()) > 0
    terms = model.regularizers(out, frame, 0.5)
    assert torch.isclose(terms["hidden"], model.config.loss.hidden * out.aux[HIDDEN].mean())
    model.eval()
    with torch.no_grad():
        assert float(model(motion, 3, data.camera).aux[HIDDEN].max()) == 0


@pytest.mark.parametrize("azimuth", [0.0, 80.0, 180.0])
def test_the_head_is_drawn_alone_from_everywhere(person: Path, model: NerfAvatar, azimuth: float):
    """What clothes hide of it is left out, and so are they; the rest is as in the image of the whole person."""
    data = PersonDataset(person)
    camera = data.camera.orbit(model.pivot, azimuth, 0)
    with torch.no_grad():
        model.field.density.bias[0] = 4.0  # solid
        red, green = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
        model.torso.gaussians.colors.copy_(torch.where(model.torso.head() > 0, green, red))
        model.field.rgb.bias.copy_(torch.tensor([-9.0, -9.0, 9.0]))
        model.eval()
        whole = model(data.motion, 3, camera, part="person")
        head = model(data.motion, 3, camera, part="head")
        clothes = (
            model.torso(data.motion, 3, camera, part="person").alpha
            - model.torso(data.motion, 3, camera, part="head").alpha
        )
    assert head.rgb.shape == whole.rgb.shape and (head.alpha <= whole.alpha + 1e-4).all()
    assert float(head.rgb[..., 0].max()) < 0.1  # no clothes
    alone = clothes[..., 0] < 1e-3
    assert int((alone & (whole.alpha[..., 0] > 0.9)).sum()) > 50
    assert float((head.rgb - whole.rgb)[alone].abs().max()) < 5e-3
    assert float((head.alpha - whole.alpha)[alone].abs().max()) < 5e-3


def test_a_training_frame_from_behind_has_all_terms(person: Path, model: NerfAvatar, tmp_path: Path):
    """A head that turns away from the camera is drawn in another way, and trained all the same."""
    trainer = nerf_trainer(person, tmp_path / "run", model)
    data, motion = trainer.data, trainer.data.motion
    frame = load(data, 3, (data.width, data.height), trainer.config.loss)
    terms = model.regularizers(model(motion, 3, data.camera.orbit(model.pivot, 120, 0)), frame, 0.5)
    assert {"hidden", "distortion", "entropy"} < set(terms) and all(bool(v.isfinite()) for v in terms.values())
