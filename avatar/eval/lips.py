"""Whether numbers of lips say anything: is enough speech measured, and do lips follow their own audio best?

A floor of one shift of the audio is one draw of chance. So the opening is compared with two: with the shuffled drive,
by a paired bootstrap over blocks of two seconds, and with itself at every shift in time of a second or more.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar.audio.levels import speaking_frames
from avatar.eval import bootstrap
from avatar.eval.bootstrap import Bootstrap, correlation
from avatar.preprocess.held_out import JUDGED_SECONDS

if TYPE_CHECKING:
    from avatar.eval.summary import Series

LEAST_SHIFT_SECONDS = 1.0
MOST_SHIFTS = 1000
METRICS = (
    "lmd", "lmd_raw", "mouth_correlation", "mouth_lag_frames", "mouth_best_correlation", "sync_confidence",
    "sync_audio_delay_s", "sync_distance", "closure",
)  # fmt: skip
OPENING = ("mouth_correlation", "mouth_best_correlation", "mouth_lag_frames")
SPOKEN = ("audio", "shuffled")  # drives whose lips come from audio
TOO_SHORT, CHANCE = "too short", "no better than shuffled"


def speaking_seconds(audio: Path, seen: np.ndarray, first: int, frames: int, delay_frames: float, fps: float) -> float:
    """Seconds in which a face is seen and somebody speaks, pauses of up to two seconds included.

    Args:
        audio: Of the whole video.
        seen: [T] bool, whether a face was found in the measured frames.
        first: The first of them.
        frames: Number of frames of the whole video.
        delay_frames: Delay of the audio, frames.
        fps: Frames per second.
    """
    speaks = speaking_frames(audio, frames, fps)
    heard = np.clip(np.arange(first, first + len(seen)) + round(delay_frames), 0, frames - 1)
    return float((speaks[heard] & seen).sum() / fps)


def judge(series: dict[str, Series], seconds: float, fps: float) -> dict[str, Any]:
    """Judge what the numbers of lips driven by audio are worth, as the JSON has it.

    Args:
        series: Per video; "audio", "shuffled" and "real" are looked at.
        seconds: See :func:`speaking_seconds`.
        fps: Frames per second.
    """
    own, floor, real = (series[name] for name in (*SPOKEN, "real"))
    resamples = Bootstrap(len(real["opening"]), fps)

    def gain(own: np.ndarray, floor: np.ndarray, real: np.ndarray) -> np.ndarray:
        return correlation(own, real) - correlation(floor, real)

    def saved(own: np.ndarray, floor: np.ndarray) -> np.ndarray:
        return bootstrap.mean(floor - own)

    openings = own["opening"], floor["opening"], real["opening"]
    value = bootstrap.value(correlation, own["opening"], real["opening"])
    chance = chance_correlation(own["opening"], real["opening"], fps)
    clear = value is not None and chance is not None and value > chance
    return {
        "speaking_seconds": round(seconds, 2),
        "least_seconds": JUDGED_SECONDS,
        "too_short": seconds < JUDGED_SECONDS,
        "chance_correlation": chance,
        "better_than_shuffled": {
            "mouth_correlation": clear and _above_zero(resamples.interval(gain, *openings)),
            "lmd": _above_zero(resamples.interval(saved, own["lmd"], floor["lmd"])),
        },
    }


def chance_correlation(own: np.ndarray, real: np.ndarray, fps: float) -> float | None:
    """Largest correlation at any shift in time of a second or more; None where there is none.

    Args:
        own: [T] opening of a rendered mouth, NaN where it is not known.
        real: [T] the real one.
        fps: Frames per second.
    """
    least = round(LEAST_SHIFT_SECONDS * fps)
    shifts = range(least, len(own) - least + 1, max(1, len(own) // MOST_SHIFTS))
    found = [bootstrap.value(correlation, np.roll(own, shift), real) for shift in shifts]
    known = [value for value in found if value is not None]
    return max(known, default=None)


def marks(verdict: dict[str, Any] | None) -> dict[str, str]:
    """What stands beside a number of lips that says nothing, by metric."""
    if verdict is None:
        return {}
    if verdict["too_short"]:
        return dict.fromkeys(METRICS, TOO_SHORT)
    found = {name: CHANCE for name, better in verdict["better_than_shuffled"].items() if not better}
    if OPENING[0] in found:  # the best lag of what follows nothing is chance as well
        found |= dict.fromkeys(OPENING, CHANCE)
    return found


def warnings(verdict: dict[str, Any] | None, full_frame: dict[str, Any]) -> list[str]:
    """Sentences for the user about numbers of lips that say nothing."""
    if verdict is None:
        return []
    if verdict["too_short"]:
        return [
            f"The measured part shows {verdict['speaking_seconds']:.1f} s of speech with a face. Below "
            f"{JUDGED_SECONDS:.0f} s numbers of lips are left to chance, and are marked as too short. Train on a "
            "longer video, or prepare it with a longer --held-out-s."
        ]
    if verdict["better_than_shuffled"]["mouth_correlation"]:
        return []
    own, floor = (full_frame[name]["mouth_correlation"] for name in SPOKEN)
    return [
        f"The mouth follows its own audio no better than other audio (correlation {_shown(own)}, shuffled "
        f"{_shown(floor)}, by chance up to {_shown(verdict['chance_correlation'])}): numbers of lips mean nothing here."
    ]


def _above_zero(interval: list[float] | None) -> bool:
    return interval is not None and interval[0] > 0


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f}"
