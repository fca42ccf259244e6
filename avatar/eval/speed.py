"""Time the pipeline of `avatar render` on held-out frames."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avatar.environment import peak_memory

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioToMotion
    from avatar.data import PersonDataset
    from avatar.infer.avatar import Avatar
    from avatar.motion import Motion

SPEED_FRAMES = 100


def measure_speed(
    avatar: Avatar, data: PersonDataset, first: int, last: int, speech: AudioToMotion | None
) -> dict[str, Any]:
    """Time rendering and encoding of up to ``SPEED_FRAMES`` held-out frames, before anything else is in memory.

    Args:
        avatar: Draws the frames.
        data: The person.
        first, last: Frames of the person; ``last`` is exclusive.
        speech: Drives the lips, and is timed with the rest. The tracked motion drives them where it is None, or where
            the person has no audio that it could hear.
    """
    from avatar.infer.camera_path import CameraPath
    from avatar.infer.replay import audio_second, drive_held_out
    from avatar.infer.video import Job, render_video
    from avatar.io.video_writer import VideoWriter

    last = min(last, first + SPEED_FRAMES)
    avatar.render(avatar.camera, data.motion, first)  # the first frame fills caches
    audio = data.audio_path if data.audio_path.is_file() else None
    speech = None if audio is None else speech
    blocks: Iterable[Motion] = [data.motion[first:last]]
    if speech is not None:
        blocks = drive_held_out(data, speech, first, last)
    with tempfile.TemporaryDirectory(prefix="avatar-eval-") as folder:
        path = Path(folder) / "speed.mp4"
        with VideoWriter(path, data.width, data.height, data.fps, audio, audio_second(data, first)) as writer:
            job = Job(motions=blocks, frames=last - first)
            timing = render_video(
                avatar, job, avatar.camera, CameraPath.parse(None), writer, at_once=avatar.frames_at_once
            )
    return {
        "frames": timing.frames,
        "render_fps": timing.frames / timing.render_seconds,
        "end_to_end_fps": timing.frames / timing.seconds,
        "device": avatar.device.type,
        "with_speech": speech is not None,
        "peak_memory_bytes": peak_memory(),
    }
