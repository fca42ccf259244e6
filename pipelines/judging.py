"""What of a record may be shown and judged by the rules of today, whatever its file holds.

Older records hold intervals that `avatar eval` would not write now, and all keep numbers of lips that it shows as "too
short" only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from avatar.eval import lips
from avatar.eval.bootstrap import BLOCK_SECONDS, LEAST_BLOCKS
from avatar.preprocess.held_out import JUDGED_SECONDS

WIDENED = "2026-11-30T15:17:25Z"  # of commit b7d749e613: since then blocks have two seconds, and are counted rightly


def interval(content: Mapping[str, Any], values: Mapping[str, Any], metric: str) -> list[float] | None:
    """The 95 % interval of a metric; None where there is none, or it rests on too few seconds to be one.

    Args:
        content: Of a record, as `avatar eval` wrote it.
        values: One of its tables.
        metric: Name in it.
    """
    frames, fps = content.get("frames"), content.get("fps")
    if isinstance(frames, int) and fps and frames / max(1, round(BLOCK_SECONDS * fps)) < LEAST_BLOCKS:
        return None
    return (values.get("intervals") or {}).get(metric)


def is_narrow(content: Mapping[str, Any]) -> bool:
    """Whether the intervals of a record cover less than 95 %: blocks of a second, and older ones not widened either."""
    return str(content.get("date", "")) < WIDENED


def is_unsaid(content: Mapping[str, Any], drive: str, metric: str) -> bool:
    """Whether a number of lips rests on so little speech that `avatar eval` shows "too short" in its place.

    A record of before that rule does not say how much speech it measured; there the seconds of the video count.
    """
    if drive not in lips.SPOKEN or metric not in lips.METRICS:
        return False
    verdict, frames, fps = (content.get(name) for name in ("lips", "frames", "fps"))
    if isinstance(verdict, dict):
        return bool(verdict["too_short"])
    return isinstance(frames, int) and bool(fps) and frames / fps < JUDGED_SECONDS
