"""What stands beside the numbers: how much was measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from avatar.data import PersonDataset

SHORT_SECONDS = 30.0  # of held-out video; below, the result says how little was measured


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
