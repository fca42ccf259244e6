"""What is timed, op by op. To add an op: a function from :class:`Scene` to :class:`Case`, listed in ``CASES``.

An op of :mod:`avatar.native` with a reference of the same name needs three lines: its leaves, ``_each``, its name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from avatar import backends, native
from avatar.bench.person import make_avatar, motion
from avatar.errors import AvatarError
from avatar.native import reference
from avatar.native.bin_gaussians import bin_gaussians

MODULES: dict[str, Any] = {"native": native, "reference": reference}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A head-shaped cloud of Gaussians that fills most of the image, and what the ops need of it.

    With 30000 Gaussians and 512 pixels a tile of 16x16 pixels has about 120 Gaussians, like a trained avatar.
    """

    size: int
    device: torch.device
    means: Tensor
    quats: Tensor
    scales: Tensor
    colors: Tensor
    opacities: Tensor
    viewmat: Tensor
    K: Tensor
    radii: Tensor
    means2d: Tensor
    depths: Tensor
    conics: Tensor
    image: Tensor
    other: Tensor

    @property
    def pairs_per_tile(self) -> float | None:
        """(tile, Gaussian) pairs over the tiles of the image, as the native binning counts; None without it."""
        flat = (self.means2d, self.conics, self.opacities, self.depths)
        try:
            offsets = bin_gaussians(*(x.detach() for x in flat), self.radii, self.size, self.size)[1]
        except (AvatarError, NotImplementedError):
            return None
        return int(offsets[-1]) / (len(offsets) - 1)


class Run(NamedTuple):
    """One implementation of an op: ``forward`` makes outputs of ``leaves``, which get gradients; no leaves: no
    backward pass."""

    forward: Callable[[], tuple[Tensor, ...]]
    leaves: tuple[Tensor, ...]


class Case(NamedTuple):
    """An op by every implementation of it: ``native``, ``reference``, and backends by name."""

    name: str
    runs: dict[str, Run]


def make_scene(n: int, size: int, device: torch.device) -> Scene:
    """``n`` Gaussians before a square image of ``size`` pixels; the same numbers on every machine."""
    g = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    means = direction * (0.8 + 0.2 * torch.rand(n, 1, generator=g)) * torch.tensor([8.0, 10.0, 8.0])
    spacing = (4 * torch.pi * 80 / n) ** 0.5  # between neighbours on the head
    viewmat = torch.eye(4)
    viewmat[2, 3] = 60.0
    image = torch.rand(size, size, 3, generator=g)
    leaves = {
        "means": means,
        "quats": torch.randn(n, 4, generator=g),
        "scales": 0.65 * spacing * torch.exp(0.4 * torch.randn(n, 3, generator=g)),
        "colors": torch.rand(n, 3, generator=g),
        "opacities": 0.1 + 0.85 * torch.rand(n, generator=g),
        "other": 0.8 * image + 0.2 * torch.rand(size, size, 3, generator=g),
    }
    K = torch.tensor([[2.6 * size, 0, size / 2], [0, 2.6 * size, size / 2], [0, 0, 1]])
    with torch.no_grad():
        radii, means2d, depths, conics = reference.project_gaussians(
            *(leaves["means"], leaves["quats"], leaves["scales"], viewmat, K, size, size)
        )
    leaves |= {"means2d": means2d, "conics": conics}
    fixed = {"viewmat": viewmat, "K": K, "radii": radii, "depths": depths, "image": image}
    return Scene(
        size=size,
        device=device,
        **{name: x.to(device).requires_grad_() for name, x in leaves.items()},
        **{name: x.to(device) for name, x in fixed.items()},
    )


def _each(forward: Callable[[Any], tuple[Tensor, ...]], leaves: tuple[Tensor, ...], *others: str) -> dict[str, Run]:
    """The native op and its reference, and other backends whose module has the same functions."""
    modules = MODULES | {name: _renderer(name) for name in others if backends.problem(name) is None}
    return {name: Run(lambda module=module: forward(module), leaves) for name, module in modules.items()}


def _renderer(name: Any) -> Any:
    return backends.renderer(name)


def triplane_encode(scene: Scene) -> Case:
    """Twelve levels of the tri-plane, one feature each."""
    resolutions = [round(16 * 1.25**level) for level in range(12)]
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(3, 12, 2**15, 1, generator=generator).to(scene.device).requires_grad_()
    points = (scene.means.detach() / 10.0).requires_grad_()
    runs = _each(lambda module: (module.triplane_encode(points, table, resolutions),), (points, table))
    if backends.problem("tinycudann") is None:
        from avatar.backends.tinycudann import TinyCudaTriplane

        bounds = torch.tensor([[-1.0] * 3, [1.0] * 3], device=scene.device)
        theirs = TinyCudaTriplane(
            bounds, levels=12, features=1, coarsest=resolutions[0], finest=resolutions[-1], log2_table=15
        )
        runs["tinycudann"] = Run(lambda: (theirs(points),), (points, *theirs.parameters()))
    return Case("triplane_encode", runs)


