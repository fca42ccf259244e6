"""Synthetic scenes shared by the kernel tests."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from avatar.native import CanonicalGaussians, FieldFeatures, FieldSpace, FrameMotion, pack_occupancy


class Scene(NamedTuple):
    means: Tensor
    quats: Tensor
    scales: Tensor
    viewmat: Tensor
    K: Tensor
    colors: Tensor
    opacities: Tensor
    width: int
    height: int


def random_scene(
    n: int,
    width: int = 50,
    height: int = 37,
    channels: int = 3,
    size: float = 1.0,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> Scene:
    """Gaussians scattered through and a little beyond the view of a tilted camera, 40 units away."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    focal = 1.3 * width
    view = torch.eye(4, dtype=torch.float64)
    angle = torch.tensor(0.2, dtype=torch.float64)
    view[:3, :3] = torch.tensor([[1, 0, 0], [0, angle.cos(), -angle.sin()], [0, angle.sin(), angle.cos()]])
    view[:3, 3] = torch.tensor([0.3, -0.2, 40.0])
    K = torch.tensor([[focal, 0, width / 2 + 0.7], [0, focal, height / 2 - 0.4], [0, 0, 1]], dtype=torch.float64)
    scene = Scene(
        means=normal(n, 3) * torch.tensor([9.0, 7.0, 4.0]),
        quats=normal(n, 4),
        scales=torch.exp(0.6 * normal(n, 3) - 0.3) * size,
        viewmat=view,
        K=K,
        colors=torch.rand(n, channels, generator=g, dtype=torch.float64),
        opacities=0.05 + 0.94 * torch.rand(n, generator=g, dtype=torch.float64),
        width=width,
        height=height,
    )
    return Scene(*(x.to(dtype) if isinstance(x, Tensor) else x for x in scene))


def packed_rays(counts: list[int], channels: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, list[Tensor]]:
    """Rays of so many samples each: offsets; starts, ends, densities, colors."""
    g = torch.Generator().manual_seed(1)
    offsets = torch.tensor([0, *counts], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    samples = int(offsets[-1])
    starts = torch.rand(samples, generator=g, dtype=torch.float64)
    lengths = 0.2 * torch.rand(samples, generator=g, dtype=torch.float64)
    densities = 3 * torch.rand(samples, generator=g, dtype=torch.float64) ** 3
    colors = torch.rand(samples, channels, generator=g, dtype=torch.float64)
    return offsets, [x.to(dtype) for x in (starts, starts + lengths, densities, colors)]


def skinned(n: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Gaussians between two transforms: means, quats, weights, offsets, transforms, transform_quats."""
    g = torch.Generator().manual_seed(4)
    shapes = [(n, 3), (n, 4), (n,), (n, 3), (2, 3, 4), (2, 4)]
    return [torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


def animated(
    n: int, changed: int, dtype: torch.dtype = torch.float64
) -> tuple[CanonicalGaussians, FrameMotion, Tensor, Tensor, int, int]:
    """Arguments of `animate_gaussians`: n Gaussians in view, the first of which change, and some beside the grid."""
    g, scene = torch.Generator().manual_seed(6), random_scene(n)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    gaussians = CanonicalGaussians(
        scene.means + torch.tensor([0.0, 0.0, 50.0]), scene.quats, scene.scales.log(), normal(n, 1), scene.colors,
        torch.rand(n, 1, generator=g, dtype=torch.float64), torch.randint(7, (n, 3), generator=g, dtype=torch.int32),
        normal(n, 3),
    )  # fmt: skip
    eye = torch.eye(3, 4, dtype=torch.float64).expand(2, 3, 4) + 0.1 * normal(2, 3, 4)
    frame = torch.tensor([0.5, -0.3, 50.0, -8.0, -6.0, 9.0, 5.0], dtype=torch.float64)
    motion = FrameMotion(0.3 * normal(changed, 10), normal(7, 3), eye, normal(2, 4), normal(4, 6, 2), frame)
    view = scene.viewmat.clone()
    view[2, 3] -= 50.0

    def cast(x: Tensor) -> Tensor:
        return x.to(dtype) if x.is_floating_point() else x

    return (
        CanonicalGaussians(*map(cast, gaussians)), FrameMotion(*map(cast, motion)), cast(view), cast(scene.K),
        scene.width, scene.height,
    )  # fmt: skip


def radiance_network(
    n: int, inputs: int, attention: int, gates: int, hidden: int, geometry: int, color: int,
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:  # fmt: skip
    """Arguments of `radiance_mlp`: features of n samples and the layers of so many units."""
    g = torch.Generator().manual_seed(0)
    shapes = [
        *((n, inputs), (attention, inputs), (attention,), (gates, attention), (gates,), (hidden, inputs), (hidden,)),
        *((gates, hidden), (1 + geometry, hidden), (1 + geometry,), (color, geometry), (color,), (3, color), (3,)),
    ]
    return [0.4 * torch.randn(shape, generator=g, dtype=torch.float64).to(dtype) for shape in shapes]


def rays_at_a_head(rays: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, list[list[float]], Tensor]:
    """Rays from 30 cm at a sphere of 9 cm, some past it: origins, directions, box, occupancy."""
    g = torch.Generator().manual_seed(5)
    box = [[-10.0, -11.0, -12.0], [11.0, 10.0, 9.5]]
    low, high = torch.tensor(box, dtype=torch.float64)
    counts = torch.tensor([48, 40, 32])  # x, y, z
    places = [low[k] + (torch.arange(int(counts[k])) + 0.5) * (high[k] - low[k]) / counts[k] for k in range(3)]
    x, y, z = torch.meshgrid(*places, indexing="ij")
    occupancy = pack_occupancy((x * x + y * y + z * z < 81).permute(2, 1, 0))
    origins = torch.randn(rays, 3, generator=g, dtype=torch.float64) - torch.tensor([0.0, 0.0, 30.0])
    aims = 7 * torch.randn(rays, 3, generator=g, dtype=torch.float64)
    directions = torch.nn.functional.normalize(aims - origins, dim=1)
    return origins.to(dtype), directions.to(dtype), box, occupancy


def radiance_field(
    dtype: torch.dtype = torch.float64, *, units: tuple[int, ...] = (9, 2, 20, 8, 13), levels: int = 2
) -> dict[str, Any]:
    """Arguments of `draw_field`: the head of `rays_at_a_head` from the front, its lower part fading into a neck.

    Units: of attention, gates, hidden, geometry and color.
    """
    g = torch.Generator().manual_seed(7)
    _, _, box, occupancy = rays_at_a_head(1)
    held = [[-9.2, -9.2, -9.2], [9.2, 9.2, 9.2]]

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    moved = 0.4 * normal(3, 4, 6, 5)
    front = -7 + normal(11, 9)
    space = FieldSpace(
        box, held, occupancy, 0.4, 30, front, 0.6, (3.0, -6.0, -0.2, 4.0), moved, [[-6.0, -5.0, -9.0], [6.0, 8.0, 2.0]]
    )
    resolutions = [5, 21, 60, 9, 14, 33, 47, 28][:levels]
    features = FieldFeatures(box, normal(3, levels, 64, 2), resolutions)
    _, *network = radiance_network(1, 6 * levels, *units, dtype)
    return {
        "origin": [0.5, -1.0, -30.0], "matrix": [[0.02, 0.001, -0.4], [0.0, 0.02, -0.35], [0.0, 0.0, 1.0]],
        "box": (3, 1, 44, 38), "space": space, "features": features, "network": network,
    }  # fmt: skip
