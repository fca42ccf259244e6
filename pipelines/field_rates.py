"""Frame rate of a radiance field with one and with all threads.

``python -m pipelines.field_rates RUN --json rates.json``: frames of the held-out part, driven by their tracked motion,
at the size of the training and at 512 pixels. Some are drawn as in training as well, every ray with all of its samples:
what playback leaves out must not show. Run it on free cores; the load is kept with the numbers.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from avatar.data import PersonDataset
from avatar.data.run import open_person
from avatar.errors import AvatarError
from avatar.eval import bootstrap
from avatar.eval.image_metrics import psnr
from avatar.geometry.cameras import Camera
from avatar.infer.avatar import Avatar
from pipelines.record import keep

WIDE = 512  # pixels
WARM = 3  # frames drawn before the first that counts
COMPARED = 10  # frames that are drawn with all rays as well


@dataclass(frozen=True, kw_only=True)
class Config:
    """Measure how many frames a radiance field draws in a second."""

    run: Annotated[Path, tyro.conf.Positional]
    """RUN folder of method nerf."""
    frames: int = 40
    """Held-out frames, evenly spread."""
    json: Path | None = None
    """Write the record here."""


def measure(run: Path, count: int) -> dict[str, Any]:
    """Measure both sizes, threads in turns.

    Raises:
        AvatarError: The run is of another method.
    """
    avatar, data = Avatar.load(run, device="cpu"), open_person(run)
    if avatar.model.name != "nerf":
        raise AvatarError(f"{run} is a run of method {avatar.model.name}.", fix="Give one of method nerf.")
    exact = Avatar.load(run, device="cpu", precision="float32")
    frames = np.linspace(data.test_start, data.num_frames - 1, count + WARM).astype(int)
    threads = sorted({1, torch.get_num_threads()})
    found: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 2), "frames": count}
    for width in dict.fromkeys((data.width, WIDE)):
        camera = avatar.camera.resized(width, round(data.height * width / data.width))
        seconds: dict[int, list[float]] = {number: [] for number in threads}
        for index in frames:
            for number in threads:  # one after the other, frame by frame: other work meets both
                torch.set_num_threads(number)
                start = time.perf_counter()
                avatar.render(camera, data.motion, int(index))
                seconds[number].append(time.perf_counter() - start)
        found[f"{width}"] = {f"threads_{number}": _rates(of[WARM:]) for number, of in seconds.items()}
        found[f"{width}"] |= left_out(avatar, exact, data, camera, frames[WARM :: max(count // COMPARED, 1)])
    return found


def left_out(
    avatar: Avatar, exact: Avatar, data: PersonDataset, camera: Camera, frames: np.ndarray
) -> dict[str, float]:
    """What playback loses against all samples in float32: decibels between both, and of both to the film."""
    between: list[float] = []
    to_film: list[tuple[float, float]] = []
    for index in map(int, frames):
        behind = None
        if data.camera_moves and camera.width == data.width:  # the film shows what was behind the person at that time
            behind = torch.from_numpy(data.background(index))
        images = (draw(camera, data.motion, index, behind) for draw in (avatar.render, exact.draw))
        fast, full = (image.double().numpy() / 255 for image in images)
        between.append(psnr(fast, full))
        if camera.width == data.width:
            film = data.image(index) / 255
            to_film.append((psnr(fast, film), psnr(full, film)))
    numbers = {"psnr_to_all_samples": round(float(np.mean(between)), 2)}
    if to_film:
        fast, full = np.mean(to_film, 0)
        numbers |= {"psnr": round(float(fast), 3), "psnr_with_all_samples": round(float(full), 3)}
    return numbers


def _rates(seconds: list[float]) -> dict[str, Any]:
    """Frames per second: of the mean time of a frame, with its 95 % interval."""
    times = np.array(seconds)
    resamples = np.random.default_rng(0).choice(times, (bootstrap.RESAMPLES, len(times))).mean(1)
    low, high = np.quantile(1 / resamples, (0.025, 0.975))
    return {
        "frames_per_second": round(float(1 / times.mean()), 2),
        "interval": [round(float(low), 2), round(float(high), 2)],
    }


def main(config: Config) -> None:
    """Print the numbers, and write the record."""
    keep(measure(config.run, config.frames), config.json)


if __name__ == "__main__":
    main(tyro.cli(Config))
