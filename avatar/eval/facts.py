"""What stands beside the numbers: how much was measured, and how the run was trained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def training(run: Path) -> dict[str, Any]:
    """What a run's training came to, and when, where and from which commit; ``earlier`` are parts before a resume."""
    from avatar.checks import Record, number
    from avatar.paths import read_json

    kept = (run / "training.json", run / "environment.json")
    result, place = (Record(read_json(path), path).data if path.is_file() else {} for path in kept)
    for name, value in result.items():  # they go into the JSON of the evaluation and its report
        if isinstance(value, int | float) and not isinstance(value, bool):
            number(value, f"{kept[0]}: {name}", -1e12, 1e12)
    return result | {name: place[name] for name in ("date", "commit", "hardware", "earlier") if name in place}
