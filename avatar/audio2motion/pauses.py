"""Pauses: what a person's mouth looks like in them, and how long they last before it closes."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from avatar.motion.mouth import FACE, opening_weights

LONGEST_PAUSE = 60.0  # seconds, in what is read
_PAUSE_COST = 0.01  # of correlation, that closing the lips sooner may cost


def mouth_opening(channels: Float[np.ndarray, "T C"]) -> Float[np.ndarray, " T"]:
    """Gap between the lips [T] in centimetres, of mouth channels [T, C]."""
    return channels[:, : len(FACE)] @ opening_weights()


def opening_correlation(predicted: Float[np.ndarray, "T C"], real: Float[np.ndarray, "T C"]) -> float:
    """Correlation of the lip opening of two mouths [T, C]; 0 where nobody speaks, or moves."""
    both = np.stack([mouth_opening(predicted), mouth_opening(real)])
    return float(np.corrcoef(both)[0, 1]) if both.std(1).min() > 1e-6 else 0.0


def choose_pause(free: np.ndarray, real: np.ndarray, rest: np.ndarray, gates: dict[float, np.ndarray]) -> float:
    """Choose the shortest pause whose gate costs no more than `_PAUSE_COST` of correlation on unseen parts.

    Args:
        free: [T, C] mouth channels as predicted, without a gate.
        real: [T, C] as tracked.
        rest: [C] the closed mouth.
        gates: By the pause in seconds, the shortest first, what the gate [T] is with it.
    """
    scores = {}
    for pause, gate in gates.items():
        scores[pause] = opening_correlation(rest + gate[:, None] * (free - rest), real)
    return next(pause for pause, score in scores.items() if score >= max(scores.values()) - _PAUSE_COST)


def closed_mouth(
    targets: Float[np.ndarray, "T C"], opens: Float[np.ndarray, " T"], valid: Bool[np.ndarray, " T"]
) -> Float[np.ndarray, " C"]:
    """The person's resting mouth [C]: the typical frame of the most closed tenth, of silent ones if there are enough.

    Args:
        targets: [T, C] mouth channels, `FACE` first.
        opens: [T] the speech gate, 0 in silence.
        valid: [T] bool.
    """
    opening = mouth_opening(targets)
    closed = valid & (opening <= np.quantile(opening[valid], 0.1))
    silent = closed & (opens < 0.1)
    return np.median(targets[silent if silent.sum() >= 10 else closed], 0)
