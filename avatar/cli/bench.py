"""Time the kernels and the whole model on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from avatar.errors import AvatarError

GROUPS = {"output": ("json", "docs", "run"), "timing": ("threads", "repeats", "seconds", "reference", "model")}
MEASURED = ("gaussians", "sizes", "frames", "threads", "device", "repeats", "seconds", "reference", "model")


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
    """Time 10 thousand to a million Gaussians, 256 to 2160 pixels and 250 to 4000 frames. It takes ten minutes on two
    cores."""
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
        AvatarError: An option out of range, --device cuda without one, or the results cannot be written.
    """
    from avatar.bench import report, run
    from avatar.data.outputs import refuse_to_overwrite
    from avatar.log import console, info
    from avatar.paths import write_json
    from avatar.writing import NewFile

    if not config.run and config.docs is None:
        raise AvatarError("--no-run leaves nothing to do without --docs.")
    if not config.run and config.json is not None:
        raise AvatarError("--json and --no-run exclude each other:", why="nothing is measured that could be written.")
    plain = Config()
    if config.full and (given := [n for n in MEASURED if n in run.FULL and getattr(config, n) != getattr(plain, n)]):
        raise AvatarError(f"--full and --{given[0]} exclude each other.", fix="Leave one of them out.")
    if config.docs is not None:
        report.check_page(config.docs)
    if config.json is not None:
        refuse_to_overwrite(config.json)
    if config.run:
        for path in (config.json, None if config.docs is None else config.docs / report.PAGE):
            if path is not None:
                NewFile(path).drop()  # where it cannot be written, say so before minutes of measuring
        options = {name: getattr(config, name) for name in MEASURED} | (run.FULL if config.full else {})
        result = run.measure(**options)
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
