"""Bad input to every operator: an error that names the argument, its shape and what was expected, or, for numbers that
are not finite, the behaviour that the operator's documentation promises. Absurd sizes are views of one number."""

from __future__ import annotations

import ctypes
import importlib.util
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from avatar import native
from avatar.errors import AvatarError
from avatar.native import _abi, _abi_cuda, reference
from avatar.native.library import library
from tests.kernels.cuda_backends import CUDA_EXT, build_emulation

NAN, INF = float("nan"), float("inf")
MANY = 2**24 + 1


def _good() -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """Every operator with arguments that it takes."""
    picture, flat = torch.rand(9, 8, 3), torch.rand(5)
    layers = {
        "condition": torch.rand(4), "middle_weight": torch.rand(4, 4), "middle_bias": torch.rand(4),
        "head_weight": torch.rand(2, 4), "head_bias": torch.rand(2), "scale": torch.rand(2),
    }  # fmt: skip
    sizes = {
        "attention_weight": (4, 3), "attention_bias": (4,), "gate_weight": (2, 4), "gate_bias": (2,),
        "base_weight": (6, 3), "base_bias": (6,), "conditions": (2, 6), "density_weight": (5, 6),
        "density_bias": (5,), "color_weight": (7, 4), "color_bias": (7,), "rgb_weight": (3, 7), "rgb_bias": (3,),
    }  # fmt: skip
    return {
        "triplane_encode": (
            native.triplane_encode,
            {"points": torch.rand(5, 3), "table": torch.rand(3, 2, 16, 2), "resolutions": [2, 5]},
        ),
        "project_gaussians": (
            native.project_gaussians,
            {
                "means": torch.rand(5, 3) + torch.tensor([0.0, 0, 5]), "quats": torch.rand(5, 4),
                "scales": torch.rand(5, 3), "viewmat": torch.eye(4),
                "K": torch.tensor([[9.0, 0, 4], [0, 9, 4], [0, 0, 1]]), "width": 8, "height": 8, "eps2d": 0.3,
                "near_plane": 0.01,
            },
        ),
        "skin_gaussians": (
            native.skin_gaussians,
            {
                "means": torch.rand(5, 3), "quats": torch.rand(5, 4), "weights": torch.rand(5),
                "offsets": torch.rand(5, 3), "transforms": torch.rand(2, 3, 4), "transform_quats": torch.rand(2, 4),
            },
        ),
        "rasterize": (
            native.rasterize,
            {
                "means2d": 8 * torch.rand(5, 2), "conics": torch.tensor([[0.5, 0, 0.5]]).repeat(5, 1),
                "colors": torch.rand(5, 3), "opacities": 0.1 + 0.8 * flat, "depths": torch.arange(5.0),
                "radii": torch.full((5,), 8, dtype=torch.int32), "width": 8, "height": 9,
                "background": picture.clone(),
            },
        ),
        "ssim": (native.ssim, {"a": picture, "b": picture.flip(0)}),
        "l1_ssim": (
            native.l1_ssim,
            {"image": picture, "target": picture.flip(0), "ssim_weight": 0.2, "weight": torch.rand(9, 8, 1)},
        ),
        "deform_mlp": (
            native.deform_mlp,
            {
                "features": torch.rand(5, 3), "spatial_weight": torch.rand(8, 3), "spatial_bias": torch.rand(8),
                **layers,
            },
        ),
        "deform_code": (native.deform_code, {"code": torch.rand(5, 8), **layers}),
        "radiance_mlp": (
            native.radiance_mlp,
            {"features": torch.rand(5, 3), **{name: torch.rand(size) for name, size in sizes.items()}},
        ),
        "sample_rays": (
            native.sample_rays,
            {
                "origins": torch.tensor([[0.0, 0.0, -5.0]]).repeat(5, 1),
                "directions": torch.tensor([[0.0, 0.1, 1.0]]).repeat(5, 1), "box": [[-1, -1, -1], [1, 1, 1]],
                "occupancy": torch.full((3, 4, 2), 255, dtype=torch.uint8), "step": 0.2, "max_samples": 4,
                "limits": torch.tensor([[3.0, 7.0]]).repeat(5, 1), "jitter": flat, "budget": 12,
            },
        ),
        "march_rays": (
            native.march_rays,
            {
                "offsets": torch.tensor([0, 3, 3, 5], dtype=torch.int32), "starts": flat, "ends": flat + 0.1,
                "densities": torch.rand(5), "colors": torch.rand(5, 3),
            },
        ),
        "adam_step": (
            native.adam_step,
            {
                "param": torch.rand(5, 2), "grad": torch.rand(5, 2), "exp_avg": torch.rand(5, 2),
                "exp_avg_sq": torch.rand(5, 2), "lr": 1e-2, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "step": 1,
            },
        ),
    }  # fmt: skip


