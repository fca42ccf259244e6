"""The space around a moving face mesh: carried with it near the mesh, at rest far away."""

from __future__ import annotations

import pytest
import torch

from avatar.fields.mesh_warp import MeshWarp
from avatar.fields.skinning import LandmarkBasis
from avatar.motion.face_channels import CHANNELS, NUM_LANDMARKS

JAW = 0  # the channel that moves the lower half down by a centimetre


def _face() -> tuple[MeshWarp, LandmarkBasis]:
    """A flat face of 478 vertices whose lower half one channel moves."""
    n = torch.arange(NUM_LANDMARKS)
    shape = torch.stack([(n % 22 - 10.5) * 0.6, (n // 22 - 10.5) * 0.6, 0.05 * (n % 22 - 10.5) ** 2], 1)
    matrix = torch.zeros(len(CHANNELS), NUM_LANDMARKS, 3)
    matrix[JAW, shape[:, 1] > 0, 1] = 1.0
    return MeshWarp(shape, torch.zeros(len(CHANNELS))), LandmarkBasis(matrix.flatten(1), torch.zeros(2))


def test_a_moved_mesh_is_brought_back_to_rest():
    warp, basis = _face()
    channels = torch.zeros(len(CHANNELS))
    channels[JAW] = 1.2
    moved = warp.rest + torch.tensor([0, 1.2, 0]) * (warp.rest[:, 1:2] > 0)
    found = warp.at_rest(moved, warp.displacements(basis, channels))
    away = (found - warp.rest).norm(dim=1)
    assert float(away.median()) < 0.02 and float(away.max()) < 0.35  # centimetres; worst where the halves part
    assert float((moved - warp.rest).norm(dim=1).max()) > 1.1


def test_what_is_far_from_the_mesh_and_what_is_at_rest_stays():
    warp, basis = _face()
    channels = torch.zeros(len(CHANNELS))
    far = torch.tensor([[0.0, 12.0, 0.0], [0.0, 4.0, 14.0]])
    near = torch.tensor([[0.0, 4.0, 0.3]])
    assert torch.equal(warp.at_rest(near, warp.displacements(basis, channels)), near)
    channels[JAW] = 1.0
    moved = warp.displacements(basis, channels)
    assert (warp.at_rest(far, moved) - far).norm(dim=1).max() < 0.3
    assert float((warp.at_rest(near, moved) - near)[0, 1]) < -0.95


def test_what_is_behind_dense_vertices_stays():
    """Teeth behind the lips do not stretch with them."""
    shape = _face()[0].rest / 2  # as close to each other as the vertices of lips
    warp = MeshWarp(torch.cat([shape, shape[:10]]), torch.zeros(len(CHANNELS)))
    matrix = torch.zeros(len(CHANNELS), NUM_LANDMARKS, 3)
    matrix[JAW, :, 1] = 1.0
    channels = torch.zeros(len(CHANNELS))
    channels[JAW] = 1.0
    moved = warp.displacements(LandmarkBasis(matrix.flatten(1), torch.zeros(2)), channels)
    lip = torch.tensor([[0.0, 1.0, 0.0]])
    teeth = lip + torch.tensor([0.0, 0.0, 1.5])
    assert float((warp.at_rest(lip, moved) - lip)[0, 1]) < -0.9
    assert float((warp.at_rest(teeth, moved) - teeth).norm()) < 0.2


def test_no_weights_are_so_small_that_their_products_take_ten_times_as_long():
    warp, _ = _face()
    x, y, z = warp._weights(warp.rest)
    least = torch.finfo(torch.float32).tiny  # smaller ones are denormal
    for products in (y[:, :, None] * x[:, None, :], z[:, :, None] * y[:, None, :]):
        assert (products == 0).any() and (products[products != 0] > 100 * least).all()


def test_gradients_reach_the_points():
    warp, basis = _face()
    channels = torch.zeros(len(CHANNELS))
    channels[JAW] = 1.0
    moved = warp.displacements(basis, channels).double()
    warp.double()
    points = torch.tensor([[0.1, 0.33, 0.2], [1.0, 2.0, -0.4]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda at: warp.at_rest(at, moved), (points,))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_threads_share_the_points(count: int):
    warp, basis = _face()
    channels = torch.zeros(len(CHANNELS))
    channels[JAW] = 1.0
    points, moved = warp.rest[200 : 200 + count] + 0.1, warp.displacements(basis, channels)
    alone = warp.at_rest(points, moved)  # with gradients all points are one batch
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with torch.no_grad():
            assert torch.equal(warp.at_rest(points, moved), alone)
    finally:
        torch.set_num_threads(threads)


def test_a_restored_warp_is_the_same():
    warp, basis = _face()
    channels = torch.rand(len(CHANNELS), generator=torch.Generator().manual_seed(1))
    other = MeshWarp.empty()
    other.displacements(basis, channels)
    other.load_state_dict(warp.state_dict())
    assert torch.equal(other.displacements(basis, channels), warp.displacements(basis, channels))
