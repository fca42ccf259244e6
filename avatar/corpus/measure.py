"""Measure how well a prior follows the lips of new people: correlation of articulation with what was tracked.

Before gate and person: what is measured is the regression, in the speaker's own spreads. The lag is where the
correlation is greatest; it should be zero, because audio and video are put in step first.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from avatar.audio.features import features_at
from avatar.audio2motion.shared import RATE, SharedPrior
from avatar.corpus.cache import Cache
from avatar.corpus.mouth import Mouth
from avatar.errors import AvatarError
from avatar.motion.mouth import ARTICULATION, OPENING, PUCKER, WIDTH
from avatar.sync.judge import RATE as WINDOWS
from avatar.sync.judge import REACH, best_delay

MEASURED = {"opening": OPENING, "width": WIDTH, "pucker": PUCKER, "jaw": ARTICULATION.index("jaw_y")}
_LAGS = 3  # frames on either side
_EDGE = 4  # frames at the ends, which a lag would move out


def measure(prior: SharedPrior, mouth: Mouth, features: np.ndarray, audio_delay_s: float) -> dict[str, float | None]:
    """Correlation of what is said with what was seen, and its lag in frames, for each of `MEASURED`.

    A lag at the border of what is tried is None: it may be any beyond.

    Args:
        prior: Measured.
        mouth: Of a video.
        features: [mouth.rows, F] of its audio, by the prior's encoder.
        audio_delay_s: Seconds by which the audio comes after the video.
    """
    real, seen = mouth.in_step(audio_delay_s)
    said = (prior.inputs(features) @ prior.weights).numpy()
    row: dict[str, float | None] = {}
    for name, i in MEASURED.items():
        curve = [_correlation(np.roll(said[:, i], -lag), real[:, i], seen) for lag in range(-_LAGS, _LAGS + 1)]
        lag = int(np.argmax(curve)) - _LAGS
        row |= {name: curve[_LAGS], f"{name}_lag": float(lag) if abs(lag) < _LAGS else None}
    return row


def measure_all(prior: SharedPrior, cache: Cache, keys: Mapping[str, str]) -> dict[str, dict[str, float | None]]:
    """:func:`measure` for prepared videos by name, at the audio delay that the sync judge finds for each.

    Raises:
        AvatarError: One of them cannot be used.
    """
    rows = {}
    for name, key in keys.items():
        if reason := cache.reason(key):
            raise AvatarError(f"{name} cannot be measured.", why=reason)
        mouth = cache.mouth(key)
        if mouth.curve is None:
            raise AvatarError(f"{name} cannot be measured.", why="It is too short to put audio and video in step.")
        score = best_delay(mouth.curve)
        if score.audio_delay_s is None:
            apart = f"Audio and video are {REACH / WINDOWS:.1f} s or more apart, or do not belong together."
            raise AvatarError(f"{name} cannot be measured.", why=apart)
        found = {"audio_delay_s": score.audio_delay_s, "confidence": score.confidence}
        rows[name] = found | measure(prior, mouth, cache.features(key), score.audio_delay_s)
    return rows


def mean(rows: dict[str, dict[str, float | None]]) -> dict[str, float | None]:
    """The mean over videos of each number, of those that have it; None where none has."""
    columns = {k: [v for row in rows.values() if (v := row[k]) is not None] for k in next(iter(rows.values()))}
    return {k: float(np.mean(values)) if values else None for k, values in columns.items()}


def predict(prior: SharedPrior, audio: np.ndarray, count: int) -> np.ndarray:
    """[count, A] articulation in spreads for audio, without a person and without the gate."""
    return (prior.inputs(features_at(prior.encoder, audio, RATE, count).features) @ prior.weights).numpy()


def _correlation(a: np.ndarray, b: np.ndarray, seen: np.ndarray) -> float:
    inside = seen.copy()
    inside[:_EDGE] = inside[-_EDGE:] = False
    return float(np.corrcoef(a[inside], b[inside])[0, 1])
