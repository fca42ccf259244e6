"""When lips are open, when they are closed, and when they go from one to the other: said against tracked.

A correlation forgives a mouth that opens too little, and openings that are missed altogether. So frames are counted as
well, by limits that are the person's own: the tracked opening's quantiles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from avatar.eval import bootstrap
from avatar.eval.bootstrap import Bootstrap
from avatar.eval.face_metrics import Segments, lag_correlation, most_lag
from avatar.motion.mouth import OPENING, PUCKER, WIDTH

CLOSED, OPEN = 0.3, 0.7  # quantiles of the person's tracked opening: closed below the first, open above the second
REACH_SECONDS = 0.2  # a said opening or closing this near to the real one is the same
Event = tuple[float, bool]  # frame, as a fraction; True: an opening, False: a closing


@dataclass(frozen=True)
class Limits:
    """What counts as closed and as open, in the unit of the opening.

    Attributes:
        closed: At most that is closed.
        open: At least that is open.
    """

    closed: float
    open: float

    @staticmethod
    def of(opening: Float[np.ndarray, " T"]) -> Limits:
        """The person's own limits, by the tracked opening [T]; NaN where it is not known."""
        return Limits(*(float(x) for x in np.nanquantile(opening, (CLOSED, OPEN))))


def lip_events(opening: Float[np.ndarray, " T"], limits: Limits) -> list[Event]:
    """Find the moments at which a mouth goes from closed to open and back, at the middle between the limits.

    A mouth that leaves one limit and returns without having reached the other made no event. Frames with NaN break the
    sequence.

    Args:
        opening: [T] gap between the lips.
        limits: What is closed and what is open.
    """
    middle = (limits.closed + limits.open) / 2
    found: list[Event] = []
    was_open: bool | None = None
    since = 0
    for frame, value in enumerate(opening):
        if not np.isfinite(value):
            was_open = None
            continue
        is_open = True if value >= limits.open else False if value <= limits.closed else None
        if is_open is None:
            continue
        if was_open is not None and is_open != was_open:
            found.append((_crossing(opening[since : frame + 1], middle, is_open) + since, is_open))
        was_open, since = is_open, frame
    return found


def matched_events(real: list[Event], said: list[Event], reach: float) -> dict[int, int]:
    """Pair real events with said ones of the same kind, the nearest first, none twice.

    Args:
        real, said: See :func:`lip_events`.
        reach: Frames that they may be apart.

    Returns:
        Number of a real event to that of the said one.
    """
    near = [
        (abs(at - other), i, k)
        for i, (at, kind) in enumerate(real)
        for k, (other, other_kind) in enumerate(said)
        if kind == other_kind and abs(at - other) <= reach
    ]
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for _, i, k in sorted(near):
        if i not in pairs and k not in taken:
            pairs[i] = k
            taken.add(k)
    return pairs


def lip_numbers(
    said: Float[np.ndarray, "T A"],
    real: Float[np.ndarray, "T A"],
    seen: Bool[np.ndarray, " T"],
    limits: Limits,
    fps: float,
    segments: Segments | None = None,
) -> dict[str, dict[str, float | list[float] | None]]:
    """Compare said and tracked lips, each number with its 95 % interval.

    Args:
        said, real: [T, len(ARTICULATION)], see `avatar.motion.mouth.articulation`.
        seen: [T] whether the face was tracked.
        limits: Of the person.
        fps: Frames per second.
        segments: Stretches of consecutive frames; None: all frames are.

    Returns:
        ``opening``, ``width``, ``pucker``: correlations; ``lag``: of the opening, frames, positive: said late;
        ``movement``: its standard deviation over the real one; ``open_hits``, ``open_false_alarms``, ``closed_hits``
        and ``closed_false_alarms``: rates of frames; ``openings_found``, ``closings_found``: share of the real events;
        ``openings_error``, ``closings_error``: mean distance of those in frames; ``events_invented``: share of the said
        events without a real one. Each is {"value", "interval"}.
    """
    segments = segments or [(0, len(said))]
    said, real = (np.where(seen[:, None], x, np.nan).astype(float) for x in (said, real))
    own, truth = said[:, OPENING], real[:, OPENING]
    resamples = Bootstrap(len(said), fps)

    def number(statistic: bootstrap.Statistic, *series: np.ndarray) -> dict[str, float | list[float] | None]:
        return {
            "value": bootstrap.value(statistic, *series),
            "interval": resamples.interval(statistic, *series),
        }

    columns = {"opening": OPENING, "width": WIDTH, "pucker": PUCKER}
    rows = {name: number(bootstrap.correlation, said[:, i], real[:, i]) for name, i in columns.items()}
    lag = lag_correlation(own, truth, segments, most_lag(fps)).lag
    rows["lag"] = {"value": None if lag is None else float(lag), "interval": None}
    rows["movement"] = number(bootstrap.spread_ratio, own, truth)
    counted = frame_series(own, truth, limits) | event_series(own, truth, limits, fps, segments)
    for name, series in counted.items():
        rows[name] = number(bootstrap.mean if name.endswith("_error") else bootstrap.share, series)
    return rows