OPS = list(_good())
TENSORS = [(op, name) for op, (_, good) in _good().items() for name, x in good.items() if isinstance(x, Tensor)]

# Dimensions of single arguments that may have any size.
FREE = {
    "triplane_encode": {("points", 0), ("table", 2), ("table", 3)},
    "deform_mlp": {("features", 0)},
    "deform_code": {("code", 0)},
    "radiance_mlp": {("features", 0)},
    "sample_rays": {("occupancy", d) for d in range(3)},
    "march_rays": {("colors", 1)},
}


def _refused(op: str, message: str, **change: Any) -> None:
    function, good = _good()[op]
    with pytest.raises(AvatarError, match=message):
        function(**{**good, **change})


@pytest.mark.parametrize("op", OPS)
def test_good_arguments_are_taken(op):
    function, good = _good()[op]
    function(**good)


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_shapes(op, name):
    """One dimension more, and each dimension one larger; the sentence has both shapes."""
    if (op, name) == ("adam_step", "param"):
        return  # its shape is what the others must have
    good = _good()[op][1][name]
    _refused(op, rf"{name}.* \[1, .*\]", **{name: good[None]})
    for d in range(good.dim()):
        larger = torch.cat([good, good.narrow(d, 0, 1)], dim=d)
        if (name, d) in FREE.get(op, ()):
            continue
        if (op, name) == ("march_rays", "offsets"):  # any number of rays is good, but not these numbers
            _refused(op, "offsets run from 0 to 0; expected 0 to 5", offsets=larger)
            continue
        # A dimension that others share shows in them, so the message may name one of those.
        _refused(op, r"has shape .* expected|has 2 entries", **{name: larger})


@pytest.mark.parametrize(("op", "name"), TENSORS)
@pytest.mark.parametrize("kind", ["list", "None", "float16", "int64", "other float", "complex", "sparse", "meta"])
def test_types(op, name, kind):
    good = _good()[op][1][name]
    if (kind, name) in {("None", x) for x in ("background", "weight", "limits", "jitter")} | {("int64", "radii")}:
        return  # optional, or taken
    bad = {
        "list": lambda: good.tolist(),
        "None": lambda: None,
        "float16": good.half,
        "int64": good.long,
        "other float": good.double,
        "complex": lambda: good.to(torch.complex64),
        "sparse": lambda: good.float().to_sparse(),
        "meta": lambda: good.to("meta"),
    }[kind]()
    others = r"[a-zA-Z_0-9]+"  # the first argument sets the type that the others must share
    first = name in (
        "points",
        "means",
        "means2d",
        "a",
        "image",
        "features",
        "middle_weight",
        "colors",
        "param",
        "origins",
    )
    _refused(op, rf"^{others if kind == 'other float' and first else name} (is|has)", **{name: bad})


