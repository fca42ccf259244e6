"""Time the kernels and the whole model on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from avatar import native
from avatar.bench import cases, curves
from avatar.bench.measure import interleaved, quick_collections
from avatar.environment import environment
from avatar.errors import AvatarError
from avatar.log import info
from avatar.native.library import library

if TYPE_CHECKING:
    from avatar.bench.cases import Case

FORMAT = "avatar-bench-1"
USUAL = (30_000, 512)  # Gaussians and pixels of a usual avatar: where the curves cross
# Gaussians times pixels up to which the torch reference is timed: as far as is bearable.
REFERENCE_LIMIT = 30_000 * 256 * 256
# Of :func:`measure`: all that a good machine can do, ten minutes on two cores.
FULL: dict[str, Any] = {
    "gaussians": (10_000, 30_000, 100_000, 300_000, 1_000_000),
    "sizes": (256, 512, 1080, 2160),
    "frames": (250, 1000, 4000),
    "reference_limit": 30_000 * 512 * 512,
}


def measure(
    gaussians: Sequence[int],
    sizes: Sequence[int],
    frames: Sequence[int],
    *,
    threads: Sequence[int] = (),
    device: str = "auto",
    repeats: int = 5,
    seconds: float = 0.5,
    reference: bool = True,
    reference_limit: int = REFERENCE_LIMIT,
    model: bool = True,
) -> dict[str, Any]:
    """All numbers, as they are written to JSON.

    Args:
        gaussians: Numbers of Gaussians.
        sizes: Sides of the square image, pixels.
        frames: Lengths of the videos that are rendered.
        threads: CPU thread counts; none: 1 and all.
        device: "auto" (the CPU, and a CUDA GPU if there is one), "cpu" or "cuda".
        repeats: Timed runs per number.
        seconds: No further runs of a number after this long.
        reference: Whether to time the torch reference as well.
        reference_limit: Gaussians times pixels up to which it is.
        model: Whether to time the whole model.

    Raises:
        AvatarError: A number is below 1, there are no Gaussians or sizes, or ``device`` is "cuda" and there is none.
    """
    if min((repeats, *gaussians, *sizes, *threads, *frames), default=1) < 1:
        raise AvatarError("Sizes, frames, thread counts and --repeats must be at least 1.")
    if not gaussians or not sizes:
        raise AvatarError("--gaussians and --sizes need at least one number each.")
    if device == "cuda" and not torch.cuda.is_available():
        raise AvatarError(
            "--device cuda needs a CUDA GPU,", why="which torch does not find here.", fix="Use --device cpu."
        )
    counts = tuple(threads or sorted({1, torch.get_num_threads()}))
    names = ("cpu", "cuda") if device == "auto" and torch.cuda.is_available() else (device,)
    devices = [torch.device("cpu" if name == "auto" else name) for name in names]
    before = torch.get_num_threads()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    limit = reference_limit if reference else 0
    try:
        with quick_collections():
            kernels = _kernels(devices, gaussians, sizes, counts, repeats, seconds, limit)
        torch.set_num_threads(max(counts))
        whole = _model(gaussians, sizes, frames, repeats, seconds) if model else {"model": [], "length": []}
    finally:
        torch.set_num_threads(before)
    return {
        "format": FORMAT, **environment(), "library": native.library_status().split(", /")[0],
        "threads": list(counts), "repeats": repeats, "load_before": load, **kernels, **whole,
    }  # fmt: skip


def _kernels(
    devices: Sequence[torch.device], gaussians: Sequence[int], sizes: Sequence[int], threads: Sequence[int],
    repeats: int, seconds: float, reference_limit: int,
) -> dict[str, Any]:  # fmt: skip
    """The scenes, a row per op, and what could not run."""
    scenes, ops, skipped, done = [], [], [], set()
    for device in devices:
        for size in sizes:
            for n in gaussians:
                info(f"kernels on {device.type}: {n} Gaussians, {size}x{size} pixels")
                scene = cases.make_scene(n, size, device)
                if device == devices[0]:
                    scenes.append({"gaussians": n, "size": size, "pairs_per_tile": scene.pairs_per_tile})
                with_reference = n * size * size <= reference_limit
                counts = threads if device.type == "cpu" else ()
                ops += op_rows(scene, repeats, seconds, counts, with_reference, skipped, done)
    return {"scenes": scenes, "ops": ops, "skipped": skipped}


def _model(
    gaussians: Sequence[int], sizes: Sequence[int], frames: Sequence[int], repeats: int, seconds: float
) -> dict[str, Any]:
    """Rows of a rendered frame and a training step, and of videos of growing length."""
    n = USUAL[0] if USUAL[0] in gaussians else gaussians[0]
    size = USUAL[1] if USUAL[1] in sizes else sizes[0]
    points = sorted({(n, s) for s in sizes} | {(g, size) for g in gaussians})
    info("the whole model")
    rows = curves.model_rows(points, repeats, seconds)
    return {"model": rows, "length": curves.length_rows(frames, gaussians[0], sizes[0])}


def op_rows(
    scene: Any,
    repeats: int,
    seconds: float,
    threads: Sequence[int],
    with_reference: bool,
    skipped: list[dict[str, str]],
    done: set[tuple[Any, ...]],
) -> list[dict[str, Any]]:
    """One row per op, implementation and number of threads; what cannot run here is noted once in ``skipped``.

    ``done`` are the points that were timed already: an op is left out where nothing changed that its time depends on.
    """
    rows: list[dict[str, Any]] = []
    for make, depends in cases.CASES.items():
        point = {"gaussians": len(scene.means), "size": scene.size}
        point = {key: value if key in depends else None for key, value in point.items()}
        if (make, scene.device, *point.values()) in done:
            continue
        done.add((make, scene.device, *point.values()))
        case = make(scene)
        runs = dict(case.runs)
        if scene.device.type == "cpu":  # backends run on GPUs; the reference stands in where there is no library
            runs = {name: run for name, run in runs.items() if name in ("native", "reference")}
            if library() is None:
                runs.pop("native", None)
        if not with_reference:
            runs.pop("reference", None)
        runs = _able(case.name, runs, skipped)
        for count in threads or (None,):
            if count is not None:
                torch.set_num_threads(count)
            for name, (forward, both) in _time(case._replace(runs=runs), scene.device, repeats, seconds).items():
                rows.append(
                    {
                        "case": case.name, "implementation": name, "device": scene.device.type, "threads": count,
                        **point, "forward_ms": forward.ms,
                        "both_ms": None if both is None else both.ms, "runs": (both or forward).runs,
                        "extra_bytes": (both or forward).extra_bytes,
                    }
                )  # fmt: skip
    return rows


def _able(case: str, runs: dict[str, Any], skipped: list[dict[str, str]]) -> dict[str, Any]:
    """The implementations that run at all."""
    able = {}
    for name, run in runs.items():
        try:
            if name != "reference":
                run.forward()
        except AvatarError as error:
            note = {"case": case, "implementation": name, "why": str(error)}
            if note not in skipped:
                skipped.append(note)
        else:
            able[name] = run
    return able


def _time(case: Case, device: torch.device, repeats: int, seconds: float) -> dict[str, tuple[Any, Any]]:
    """For each implementation the timing of the forward pass without gradients, and of forward plus backward."""

    def forward(run: Any) -> None:
        with torch.no_grad():
            run.forward()

    def both(run: Any) -> None:
        outputs = run.forward()
        torch.autograd.grad(outputs, run.leaves, [cotangent(x) for x in outputs])

    kept: dict[tuple[int, ...], Any] = {}

    def cotangent(output: Any) -> Any:
        shape = tuple(output.shape)
        if shape not in kept:
            kept[shape] = torch.randn_like(output)
        return kept[shape]

    limits = (device, repeats, seconds)
    forwards = interleaved({n: lambda r=r: forward(r) for n, r in case.runs.items()}, *limits)
    boths = interleaved({n: lambda r=r: both(r) for n, r in case.runs.items() if r.leaves}, *limits)
    return {name: (forwards[name], boths.get(name)) for name in case.runs}
