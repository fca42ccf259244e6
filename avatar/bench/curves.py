"""The whole model: seconds of a rendered frame and of a training step over Gaussians and pixels, and video length."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from avatar.bench.measure import interleaved, most_memory, start_memory
from avatar.bench.person import make_avatar, make_trainer, motion_blocks
from avatar.device import training_threads

CPU = torch.device("cpu")


def model_rows(points: Iterable[tuple[int, int]], repeats: int, seconds: float) -> list[dict[str, Any]]:
    """One row per number of Gaussians and image size: milliseconds of a frame and of a step, peak memory."""
    rows = []
    for n, size in points:
        avatar = make_avatar(n, size)
        motion = next(motion_blocks(8))
        avatar.render(avatar.camera, motion, 2)  # fills caches, which takes seconds with a million Gaussians
        frame = interleaved({"frame": lambda a=avatar, m=motion: a.render(a.camera, m, 3)}, CPU, repeats, seconds)[
            "frame"
        ]
        start_memory(CPU)
        avatar.render(avatar.camera, motion, 4)
        frame_peak = most_memory(CPU)
        del avatar
        trainer, batch = make_trainer(n, size)
        train_step = trainer.train_step
        with training_threads():
            train_step(batch)
            step = interleaved({"step": lambda run=train_step, b=batch: run(b)}, CPU, repeats, seconds)["step"]
            start_memory(CPU)
            train_step(batch)
        rows.append(
            {
                "gaussians": n, "size": size, "frame_ms": frame.ms, "frame_runs": frame.runs,
                "frame_peak_bytes": frame_peak, "step_ms": step.ms, "step_runs": step.runs,
                "step_peak_bytes": most_memory(CPU),
            }
        )  # fmt: skip
    return rows


def length_rows(lengths: Iterable[int], n: int, size: int) -> list[dict[str, Any]]:
    """One row per number of frames: seconds and peak memory of `avatar render` from motion to the finished mp4."""
    from avatar.infer.camera_path import CameraPath
    from avatar.infer.video import Job, render_video
    from avatar.io.video_writer import VideoWriter

    avatar = make_avatar(n, size)
    rows = []
    with tempfile.TemporaryDirectory(prefix="avatar-bench-") as folder:
        for frames in (8, *lengths):  # the first few fill caches and are not reported
            start_memory(CPU)
            with VideoWriter(Path(folder) / f"{frames}.mp4", size, size, avatar.fps) as writer:
                job = Job(motions=motion_blocks(frames), frames=frames)
                timing = render_video(
                    avatar, job, avatar.camera, CameraPath.parse(None), writer, at_once=avatar.frames_at_once
                )
            rows.append(
                {
                    "frames": frames, "gaussians": n, "size": size, "seconds": timing.seconds,
                    "peak_bytes": most_memory(CPU),
                }
            )  # fmt: skip
    return rows[1:]
