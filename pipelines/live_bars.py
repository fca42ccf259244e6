"""Bars of `python -m pipelines.live_check`: each number that was asked for, beside the one measured."""

from __future__ import annotations

from typing import Any, NamedTuple

NOT_MEASURED = "not measured"


class Bar(NamedTuple):
    """A number that was asked for.

    Attributes:
        what: In words.
        path: Where the record has it: the step, then keys.
        limit: What it may be.
        least: Whether it must be that much at least, and not at most.
    """

    what: str
    path: str
    limit: float
    least: bool = False


BARS = (
    Bar("latency by WebRTC, p50, ms", "talk-webrtc latency_ms p50", 300),
    Bar("latency by WebRTC, p95, ms", "talk-webrtc latency_ms p95", 400),
    Bar("latency by WebSocket, p50, ms", "talk-websocket latency_ms p50", 260),
    Bar("latency by WebSocket, p95, ms", "talk-websocket latency_ms p95", 350),
    Bar("pieces of audio never shown by WebRTC", "talk-webrtc chunks_never_shown", 0),
    Bar("pieces of audio never shown by WebSocket", "talk-websocket chunks_never_shown", 0),
    Bar("lips against sound by WebRTC, mean, ms", "talk-webrtc lips_ms mean_size", 40),
    Bar("lips against sound by WebRTC, worst, ms", "talk-webrtc lips_ms worst", 80),
    Bar("lips against sound by WebSocket, mean, ms", "talk-websocket lips_ms mean_size", 40),
    Bar("lips against sound by WebSocket, worst, ms", "talk-websocket lips_ms worst", 80),
    Bar("frames/s by WebRTC", "talk-webrtc frames_per_second", 24, least=True),
    Bar("freezes by WebRTC", "talk-webrtc freezeCount", 0),
    Bar("frames/s by WebSocket", "talk-websocket frames_per_second", 24, least=True),
    Bar("freezes by WebSocket", "talk-websocket gaps_over_200_ms", 0),
    Bar("interruption to silence by WebRTC, p50, ms", "interruption webrtc to_silence_ms p50", 100),
    Bar("interruption to silence by WebSocket, p50, ms", "interruption websocket to_silence_ms p50", 100),
    Bar("interruption to closed mouth by WebRTC, p50, ms", "interruption webrtc to_closed_mouth_ms p50", 250),
    Bar("interruption to closed mouth by WebSocket, p50, ms", "interruption websocket to_closed_mouth_ms p50", 250),
    Bar("page loaded to first image by WebRTC, p50, ms", "first-image webrtc from_load_event_ms p50", 1500),
    Bar("page loaded to first image by WebSocket, p50, ms", "first-image websocket from_load_event_ms p50", 1500),
    Bar("cores taken away: samples concealed by WebRTC", "busy-cores webrtc concealedSamples", 0),
    Bar("cores taken away: underruns by WebSocket", "busy-cores websocket underruns", 0),
    Bar("5 s after, latency by WebRTC, p95, ms", "busy-cores webrtc latency_from_5_s_after_ms p95", 400),
    Bar("5 s after, latency by WebSocket, p95, ms", "busy-cores websocket latency_from_5_s_after_ms p95", 350),
    Bar("memory of the server, MB per hour", "hour memory_mb_per_hour", 5),
    Bar("drift of lips against sound, frames per hour", "hour drift_frames_per_hour", 0.5),
)


def table(steps: dict[str, Any]) -> list[dict[str, Any]]:
    """Each number that was asked for, beside the one measured, and whether it is kept.

    Steps that were not made have no row. In one that was, a number that is missing is a bar that is missed. So are all
    bars of a step that did not come to its end: what it measured until then is not what was asked for.
    """
    found: list[dict[str, Any]] = []
    for bar in BARS:
        first, *keys = bar.path.split()
        if first not in steps:
            continue
        value: Any = steps[first]
        whole = not {"failed", "ended"} & set(value)
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            found.append({"what": bar.what, "asked": bar.limit, "measured": NOT_MEASURED, "kept": False})
        else:
            kept = whole and (value >= bar.limit if bar.least else value <= bar.limit)
            found.append({"what": bar.what, "asked": bar.limit, "measured": value, "kept": bool(kept)})
    return found
