"""Time the kernels and the whole model on this machine, and write the results as JSON, table and plot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from avatar.environment import environment
from avatar.errors import AvatarError

if TYPE_CHECKING:
    import torch

    from avatar.bench.cases import Case

FORMAT = "avatar-bench-1"
FULL_GAUSSIANS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
FULL_SIZES = (256, 512, 1080, 2160)
FULL_FRAMES = (250, 1000, 4000)
USUAL = (30_000, 512)  # Gaussians and pixels of a usual avatar: where the curves cross
# Gaussians times pixels up to which the torch reference is timed: as far as is bearable; with --full the usual avatar.
REFERENCE_LIMIT = 30_000 * 256 * 256
FULL_REFERENCE_LIMIT = 30_000 * 512 * 512


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time the kernels, a rendered frame and a training step. No assets and no data are needed."""

    gaussians: tuple[int, ...] = (10_000, 30_000, 100_000)
    """Numbers of Gaussians (of points for the tri-plane, of rays for the marcher)."""
    sizes: tuple[int, ...] = (256, 512)
    """Sides of the square picture, pixels."""
    frames: tuple[int, ...] = (50, 100, 200)
    """Lengths of the videos that are rendered, frames."""
    full: bool = False
    """10 thousand to a million Gaussians, 256 to 2160 pixels, 250 to 4000 frames, instead of the above: ten minutes on
    two cores."""
    threads: tuple[int, ...] = ()
    """CPU thread counts; empty: 1 and all."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the kernels run; auto: on the CPU, and on a CUDA GPU if there is one."""
    repeats: int = 5
    """Timed runs per number; the median is reported."""
    seconds: float = 0.5
    """No further runs of a number after this long; each gets at least one."""
    reference: bool = True
    """Also time the torch reference, at the smaller sizes."""
    model: bool = True
    """Also time the whole model: a rendered frame, a training step, videos of growing length."""
    json: Path | None = None
    """Write the results with the hardware and the commit to this file."""
    docs: Path | None = None
    """Write HARDWARE.json into this folder, and a README.md with tables and plots of all results there."""
    run: bool = True
    """With --no-run, measure nothing: only write the pages of --docs again from the JSON files there."""


def main(config: Config) -> None:
    """Run the benchmark and print its tables; see :class:`Config`.

    Raises:
        AvatarError: An option out of range, or --device cuda without one.
    """
    from avatar.bench import report
    from avatar.log import console, info
    from avatar.paths import write_json

    check(config)
    if config.run:
        result = measure(config)
        report.show(result)
        paths = [path for path in (config.json,) if path]
        if config.docs is not None:
            paths.append(config.docs / f"{report.hardware_name(result)}.json")
        for path in paths:
            write_json(path, result)
            info(f"Written to {path}.")
    if config.docs is not None:
        page = report.write_pages(config.docs)
        console.print(f"Tables and plots: {page}", markup=False)


def check(config: Config) -> None:
    """Refuse options that make no sense before anything slow happens."""
    import torch

    if min((config.repeats, *config.gaussians, *config.sizes, *config.threads, *config.frames), default=1) < 1:
        raise AvatarError("Sizes, frames, thread counts and --repeats must be at least 1.")
    if not config.gaussians or not config.sizes:
        raise AvatarError("--gaussians and --sizes need at least one number each.")
    if config.device == "cuda" and not torch.cuda.is_available():
        raise AvatarError(
            "--device cuda needs a CUDA GPU,", why="which torch does not find here.", fix="Use --device cpu."
        )
    if not config.run and config.docs is None:
        raise AvatarError("--no-run leaves nothing to do without --docs.")


def measure(config: Config) -> dict[str, Any]:
    """All numbers, as they are written to JSON."""
    import torch

    from avatar import native
    from avatar.bench import curves
    from avatar.bench.cases import make_scene
    from avatar.log import info

    gaussians = FULL_GAUSSIANS if config.full else config.gaussians
    sizes = FULL_SIZES if config.full else config.sizes
    frames = FULL_FRAMES if config.full else config.frames
    limit = FULL_REFERENCE_LIMIT if config.full else REFERENCE_LIMIT
    threads = config.threads or tuple(sorted({1, torch.get_num_threads()}))
    names = ("cpu", "cuda") if config.device == "auto" and torch.cuda.is_available() else (config.device,)
    devices = [torch.device("cpu" if name == "auto" else name) for name in names]
    before = torch.get_num_threads()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    scenes, ops, skipped, done = [], [], [], set()
    try:
        for device in devices:
            for size in sizes:
                for n in gaussians:
                    info(f"kernels on {device.type}: {n} Gaussians, {size}x{size} pixels")
                    scene = make_scene(n, size, device)
                    if device == devices[0]:
                        scenes.append({"gaussians": n, "size": size, "pairs_per_tile": scene.pairs_per_tile})
                    with_reference = config.reference and n * size * size <= limit
                    counts = threads if device.type == "cpu" else ()
                    ops += op_rows(scene, config, counts, with_reference, skipped, done)
        torch.set_num_threads(max(threads))
        model, length = [], []
        if config.model:
            n, size = (
                (USUAL[0] if USUAL[0] in gaussians else gaussians[0]),
                (USUAL[1] if USUAL[1] in sizes else sizes[0]),
            )
            points = sorted({(n, s) for s in sizes} | {(g, size) for g in gaussians})
            info("the whole model")
            model = curves.model_rows(points, config.repeats, config.seconds)
            length = curves.length_rows(frames, gaussians[0], sizes[0])
    finally:
        torch.set_num_threads(before)
    return {
        "format": FORMAT, **environment(), "library": native.library_status().split(", /")[0],
        "threads": list(threads), "repeats": config.repeats, "load_before": load, "scenes": scenes,
        "ops": ops, "skipped": skipped,
        "model": model, "length": length,
    }  # fmt: skip


def op_rows(
    scene: Any,
    config: Config,
    threads: tuple[int, ...],
    with_reference: bool,
    skipped: list[dict[str, str]],
    done: set[tuple[Any, ...]],
) -> list[dict[str, Any]]:
    """One row per op, implementation and number of threads; what cannot run here is noted once in ``skipped``.

    ``done`` are the points that were timed already: an op is left out where nothing changed that its time depends on.
    """
    import torch

    from avatar.bench.cases import CASES
    from avatar.native.library import library

    rows: list[dict[str, Any]] = []
    for make, depends in CASES.items():
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
            for name, (forward, both) in _time(case._replace(runs=runs), scene.device, config).items():
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


def _time(case: Case, device: torch.device, config: Config) -> dict[str, tuple[Any, Any]]:
    """For each implementation the timing of the forward pass without gradients, and of forward plus backward."""
    import torch

    from avatar.bench.measure import interleaved

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

    limits = (device, config.repeats, config.seconds)
    forwards = interleaved({n: lambda r=r: forward(r) for n, r in case.runs.items()}, *limits)
    boths = interleaved({n: lambda r=r: both(r) for n, r in case.runs.items() if r.leaves}, *limits)
    return {name: (forwards[name], boths.get(name)) for name in case.runs}