@pytest.mark.parametrize(
    ("op", "change", "message"),
    [
        ("triplane_encode", {"points": torch.zeros(1).expand(MANY, 3)}, rf"points has shape \[{MANY}, 3\].*16777216"),
        ("triplane_encode", {"table": torch.zeros(1).expand(3, 2, 2**31, 2)}, "table has.*T from 4 to 2147483647"),
        ("triplane_encode", {"table": torch.zeros(1).expand(3, 65, 16, 2)}, "L from 1 to 64"),
        ("triplane_encode", {"table": torch.zeros(3, 2, 16, 17)}, "F from 1 to 16"),
        ("triplane_encode", {"table": torch.zeros(3, 2, 3, 2)}, "T from 4"),
        ("triplane_encode", {"resolutions": [2, 65536]}, r"resolutions are \[2, 65536\]; expected whole numbers"),
        ("triplane_encode", {"resolutions": [2, 0]}, "resolutions are"),
        ("triplane_encode", {"resolutions": [2, 2.5]}, "resolutions are"),
        ("triplane_encode", {"resolutions": torch.tensor([2.0, NAN])}, "resolutions are"),
        ("triplane_encode", {"resolutions": torch.tensor([[2, 5]])}, r"resolutions has shape \[1, 2\]; expected \[2\]"),
        ("project_gaussians", {"means": torch.zeros(1).expand(MANY, 3)}, "means has shape.*N from 0 to 16777216"),
        ("project_gaussians", {"width": 2**16, "height": 2**16}, "width 65536, height 65536"),
        ("project_gaussians", {"width": 2**32 + 8}, "width 4294967304"),
        ("project_gaussians", {"width": -8}, "width -8"),
        ("project_gaussians", {"width": 8.5}, "width 8.5"),
        ("project_gaussians", {"height": NAN}, "height nan"),
        ("project_gaussians", {"eps2d": NAN}, "eps2d is nan"),
        ("project_gaussians", {"eps2d": -1.0}, "eps2d is -1.0"),
        ("project_gaussians", {"near_plane": INF}, "near_plane is inf"),
        ("project_gaussians", {"viewmat": torch.full((4, 4), NAN)}, r"viewmat \[4, 4\] holds NaN"),
        ("project_gaussians", {"K": torch.full((3, 3), INF)}, r"K \[3, 3\] holds NaN or infinity"),
        ("project_gaussians", {"K": torch.zeros(3, 3)}, r"K \[3, 3\] has focal lengths 0 and 0; expected positive"),
        ("skin_gaussians", {"means": torch.zeros(1).expand(MANY, 3)}, "means has shape.*N from 0 to 16777216"),
        ("rasterize", {"means2d": torch.zeros(1).expand(MANY, 2)}, "means2d has shape"),
        ("rasterize", {"colors": torch.zeros(1).expand(5, 2**31)}, "colors has shape.*C from 1 to 32"),
        ("rasterize", {"colors": torch.zeros(5, 0)}, "C from 1 to 32"),
        ("rasterize", {"width": 2**16, "height": 2**16}, "width 65536"),
        ("rasterize", {"width": "8"}, "width 8"),
        ("ssim", {"a": torch.zeros(1).expand(2**16, 2**16, 3)}, r"a has shape \[65536, 65536, 3\].*H from 1 to 16384"),
        ("ssim", {"a": torch.zeros(1).expand(9, 8, 33)}, "C from 1 to 32"),
        ("ssim", {"a": torch.zeros(0, 8, 3)}, "H from 1"),
        ("l1_ssim", {"image": torch.zeros(1).expand(2**16, 2**16, 3)}, "image has shape"),
        ("l1_ssim", {"ssim_weight": NAN}, "ssim_weight is nan; expected a finite number from 0 to 1"),
        ("l1_ssim", {"ssim_weight": None}, "ssim_weight is None"),
        ("deform_mlp", {"features": torch.zeros(1).expand(MANY, 3)}, "features has shape"),
        ("deform_mlp", {"features": torch.zeros(1).expand(5, 2**31)}, "I from 1 to 1024"),
        ("deform_mlp", {"middle_weight": torch.zeros(1).expand(2**20, 2**20)}, "U from 1 to 1024"),
        ("deform_mlp", {"head_weight": torch.zeros(1).expand(2**31, 4)}, "O from 1 to 1024"),
        ("deform_code", {"code": torch.zeros(1).expand(MANY, 8)}, "code has shape"),
        ("radiance_mlp", {"features": torch.zeros(1).expand(MANY, 3)}, "features has shape"),
        ("radiance_mlp", {"features": torch.zeros(1).expand(5, 2**31)}, "I from 1 to 1024"),
        ("radiance_mlp", {"gate_weight": torch.zeros(17, 4)}, "F from 1 to 16"),
        ("radiance_mlp", {"density_weight": torch.zeros(1, 6)}, r"1\+K from 2 to 1024"),
        ("radiance_mlp", {"color_weight": torch.zeros(1).expand(2**31, 4)}, "U from 1 to 1024"),
        ("sample_rays", {"origins": torch.zeros(1).expand(MANY, 3)}, "origins has shape.*N from 0 to 16777216"),
        ("sample_rays", {"occupancy": torch.zeros(1, 1, 1025, dtype=torch.uint8)}, "B from 1 to 1024"),
        ("sample_rays", {"occupancy": torch.ones(4, 4, 4, dtype=torch.bool)}, "torch.bool.*pack_occupancy"),
        ("sample_rays", {"box": [[-1, -1, 1], [1, 1, 1]]}, "box is .* expected its lower and its upper corner"),
        ("sample_rays", {"box": [[-1, -1], [1, 1]]}, "box is"),
        ("sample_rays", {"box": [[-1, -1, NAN], [1, 1, 1]]}, "box is"),
        ("sample_rays", {"box": [[-1, -1, -INF], [1, 1, 1]]}, "box is"),
        ("sample_rays", {"box": torch.ones(3, 2)}, r"box has shape \[3, 2\]"),
        ("sample_rays", {"box": 4}, "box is 4"),
        ("sample_rays", {"step": 1e-4}, "step is 0.0001; expected a finite number from 0.000845"),
        ("sample_rays", {"step": NAN}, "step is nan"),
        ("sample_rays", {"max_samples": 0}, "max_samples is 0; expected a whole number from 1 to 4096"),
        ("sample_rays", {"max_samples": 4097}, "max_samples is 4097"),
        ("sample_rays", {"max_samples": 2.5}, "max_samples is 2.5"),
        ("sample_rays", {"budget": 0}, "budget is 0"),
        ("sample_rays", {"budget": 2**31}, "budget is 2147483648"),
        ("march_rays", {"colors": torch.zeros(1).expand(2**31, 3)}, "colors has shape.*S from 0 to 2147483647"),
        (
            "march_rays",
            {"offsets": torch.zeros(1, dtype=torch.int32).expand(MANY + 1)},
            r"offsets has shape.*R\+1 from 1 to 16777217",
        ),
        ("march_rays", {"offsets": torch.zeros(0, dtype=torch.int32)}, r"offsets has shape \[0\]"),
        ("march_rays", {"offsets": torch.tensor([0, 4, 3, 5], dtype=torch.int32)}, "without going down"),
        ("march_rays", {"offsets": torch.tensor([-1, 5], dtype=torch.int32)}, "offsets run from -1"),
        ("adam_step", {"param": torch.zeros(1).expand(2**40)}, "grad has shape"),
        ("adam_step", {"lr": NAN}, "lr is nan; expected a finite number from 0"),
        ("adam_step", {"lr": -1.0}, "lr is -1.0"),
        ("adam_step", {"beta1": 1.5}, "beta1 is 1.5; expected a finite number from 0 to 1"),
        ("adam_step", {"beta2": INF}, "beta2 is inf"),
        ("adam_step", {"eps": NAN}, "eps is nan"),
        ("adam_step", {"step": 0}, "step is 0"),
        ("adam_step", {"step": 1.5}, "step is 1.5"),
    ],
)  # fmt: skip
def test_sizes_and_numbers(op, change, message):
    _refused(op, message, **change)


