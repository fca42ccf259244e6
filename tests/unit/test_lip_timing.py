"""When lips are open and closed: counted frames, times of openings and closings, and a word said elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from avatar.eval.face_metrics import most_lag
from avatar.eval.lip_timing import Limits, event_series, frame_series, lip_events, lip_numbers, matched_events
from avatar.eval.lip_timing import second_rendering as rendering
from avatar.motion.mouth import ARTICULATION, OPENING, WIDTH

FPS = 25.0


def mouth(seconds: float = 20.0, seed: int = 0) -> np.ndarray:
    """Articulation [T, A] of somebody who talks; all articulators do the same."""
    noise = np.random.default_rng(seed).standard_normal(round(seconds * FPS) + 8)
    swing = np.convolve(noise, np.ones(9) / 3, "valid")
    return np.repeat(swing[:, None], len(ARTICULATION), 1)


def numbers(said: np.ndarray, real: np.ndarray, fps: float = FPS) -> dict[str, float]:
    limits = Limits.of(real[:, OPENING])
    rows = lip_numbers(said, real, np.ones(len(real), bool), limits, fps)
    return {name: row["value"] for name, row in rows.items() if isinstance(row["value"], float)}


def test_the_real_mouth_is_right_in_everything() -> None:
    perfect = numbers(mouth(), mouth())
    for name in ("opening", "width", "pucker", "movement", "open_hits", "closed_hits", "openings_found"):
        assert perfect[name] == pytest.approx(1)
    for name in ("lag", "open_false_alarms", "closed_false_alarms", "openings_error", "events_invented"):
        assert perfect[name] == pytest.approx(0)


def test_half_the_movement_keeps_its_correlation_and_loses_openings() -> None:
    half = numbers(0.5 * mouth(), mouth())
    assert half["opening"] == pytest.approx(1) and half["movement"] == pytest.approx(0.5)
    assert half["open_hits"] < 0.8 and half["openings_found"] < 0.8 and half["open_false_alarms"] == 0


def test_a_mouth_that_is_a_frame_late_is_said_to_be() -> None:
    late = numbers(np.roll(mouth(), 1, 0), mouth())
    assert late["lag"] == 1
    assert late["openings_error"] == pytest.approx(1) and late["closings_error"] == pytest.approx(1)


@pytest.mark.parametrize(("fps", "most"), [(25.0, 10), (50.0, 20), (2.0, 1)])
def test_a_lag_is_looked_for_in_seconds(fps: float, most: int) -> None:
    assert most_lag(fps) == most
    assert numbers(np.roll(mouth(), most - 1, 0), mouth(), fps)["lag"] == most - 1
    assert "lag" not in numbers(np.roll(mouth(), most, 0), mouth(), fps)  # it may be larger


def test_another_mouth_invents_what_it_says() -> None:
    other = numbers(mouth(seed=1), mouth())
    assert abs(other["opening"]) < 0.4 and other["events_invented"] > 0.3 and other["openings_found"] < 0.6


def test_an_opening_is_where_the_mouth_goes_all_the_way() -> None:
    limits = Limits(closed=0.0, open=1.0)
    track = np.array([0, 0, 0.4, 0.8, 0.2, 0, 0, 1, 1, 0.6, 0.4, 0, np.nan, 1, 1, 0.0])
    assert lip_events(track, limits) == [(6.5, True), (9.5, False), (14.5, False)]


def test_events_are_paired_once_and_with_their_own_kind() -> None:
    real, said = [(10.0, True), (12.0, True), (20.0, False)], [(11.5, True), (20.0, True), (29.0, False)]
    assert matched_events(real, said, 5.0) == {1: 0}


def test_frames_that_were_not_seen_count_for_nothing() -> None:
    real, limits = mouth()[:, OPENING].copy(), Limits.of(mouth()[:, OPENING])
    said = real.copy()
    real[100:200] = np.nan
    said[100:200] = 99.0
    rows = frame_series(said, real, limits) | event_series(said, real, limits, FPS, [(0, len(real))])
    assert np.nanmean(rows["open_hits"]) == 1 and np.nanmax(rows["open_false_alarms"]) == 0
    assert np.isnan(rows["open_hits"][100:200]).all()


def test_a_mouth_that_never_moves_has_no_correlation() -> None:
    still = lip_numbers(0 * mouth(), mouth(), np.ones(500, bool), Limits.of(mouth()[:, OPENING]), FPS)
    assert still["opening"]["value"] is None and still["openings_found"]["value"] == 0


def test_a_word_is_taken_from_where_it_is_said_between_the_same_words() -> None:
    channels = np.zeros((200, 2))
    channels[50:60], channels[100:120], channels[150:170] = 1.0, 2.0, 3.0
    words = [(0.0, 2.0, "one"), (2.0, 2.4, "two"), (2.4, 4.0, "sil"), (4.0, 4.8, "two"), (4.8, 6.0, "soon"),
             (6.0, 6.8, "two"), (6.8, 8.0, "soon")]  # fmt: skip
    said = rendering(channels, words, 100, 120, FPS)
    assert np.median(said[:, 0]) == 3.0  # not 1: "soon" follows there as well
    assert np.isnan(rendering(channels, words[:2], 50, 60, FPS)).all()


def test_width_is_counted_by_itself() -> None:
    said = mouth()
    said[:, WIDTH] = mouth(seed=3)[:, WIDTH]
    rows = numbers(said, mouth())
    assert rows["opening"] == pytest.approx(1) and rows["width"] < 0.5
