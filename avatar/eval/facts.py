"""What stands beside the numbers: how much was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from avatar.data import PersonDataset

SHORT_SECONDS = 30.0  # of held-out video; below, the result says how little was measured
LEAST_SEEN = 0.5  # of the real frames; below, their face was hardly measured


def count_clips(data: PersonDataset, first: int, last: int) -> int:
    """Continuous runs of frames, between two cuts, of which frames ``first`` to ``last`` (exclusive) show a part."""
    return sum(start < last and end > first for start, end in data.segments)


def shortness(frames: int, fps: float, clips: int | None) -> list[str]:
    """A note where little held-out video was measured; ``clips`` is None with novel audio."""
    seconds = frames / fps
    if clips is None or seconds >= SHORT_SECONDS:
        return []
    of = "one clip" if clips == 1 else f"{clips} clips"
    return [f"{frames} frames of {of} are {seconds:.1f} s: little to measure on. Other video may read otherwise."]


def unseen(seen: np.ndarray, tracked: np.ndarray) -> list[str]:
    """A sentence where most real faces were missed although `avatar prepare` found them: more video would not help.

    Args:
        seen: [T] bool, real frames in which a face was found.
        tracked: [T] bool, those in which `avatar prepare` found it.
    """
    if seen.mean() >= LEAST_SEEN or tracked.mean() < LEAST_SEEN:
        return []
    return [
        f"A face was found in only {seen.mean():.0%} of the measured real frames, by `avatar prepare` in "
        f"{tracked.mean():.0%} of them: numbers of face and lips say little. The face may be too small in the frame: "
        "prepare the video with a larger --size, or with --frame head."
    ]
