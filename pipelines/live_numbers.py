"""What `python -m pipelines.live_check` computes of what was noted, without a browser or a server."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np

CHUNK = 320  # samples of a piece of 20 ms
CLOCK, AUDIO_CLOCK = 90000, 48000  # ticks a second of RTP time stamps
LOUD_DB = -50.0  # of the loudness of a piece that is heard
CLOSED_SHARE = 0.1  # of the opening at which a mouth was interrupted; less is closed
BLOCK, DRAWS = 250, 1000  # pieces of a block, 5 s, and draws of a bootstrap
GAP_MS = 200.0  # between two images is a freeze


class Summary(TypedDict):
    """Percentiles of some values."""

    p50: float
    p95: float
    worst: float
    count: int


def summary(values: Sequence[float]) -> Summary | None:
    """Median, 95th percentile, most; None without values."""
    if not len(values):
        return None
    p50, p95 = np.quantile(values, (0.5, 0.95))
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "worst": round(float(max(values)), 1),
            "count": len(values)}  # fmt: skip


def intervals(sessions: Sequence[Sequence[float]], seed: int = 0) -> dict[str, list[float]]:
    """95 % intervals of the median and of the 95th percentile, by a bootstrap of sessions, and of blocks in them.

    Values that follow each other are alike, so blocks of `BLOCK` of them are drawn; of one session only those.
    """
    rng = np.random.default_rng(seed)
    blocks = [[one[i : i + BLOCK] for i in range(0, len(one), BLOCK)] for one in sessions if len(one)]
    if not blocks:
        return {}
    found: list[np.ndarray] = []
    for _ in range(DRAWS):
        drawn = [blocks[i] for i in rng.integers(0, len(blocks), len(blocks))]
        values = [block[i] for block in drawn for i in rng.integers(0, len(block), len(block))]
        found.append(np.quantile(np.concatenate(values), (0.5, 0.95)))
    low, high = np.quantile(found, (0.025, 0.975), axis=0)
    return {name: [round(float(low[n]), 1), round(float(high[n]), 1)] for n, name in enumerate(("p50", "p95"))}


def shown_rows(images: Sequence[Sequence[Any]], rows: Sequence[Sequence[Any]]) -> list[tuple[float, Sequence[Any]]]:
    """Match images that a page showed, ``[number, shown ms, ...]``, with the server's rows ``[number, pts, ...]``.

    Numbers begin anew after 65536 frames; of rows with the same number the newest one before the image counts.
    """
    by_number: dict[int, list[Sequence[Any]]] = {}
    for row in rows:
        by_number.setdefault(row[0], []).append(row)
    found: list[tuple[float, Sequence[Any]]] = []
    for number, shown, *_ in images:
        before = [row for row in by_number.get(number, ()) if row[4] <= shown + 50]
        if before:
            found.append((float(shown), before[-1]))
    return sorted(found, key=lambda one: one[0])


def latencies(shown: Sequence[tuple[float, Sequence[Any]]], sent: Sequence[float], pushed: int) -> list[float]:
    """Milliseconds from the end of each piece of audio to the first image whose audio reaches that end.

    Args:
        shown: Images in the order in which they were shown, with the server's rows.
        sent: Milliseconds at which each piece was sent.
        pushed: Samples that had been pushed before.
    """
    spoken = [(at, row) for at, row in shown if row[3] > 0 and row[2] > pushed]
    reached = [int(row[2]) - pushed for _, row in spoken]
    highest = list(np.maximum.accumulate(reached)) if reached else []
    found: list[float] = []
    for n, at in enumerate(sent):
        first = bisect_left(highest, (n + 1) * CHUNK)
        if first == len(highest):
            break
        found.append(spoken[first][0] - at)
    return found


def rates(shown: Sequence[float]) -> dict[str, float | int]:
    """Frames per second of images that were shown at some milliseconds, the longest gap, and gaps beyond 200 ms."""
    if len(shown) < 2:
        return {"frames_per_second": 0.0, "longest_gap_ms": 0.0, "gaps_over_200_ms": 0}
    gaps = [b - a for a, b in pairwise(sorted(shown))]
    return {
        "frames_per_second": round(1000 * len(gaps) / (max(shown) - min(shown)), 2),
        "longest_gap_ms": round(max(gaps), 1), "gaps_over_200_ms": sum(gap > GAP_MS for gap in gaps),
    }  # fmt: skip


def playout_offsets(reports: Sequence[dict[str, Any]]) -> list[float]:
    """Milliseconds by which audio is behind its images, by ``estimatedPlayoutTimestamp`` (> 0: audio after video)."""
    return [
        video["estimatedPlayoutTimestamp"] - audio["estimatedPlayoutTimestamp"]
        for video, audio in ((one.get("video") or {}, one.get("audio") or {}) for one in reports)
        if video.get("estimatedPlayoutTimestamp") and audio.get("estimatedPlayoutTimestamp")
    ]


def stamp_offsets(
    sync: Sequence[Sequence[float]], shown: Sequence[tuple[float, Sequence[Any]]], first_audio: float
) -> list[float]:
    """Milliseconds by which audio is behind its images, by the session's own time stamps (> 0: audio after video).

    Args:
        sync: ``[image on the screen, its RTP time stamp, packet of audio played, its RTP time stamp]``.
        shown: Images with rows; they say which second of the session an image is.
        first_audio: Second of the session at which audio's time stamps begin.
    """
    seconds = {round(at, 1): row[1] for at, row in shown}
    found: list[float] = []
    for at, _, played, stamp in sync:
        pts = seconds.get(round(at, 1))
        if pts is None or not played:
            continue
        heard = first_audio + stamp / AUDIO_CLOCK + (at - played) / 1000  # second that is heard as the image shows
        found.append(1000 * (pts - heard))
    return found


def silence_after(levels: Sequence[Sequence[float]], at: float, until: float) -> float | None:
    """Milliseconds from ``at`` to the end of the last loud piece before ``until``; None where it was silent already."""
    loud = [when for when, db in levels if at - 60 <= when < until and db > LOUD_DB]
    return round(max(0.0, max(loud) - at), 1) if loud else None


def closed_after(shown: Sequence[tuple[float, Sequence[Any]]], at: float, rest: float, until: float) -> float | None:
    """Milliseconds from ``at`` until the mouth is closed for good; None where it was closed already."""
    before = [row[5] - rest for when, row in shown if when <= at]
    opening = before[-1] if before else 0.0
    if opening < 0.15:  # centimetres
        return None
    after = [(when, row[5] - rest) for when, row in shown if at < when < until]
    still = [n for n, (_, gap) in enumerate(after) if gap > CLOSED_SHARE * opening]
    first = still[-1] + 1 if still else 0
    return round(after[first][0] - at, 1) if first < len(after) else None


def loud_spans(levels: Sequence[Sequence[float]], pause: float = 1000.0) -> list[tuple[float, float]]:
    """Begins and ends of what is louder than silence, milliseconds, with pauses of less than ``pause`` in them."""
    loud = [at for at, db in levels if db > LOUD_DB]
    spans: list[tuple[float, float]] = []
    for at in loud:
        if spans and at - spans[-1][1] < pause:
            spans[-1] = (spans[-1][0], at)
        else:
            spans.append((at, at))
    return spans


def slope_per_hour(times: Sequence[float], values: Sequence[float]) -> float:
    """Slope of a line through values, per hour, times in seconds."""
    if len(times) < 2:
        return 0.0
    return float(np.polyfit(np.asarray(times) / 3600, values, 1)[0])


def slope_interval(times: Sequence[float], values: Sequence[float], draws: int = 2000) -> tuple[float, float]:
    """95 % interval of `slope_per_hour`, by a bootstrap of the points."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(times), (draws, len(times)))
    chosen = chosen[np.ptp(chosen, axis=1) > 0]
    slopes = [slope_per_hour(np.asarray(times)[one].tolist(), np.asarray(values)[one].tolist()) for one in chosen]
    low, high = np.percentile(slopes, [2.5, 97.5])
    return float(low), float(high)
