"""Time the native kernels on this machine, against the torch reference where that is bearable."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar.environment import environment
from avatar.errors import AvatarError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Config:
    gaussians: tuple[int, ...] = (10_000, 30_000, 100_000)
    """Numbers of Gaussians (and of points for the tri-plane)."""
    sizes: tuple[int, ...] = (256, 512)
    """Sides of the square picture, pixels."""
    threads: tuple[int, ...] = ()
    """Thread counts; empty: 1 and all."""
    repeats: int = 15
    """Timed runs per number; the median is reported."""
    reference: bool = True
    """Also time the torch reference, once, at the smallest size."""
    json: Path | None = None
    """Write the results with the hardware and the commit to this file."""


@dataclass(frozen=True)
class Case:
    """One thing to time: ``forward`` makes outputs, of which ``leaves`` get gradients in the backward pass."""

    name: str
    forward: Callable[[Any], tuple[Tensor, ...]]
    leaves: tuple[Tensor, ...]


def main(config: Config) -> None:
    """Run the benchmark and print a table; see :class:`Config`."""
    import torch
    from rich.table import Table

    from avatar import native
    from avatar.log import console
    from avatar.native import reference
    from avatar.native.library import library
    from avatar.paths import write_json

    if config.repeats < 1 or min((*config.gaussians, *config.sizes, *config.threads), default=1) < 1:
        raise AvatarError("Sizes, thread counts and --repeats must be at least 1.")
    threads = config.threads or tuple(sorted({1, torch.get_num_threads()}))
    console.print(native.library_status(), markup=False)
    before = torch.get_num_threads()
    per_tile: list[str] = []
    rows: list[dict[str, Any]] = []
    try:
        for size in config.sizes:
            for n in config.gaussians:
                smallest = size == min(config.sizes) and n == min(config.gaussians)
                with_reference = config.reference and smallest and library() is not None
                cases, pairs = _cases(n, size)
                per_tile.append(f"{pairs:.0f} ({n} on {size})")
                for case in cases:
                    row: dict[str, Any] = {"case": case.name, "gaussians": n, "size": size, "pairs_per_tile": pairs}
                    for count in threads:
                        torch.set_num_threads(count)
                        row[f"forward_ms_{count}"], row[f"both_ms_{count}"] = _time(case, native, config.repeats)
                    if with_reference:
                        row["reference_forward_ms"], row["reference_both_ms"] = _time(case, reference, 1)
                    rows.append(row)
    finally:
        torch.set_num_threads(before)

    table = Table("kernel", "Gaussians", "picture", *(f"{part}, {c} thr" for c in threads for part in ("fwd", "f+b")))
    table.add_column("reference")
    table.columns[0].no_wrap = True
    for row in rows:
        numbers = [f"{row[f'{part}_ms_{c}']:.2f}" for c in threads for part in ("forward", "both")]
        slow = (
            f"{row['reference_forward_ms']:.0f} / {row['reference_both_ms']:.0f}" if "reference_both_ms" in row else ""
        )
        table.add_row(row["case"], str(row["gaussians"]), str(row["size"]), *numbers, slow)
    console.print(table)
    console.print(
        "Milliseconds, median. f+b: forward and backward pass together. rasterize includes binning and sorting. Whole "
        "frame: project, rasterize, L1 + SSIM. Tri-plane: 12 levels of 1 feature; in training 8 levels of 2 features."
    )
    console.print(f"Gaussians per 16x16 tile, on average over the picture: {', '.join(per_tile)}.")
    if config.json is not None:
        write_json(
            config.json, environment() | {"library": native.library_status(), "threads": list(threads), "results": rows}
        )
        console.print(f"Written to {config.json}.", markup=False)


def _cases(n: int, size: int) -> tuple[list[Case], float]:
    """A head-shaped cloud that fills most of the picture, one kernel at a time and then the whole frame.

    Also the mean number of Gaussians per 16x16 tile of the picture: 120 for 30000 Gaussians on 512 pixels.
    """
    import torch

    g = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=-1)
    means = (direction * (0.8 + 0.2 * torch.rand(n, 1, generator=g)) * torch.tensor([8.0, 10.0, 8.0])).requires_grad_()
    quats = torch.randn(n, 4, generator=g).requires_grad_()
    spacing = (4 * torch.pi * 80 / n) ** 0.5  # of the Gaussians on the head
    scales = (0.65 * spacing * torch.exp(0.4 * torch.randn(n, 3, generator=g))).requires_grad_()
    colors = torch.rand(n, 3, generator=g).requires_grad_()
    opacities = (0.1 + 0.85 * torch.rand(n, generator=g)).requires_grad_()
    viewmat = torch.eye(4)
    viewmat[2, 3] = 60.0
    K = torch.tensor([[2.6 * size, 0, size / 2], [0, 2.6 * size, size / 2], [0, 0, 1]])
    picture = torch.rand(size, size, 3, generator=g)
    other = (0.8 * picture + 0.2 * torch.rand(size, size, 3, generator=g)).requires_grad_()
    resolutions = [round(16 * 1.25**level) for level in range(12)]
    table = torch.randn(3, 12, 2**15, 1, generator=g).requires_grad_()
    points = (means.detach() / 10.0).requires_grad_()
    training_resolutions = [round(8 * 20 ** (level / 7)) for level in range(8)]
    training_table = torch.randn(3, 8, 161**2, 2, generator=g).requires_grad_()
    shapes = [(n, 48), (128, 48), (128,), (64,), (64, 64), (64,), (10, 64), (10,)]
    network = [(0.2 * torch.randn(shape, generator=g)).requires_grad_() for shape in shapes]
    output_scale = torch.rand(10, generator=g)

    from avatar import native

    with torch.no_grad():
        radii, fixed2d, depths, fixed_conics = native.project_gaussians(means, quats, scales, viewmat, K, size, size)
        pairs = _pairs_per_tile(fixed2d, fixed_conics, opacities, depths, radii, size)
    means2d, conics = fixed2d.requires_grad_(), fixed_conics.requires_grad_()

    def frame(backend: Any) -> tuple[Tensor, ...]:
        r, m, d, c = backend.project_gaussians(means, quats, scales, viewmat, K, size, size)
        image, _ = backend.rasterize(m, c, colors, opacities, d, r, size, size)
        return (backend.l1_ssim(image, picture, 0.2)[0],)

    cases = [
        Case("triplane_encode", lambda b: (b.triplane_encode(points, table, resolutions),), (points, table)),
        Case(
            "triplane, training",
            lambda b: (b.triplane_encode(points, training_table, training_resolutions),),
            (points, training_table),
        ),
        Case("deform_mlp", lambda b: (b.deform_mlp(*network, output_scale),), tuple(network)),
        Case(
            "project_gaussians",
            lambda b: b.project_gaussians(means, quats, scales, viewmat, K, size, size)[1:],
            (means, quats, scales),
        ),
        Case(
            "rasterize",
            lambda b: b.rasterize(means2d, conics, colors, opacities, depths, radii, size, size)[:1],
            (means2d, conics, colors, opacities),
        ),
        Case("ssim", lambda b: (b.ssim(other, picture),), (other,)),
        Case("l1_ssim", lambda b: (b.l1_ssim(other, picture, 0.2)[0],), (other,)),
        Case("whole frame", frame, (means, quats, scales, colors, opacities)),
    ]
    return cases, pairs


def _pairs_per_tile(
    means2d: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, radii: Tensor, size: int
) -> float:
    """How many Gaussians the lists of the rasterizer hold per tile; nan without the native library."""
    from avatar.native.library import library
    from avatar.native.rasterization import _bin

    if library() is None:
        return float("nan")
    ids = _bin(means2d, conics, opacities, depths, radii, size, size)[2]
    return len(ids) / ((size + 15) // 16) ** 2


def _time(case: Case, backend: Any, repeats: int) -> tuple[float, float]:
    """Median milliseconds of the forward pass without gradients, and of forward plus backward."""
    import torch

    def forward() -> None:
        with torch.no_grad():
            case.forward(backend)

    def both() -> None:
        outputs = case.forward(backend)
        torch.autograd.grad(outputs, case.leaves, cotangents)

    cotangents = [torch.randn_like(x) for x in case.forward(backend)]
    return _median(forward, repeats), _median(both, repeats)


def _median(run: Callable[[], None], repeats: int) -> float:
    if repeats > 1:
        run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)
