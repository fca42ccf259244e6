"""Motion that drives a measured video.

``tracked`` is the tracked motion of the held-out frames: it measures the image. ``audio`` takes the lips from audio
that the avatar never heard: it measures talking. ``shuffled`` takes them from another part of that audio, half its
length away: a metric that cannot tell it from ``audio`` does not measure talking.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from avatar.infer.controls import Controls
from avatar.infer.planner import plan_motion
from avatar.infer.replay import drive_held_out
from avatar.infer.sources import AudioFile
from avatar.infer.video import limited
from avatar.motion import Motion
from avatar.motion.mouth import with_lips

if TYPE_CHECKING:
    from avatar.audio2motion.base import AudioToMotion
    from avatar.data import PersonDataset
    from avatar.infer.avatar import Avatar


def driven_held_out(data: PersonDataset, speech: AudioToMotion, first: int, last: int) -> dict[str, Motion]:
    """Drive held-out frames by their audio, and by another part of it: audio and shuffled.

    Args:
        data: The person.
        speech: Its audio-to-motion network.
        first, last: Frames of the person; ``last`` is exclusive.
    """
    return _with_floor(whole(drive_held_out(data, speech, first, last), last - first))


def driven_novel(avatar: Avatar, speech: AudioToMotion, audio: AudioFile, frames: int) -> dict[str, Motion]:
    """Drive the lips by an audio file, all else by a loop of the person's own motion: audio and shuffled.

    There are ``frames`` frames, or fewer: the header of a file may promise more than can be decoded.
    """
    plan = plan_motion(avatar, Controls(), frames=audio.frames(avatar.fps), speech=speech, voice_db=audio.voice_db)
    return _with_floor(Motion.cat(list(limited(plan.stream(audio), frames))))


def whole(blocks: Iterable[Motion], frames: int) -> Motion:
    """Join blocks of motion; a drive that ends early is a bug that must not pass as a short video."""
    motion = Motion.cat(list(blocks))
    if len(motion) != frames:
        raise RuntimeError(f"the drive has {len(motion)} of {frames} frames")
    return motion


def _with_floor(spoken: Motion) -> dict[str, Motion]:
    # Shifting the lips in a circle is shifting the audio in a circle, but for the seconds around its two ends.
    shifted = torch.arange(len(spoken)).roll(len(spoken) // 2)
    return {"audio": spoken, "shuffled": with_lips(spoken, spoken[shifted])}
