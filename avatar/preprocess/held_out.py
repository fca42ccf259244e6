"""Which frames are held out from training: the last part of the video, long enough to judge lips by.

A tenth of a short video says little about lips. Over windows of an anchor's video, the correlation of the mouth opening
with the tracked one spreads by 0.15 (standard deviation) at 5 seconds, by 0.08 at 15 (docs/notes/evaluation.md).
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from avatar.errors import AvatarError

SHARE = 0.1  # of the video is held out ...
LEAST_SECONDS = 15.0  # ... but at least so much of it in which the person is seen and speaks ...
MOST_SHARE = 0.3  # ... and at most this share of the video
JUDGED_SECONDS = 10.0  # such seconds below which `avatar eval` does not judge lips: then a tenth does as well
LEAST_LEARNED = 0.5, 4.0  # share of the video, or else seconds, that --held-out-s must leave to learn from

HeldOut = float | Literal["auto"]


def first_held_out(useful: np.ndarray, fps: float, seconds: HeldOut = "auto") -> int:
    """Choose the first held-out frame; all from there to the end are held out.

    Args:
        useful: [T] bool, whether the person is seen and speaks, pauses of up to two seconds included.
        fps: Frames per second.
        seconds: How much to hold out. auto: a tenth, or more where that has less than 15 s of useful frames, but not
            over 30 % of the video. It stays a tenth where 30 % has less than 10 s of them: lips cannot be judged then,
            and a short video has no second to spare.

    Returns:
        A frame, 0 to T - 1: at least the last one is held out.
    """
    frames = len(useful)
    if seconds != "auto":
        return int(np.clip(frames - round(seconds * fps), 0, frames - 1))
    tenth, earliest = (min(frames - 1, round(frames * (1 - share))) for share in (SHARE, MOST_SHARE))
    left = np.cumsum(useful[::-1])[::-1]  # useful frames from each frame on
    if left[earliest] < JUDGED_SECONDS * fps:
        return tenth
    enough = int(np.count_nonzero(left >= round(LEAST_SECONDS * fps))) - 1  # the last frame with enough behind it
    return min(tenth, max(enough, earliest))


def check_length(seconds: HeldOut, video_seconds: float, named: int | None) -> None:
    """Refuse to hold out what leaves too little to learn from, or another part than papers compare on.

    Args:
        seconds: What the user wants.
        video_seconds: Length of the video.
        named: The first held-out frame of a dataset with a split of its own.

    Raises:
        AvatarError: It leaves less than half of the video and less than 4 s, or there is a split.
    """
    if seconds == "auto":
        return
    if named is not None:
        raise AvatarError(
            f"The dataset has a split of its own, from frame {named} on.", why="Papers compare on it.",
            fix="Leave --held-out-s out.",
        )  # fmt: skip
    share, least = LEAST_LEARNED
    left = max(video_seconds - seconds, 0.0)
    if left < min(share * video_seconds, least):
        raise AvatarError(
            f"--held-out-s {seconds:g} leaves {left:.1f} s to learn from: the video is {video_seconds:.1f} s long.",
            fix=f"Leave half of it, or {least:g} s; or give auto.",
        )


def held_out_text(frames: int, first: int, fps: float) -> str | None:
    """Say what is held out, where it is more than a tenth of the video."""
    if first >= min(frames - 1, round(frames * (1 - SHARE))):
        return None
    seconds = (frames - first) / fps
    return (
        f"The last {seconds:.1f} s ({1 - first / frames:.0%}) are held out from training, so that `avatar eval` can "
        "judge the lips. To hold out less or more, pass --held-out-s SECONDS."
    )