def project_gaussians(scene: Scene) -> Case:
    """Gaussians to ellipses in the image."""
    leaves = (scene.means, scene.quats, scene.scales)
    fixed = (scene.viewmat, scene.K, scene.size, scene.size)
    return Case(
        "project_gaussians", _each(lambda module: module.project_gaussians(*leaves, *fixed)[1:], leaves, "gsplat")
    )


def skin_gaussians(scene: Scene) -> Case:
    """Linear blend skinning between two transforms, neither of which is trained."""
    g = torch.Generator().manual_seed(5)
    weights = torch.rand(len(scene.means), generator=g).to(scene.device)
    leaves = (scene.means, scene.quats, weights.requires_grad_())
    bones = [torch.randn(shape, generator=g).to(scene.device) for shape in (scene.means.shape, (2, 3, 4), (2, 4))]
    return Case("skin_gaussians", _each(lambda module: module.skin_gaussians(*leaves, *bones), leaves))


def rasterize(scene: Scene) -> Case:
    """Binning, sorting and blending."""
    leaves = (scene.means2d, scene.conics, scene.colors, scene.opacities)
    fixed = (scene.depths, scene.radii, scene.size, scene.size)
    return Case("rasterize", _each(lambda module: module.rasterize(*leaves, *fixed)[:1], leaves, "gsplat"))


def ssim(scene: Scene) -> Case:
    """Structural similarity of two images."""
    return Case("ssim", _each(lambda module: (module.ssim(scene.other, scene.image),), (scene.other,)))


def l1_ssim(scene: Scene) -> Case:
    """The image loss: mean difference and structural similarity, with the gradient in the same sweep."""
    return Case("l1_ssim", _each(lambda module: (module.l1_ssim(scene.other, scene.image, 0.2)[0],), (scene.other,)))


def deform_mlp(scene: Scene) -> Case:
    """The deformation network on features of N Gaussians, as trained: 48 features, 64 hidden."""
    g = torch.Generator().manual_seed(3)
    shapes = [(len(scene.means), 48), (128, 48), (128,), (64,), (64, 64), (64,), (10, 64), (10,)]
    leaves = tuple((0.2 * torch.randn(shape, generator=g)).to(scene.device).requires_grad_() for shape in shapes)
    scale = torch.rand(10, generator=g).to(scene.device)
    return Case("deform_mlp", _each(lambda module: (module.deform_mlp(*leaves, scale),), leaves))


def deform_code(scene: Scene) -> Case:
    """The deformation network of a rendered frame, from its cached first layer."""
    return Case("deform_code", _from_code(scene, torch.float32))


def deform_code_bfloat16(scene: Scene) -> Case:
    """The same with the code in bfloat16."""
    return Case("deform_code, bfloat16", _from_code(scene, torch.bfloat16))


def _from_code(scene: Scene, dtype: torch.dtype) -> dict[str, Run]:
    g = torch.Generator().manual_seed(6)
    shapes = [(len(scene.means), 128), (64,), (64, 64), (64,), (10, 64), (10,), (10,)]
    code, *layers = ((0.2 * torch.randn(shape, generator=g)).to(scene.device) for shape in shapes)
    code = code.to(dtype)
    return _each(lambda module: (module.deform_code(code, *layers),), ())


def triplane_trained(scene: Scene) -> Case:
    """The tri-plane as avatars are trained with it: eight levels, two features each."""
    resolutions = [round(8 * 20 ** (level / 7)) for level in range(8)]
    g = torch.Generator().manual_seed(4)
    table = torch.randn(3, 8, 161**2, 2, generator=g).to(scene.device).requires_grad_()
    points = (scene.means.detach() / 10.0).requires_grad_()
    return Case(
        "triplane_encode, trained",
        _each(lambda module: (module.triplane_encode(points, table, resolutions),), (points, table)),
    )


def adam_step(scene: Scene) -> Case:
    """One step of the optimiser on the positions, in place."""
    state = [torch.zeros_like(scene.means) for _ in range(4)]

    def step(module: Any) -> tuple[Tensor, ...]:
        module.adam_step(*state, 1e-3, 0.9, 0.999, 1e-8, 1)
        return (state[0],)

    return Case("adam_step", _each(step, ()))


