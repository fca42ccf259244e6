"""A radiance field drawn in one pass, beside its reference: sampling, encoding, network and marching one by one."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from avatar import native
from avatar.errors import AvatarError
from avatar.native import _abi
from avatar.native import library as native_library
from avatar.native.library import library, multiplies_bfloat16
from tests.kernels.scenes import radiance_field

DRAFT, STANDARD = (16, 3, 32, 15, 32), (16, 3, 64, 31, 64)


@pytest.fixture
def reference(monkeypatch):
    """The same call by the reference, in double."""

    def draw(scene: dict[str, Any]) -> Tensor:
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules["avatar.native.draw_field"], "runs_native", lambda _: False)
            return native.draw_field(**scene)

    return draw


def _change(scene: dict[str, Any], **of_space: Any) -> dict[str, Any]:
    return {**scene, "space": scene["space"]._replace(**of_space)}


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"max_samples": 3},
        {"step": 0.05, "max_samples": 400},  # several stretches of intervals
        {"neck": (50.0, 0.0, 0.0, 1.0)},
        {"front": torch.full((1, 1), -2.0, dtype=torch.float64)},
        {"moved": torch.zeros(3, 2, 2, 2, dtype=torch.float64)},
    ],
    ids=["all", "few samples", "short steps", "no neck", "flat front", "still"],
)
def test_double_is_the_reference(change, reference):
    scene = _change(radiance_field(), **change)
    got, expected = native.draw_field(**scene, darkest=0.0), reference(scene)
    assert got.shape == (37, 41, 4) and expected[..., 3].amax() > 0.5 and expected[..., 3].amin() == 0
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("units", [DRAFT, STANDARD], ids=["draft", "standard"])
@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_float_is_close_to_the_reference(units, bfloat16, reference):
    got = native.draw_field(**radiance_field(torch.float32, units=units, levels=3), darkest=0.0, bfloat16=bfloat16)
    error = (got.double() - reference(radiance_field(units=units, levels=3))).abs()
    # A sample within rounding of a cell's border may be in one and not in the other.
    close = 0.02 if bfloat16 and multiplies_bfloat16() else 1e-4
    assert got.dtype == torch.float32
    assert (error > close).double().mean() < 5e-3 and error.max() < 0.2


@pytest.mark.usefixtures("needs_native")
def test_a_ray_ends_where_little_light_comes_from(reference):
    """Where all is dense, most samples are left out, and the image stays as good as the same."""
    scene = radiance_field()
    scene["network"][8][0] += 5  # the bias of the density
    exact = reference(scene)
    assert (exact[..., 3] > 0.999).double().mean() > 0.2
    for darkest in (1 / 1024, 0.1):
        error = (native.draw_field(**scene, darkest=darkest) - exact).abs()
        assert 1e-6 < error.max() <= darkest


@pytest.mark.usefixtures("needs_native")
def test_a_part_of_the_image_is_the_same_as_in_the_whole():
    scene = radiance_field()
    whole = native.draw_field(**scene)
    part = native.draw_field(**{**scene, "box": (20, 5, 44, 22)})
    torch.testing.assert_close(part, whole[4:21, 17:41], rtol=0, atol=1e-12)


@pytest.mark.usefixtures("needs_native")
def test_places_take_the_place_of_pixels(reference):
    """Anywhere in the image, in any number: those at the middle of pixels are the pixels."""
    scene = radiance_field()
    x0, y0, x1, y1 = scene["box"]
    y, x = torch.meshgrid(torch.arange(y0, y1).double(), torch.arange(x0, x1).double(), indexing="ij")
    middles = torch.stack([x + 0.5, y + 0.5], -1).view(-1, 2)
    whole = native.draw_field(**scene)
    assert torch.equal(native.draw_field(**{**scene, "box": middles}), whole.view(-1, 4))
    chosen = torch.randperm(len(middles), generator=torch.Generator().manual_seed(0))[:301]
    assert torch.equal(native.draw_field(**{**scene, "box": middles[chosen]}), whole.view(-1, 4)[chosen])
    between = {**scene, "box": middles[chosen] + torch.rand(301, 2, dtype=torch.float64) - 0.5}
    torch.testing.assert_close(native.draw_field(**between, darkest=0.0), reference(between), rtol=0, atol=1e-10)
    assert native.draw_field(**{**scene, "box": middles[:0]}).shape == (0, 4)
    with pytest.raises(AvatarError, match="places has shape"):
        native.draw_field(**{**scene, "box": torch.zeros(4, 3, dtype=torch.float64)})


@pytest.mark.usefixtures("needs_native")
def test_nothing_is_drawn_where_nothing_is():
    scene = radiance_field(torch.float32)
    empty = native.draw_field(**_change(scene, occupancy=torch.zeros_like(scene["space"].occupancy)))
    away = native.draw_field(**{**scene, "box": (900, 900, 917, 905)})
    hidden = native.draw_field(**_change(scene, front=torch.full((2, 3), 90.0)))
    assert not empty.any() and not away.any() and not hidden.any() and away.shape == (5, 17, 4)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("bfloat16", [False, True])
def test_same_bits_for_any_thread_count(any_threads, bfloat16):
    results = []
    for threads in (1, 2, 7):
        any_threads(threads)
        results.append(native.draw_field(**radiance_field(torch.float32), bfloat16=bfloat16))
    assert all(torch.equal(results[0], other) for other in results[1:])


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_field_of_any_width_keeps_to_its_workspace(isa, dtype, any_threads, monkeypatch):
    """A layer of three colors is padded to the registers of the instruction set, and so is each tile's memory.

    What is written behind a workspace is found by the fixture that every kernel test has.
    """
    loaded = library()
    assert loaded is not None
    if loaded.handle.avatar_best_isa() < getattr(_abi, f"ISA_{isa.upper()}"):
        pytest.skip(f"this machine has no {isa}")
    chosen, plain = getattr(_abi, f"ISA_{isa.upper()}"), native_library._with_threads
    monkeypatch.setattr(native_library, "_with_threads", lambda loaded: replace(plain(loaded), isa=chosen))
    for levels in (2, 5, 8):
        for units in (DRAFT, (16, 16, 32, 15, 64), (9, 2, 20, 8, 13)):
            for threads in (1, 7):
                any_threads(threads)
                image = native.draw_field(**radiance_field(dtype, units=units, levels=levels))
                assert image.isfinite().all()


@pytest.mark.usefixtures("needs_native")
def test_what_is_broken_stays_where_it_is():
    """A NaN in a table shows in rays that read it, and in no other."""
    scene = radiance_field(torch.float32)
    good = native.draw_field(**scene)
    scene["features"].table[0, 1, 7] = float("nan")
    bad = native.draw_field(**scene)
    broken = bad.isnan().any(-1)
    assert 0 < broken.double().mean() < 0.9
    assert torch.equal(bad[~broken], good[~broken])


@pytest.mark.parametrize("name", ["front", "moved"])
def test_gradients_are_refused(name):
    scene = radiance_field(torch.float32)
    values = getattr(scene["space"], name).clone().requires_grad_()
    with pytest.raises(AvatarError, match="draw_field has no gradient"):
        native.draw_field(**_change(scene, **{name: values}))
    with torch.no_grad():
        native.draw_field(**_change(scene, **{name: values}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": (3, 1, 3, 38)}, "width 0"),
        ({"origin": [0.0, float("nan"), 0.0]}, "origin, matrix and neck are"),
        ({"darkest": 2.0}, "darkest is 2"),
        ({"space": {"step": 0.0}}, "step is 0"),
        ({"space": {"rise": 0.0}}, "rise is 0"),
        ({"space": {"neck": (0.0, 0.0, 0.0, 0.0)}}, "origin, matrix and neck are"),
        ({"space": {"held": [[0, 0, 0], [0, 1, 1]]}}, "box is"),
        ({"space": {"moved": torch.zeros(3, 1, 2, 2)}}, "moved has shape"),
        ({"space": {"front": torch.zeros(3)}}, "front has shape"),
        ({"space": {"occupancy": torch.zeros(3, 3, 3)}}, "occupancy is torch.float32"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(change, message):
    scene = radiance_field(torch.float32)
    of_space = change.pop("space", {})
    with pytest.raises(AvatarError, match=message):
        native.draw_field(**{**_change(scene, **of_space), **change})


def test_a_network_that_does_not_fit_the_features_is_refused():
    scene = radiance_field(torch.float32)
    with pytest.raises(AvatarError, match="attention_weight has shape"):
        native.draw_field(**{**scene, "network": radiance_field(torch.float32, levels=3)["network"]})


@pytest.mark.usefixtures("needs_native")
def test_operator_contract(monkeypatch):
    """What the operator is called with passes torch's own checks of an operator."""
    module, calls = sys.modules["avatar.native.draw_field"], []
    monkeypatch.setattr(module, "_draw", lambda *arguments: calls.append(arguments))
    native.draw_field(**radiance_field())
    monkeypatch.undo()
    torch.library.opcheck(module._draw, calls[0])