@pytest.mark.parametrize("count", [0, -1, 2.5, 2**31, "two"])
def test_counts(count, any_threads):
    with pytest.raises(AvatarError, match="set_num_threads"):
        any_threads(count)
    with pytest.raises(AvatarError, match="pair_capacity"):
        native.pair_capacity(count)


@pytest.mark.usefixtures("needs_native")
def test_more_pairs_than_the_index_type_holds():
    """2048 Gaussians over each of the 2^20 tiles of the largest picture; no list is made."""
    n, side = 2048, 16384
    with pytest.raises(AvatarError, match=r"2048 Gaussians cover more than 2\^31-1 tiles .* 16384 x 16384"):
        native.rasterize(
            torch.full((n, 2), side / 2.0),
            torch.tensor([[1e-12, 0, 1e-12]]).repeat(n, 1),
            *(torch.zeros(n, 1), torch.full((n,), 0.9), torch.ones(n), torch.ones(n, dtype=torch.int32), side, side),
        )


def test_a_radius_beyond_int32_is_a_radius():
    function, good = _good()["rasterize"]
    expected = function(**good)
    got = function(**{**good, "radii": torch.full((5,), 2**32)})
    assert all(torch.equal(x, y) for x, y in zip(got, expected, strict=True))


# ---- numbers that are not finite -----------------------------------------------------------------------------------