def frame_series(
    said: Float[np.ndarray, " T"], real: Float[np.ndarray, " T"], limits: Limits
) -> dict[str, Float[np.ndarray, " T"]]:
    """Tell whether frames are said to be open and closed.

    Each is [T], 1 or 0 at the frames that count, and NaN at the others. Hits count at frames that are really open
    (closed), false alarms at those that are really not.
    """
    known = np.isfinite(said) & np.isfinite(real)
    kinds = {
        "open": (said >= limits.open, real >= limits.open),
        "closed": (said <= limits.closed, real <= limits.closed),
    }
    rows = {}
    for name, (claimed, true) in kinds.items():
        rows[f"{name}_hits"] = np.where(known & true, claimed.astype(float), np.nan)
        rows[f"{name}_false_alarms"] = np.where(known & ~true, claimed.astype(float), np.nan)
    return rows


def event_series(
    said: Float[np.ndarray, " T"], real: Float[np.ndarray, " T"], limits: Limits, fps: float, segments: Segments
) -> dict[str, Float[np.ndarray, " T"]]:
    """Which openings and closings are found, and how many frames off, at their frames; NaN elsewhere, [T] each."""
    names = ("openings_found", "openings_error", "closings_found", "closings_error", "events_invented")
    rows = {name: np.full(len(said), np.nan) for name in names}
    for start, end in segments:
        true, claimed = (lip_events(x[start:end], limits) for x in (real, said))
        pairs = matched_events(true, claimed, REACH_SECONDS * fps)
        for i, (at, opens) in enumerate(true):
            name, frame = ("openings" if opens else "closings"), start + int(at)
            rows[f"{name}_found"][frame] = float(i in pairs)
            if i in pairs:
                rows[f"{name}_error"][frame] = abs(claimed[pairs[i]][0] - at)
        for k, (at, _) in enumerate(claimed):
            rows["events_invented"][start + int(at)] = float(k not in pairs.values())
    return rows


def _crossing(values: np.ndarray, level: float, upwards: bool) -> float:
    """Where values that are on one side of a level at first, and on the other at last, cross it for the last time."""
    beyond = values >= level if upwards else values <= level
    last = int(np.flatnonzero(~beyond)[-1])
    return last + float((level - values[last]) / (values[last + 1] - values[last]))


def second_rendering(
    channels: Float[np.ndarray, "T C"],
    words: list[tuple[float, float, str]],
    start: int,
    stop: int,
    fps: float,
) -> Float[np.ndarray, "n C"]:
    """Find what the person's mouth did elsewhere, at the words of a part.

    Each word is taken from where the same word is said outside the part, with the same neighbours if there is such a
    place, and stretched to its length. Two renderings that differ from the person's mean by chance correlate with each
    other as the square of what either has with that mean.

    Args:
        channels: [T, C] of the whole track.
        words: Their times in seconds, pauses included ("sil").
        start, stop: The part, frames.
        fps: Frames per second.

    Returns:
        [stop - start, C]; NaN where a word is said nowhere else.
    """
    out = np.full((stop - start, channels.shape[1]), np.nan)
    spoken = [word for _, _, word in words]
    near = [(spoken[i - 1] if i else "", w, spoken[i + 1] if i + 1 < len(spoken) else "") for i, w in enumerate(spoken)]
    places = [
        i for i, (a, b, _) in enumerate(words) if b * fps < start or (a * fps >= stop and b * fps <= len(channels))
    ]
    for i, (a, b, word) in enumerate(words):
        frames = np.arange(max(start, int(np.ceil(a * fps))), min(stop, int(np.ceil(b * fps))))
        same = [k for k in places if spoken[k] == word]
        if not len(frames) or not same or b <= a:
            continue
        best = max(same, key=lambda k: sum(x == y for x, y in zip(near[k], near[i], strict=True)))
        c, d, _ = words[best]
        at = (c + (frames / fps - a) / (b - a) * (d - c)) * fps
        low = np.clip(at.astype(int), 0, len(channels) - 2)
        mix = np.clip(at - low, 0, 1)[:, None]
        out[frames - start] = channels[low] * (1 - mix) + channels[low + 1] * mix
    return out
