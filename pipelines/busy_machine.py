"""Time a frame, and training steps with and without other programs on every core: ``python -m pipelines.busy_machine``.

Frames: processor time of one thread, 30000 Gaussians at 512x512 pixels. Steps: by the clock, as shipped. Free and busy
turns alternate, so that what else runs on the machine meets both. Run it on a quiet machine; the load is printed.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import avatar.bench.person as synthetic  # isort: skip  # before torch: it sets how threads wait
import torch

from avatar.device import training_threads

GAUSSIANS, SIZE, TURNS, FRAMES = 30_000, 512, 20, 10


def processor_ms(task: Callable[[], object], repeats: int) -> float:
    start = time.process_time()
    for _ in range(repeats):
        task()
    return (time.process_time() - start) / repeats * 1e3


def frame() -> list[float]:
    """Processor time of a frame in each turn, ms."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    avatar, motion = synthetic.make_avatar(GAUSSIANS, SIZE), synthetic.motion(FRAMES)
    turns = [processor_ms(lambda: avatar.render(avatar.camera, motion, 3), FRAMES) for _ in range(TURNS + 1)]
    torch.set_num_threads(threads)
    return turns[1:]


def steps() -> tuple[list[float], list[float]]:
    """Time of a training step in each turn, ms: with the cores free, and with one busy process on each."""
    trainer, batch = synthetic.make_trainer(GAUSSIANS, SIZE)
    for _ in range(2):
        trainer.train_step(batch)
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    times: tuple[list[float], list[float]] = ([], [])
    try:
        for turn in range(2 * TURNS):
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


def line(name: str, turns: list[float]) -> str:
    return (
        f"{name}: median {statistics.median(turns):.1f} ms, {min(turns):.1f} to {max(turns):.1f} in {len(turns)} turns"
    )


def main() -> None:
    print(f"load before: {os.getloadavg()[0]:.1f}")
    print(line("frame, processor time", frame()))
    with training_threads():
        free, busy = steps()
    print(line("training step, cores free", free))
    print(line("training step, cores busy", busy))
    print(f"busy over free: {statistics.median(busy) / statistics.median(free):.2f}")


if __name__ == "__main__":
    main()