EVERY_MODULE = pytest.mark.parametrize("module", [native, reference], ids=["native", "reference"])
BAD_NUMBERS = pytest.mark.parametrize("bad", [NAN, INF, -INF])


@EVERY_MODULE
@BAD_NUMBERS
@pytest.mark.parametrize("name", ["means", "quats", "scales"])
def test_a_broken_gaussian_is_culled(module, name, bad):
    good = _good()["project_gaussians"][1]
    broken = good[name].clone()
    broken[2, 1] = bad
    radii, *outputs = module.project_gaussians(**{**good, name: broken})
    assert (radii > 0).tolist() == [True, True, False, True, True]
    assert not any(x[2].any() for x in outputs)


@EVERY_MODULE
@BAD_NUMBERS
@pytest.mark.parametrize(
    ("name", "column"), [("means2d", 0), ("means2d", 1), *(("conics", k) for k in range(3)), ("opacities", 0)]
)
def test_a_broken_ellipse_is_left_out(module, name, column, bad):
    good = _good()["rasterize"][1]
    broken = good[name].clone()
    broken.view(5, -1)[2, column] = bad
    others = torch.tensor([0, 1, 3, 4])
    kept = {k: x[others] for k, x in good.items() if isinstance(x, Tensor) and k != "background"}
    results = [module.rasterize(**{**good, **change}) for change in ({name: broken}, kept)]
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@EVERY_MODULE
@pytest.mark.parametrize("bad", [NAN, -NAN])
def test_a_gaussian_without_depth_is_behind_all_others(module, bad):
    good = _good()["rasterize"][1]
    depths = good["depths"].clone()
    depths[2] = math.copysign(NAN, bad)
    got = module.rasterize(**{**good, "depths": depths})
    depths[2] = 1e9
    expected = module.rasterize(**{**good, "depths": depths})
    assert all(torch.equal(x, y) for x, y in zip(got, expected, strict=True))


@EVERY_MODULE
@pytest.mark.parametrize("name", ["colors", "background"])
def test_nan_in_colours_reaches_the_picture(module, name):
    good = _good()["rasterize"][1]
    image, alpha = module.rasterize(**{**good, name: torch.full_like(good[name], NAN)})
    assert image.isnan().any() and alpha.isfinite().all()


