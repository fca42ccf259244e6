"""Time the kernels and the whole model on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avatar.errors import AvatarError

FULL_GAUSSIANS = (10_000, 30_000, 100_000, 300_000, 1_000_000)
FULL_SIZES = (256, 512, 1080, 2160)
FULL_FRAMES = (250, 1000, 4000)
FULL_REFERENCE_LIMIT = 30_000 * 512 * 512  # Gaussians times pixels
GROUPS = {"output": ("json", "docs", "run"), "timing": ("threads", "repeats", "seconds", "reference", "model")}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time the kernels, a rendered frame and a training step. No assets and no data are needed."""

    gaussians: tuple[int, ...] = (10_000, 30_000, 100_000)
    """Numbers of Gaussians (of points for the tri-plane, of rays for the marcher)."""
    sizes: tuple[int, ...] = (256, 512)
    """Sides of the square image, pixels."""
    frames: tuple[int, ...] = (50, 100, 200)
    """Lengths of the videos that are rendered, frames."""
    full: bool = False
    """Time 10 thousand to a million Gaussians, 256 to 2160 pixels and 250 to 4000 frames: ten minutes on two cores."""
    threads: tuple[int, ...] = ()
    """CPU thread counts; default: 1 and all."""
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
    if min((config.repeats, *config.gaussians, *config.sizes, *config.threads, *config.frames), default=1) < 1:
        raise AvatarError("Sizes, frames, thread counts and --repeats must be at least 1.")
    if not config.gaussians or not config.sizes:
        raise AvatarError("--gaussians and --sizes need at least one number each.")
    if not config.run and config.docs is None:
        raise AvatarError("--no-run leaves nothing to do without --docs.")


def measure(config: Config) -> dict:
    """All numbers that the options ask for."""
    from avatar.bench import run

    return run.measure(
        FULL_GAUSSIANS if config.full else config.gaussians,
        FULL_SIZES if config.full else config.sizes,
        FULL_FRAMES if config.full else config.frames,
        threads=config.threads,
        device=config.device,
        repeats=config.repeats,
        seconds=config.seconds,
        reference=config.reference,
        reference_limit=FULL_REFERENCE_LIMIT if config.full else run.REFERENCE_LIMIT,
        model=config.model,
    )