def march_rays(scene: Scene) -> Case:
    """Volume rendering of 32 samples on each of N rays."""
    rays, each = len(scene.means), 32
    g = torch.Generator().manual_seed(2)
    edges = torch.linspace(0, 1, each + 1).to(scene.device)
    starts, ends = edges[:-1].repeat(rays), edges[1:].repeat(rays)
    offsets = torch.arange(rays + 1, dtype=torch.int32, device=scene.device) * each
    densities = (4 * torch.rand(rays * each, generator=g)).to(scene.device).requires_grad_()
    colors = torch.rand(rays * each, 3, generator=g).to(scene.device).requires_grad_()
    marchers: dict[str, Any] = {name: module.march_rays for name, module in MODULES.items()}
    if backends.problem("nerfacc") is None:
        marchers["nerfacc"] = backends.marcher("nerfacc")
    leaves = (densities, colors)
    runs = {name: Run(lambda f=f: f(offsets, starts, ends, *leaves), leaves) for name, f in marchers.items()}
    return Case("march_rays", runs)


def radiance_mlp(scene: Scene) -> Case:
    """The radiance network, 32 wide, on features of N samples."""
    g = torch.Generator().manual_seed(7)
    features = (0.3 * torch.randn(len(scene.means), 36, generator=g)).to(scene.device).requires_grad_()
    leaves = (features, *_radiance_network(scene.device, 32))
    return Case("radiance_mlp", _each(lambda module: module.radiance_mlp(*leaves), leaves))


def radiance_mlp_bfloat16(scene: Scene) -> Case:
    """The same of a rendered frame; the processor may multiply in bfloat16."""
    g = torch.Generator().manual_seed(7)
    features = (0.3 * torch.randn(len(scene.means), 36, generator=g)).to(scene.device)
    layers = [x.detach() for x in _radiance_network(scene.device, 32)]
    runs = {
        "native": Run(lambda: native.radiance_mlp(features, *layers, bfloat16=True), ()),
        "reference": Run(lambda: reference.radiance_mlp(features, *layers), ()),
    }
    return Case("radiance_mlp, bfloat16", runs)