@EVERY_MODULE
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("op", "name"),
    [
        *(("deform_mlp", name) for name in _good()["deform_mlp"][1]),
        *(("deform_code", name) for name in _good()["deform_code"][1]),
        *(("triplane_encode", name) for name in ("points", "table")),
        *(("skin_gaussians", name) for name in _good()["skin_gaussians"][1]),
        *(("ssim", name) for name in ("a", "b")),
        *(("l1_ssim", name) for name in ("image", "target", "weight")),
        *(("radiance_mlp", name) for name in _good()["radiance_mlp"][1]),
        *(("march_rays", name) for name in ("starts", "ends", "densities", "colors")),
        *(("adam_step", name) for name in ("grad", "exp_avg", "exp_avg_sq")),
    ],
)
def test_nan_is_not_swallowed(op, name, dtype, module):
    """Where no Gaussian can be left out, what is broken shows: a loss or a look at the result finds it."""
    good = {k: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for k, x in _good()[op][1].items()}
    broken = {**good, name: good[name].clone()}
    broken[name].view(-1)[: -(-broken[name].numel() // 3)] = NAN
    out = getattr(module, op)(*broken.values())
    outputs = {"adam_step": lambda: (broken["param"],), "l1_ssim": lambda: out[:1]}.get(op, lambda: out)()
    outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
    assert any(x.isnan().any() for x in outputs)
    if op == "march_rays":  # and no other ray is touched
        assert all(x[1:].isfinite().all() for x in outputs)
    if op == "triplane_encode" and name == "points":
        assert outputs[0][2:].isfinite().all()


# ---- the C ABI -----------------------------------------------------------------------------------------------------

HEADERS = {"cpu": "avatar_native.h", "cuda": "avatar_cuda.h"}
# Values of sizes that every function takes, by parameter, and values that none does.
SIZES = {
    "n": (3, (-1, 2**24 + 1, 2**62)), "rays": (3, (-1, 2**24 + 1, 2**62)),
    "num_pairs": (0, (-1, 2**31, 2**62)), "capacity": (0, (-1, 2**31 - 1, 2**62)),
    "width": (8, (0, -1, 16385, 2**31 - 1)), "height": (8, (0, -1, 16385, 2**31 - 1)),
    "channels": (3, (0, -1, 33, 2**31 - 1)), "levels": (1, (0, -1, 65, 2**31 - 1)),
    "rows": (16, (-1, 3, 2**31, 2**62)), "features": (2, (0, -1, 17, 2**31 - 1)),
    "inputs": (3, (0, 1025, 2**31 - 1)), "hidden": (64, (0, 1025, 2**31 - 1)), "outputs": (2, (0, 1025, 2**31 - 1)),
    "attention": (2, (0, 1025)), "gates": (2, (0, -1, 17)), "color": (2, (0, 1025)), "max_samples": (2, (0, -1, 4097)),
    "depth": (2, (0, -1, 1025)), "bytes": (2, (0, -1, 1025)), "budget": (1, (0, -1)),
    "changed": (0, (-1, 4, 2**62)), "num_vertices": (1, (0, -1, 2**31 - 1)),
    "warp_rows": (2, (1, -1, 1025, 2**31 - 1)), "warp_columns": (2, (1, -1, 1025, 2**31 - 1)),
    "x": (0, ()), "y": (0, ()), "cells_high": (2, (0, -1, 1025)),
    "front_rows": (2, (0, -1, 1025)), "front_columns": (2, (0, -1, 1025)),
    "nodes_x": (2, (1, -1, 1025)), "nodes_y": (2, (1, -1, 1025)), "nodes_z": (2, (1, -1, 1025)),
    "step": (1, (0, -1)), "num_threads": (1, (0, -1)), "background_stride": (0, ()), "dtype": (0, ()),
}  # fmt: skip

# The one network that the CUDA kernels take in both number types.
NETWORK = {"inputs": 36, "attention": 16, "gates": 3, "hidden": 32, "outputs": 16, "color": 32}


def _functions(which: str) -> dict[str, list[tuple[str, bool]]]:
    """Function to its parameters after the call: name, and whether it is an array."""
    text = re.sub(r"/\*.*?\*/", "", (CUDA_EXT / "include" / HEADERS[which]).read_text(), flags=re.S)
    found = {}
    for name, parameters in re.findall(r"AVATAR_API \w+ (\w+)\((.*?)\);", text, flags=re.S):
        items = [p.split() for p in parameters.split(",") if p.strip() != "void"]
        found[name] = [(p[-1].lstrip("*"), any("*" in word for word in p)) for p in items if "avatar_call*" not in p]
    return {name: parameters for name, parameters in found.items() if parameters}


def _handle(which: str, tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    if which == "cpu":
        loaded = library()
        if loaded is None:
            pytest.skip(native.library_status())
        return loaded.handle
    handle = ctypes.CDLL(str(build_emulation(tmp_path_factory)))
    for name, (result, arguments) in _abi_cuda.FUNCTIONS.items():
        getattr(handle, name).restype, getattr(handle, name).argtypes = result, arguments
    return handle


def _call(handle: ctypes.CDLL, name: str, parameters: list[tuple[str, bool]], **sizes: int) -> tuple[int, str]:
    """Status and message of a call with good sizes but for ``sizes``, resolutions of 2, and no other array at all."""
    resolutions = (ctypes.c_int32 * 64)(*[2] * 64)
    own = NETWORK if "cuda_radiance" in name else {"inputs": 6} if "draw_field" in name else {}
    arguments, sizes = [], {**own, **sizes}
    for parameter, is_array in parameters:
        if is_array:
            arguments.append(ctypes.addressof(resolutions) if parameter == "resolutions" else None)
        else:
            arguments.append(sizes.get(parameter, SIZES.get(parameter, (0.5,))[0]))
    call = _abi.Call(dtype=_abi.FLOAT32, num_threads=1)
    if name.endswith("_workspace"):
        return getattr(handle, name)(*arguments), ""
    return getattr(handle, name)(ctypes.byref(call), *arguments), call.message.decode()


@pytest.mark.parametrize("which", HEADERS)
def test_the_c_abi_refuses_sizes_before_it_reads_anything(which, tmp_path_factory):
    handle, seen = _handle(which, tmp_path_factory), 0
    for name, parameters in _functions(which).items():
        for parameter, is_array in parameters:
            for bad in SIZES.get(parameter, (0, ()))[1] if not is_array else ():
                if name.endswith("adam_step") and parameter == "n" and bad > 0:
                    continue  # flat arrays may be that long
                status, message = _call(handle, name, parameters, **{parameter: bad})
                seen += 1
                if name.endswith("_workspace"):
                    assert status == -1, (name, parameter, bad)
                else:
                    assert status in (_abi.BAD_ARGUMENT, _abi.UNSUPPORTED), (name, parameter, bad)
                    assert str(bad) in message and "is null" not in message, (name, parameter, message)
    assert seen > 50


@pytest.mark.parametrize("which", HEADERS)
def test_the_c_abi_refuses_missing_arrays(which, tmp_path_factory):
    handle = _handle(which, tmp_path_factory)
    for name, parameters in _functions(which).items():
        if name.endswith("_workspace"):
            assert _call(handle, name, parameters)[0] >= 0, name
            continue
        status, message = _call(handle, name, parameters)
        arrays = [parameter for parameter, is_array in parameters if is_array]
        if arrays == ["stream"]:  # which is null for the first one
            assert status == _abi.OK, name
            continue
        assert status == _abi.BAD_ARGUMENT, name
        assert message.split(" is null")[0] in [*arrays, "encoded", "result"], (name, message)


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"dtype": 7}, _abi.BAD_ARGUMENT, "dtype is 7"),
        ({"num_threads": 0}, _abi.BAD_ARGUMENT, "num_threads is 0"),
        ({"isa": 99}, _abi.UNSUPPORTED, "isa is 99"),
        ({"isa": -1}, _abi.UNSUPPORTED, "isa is -1"),
    ],
)
def test_the_c_abi_checks_the_call(change, status, message, tmp_path_factory):
    handle = _handle("cpu", tmp_path_factory)
    call = _abi.Call(**{"dtype": _abi.FLOAT32, "num_threads": 1, **change})
    assert handle.avatar_adam_step(ctypes.byref(call), None, None, None, None, 0, 0.1, 0.9, 0.9, 1e-8, 1) == status
    assert message in call.message.decode()
    assert handle.avatar_adam_step(None, None, None, None, None, 0, 0.1, 0.9, 0.9, 1e-8, 1) == _abi.BAD_ARGUMENT


