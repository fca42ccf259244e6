"""What `python -m pipelines.live_check` computes of what was noted, without a browser or a server."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple, TypedDict

import numpy as np

from avatar.eval.bootstrap import widened

CHUNK = 320  # samples of a piece of 20 ms
CLOCK, AUDIO_CLOCK = 90000, 48000  # ticks a second of RTP time stamps
LOUD_DB = -50.0  # of the loudness of a piece that is heard
CLOSED_SHARE = 0.1  # of the opening at which a mouth was interrupted; less is closed
OPEN_CM = 0.15  # between the lips; a mouth that is less open is closed
QUANTILES = (0.5, 0.95)
BLOCK, DRAWS = 250, 1000  # pieces of a block, 5 s, and draws of a bootstrap
LEAST_SESSIONS = LEAST_TURNS = 5  # for an interval; fewer hardly tell how much they differ
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
    p50, p95 = np.quantile(values, QUANTILES)
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1), "worst": round(float(max(values)), 1),
            "count": len(values)}  # fmt: skip


def intervals(sessions: Sequence[Sequence[float]], seed: int = 0) -> dict[str, list[float]]:
    """95 % intervals of the median and of the 95th percentile, by a bootstrap of sessions, and of blocks in them.

    Sessions differ by more than what chance does within one, and fewer than five hardly tell by how much: then there
    is no interval. Values that follow each other are alike, so blocks of `BLOCK` of them are drawn. The percentiles
    are moved away from the value as `avatar.eval.bootstrap.widened` says.
    """
    rng = np.random.default_rng(seed)
    blocks = [[one[i : i + BLOCK] for i in range(0, len(one), BLOCK)] for one in sessions if len(one)]
    if len(blocks) < LEAST_SESSIONS:
        return {}
    found: list[np.ndarray] = []
    for _ in range(DRAWS):
        drawn = [blocks[i] for i in rng.integers(0, len(blocks), len(blocks))]
        values = [block[i] for block in drawn for i in rng.integers(0, len(block), len(block))]
        found.append(np.quantile(np.concatenate(values), QUANTILES))
    at = np.quantile(np.concatenate([block for one in blocks for block in one]), QUANTILES)
    return {
        name: [round(bound, 1) for bound in widened(draws, float(value), len(blocks))]
        for name, draws, value in zip(("p50", "p95"), np.transpose(found), at)
    }


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


class Span(NamedTuple):
    """How long a piece of audio took to the screen.

    Attributes:
        sent: Milliseconds at which it was sent: the end of its 20 ms.
        ms: From then to its image; at least so many where it was not shown.
        shown: Whether it was.
    """

    sent: float
    ms: float
    shown: bool


def latencies(
    shown: Sequence[tuple[float, Sequence[Any]]], sent: Sequence[float], pieces: Sequence[Sequence[int]], until: float
) -> list[Span]:
    """From the end of each piece of audio to the first image whose audio reaches that end.

    A piece that no image reaches counts with the time from when it was sent to the end of watching: to leave it out
    would leave out the worst. Pauses that the server leaves out to be on time again have no image, and no span.

    Args:
        shown: Images in the order in which they were shown, with the server's rows.
        sent: Milliseconds at which each piece was sent.
        pieces: What the server did with each, as `pipelines.live_server.Piece`; it never got those that lack.
        until: Milliseconds at which watching ended.
    """
    spoken = [(at, int(row[2])) for at, row in shown if row[3] > 0]
    highest = list(np.maximum.accumulate([reached for _, reached in spoken])) if spoken else []
    found: list[Span] = []
    for n, at in enumerate(sent):
        pushed, left_out, lost = pieces[n] if n < len(pieces) else (0, 0, CHUNK)
        if left_out and not lost:
            continue
        first = len(highest) if lost else bisect_left(highest, pushed)
        seen = first < len(highest)
        found.append(Span(at, (spoken[first][0] if seen else until) - at, seen))
    return found


def latency_summary(spans: Sequence[Span]) -> dict[str, Any] | None:
    """`summary` of spans, and how many pieces were never shown: with some, the numbers are lower bounds."""
    found = summary([span.ms for span in spans])
    return None if found is None else {**found, "never_shown": sum(not span.shown for span in spans)}


def rates(shown: Sequence[float], begin: float, end: float) -> dict[str, float | int]:
    """Frames per second of images that were shown at some milliseconds, the longest gap, and gaps beyond 200 ms.

    The whole window from ``begin`` to ``end`` counts, so that an image that stays to its end is a gap.
    """
    inside = sorted(at for at in shown if begin <= at < end)
    gaps = [b - a for a, b in pairwise([begin, *inside, end])]
    return {
        "frames_per_second": round(1000 * len(inside) / (end - begin), 2) if end > begin else 0.0,
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


def worst_lips(sessions: Sequence[dict[str, float]]) -> dict[str, float]:
    """Of each number of lips the worst of all sessions; nothing where one session has none, which hides the worst."""
    if not all(sessions):
        return {}
    first, *others = sessions
    return {
        name: max((one[name] for one in sessions), key=abs) for name in first if all(name in one for one in others)
    } | ({"count": sum(one["count"] for one in sessions)} if all("count" in one for one in sessions) else {})


def silence_after(levels: Sequence[Sequence[float]], at: float, until: float) -> float | None:
    """Milliseconds from ``at`` to the end of the last loud piece before ``until``; None where it was silent already."""
    loud = [when for when, db in levels if at - 60 <= when < until and db > LOUD_DB]
    return round(max(0.0, max(loud) - at), 1) if loud else None


class Closing(NamedTuple):
    """When the mouth was closed for good.

    Attributes:
        ms: Milliseconds after the interruption; at least so many where it did not close.
        seen: Whether it closed.
    """

    ms: float
    seen: bool


def closed_after(shown: Sequence[tuple[float, Sequence[Any]]], at: float, rest: float, until: float) -> Closing | None:
    """From ``at`` until the mouth is closed for good, or to ``until`` where it is not; None: it was closed already."""
    before = [row[5] - rest for when, row in shown if when <= at]
    if before and before[-1] < OPEN_CM:
        return None
    after = [(when, row[5] - rest) for when, row in shown if at < when < until]
    still = [n for n, (_, gap) in enumerate(after) if not before or gap > CLOSED_SHARE * before[-1]]
    first = still[-1] + 1 if still else 0
    seen = first < len(after)
    return Closing(round((after[first][0] if seen else until) - at, 1), seen)


def interruptions(silent: Sequence[float | None], closed: Sequence[Closing | None]) -> dict[str, Any]:
    """What interruptions did: one that never closed the mouth counts with the time until which it was looked at."""
    closings = [one for one in closed if one is not None]
    return {
        "to_silence_ms": summary([one for one in silent if one is not None]),
        "to_closed_mouth_ms": summary([one.ms for one in closings]),
        "interruptions": len(closed), "silent_already": list(silent).count(None),
        "mouth_closed_already": list(closed).count(None),
        "mouth_never_closed": sum(not one.seen for one in closings),
    }  # fmt: skip


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


def memory_slope(memory: Sequence[tuple[float, int]]) -> dict[str, float]:
    """What bytes at some seconds say of memory, in MB; nothing where there are fewer than two."""
    if len(memory) < 2:
        return {}
    return {
        "memory_at_begin_mb": round(memory[0][1] / 1e6, 1), "memory_at_end_mb": round(memory[-1][1] / 1e6, 1),
        "memory_mb_per_hour": round(slope_per_hour(*zip(*memory)) / 1e6, 2),
    }  # fmt: skip


def drift(offsets: Sequence[tuple[float, float]], fps: float) -> dict[str, Any]:
    """How fast lips and sound move apart, per hour and in frames of the avatar, however long it was measured.

    Single turns differ by what the browser's buffers happen to hold, so the first and the last say little.

    Args:
        offsets: Second, and milliseconds by which audio is behind its images, of each turn.
        fps: Frames per second of the avatar.
    """
    found: dict[str, Any] = {"lips_ms_of_turns": [[round(at / 60, 1), round(value, 1)] for at, value in offsets]}
    if len(offsets) < 2:
        return found
    times, lips = zip(*offsets)
    slope = slope_per_hour(times, lips)
    found |= {"frames_per_second_of_avatar": fps, "drift_ms_per_hour": round(slope, 1),
              "drift_frames_per_hour": round(abs(slope) * fps / 1000, 2)}  # fmt: skip
    if len(offsets) >= LEAST_TURNS:
        found["drift_ms_per_hour_interval_95"] = [round(bound, 1) for bound in slope_interval(times, lips)]
    return found