def radiance_samples(scene: Scene) -> Case:
    """The radiance field's path of N samples, 8 per ray: tri-plane, network 32 wide, marching; trained as in a step."""
    each, device = 8, scene.device
    rays = max(len(scene.means) // each, 1)
    g = torch.Generator().manual_seed(8)
    across = 1.6 * torch.rand(rays, 1, 2, generator=g) - 0.8
    along = 0.8 * torch.rand(rays, 1, 1, generator=g) - 0.4 + torch.arange(each)[:, None] * (0.15 / 12)
    points = torch.cat([across + 0.1 * along, along.expand(rays, each, 1)], -1).view(-1, 3).to(device)
    table = (0.1 * torch.randn(3, 12, 2**14, 1, generator=g)).to(device).requires_grad_()
    resolutions = [round(64 * 8 ** (level / 11)) for level in range(12)]
    network = _radiance_network(device, 32)
    starts = (torch.arange(rays * each, device=device) % each) * 0.15
    offsets = torch.arange(rays + 1, dtype=torch.int32, device=device) * each

    def path(module: Any) -> tuple[Tensor, ...]:
        features = module.triplane_encode(points, table, resolutions)
        densities, colors, _ = module.radiance_mlp(features, *network)
        return module.march_rays(offsets, starts, starts + 0.15, densities, colors)[:2]

    return Case("radiance samples", _each(path, (table, *network)))


def _radiance_network(device: torch.device, width: int) -> list[Tensor]:
    """Layers of the radiance network as it is trained: 36 features, 3 gates, so many units."""
    g = torch.Generator().manual_seed(9)
    outputs = width // 2
    shapes = [
        *((16, 36), (16,), (3, 16), (3,), (width, 36), (width,), (3, width), (outputs, width), (outputs,)),
        *((width, outputs - 1), (width,), (3, width), (3,)),
    ]
    return [(0.3 * torch.randn(shape, generator=g)).to(device).requires_grad_() for shape in shapes]


def sample_rays(scene: Scene) -> Case:
    """Samples of N/8 rays through an occupancy grid of 64^3 cells, of which a head is set."""
    rays = max(len(scene.means) // 8, 1)
    g = torch.Generator().manual_seed(10)
    cells = (torch.arange(64) - 31.5) / 32
    z, y, x = torch.meshgrid(cells, cells, cells, indexing="ij")
    occupancy = native.pack_occupancy((x / 0.6) ** 2 + (y / 0.8) ** 2 + (z / 0.65) ** 2 < 1).to(scene.device)
    origins = torch.tensor([0.0, 0.0, -60.0]).expand(rays, 3).contiguous()
    directions = torch.nn.functional.normalize(torch.cat([8 * torch.randn(rays, 2, generator=g), -origins[:, 2:]], 1))
    lines, box = (origins.to(scene.device), directions.to(scene.device)), [[-12.0] * 3, [12.0] * 3]

    return Case("sample_rays", _each(lambda module: (module.sample_rays(*lines, box, occupancy, 0.15, 16)[3],), ()))


def draw_field(scene: Scene) -> Case:
    """A head of a radiance field, 32 wide, solid from its surface on, as playback draws it on a CPU."""
    g, device = torch.Generator().manual_seed(11), scene.device
    cells = (torch.arange(96) - 47.5) / 48
    z, y, x = torch.meshgrid(cells, cells, cells, indexing="ij")
    head = (x / 0.8) ** 2 + (y / 0.95) ** 2 + (z / 0.8) ** 2
    box, inner = ([[-reach] * 3, [reach] * 3] for reach in (12.0, 11.5))
    occupancy = native.pack_occupancy((head < 1) & (head > 0.6) & (z < 0.2)).to(device)
    front, moved = torch.full((96, 96), -12.0), 0.1 * torch.randn(3, 16, 72, 56, generator=g)
    neck = (8.0, -5.0, -0.2, 1.6)
    space = native.FieldSpace(box, inner, occupancy, 0.2, 24, front.to(device), 0.1, neck, moved.to(device), box)
    network = [x.detach() for x in _radiance_network(device, 32)]
    network[8][0] += 1.0
    table = (0.3 * torch.randn(3, 6, 2**14, 2, generator=g)).to(device)
    features = native.FieldFeatures(box, table, [16, 28, 49, 84, 147, 256])
    half, part = scene.size / 2, (0, 0, scene.size, scene.size)
    view = ([0.0, 0.0, -60.0], [[1.0, 0.0, -half], [0.0, 1.0, -half], [0.0, 0.0, 4 * half]])
    runs = _each(lambda module: (module.draw_field(*view, part, space, features, network),), ())
    return Case("draw_field", runs if device.type == "cpu" else {"reference": runs["reference"]})


def whole_frame(scene: Scene) -> Case:
    """Project, rasterise, and the image loss."""
    leaves = (scene.means, scene.quats, scene.scales, scene.colors, scene.opacities)

    def frame(module: Any) -> tuple[Tensor, ...]:
        loss = module.l1_ssim if hasattr(module, "l1_ssim") else native.l1_ssim
        radii, means2d, depths, conics = module.project_gaussians(
            *leaves[:3], scene.viewmat, scene.K, scene.size, scene.size
        )
        image, _ = module.rasterize(
            *(means2d, conics, scene.colors, scene.opacities, depths, radii, scene.size, scene.size)
        )
        return (loss(image, scene.image, 0.2)[0],)

    return Case("whole frame", _each(frame, leaves, "gsplat"))


def rendered_frame(scene: Scene) -> Case:
    """Draw a frame of an avatar as playback does; on a GPU with and without a CUDA graph."""
    avatar = make_avatar(len(scene.means), scene.size, scene.device)
    track = motion(8)
    draw = avatar.draw if scene.device.type == "cuda" else avatar.render
    runs = {"native": Run(lambda: (draw(avatar.camera, track, 3),), ())}
    if scene.device.type == "cuda":
        runs["CUDA graph"] = Run(lambda: (avatar.render(avatar.camera, track, 3),), ())
    return Case("rendered frame", runs)


# Each op with what its time depends on: where only one of the two changes, it is not timed again.
CASES: dict[Callable[[Scene], Case], tuple[str, ...]] = {
    triplane_encode: ("gaussians",),
    triplane_trained: ("gaussians",),
    skin_gaussians: ("gaussians",),
    project_gaussians: ("gaussians",),
    rasterize: ("gaussians", "size"),
    ssim: ("size",),
    l1_ssim: ("size",),
    deform_mlp: ("gaussians",),
    deform_code: ("gaussians",),
    deform_code_bfloat16: ("gaussians",),
    adam_step: ("gaussians",),
    march_rays: ("gaussians",),
    radiance_mlp: ("gaussians",),
    radiance_mlp_bfloat16: ("gaussians",),
    radiance_samples: ("gaussians",),
    sample_rays: ("gaussians",),
    draw_field: ("size",),
    whole_frame: ("gaussians", "size"),
    rendered_frame: ("gaussians", "size"),
}
