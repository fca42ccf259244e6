"""Volume rendering of samples along rays: the reference against closed forms, and nerfacc against the reference."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from avatar import backends
from avatar.backends import nerfacc
from avatar.errors import AvatarError
from avatar.native import march_rays
from tests.kernels.compare import assert_same


def samples(counts: list[int], dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Rays with these numbers of samples: offsets, starts, ends, densities, colors."""
    g = torch.Generator().manual_seed(3)
    total = sum(counts)
    lengths = 0.05 + torch.rand(total, generator=g, dtype=torch.float64)
    starts = torch.cat([1 + lengths[: n + 1].cumsum(0)[:-1] for n in counts]) if total else torch.zeros(0)
    offsets = torch.tensor([0, *counts]).cumsum(0).int()
    densities = 2 * torch.rand(total, generator=g, dtype=torch.float64)
    colors = torch.rand(total, 3, generator=g, dtype=torch.float64)
    return (offsets, *(x.to(dtype) for x in (starts, starts + 0.5 * lengths[:total], densities, colors)))


def test_one_sample_by_hand():
    offsets = torch.tensor([0, 1], dtype=torch.int32)
    color, opacity, depth = march_rays(
        *(offsets, torch.tensor([2.0]), torch.tensor([4.0]), torch.tensor([0.5]), torch.tensor([[0.2, 0.4, 0.8]]))
    )
    alpha = 1 - math.exp(-1)  # density 0.5 over a length of 2
    torch.testing.assert_close(color, alpha * torch.tensor([[0.2, 0.4, 0.8]]))
    torch.testing.assert_close(opacity, torch.tensor([alpha]))
    torch.testing.assert_close(depth, torch.tensor([3.0]))


def test_constant_density_is_beer_lambert_however_it_is_cut():
    density, near, far = 0.7, 1.0, 3.0
    for pieces in (1, 7, 200):
        edges = torch.linspace(near, far, pieces + 1, dtype=torch.float64)
        offsets = torch.tensor([0, pieces], dtype=torch.int32)
        color, opacity, depth = march_rays(
            *(offsets, edges[:-1], edges[1:], torch.full((pieces,), density, dtype=torch.float64)),
            torch.ones(pieces, 1, dtype=torch.float64),
        )
        expected = 1 - math.exp(-density * (far - near))
        assert opacity.item() == pytest.approx(expected, abs=1e-12)
        assert color.item() == pytest.approx(expected, abs=1e-12)
    # With fine steps the depth is the mean of an exponential distribution cut off at the far end.
    length = far - near
    mean = near + 1 / density - length * math.exp(-density * length) / (1 - math.exp(-density * length))
    assert depth.item() == pytest.approx(mean, abs=1e-4)


def test_rays_do_not_see_each_other():
    offsets, starts, ends, densities, colors = samples([3, 0, 5])
    alone = [
        march_rays(torch.tensor([0, n]).int(), *(x[a : a + n] for x in (starts, ends, densities, colors)))
        for a, n in ((0, 3), (3, 0), (3, 5))
    ]
    together = march_rays(offsets, starts, ends, densities, colors)
    for i, whole in enumerate(together):
        torch.testing.assert_close(whole, torch.cat([ray[i] for ray in alone]))
    assert together[0][1].tolist() == [0, 0, 0] and together[1][1] == 0 and together[2][1] == 0
    densities = densities.clone()
    densities[1] = float("inf")  # a wall in the first ray
    walled = march_rays(offsets, starts, ends, densities, colors)
    assert walled[1][0] == 1
    torch.testing.assert_close(walled[0][2], together[0][2])


def test_gradients():
    offsets, starts, ends, densities, colors = samples([4, 0, 1, 6])
    leaves = (densities.requires_grad_(), colors.requires_grad_())
    assert torch.autograd.gradcheck(lambda d, c: march_rays(offsets, starts, ends, d, c), leaves)


def test_no_samples_and_no_rays():
    nothing = torch.zeros(0)
    for rays in (0, 4):
        color, opacity, depth = march_rays(
            *(torch.zeros(rays + 1, dtype=torch.int32), nothing, nothing, nothing, torch.zeros(0, 3))
        )
        assert color.shape == (rays, 3) and opacity.tolist() == depth.tolist() == [0] * rays


def test_bad_arguments_are_named():
    offsets, starts, ends, densities, colors = samples([2, 3])
    with pytest.raises(AvatarError, match=r"densities has shape \[4\]"):
        march_rays(offsets, starts, ends, densities[:4], colors)
    with pytest.raises(AvatarError, match=r"offsets is torch\.float64"):
        march_rays(offsets.double(), starts, ends, densities, colors)
    for bad in ([0, 2, 4], [1, 2, 5], [0, 6, 5]):
        with pytest.raises(AvatarError, match="offsets run from"):
            march_rays(torch.tensor(bad).int(), starts, ends, densities, colors)


def reference_scans() -> dict[str, Any]:
    """nerfacc's two functions, by their documentation, as loops on the CPU."""

    def render_weight_from_density(t_starts, t_ends, sigmas, packed_info):
        held = sigmas * (t_ends - t_starts)
        trans = torch.cat([
            torch.exp(-torch.cat([held.new_zeros(1), held[a : a + n - 1]]).cumsum(0)) if n else held[:0]
            for a, n in packed_info.tolist()
        ])  # fmt: skip
        alphas = 1 - torch.exp(-held)
        return trans * alphas, trans, alphas

    def accumulate_along_rays(weights, values, ray_indices, n_rays):
        source = weights[:, None] if values is None else weights[:, None] * values
        return torch.zeros(n_rays, source.shape[1]).index_add(0, ray_indices, source)

    return {
        "render_weight_from_density": render_weight_from_density,
        "accumulate_along_rays": accumulate_along_rays,
    }


def test_nerfacc_is_called_as_documented(install, monkeypatch):
    install("nerfacc", **reference_scans())
    monkeypatch.setattr(nerfacc, "_DEVICE", torch.device("cpu"))
    march = backends.marcher("nerfacc")
    offsets, starts, ends, densities, colors = samples([4, 0, 1, 6], torch.float32)
    for d, c in ((densities, colors), (densities, colors[:, :1])):
        assert_same(
            lambda d, c: march(offsets, starts, ends, d, c), lambda d, c: march_rays(offsets, starts, ends, d, c),
            [d, c], 1e-5,
        )  # fmt: skip
    empty = torch.zeros(0)
    color, opacity, _ = march(torch.zeros(3, dtype=torch.int32), empty, empty, empty, torch.zeros(0, 3))
    assert color.shape == (2, 3) and opacity.shape == (2,)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_nerfacc_agrees_with_the_reference():
    pytest.importorskip("nerfacc")
    march = backends.marcher("nerfacc")
    offsets, starts, ends, densities, colors = samples([40, 0, 1, 64, 7], torch.float32)
    assert_same(
        lambda d, c: march(offsets, starts, ends, d, c), lambda d, c: march_rays(offsets, starts, ends, d, c),
        [densities, colors], 1e-4,
    )  # fmt: skip
