"""Whether numbers of lips are said to mean something: enough speech, and better than other sound."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avatar.eval import lips, report, report_html
from avatar.io.audio import write_wav

FPS = 25.0


def mouths(seconds: float, noise: float, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Series of a real mouth, of one that follows it but for ``noise``, and of the same shifted by half."""
    rng = np.random.default_rng(seed)

    def babble() -> np.ndarray:
        return np.convolve(rng.normal(size=round(seconds * FPS) + 4), np.ones(5) / 5, "valid")

    real = babble()
    own = real + noise * babble()
    floor = np.roll(own, len(own) // 2)
    return {"real": {"opening": real}} | {
        name: {"opening": x, "lmd": np.abs(x - real)} for name, x in (("audio", own), ("shuffled", floor))
    }


def full_frame(series: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    real = series["real"]["opening"]
    return {
        name: {"mouth_correlation": float(np.corrcoef(series[name]["opening"], real)[0, 1]), "lmd": 2.5, "psnr": 30.0,
               "intervals": {"mouth_correlation": [0.1, 0.9]}}
        for name in lips.SPOKEN
    }  # fmt: skip


def test_lips_that_follow_their_sound_are_told_from_those_that_do_not() -> None:
    good = lips.judge(mouths(15, noise=1.0), 15.0, FPS)
    assert good["better_than_shuffled"] == {"mouth_correlation": True, "lmd": True} and not good["too_short"]
    assert lips.marks(good) == {} and lips.warnings(good, full_frame(mouths(15, 1.0))) == []
    assert 0.0 < good["chance_correlation"] < 0.6
    for seed in range(5):
        series = mouths(15, noise=50.0, seed=seed)
        bad = lips.judge(series, 15.0, FPS)
        assert not any(bad["better_than_shuffled"].values())
        assert set(lips.marks(bad)) == {*lips.OPENING, "lmd"}
        assert "no better than other audio" in lips.warnings(bad, full_frame(series))[0]


def test_a_still_mouth_and_one_that_is_seldom_seen_prove_nothing() -> None:
    series = mouths(15, noise=0.1)
    series["audio"]["opening"] = series["shuffled"]["opening"] = np.zeros(375)
    assert not lips.judge(series, 15.0, FPS)["better_than_shuffled"]["mouth_correlation"]
    series = mouths(15, noise=0.1)
    series["real"]["opening"][5:] = np.nan
    assert set(lips.marks(lips.judge(series, 0.2, FPS)).values()) == {lips.TOO_SHORT}


def test_rhythm_is_no_proof() -> None:
    """Sentences of one length: sound of another sentence fits the pauses as well as its own."""
    t = np.arange(450) / FPS
    series = mouths(18, noise=1.0)
    for name, phase in (("real", 0.0), ("audio", 0.0), ("shuffled", 1.5)):  # the shifted one alone is out of step
        rhythm = 2.0 * (np.cos(2 * np.pi * (t - phase) / 3.0) > 0)
        series[name]["opening"] = rhythm + 0.3 * np.random.default_rng(len(name)).normal(size=450)
    verdict = lips.judge(series, 18.0, FPS)
    assert verdict["chance_correlation"] > 0.8 and not verdict["better_than_shuffled"]["mouth_correlation"]


@pytest.mark.parametrize(("seconds", "short"), [(9.9, True), (10.0, False)])
def test_too_little_speech_is_said_and_its_numbers_are_not_shown(seconds: float, short: bool) -> None:
    series = mouths(15, noise=1.0)
    verdict = lips.judge(series, seconds, FPS)
    result: dict[str, Any] = {
        "full_frame": full_frame(series),
        "real": {"psnr": None, "intervals": {}},
        "lips": verdict,
    }
    assert verdict["too_short"] is short
    shown = report.columns(result, "full_frame")
    page = report_html.table(shown, "Numbers")
    assert page.count("too short") == (4 if short else 0)  # two numbers of lips of two drives
    assert ("2.50" in page) is not short and "30.00" in page
    assert bool(lips.warnings(verdict, result["full_frame"])) is short
    if short:
        assert "shows 9.9 s of speech" in lips.warnings(verdict, result["full_frame"])[0]
        assert result["full_frame"]["audio"]["lmd"] == 2.5  # the file keeps it


def test_seconds_count_where_a_face_is_seen_and_somebody_speaks(tmp_path: Path) -> None:
    """20 s, of which the last 4 are silent; the audio is a second late; 2 s are without a face."""
    audio = tmp_path / "audio.wav"
    voice = 0.1 * np.random.default_rng(0).normal(size=20 * 16000).astype(np.float32)
    voice[16 * 16000 :] = 0
    write_wav(audio, voice)
    seen = np.ones(250, bool)
    assert lips.speaking_seconds(audio, seen, 250, 500, 0.0, FPS) == pytest.approx(6, abs=0.1)
    assert lips.speaking_seconds(audio, seen, 250, 500, 25.0, FPS) == pytest.approx(5, abs=0.1)
    seen[:50] = False
    assert lips.speaking_seconds(audio, seen, 250, 500, 0.0, FPS) == pytest.approx(4, abs=0.1)


def test_without_a_verdict_nothing_is_marked() -> None:
    assert lips.marks(None) == {} and lips.warnings(None, {}) == []
