from __future__ import annotations

import pytest
import torch

from avatar import native
from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.project_gaussians import _project
from tests.kernels.compare import assert_same, values_and_gradients
from tests.kernels.scenes import Scene, random_scene


def _inputs(s: Scene) -> list[torch.Tensor]:
    return [s.means, s.quats, s.scales, s.viewmat]


def _run(backend, s: Scene):
    return lambda m, q, sc, v: backend.project_gaussians(m, q, sc, v, s.K, s.width, s.height)


def test_reference_gradients_are_right():
    s = random_scene(4)
    leaves = [x.clone().requires_grad_() for x in _inputs(s)]

    def outputs(*x):
        return _run(reference, s)(*x)[1:]

    assert torch.autograd.gradcheck(outputs, leaves)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 200])
def test_double_is_the_reference(n):
    s = random_scene(n)
    assert torch.equal(_run(native, s)(*_inputs(s))[0], _run(reference, s)(*_inputs(s))[0])
    assert_same(_run(native, s), _run(reference, s), _inputs(s), 1e-10)


@pytest.mark.usefixtures("needs_native")
def test_float_is_close_to_the_reference():
    s = random_scene(3000, 256, 256)
    single = Scene(*(x.float() if isinstance(x, torch.Tensor) else x for x in s))
    radii, *outputs = _run(native, single)(*_inputs(single))
    radii_reference, *expected = _run(reference, s)(*_inputs(s))
    both = (radii > 0) & (radii_reference > 0)
    assert ((radii > 0) != (radii_reference > 0)).float().mean() < 1e-3
    assert (radii[both] - radii_reference[both]).abs().max() <= 1
    for got, want in zip(outputs, expected, strict=True):
        torch.testing.assert_close(got[both].double(), want[both], rtol=2e-4, atol=2e-4)


@pytest.mark.usefixtures("needs_native")
def test_culling():
    means = torch.tensor([[0.0, 0, 0], [0, 0, -50], [500, 0, 0], [0, float("nan"), 0], [0, 0, 0]])
    quats = torch.tensor([[1.0, 0, 0, 0]]).expand(5, 4).clone()
    quats[4] = 0  # no rotation at all
    s = random_scene(1, dtype=torch.float32)
    view = torch.eye(4)
    view[2, 3] = 40.0
    for backend in (native, reference):
        radii, means2d, depths, conics = backend.project_gaussians(
            means, quats, torch.ones(5, 3), view, s.K, s.width, s.height
        )
        assert (radii > 0).tolist() == [True, False, False, False, False]
        for x in (means2d, depths, conics):
            assert not x[1:].any()


@pytest.mark.usefixtures("needs_native")
def test_culled_gaussians_get_no_gradient():
    s = random_scene(20, dtype=torch.float32)
    means = s.means.clone()
    means[3] = float("nan")
    means[4, 2] = -1000.0
    _, _, _, _, *gradients = [None, *values_and_gradients(_run(native, s), [means, s.quats, s.scales, s.viewmat])]
    for gradient in gradients[:3]:
        assert not gradient[3:5].any() and gradient.isfinite().all()
    assert gradients[3].isfinite().all()


@pytest.mark.usefixtures("needs_native")
def test_known_projection():
    """A ball on the optical axis: radius in pixels is focal * size / depth, plus the blur."""
    view, K = torch.eye(4), torch.tensor([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]])
    view[2, 3] = 10.0
    radii, means2d, depths, conics = native.project_gaussians(
        torch.zeros(1, 3), torch.tensor([[2.0, 0, 0, 0]]), torch.full((1, 3), 0.2), view, K, 64, 48
    )
    variance = (100 * 0.2 / 10) ** 2 + 0.3
    assert radii.item() == torch.ceil(torch.tensor(3 * variance**0.5)).item()
    torch.testing.assert_close(means2d, torch.tensor([[32.0, 24.0]]))
    torch.testing.assert_close(depths, torch.tensor([10.0]))
    torch.testing.assert_close(conics, torch.tensor([[1 / variance, 0, 1 / variance]]))


@pytest.mark.usefixtures("needs_native")
def test_same_bits_for_any_thread_count(any_threads):
    s = random_scene(5000, dtype=torch.float32)
    results = []
    for threads in (1, 2, 5):
        any_threads(threads)
        results.append(values_and_gradients(_run(native, s), _inputs(s)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.usefixtures("needs_native")
def test_non_contiguous_arguments():
    s = random_scene(30)
    means = s.means.repeat_interleave(2, dim=1)[:, ::2]
    assert not means.is_contiguous()
    assert all(
        torch.equal(a, b)
        for a, b in zip(_run(native, s)(means, s.quats, s.scales, s.viewmat), _run(native, s)(*_inputs(s)), strict=True)
    )


@pytest.mark.usefixtures("needs_native")
def test_operator_contract():
    s = random_scene(9)
    leaves = [x.clone().requires_grad_() for x in _inputs(s)]
    torch.library.opcheck(_project, (*leaves, s.K, s.width, s.height, 0.3, 0.01))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": torch.zeros(3, 2)}, r"means has shape \[3, 2\]; expected \[N, 3\]"),
        ({"quats": torch.zeros(2, 4)}, r"quats has shape \[2, 4\]; expected \[3, 4\]"),
        ({"scales": torch.zeros(3, 3).double()}, "scales is torch.float64; the other arguments are torch.float32"),
        ({"means": torch.zeros(3, 3, dtype=torch.int64)}, "means is torch.int64"),
        ({"viewmat": torch.zeros(3, 4)}, "viewmat"),
        ({"width": 0}, "width 0"),
        ({"height": 20_000}, "height 20000"),
        ({"K": [[1.0]]}, "K is a list"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    arguments = {
        "means": torch.zeros(3, 3),
        "quats": torch.ones(3, 4),
        "scales": torch.ones(3, 3),
        "viewmat": torch.eye(4),
        "K": torch.eye(3),
        "width": 8,
        "height": 8,
    }
    with pytest.raises(AvatarError, match=message):
        native.project_gaussians(**{**arguments, **change})
