"""Rendering motion into a video: speech, frames and encoding overlap, in constant memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from avatar import log
from avatar.device import cpu_threads
from avatar.errors import AvatarError
from avatar.infer.avatar import checked_motion
from avatar.infer.pipeline import Worker, in_order, prefetch
from avatar.io.images import resize as resize_image

if TYPE_CHECKING:
    from avatar.geometry.cameras import Camera
    from avatar.infer.avatar import Avatar
    from avatar.infer.camera_path import CameraPath
    from avatar.io.video_writer import VideoWriter
    from avatar.motion import Motion
    from avatar.provenance.disclosure import Disclosure


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be rendered.

    Attributes:
        motions: Blocks of motion.
        frames: Frames in all.
        audio: File whose audio goes into the video.
        audio_start: Second of it that belongs to the first frame.
        audio_track: Number of its audio track, from 1; None: the one that all readers choose.
        background: What is behind the person in the n-th frame, uint8 RGB [H, W, 3]; None: the avatar's own.
    """

    motions: Iterable[Motion]
    frames: int
    audio: Path | None = None
    audio_start: float = 0.0
    audio_track: int | None = None
    background: Callable[[int], np.ndarray] | None = None

    def limited(self, frames: int | None) -> Job:
        """The first so many frames of it; None: all."""
        if frames is None:
            return self
        return replace(self, motions=limited(self.motions, frames), frames=min(self.frames, frames))


class Timing(NamedTuple):
    """Frames rendered, seconds inside the renderer (the mean of its threads), and seconds in all."""

    frames: int
    render_seconds: float
    seconds: float


def render_video(
    avatar: Avatar, job: Job, camera: Camera, path: CameraPath, writer: VideoWriter,
    done: Callable[[], object] = lambda: None, at_once: int = 1,
) -> Timing:  # fmt: skip
    """Render a job into a video.

    Args:
        avatar: Draws the frames.
        job: Blocks of motion, and what is behind the person.
        camera: The camera that ``path`` moves.
        path: Camera path over time.
        writer: Takes the frames.
        done: Called after each frame.
        at_once: How many frames are drawn at the same time, each in one thread: see `Avatar.frames_at_once`.
    """

    def frames() -> Iterator[tuple[Camera, Motion, int, Tensor | None]]:
        count = 0
        for block in checked_motion(avatar, prefetch(job.motions)):
            for i in range(len(block)):
                behind = None if job.background is None else torch.from_numpy(job.background(count))
                yield path.camera(camera, avatar.pivot, count / avatar.fps), block, i, behind
                count += 1

    def draw(frame: tuple[Camera, Motion, int, Tensor | None]) -> tuple[np.ndarray, float]:
        view, block, i, behind = frame
        start = time.perf_counter()
        image = avatar.render(view, block, i, background=behind).cpu()  # waits for a GPU: timed too
        return image.numpy(), time.perf_counter() - start

    began = time.perf_counter()
    rendering, count = 0.0, 0
    with cpu_threads(1) if at_once > 1 else nullcontext(), Worker(writer.write) as encoder:
        for image, seconds in in_order(draw, frames(), at_once):
            encoder.put(image)
            rendering += seconds
            count += 1
            done()
    return Timing(count, rendering / at_once, time.perf_counter() - began)


def render_file(
    avatar: Avatar, job: Job, camera: Camera, path: CameraPath, out: Path, disclosure: Disclosure, comment: str = ""
) -> Timing:  # fmt: skip
    """Render a job into an mp4, with progress, and say how fast it was.

    Args:
        avatar: Draws the frames.
        job: What to render.
        camera: ``avatar.view_camera``, or that at another size: what is around the trained part is shown as well.
        path: Camera path over time.
        out: The file.
        disclosure: How it says that a program made it.
        comment: Metadata of the file.

    Raises:
        AvatarError: There is no frame, or the file cannot be written.
    """
    from avatar.io.video_writer import VideoWriter

    size = camera.width, camera.height
    if (filmed := job.background) is not None:
        job = replace(job, background=lambda n: _sized(filmed(n), size))
    elif (behind := avatar.view_background(camera)) is not None:
        job = replace(job, background=lambda _: behind)
    with log.progress() as bar:
        task = bar.add_task("Rendering", total=job.frames, info="")
        with VideoWriter(
            out, *size, avatar.fps, job.audio, job.audio_start, audio_track=job.audio_track, comment=comment,
            disclosure=disclosure,
        ) as writer:  # fmt: skip
            timing = render_video(avatar, job, camera, path, writer, lambda: bar.advance(task), avatar.frames_at_once)
    if timing.frames == 0:
        raise AvatarError("There is nothing to render:", why="the input has no frames.")
    rate = timing.frames / timing.seconds
    log.info(
        f"{out}: {timing.frames} frames ({timing.frames / avatar.fps:.1f} s) in {timing.seconds:.1f} s, "
        f"{rate:.1f} frames/s, {rate / avatar.fps:.2f} times real time."
    )
    return timing


def _sized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a background to the size of the video, as `Avatar.view_background` does; models are slower at it."""
    return image if image.shape[1::-1] == size else resize_image(image, size)


def limited(motions: Iterable[Motion], frames: int) -> Iterator[Motion]:
    """The first ``frames`` frames of blocks of motion."""
    for block in motions:
        block = block[:frames]
        frames -= len(block)
        yield block
        if frames <= 0:
            return


def resize(camera: Camera, size: int | None) -> Camera:
    """The camera at a size in pixels of its longer side; None: as it is."""
    if size is None:
        return camera
    scale = size / max(camera.width, camera.height)
    return camera.resized(max(2, round(camera.width * scale)), max(2, round(camera.height * scale)))
