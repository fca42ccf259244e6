"""Time a frame, training steps with and without other programs on every core, and how long commands take to begin.

``python -m pipelines.busy_machine --json busy-machine.json``. Frames, help and import: processor time, a frame of one
thread, 30000 Gaussians at 512x512 pixels. Steps: by the clock, as shipped. Free and busy turns alternate, so that what
else runs on the machine meets both. Run it on a quiet machine; the load is kept with the numbers.
"""

from __future__ import annotations

import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import avatar.bench.person as synthetic  # isort: skip  # before torch: it sets how threads wait
import torch
import tyro

from avatar.device import training_threads
from pipelines.record import keep

GAUSSIANS, SIZE, FRAMES = 30_000, 512, 10
STARTED = {
    "bare_python": ["-c", "pass"],
    "import_avatar": ["-c", "import avatar"],
    "avatar_help": ["-m", "avatar", "--help"],
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to time, and where the record goes."""

    turns: int = 20
    """Turns of each measurement; its record has the median, the least and the most."""
    json: Path | None = None
    """Write the record here."""


def processor_ms(task: Callable[[], object], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        task()
    return (time.process_time() - start) / repeats * 1e3


def frame(count: int) -> list[float]:
    """Processor time of a frame in each turn, ms."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    avatar, motion = synthetic.make_avatar(GAUSSIANS, SIZE), synthetic.motion(FRAMES)
    turns = [processor_ms(lambda: avatar.render(avatar.camera, motion, 3), FRAMES) for _ in range(count + 1)]
    torch.set_num_threads(threads)
    return turns[1:]


def steps(count: int) -> tuple[list[float], list[float]]:
    """Time of a training step in each turn, ms: with the cores free, and with one busy process on each."""
    trainer, batch = synthetic.make_trainer(GAUSSIANS, SIZE)
    for _ in range(2):
        trainer.train_step(batch)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    times: tuple[list[float], list[float]] = ([], [])
    try:
        for turn in range(2 * count):
            for other in others:
                other.send_signal(signal.SIGCONT if turn % 2 else signal.SIGSTOP)
            start = time.perf_counter()
            for _ in range(3):
                trainer.train_step(batch)
            times[turn % 2].append((time.perf_counter() - start) / 3 * 1e3)
    finally:
        for other in others:
            other.kill()
            other.wait()
    return times


def starts(arguments: list[str], count: int) -> list[float]:
    """Processor time of a Python process, user and system, in each turn, ms."""

    def spent() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    times = []
    for _ in range(count + 1):  # the first one fills the caches
        before = spent()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append((spent() - before) * 1e3)
    return times[1:]


def summary(turns: list[float]) -> dict[str, float | int]:
    """Median, least and most of some turns."""
    return {
        "median_ms": round(statistics.median(turns), 2), "least_ms": round(min(turns), 2),
        "most_ms": round(max(turns), 2), "turns": len(turns),
    }  # fmt: skip


def measure(turns: int) -> dict[str, Any]:
    """Measure everything, one thing after the other."""
    found: dict[str, Any] = {"load_before": round(os.getloadavg()[0], 2), "gaussians": GAUSSIANS, "size": SIZE}
    for name, arguments in STARTED.items():
        found[name] = summary(starts(arguments, turns))
    found["frame_processor_time"] = summary(frame(turns))
    with training_threads():
        free, busy = steps(turns)
    found |= {"step_cores_free": summary(free), "step_cores_busy": summary(busy)}
    found["busy_over_free"] = round(statistics.median(busy) / statistics.median(free), 3)
    return found


def main(config: Config) -> None:
    """Print the numbers, and write the record."""
    keep(measure(config.turns), config.json)


if __name__ == "__main__":
    main(tyro.cli(Config))