@pytest.mark.parametrize(("isa", "dtype"), [(_abi.ISA_BASELINE, _abi.FLOAT32), (_abi.ISA_AUTO, _abi.FLOAT64)])
def test_the_c_abi_refuses_bfloat16_that_it_cannot_multiply(isa, dtype, tmp_path_factory):
    handle = _handle("cpu", tmp_path_factory)
    call = _abi.Call(dtype=dtype, num_threads=1, isa=isa)
    status = handle.avatar_deform_code_bf16(ctypes.byref(call), None, 0, 4, 2, *[None] * 8)
    assert status == _abi.UNSUPPORTED and "AVX512_BF16" in call.message.decode()
    assert handle.avatar_deform_code_bf16_workspace(_abi.FLOAT64, 1, 4, 2) == -1
    status = handle.avatar_radiance_mlp_bf16(ctypes.byref(call), None, 0, *NETWORK.values(), *[None] * 5)
    assert status == _abi.UNSUPPORTED and "AVX512_BF16" in call.message.decode()
    assert handle.avatar_radiance_mlp_bf16_workspace(_abi.FLOAT64, 1, *NETWORK.values()) == -1


def test_every_function_is_in_the_tables():
    assert importlib.util.find_spec("avatar.native._abi") is not None
    for which, functions in (("cpu", _abi.FUNCTIONS), ("cuda", _abi_cuda.FUNCTIONS)):
        names = {name for name in functions if not name.endswith(("abi_version", "best_isa"))}
        assert names == set(_functions(which))
