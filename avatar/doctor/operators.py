"""Compare each native operator with its reference on a tiny input, results and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from avatar.doctor.finding import sentence

if TYPE_CHECKING:
    from torch import Tensor

TOLERANCE = 2e-4  # relative error of a kernel in float32


def operator_errors() -> dict[str, float | str]:
    """For each native operator the largest relative error of its results and gradients, or why it failed."""
    results: dict[str, float | str] = {}
    for name, (native, reference, inputs) in operator_cases().items():
        try:
            results[name] = compare(native, reference, inputs)
        except Exception as error:  # any failure of a kernel is this check's result
            results[name] = sentence(error)
    return results


Function = Callable[..., "tuple[Tensor, ...]"]


def operator_cases() -> dict[str, tuple[Function, Function, list[Tensor]]]:
    """Operator, reference and small inputs, of which all are differentiated."""
    import torch

    from avatar import native
    from avatar.native import reference

    random = torch.Generator().manual_seed(0)

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(shape, generator=random) * (high - low) + low

    bones = [(20, 3), (20, 4), (20,), (20, 3), (2, 3, 4), (2, 4)]
    layers = [(20, 12), (32, 12), (32,), (16,), (16, 16), (16,), (10, 16), (10,)]
    conics = torch.tensor([0.05, 0.0, 0.08]).repeat(12, 1) + uniform(12, 3, low=-0.01, high=0.01)
    cases = {
        "triplane_encode": (_encode, [uniform(20, 3, low=-0.95, high=0.95), uniform(3, 3, 64, 2)]),
        "project_gaussians": (
            _project,
            [
                uniform(20, 3, low=-0.5, high=0.5) + torch.tensor([0, 0, 3.0]),
                uniform(20, 4, low=-1) + torch.tensor([2.0, 0, 0, 0]),
                uniform(20, 3, low=0.05, high=0.2),
            ],
        ),
        "skin_gaussians": (_skin, [uniform(*shape, low=-1) for shape in bones]),
        "animate_gaussians": (
            _animate,
            [
                uniform(20, 3, low=-0.5, high=0.5) + torch.tensor([0, 0, 3.0]),
                *(uniform(20, width, low=-1) for width in (4, 3, 1, 3)),
                uniform(20, 1),
                0.1 * uniform(20, 3),
                0.1 * uniform(12, 10),
                0.1 * uniform(7, 3),
                uniform(2, 4, low=0.5),
                0.1 * uniform(3, 4, 2),
            ],
        ),
        "rasterize": (
            _draw,
            [uniform(12, 2, high=1) * torch.tensor([32.0, 24]), conics, uniform(12, 3), uniform(12, low=0.3, high=0.8)],
        ),
        "ssim": (_similarity, [uniform(16, 20, 3), uniform(16, 20, 3)]),
        "l1_ssim": (_loss, [uniform(16, 20, 3)]),
        "deform_mlp": (_network, [uniform(*shape, low=-0.5, high=0.5) for shape in layers]),
        **_radiance_cases(uniform),
        "march_rays": (_march, [5 * uniform(20), uniform(20, 3)]),
        "adam_step": (_adam, [uniform(50), uniform(50)]),
    }
    return {name: (make(native), make(reference), inputs) for name, (make, inputs) in cases.items()}


# How an operator of a module, native or reference, is called with tensors alone.


def _encode(module: Any) -> Function:
    return lambda points, table: (module.triplane_encode(points, table, [4, 8, 16]),)


def _project(module: Any) -> Function:
    import torch

    intrinsics = torch.tensor([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]])
    # The radii are whole numbers, decided by rounding: they are left out.
    return lambda *g: module.project_gaussians(*g, torch.eye(4), intrinsics, 32, 24)[1:]


def _skin(module: Any) -> Function:
    return lambda *inputs: module.skin_gaussians(*inputs)


def _animate(module: Any) -> Function:
    import torch

    from avatar import native

    intrinsics = torch.tensor([[40.0, 0, 16], [0, 40, 12], [0, 0, 1]])
    index = torch.arange(60, dtype=torch.int32).reshape(20, 3) % 7
    frame = torch.tensor([0.0, 0, 3, -1, -1, 1, 1])

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:  # for playback, so without gradients
        given = [x.detach() for x in tensors]
        gaussians = native.CanonicalGaussians._make([*given[:6], index, given[6]])
        still = torch.eye(3, 4).repeat(2, 1, 1)
        motion = native.FrameMotion(given[7], given[8], still, given[9], given[10], frame)
        return module.animate_gaussians(gaussians, motion, torch.eye(4), intrinsics, 32, 24)[1:]

    return run


def _draw(module: Any) -> Function:
    import torch

    depths, radii = torch.arange(12.0) + 1, torch.full((12,), 12, dtype=torch.int32)
    background = torch.tensor([0.2, 0.4, 0.6])
    return lambda *g: module.rasterize(*g, depths, radii, 32, 24, background)


def _similarity(module: Any) -> Function:
    return lambda a, b: (module.ssim(a, b),)


def _loss(module: Any) -> Function:
    import torch

    target = torch.linspace(0, 1, 16 * 20 * 3).view(16, 20, 3)
    return lambda image: module.l1_ssim(image, target, 0.2)[:1]


def _network(module: Any) -> Function:
    import torch

    scale = torch.linspace(0.5, 1, 10)
    return lambda *layers: (module.deform_mlp(*layers, scale),)


def _radiance_cases(uniform: Any) -> dict[str, tuple[Any, list[Tensor]]]:
    import torch

    radiance = [
        *(
            (20, 36),
            (16, 36),
            (16,),
            (3, 16),
            (3,),
            (32, 36),
            (32,),
            (3, 32),
            (16, 32),
            (16,),
            (32, 15),
            (32,),
            (3, 32),
        ),
        (3,),
    ]
    return {
        "radiance_mlp": (_radiance, [uniform(*shape, low=-0.5, high=0.5) for shape in radiance]),
        "sample_rays": (_sample, [uniform(6, 3, low=-0.2, high=0.2) - torch.tensor([0, 0, 3.0])]),
        "draw_field": (
            _field,
            [uniform(3, 6, 64, 2), *(uniform(*shape, low=-0.5, high=0.5) for shape in radiance[1:])],
        ),
    }


def _radiance(module: Any) -> Function:
    return lambda *tensors: module.radiance_mlp(*tensors)


def _sample(module: Any) -> Function:
    """Positions of samples in a box that is set everywhere; their number does not depend on rounding."""
    import torch

    box = [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]
    occupancy = torch.full((8, 8, 1), 255, dtype=torch.uint8)
    directions = torch.tensor([[0.0, 0.0, 1.0]]).repeat(6, 1)
    limits = torch.tensor([[2.5, 3.45]]).repeat(6, 1)
    return lambda origins: module.sample_rays(
        origins, directions.to(origins), box, occupancy.to(origins.device), 0.1, 16, limits=limits.to(origins)
    )[:1]


def _field(module: Any) -> Function:
    """A box that is set everywhere, from the front: no sample is on the border of a cell that is not."""
    import torch

    from avatar import native

    box = [[-1.0, -1.0, -1.0], [1.0, 1.0, 1.0]]

    def run(table: Tensor, *network: Tensor) -> tuple[Tensor, ...]:  # for playback, so without gradients
        occupancy = torch.full((8, 8, 1), 255, dtype=torch.uint8, device=table.device)
        front, moved = torch.full((2, 2), -0.9).to(table), torch.full((3, 2, 2, 2), 0.05).to(table)
        space = native.FieldSpace(box, box, occupancy, 0.13, 16, front, 0.2, (0.3, 0.0, 0.1, 0.5), moved, box)
        features = native.FieldFeatures(box, table.detach(), [4, 6, 8, 12, 16, 20])
        matrix = [[0.02, 0.0, -0.2], [0.0, 0.02, -0.15], [0.0, 0.0, 1.0]]
        part = (0, 0, 20, 15)
        return (module.draw_field([0.0, 0.0, -3.0], matrix, part, space, features, [x.detach() for x in network]),)

    return run


def _march(module: Any) -> Function:
    import torch

    offsets, edges = torch.tensor([0, 5, 5, 20], dtype=torch.int32), torch.linspace(0, 2, 21)
    return lambda densities, colors: module.march_rays(offsets, edges[:-1], edges[1:], densities, colors)


def _adam(module: Any) -> Function:
    import torch

    def step(param: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
        state = [param.detach().clone(), grad.detach(), torch.zeros(50), torch.zeros(50)]
        for number in (1, 2):
            module.adam_step(*state, 0.01, 0.9, 0.999, 1e-8, number)
        return tuple(state)

    return step


def compare(native: Function, reference: Function, inputs: list[Tensor]) -> float:
    """Largest error of results and gradients, relative to the largest value of the tensor it is in."""
    import torch

    def evaluate(function: Function) -> list[Tensor]:
        leaves = [x.clone().requires_grad_() for x in inputs]
        outputs = function(*leaves)
        gradients: tuple[Tensor, ...] = ()
        if any(o.requires_grad for o in outputs):
            total = sum((o * torch.linspace(0.5, 1.5, o.numel()).reshape(o.shape)).sum() for o in outputs)
            gradients = torch.autograd.grad(total, leaves)  # type: ignore[arg-type]
        return [o.detach() for o in (*outputs, *gradients)]

    worst = 0.0
    for ours, theirs in zip(evaluate(native), evaluate(reference), strict=True):
        worst = max(worst, float((ours - theirs).abs().max() / theirs.abs().max().clamp_min(1e-6)))
    return worst if worst == worst else float("inf")  # NaN
