"""What `python -m pipelines.live_check` computes: what was never shown, never closed or never measured is a miss."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines import live_bars
from pipelines import live_numbers as numbers


def row(number: int, heard: int, drawn: float, real: int = 640, opening: float = 0.0) -> list[float]:
    return [number, number / 25, heard, real, drawn, opening]


def pieces_of(count: int, pushed: int = 0) -> list[tuple[int, int, int]]:
    """What the server says of pieces that were all taken."""
    return [(pushed + 320 * (n + 1), 0, 0) for n in range(count)]


def test_latency_is_that_of_the_first_image_that_reaches_a_piece() -> None:
    rows = [row(7, 1000 + 320, 50), row(8, 1000 + 640, 90), row(10, 1000 + 1600, 170)]
    images = [[7, 100.0], [8, 140.0], [10, 220.0], [99, 230.0]]  # frame 9 was left out
    shown, sent = numbers.shown_rows(images, rows), [20.0, 40.0, 60.0, 80.0, 100.0, 120.0]
    found = numbers.latencies(shown, sent, pieces_of(6, 1000), 2120)
    assert [span.ms for span in found[:5]] == [80, 100, 160, 140, 120] and all(span.shown for span in found[:5])
    assert found[5] == numbers.Span(120, 2000, False), "a piece that is never shown took as long as was watched"
    latency = numbers.latency_summary(found)
    assert latency is not None and latency["worst"] == 2000 and latency["never_shown"] == 1 and latency["count"] == 6
    nothing = numbers.latencies([], sent, pieces_of(6), 2120)
    assert len(nothing) == 6 and not any(span.shown for span in nothing), "a session without an image counts"


def test_pauses_that_the_server_leaves_out_shift_no_piece_and_lost_ones_are_never_shown() -> None:
    shown = [(float(at), row(n, 320 * (n + 1), at)) for n, at in enumerate((100, 120, 140))]
    pieces = [(320, 0, 0), (320, 320, 0), (640, 0, 0), (640, 0, 320), (960, 0, 0)]  # the last one never came
    found = numbers.latencies(shown, [0.0, 20.0, 40.0, 60.0, 80.0, 100.0], pieces, 1000)
    assert found == [(0, 100, True), (40, 80, True), (60, 940, False), (80, 60, True), (100, 900, False)]


def test_numbers_that_begin_anew_are_told_apart_by_time() -> None:
    rows = [row(7, 320, 50), row(7, 9999, 5000)]
    assert [found[2] for _, found in numbers.shown_rows([[7, 100.0], [7, 5100.0]], rows)] == [320, 9999]


def test_silence_and_a_closed_mouth_are_found_after_an_interruption() -> None:
    levels = [[float(at), -20.0 if at < 1080 else -90.0] for at in range(900, 1500, 10)]
    assert numbers.silence_after(levels, 1000, 1500) == 70
    assert numbers.silence_after(levels, 1200, 1500) is None, "it was silent already"
    shown = [(float(at), row(n, 0, at, opening=0.1 + max(0.0, 0.5 - n / 10))) for n, at in enumerate(range(0, 400, 40))]
    assert numbers.closed_after(shown, 90, 0.1, 400) == (110, True)
    assert numbers.closed_after(shown, 330, 0.1, 400) is None, "it was closed already"


def test_a_mouth_that_does_not_close_is_no_mouth_that_was_closed() -> None:
    open_all_the_time = [(float(at), row(0, 0, at, opening=0.5)) for at in range(0, 2000, 40)]
    never = numbers.closed_after(open_all_the_time, 400, 0.1, 1900)
    frozen = numbers.closed_after(open_all_the_time[:10], 400, 0.1, 1900)
    assert never == frozen == numbers.closed_after([], 400, 0.1, 1900) == (1500, False)
    found = numbers.interruptions([30.0, None, 40.0], [numbers.Closing(200, True), None, never])
    assert found["to_closed_mouth_ms"]["worst"] == 1500 and found["to_closed_mouth_ms"]["count"] == 2
    assert found["mouth_never_closed"] == 1 and found["mouth_closed_already"] == 1
    assert found["silent_already"] == 1 and found["to_silence_ms"]["p50"] == 35 and found["interruptions"] == 3


def test_offsets_are_positive_where_audio_comes_after_video() -> None:
    reports = [{"video": {"estimatedPlayoutTimestamp": 540}, "audio": {"estimatedPlayoutTimestamp": 500}}, {}]
    assert numbers.playout_offsets(reports) == [40]
    shown = [(1000.0, row(50, 0, 900))]  # second 2 of the session
    stamps = [[1000.0, 0.0, 990.0, 48000 * 1.45]]  # second 0.5 + 1.45 was played 10 ms earlier
    assert numbers.stamp_offsets(stamps, shown, 0.5) == pytest.approx([40])


def test_turns_are_what_is_loud_between_long_pauses() -> None:
    levels = [[float(at), -20.0 if at < 500 or 800 <= at < 1500 or at >= 4000 else -90.0] for at in range(0, 4300, 100)]
    assert numbers.loud_spans(levels) == [(0, 1400), (4000, 4200)]


def test_rates_and_slopes() -> None:
    found = numbers.rates([0, 40, 80, 400, 440], 0, 460)
    assert found == {"frames_per_second": 10.87, "longest_gap_ms": 320, "gaps_over_200_ms": 1}
    frozen = numbers.rates([40 * n for n in range(750)], 0, 60000)
    assert frozen == {"frames_per_second": 12.5, "longest_gap_ms": 30040, "gaps_over_200_ms": 1}
    late = numbers.rates([40 * n for n in range(10, 25)], 0, 1000)
    assert late["frames_per_second"] == 15 and late["longest_gap_ms"] == 400
    assert numbers.rates([], 0, 1000) == {"frames_per_second": 0, "longest_gap_ms": 1000, "gaps_over_200_ms": 1}
    assert numbers.slope_per_hour([0, 1800, 3600], [5, 6, 7]) == pytest.approx(2)
    times = list(range(0, 3600, 60))
    noise = np.random.default_rng(0).normal(0, 5, len(times))
    low, high = numbers.slope_interval(times, (np.asarray(times) / 300 + noise).tolist())
    assert 4 < low < 12 < high < 22
    assert numbers.summary([]) is None


def test_drift_is_per_hour_and_in_frames_of_the_avatar() -> None:
    for minutes in (5, 60):  # 24 ms an hour
        offsets = [(60.0 * n, 24 * n / 60) for n in range(minutes + 1)]
        for fps in (25.0, 50.0):
            found = numbers.drift(offsets, fps)
            assert found["drift_ms_per_hour"] == 24 and found["drift_frames_per_hour"] == pytest.approx(0.024 * fps)
            assert found["drift_ms_per_hour_interval_95"] == [24, 24]
    assert "drift_ms_per_hour_interval_95" not in numbers.drift([(0, 1), (60, 2), (120, 5)], 25)
    assert set(numbers.drift([(0, 1)], 25)) == {"lips_ms_of_turns"}


def test_intervals_of_latency_are_between_sessions_and_need_five() -> None:
    rng = np.random.default_rng(0)
    sessions = [list(200 + 10 * n + rng.normal(0, 5, 1000)) for n in range(5)]
    assert numbers.intervals(sessions[:4]) == numbers.intervals([[]]) == {}, "two are about their range, not 95 %"
    found = numbers.intervals(sessions)
    middle = np.median(np.concatenate(sessions))
    # The medians of five sessions, 200 to 240: their standard error is 7 ms, and Student's t of four 2.8.
    assert middle - 30 < found["p50"][0] < middle - 15 and middle + 15 < found["p50"][1] < middle + 30
    assert found["p95"][0] < np.quantile(np.concatenate(sessions), 0.95) < found["p95"][1]


def test_the_table_has_what_was_asked_for_and_whether_it_is_kept() -> None:
    steps = {
        "talk-webrtc": {"latency_ms": {"p50": 310.0, "p95": None}, "frames_per_second": 24.9, "chunks_never_shown": 1},
        "interruption": {"failed": "no"},
    }
    rows = {row["what"]: (row["measured"], row["kept"]) for row in live_bars.table(steps)}
    assert rows.pop("latency by WebRTC, p50, ms") == (310, False)
    assert rows.pop("frames/s by WebRTC") == (24.9, True)
    assert rows.pop("pieces of audio never shown by WebRTC") == (1, False)
    assert set(rows.values()) == {("not measured", False)}, "what failed is a bar that is missed"
    assert "latency by WebRTC, p95, ms" in rows and "interruption to silence by WebRTC, p50, ms" in rows
    assert not any("WebSocket" in what and "interruption" not in what for what in rows), "it was not asked for"


def test_of_lips_each_number_is_the_worst_of_all_sessions() -> None:
    first, second = {"mean": -7.2, "worst": 14.0, "count": 9}, {"mean": -10.4, "worst": 13.0, "count": 8}
    assert numbers.worst_lips([first, second]) == {"mean": -10.4, "worst": 14.0, "count": 17}
    assert numbers.worst_lips([first, {}]) == {}
