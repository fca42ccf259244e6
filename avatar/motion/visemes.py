"""Visemes from ARKit coefficients: the 15 of Oculus lip sync (OVR), and the five vowels that VRM models have.

A mouth is written as a mixture of prototypes. Several consonants look alike, so a mixture says how a mouth looks, not
which sound was spoken.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32
from scipy.optimize import nnls

from avatar.motion.arkit import ARKIT, INDEX, MOUTH

# Coefficients of each mouth at full strength; names without a side are set on both sides. In OVR's order.
PROTOTYPES: dict[str, dict[str, float]] = {
    "PP": {"mouthPress": 0.5, "mouthRollLower": 0.4, "mouthRollUpper": 0.4},
    "FF": {"mouthRollLower": 0.5, "mouthUpperUp": 0.35, "jawOpen": 0.08},
    "TH": {"tongueOut": 0.6, "jawOpen": 0.15, "mouthLowerDown": 0.2},
    "DD": {"jawOpen": 0.1, "mouthLowerDown": 0.35, "mouthUpperUp": 0.25},
    "kk": {"jawOpen": 0.25, "mouthLowerDown": 0.1, "mouthStretch": 0.25},
    "CH": {"mouthFunnel": 0.6, "mouthUpperUp": 0.15, "mouthLowerDown": 0.25},
    "SS": {"mouthStretch": 0.4, "mouthLowerDown": 0.35, "mouthDimple": 0.2},
    "nn": {"jawOpen": 0.15, "mouthLowerDown": 0.2, "mouthShrugUpper": 0.15},
    "RR": {"mouthFunnel": 0.3, "mouthPucker": 0.3, "jawOpen": 0.15, "mouthLowerDown": 0.15},
    "aa": {"jawOpen": 0.6, "mouthLowerDown": 0.3, "mouthUpperUp": 0.15},
    "E": {"jawOpen": 0.35, "mouthSmile": 0.25, "mouthStretch": 0.15, "mouthUpperUp": 0.2},
    "ih": {"jawOpen": 0.12, "mouthSmile": 0.45, "mouthStretch": 0.2, "mouthLowerDown": 0.2},
    "oh": {"jawOpen": 0.4, "mouthFunnel": 0.5, "mouthPucker": 0.1},
    "ou": {"jawOpen": 0.1, "mouthPucker": 0.7, "mouthFunnel": 0.2},
}
OVR = ("sil", *PROTOTYPES)
VRM_VOWELS = {"aa": "aa", "ih": "ih", "ou": "ou", "ee": "E", "oh": "oh"}  # VRM's names: the prototypes
_RIDGE = 1e-3  # what makes mixtures of like mouths unique, and so smooth over time


def prototype(name: str) -> Float32[np.ndarray, " 52"]:
    """The coefficients [52] of a prototype."""
    values = np.zeros(len(ARKIT), np.float32)
    for muscle, value in PROTOTYPES[name].items():
        for side in ("", "Left", "Right"):
            if muscle + side in INDEX:
                values[INDEX[muscle + side]] = value
    return values


def mixture(arkit: Float[np.ndarray, "T 52"], names: Sequence[str]) -> Float32[np.ndarray, "T N"]:
    """Weights of prototypes whose sum is nearest to each mouth: not negative, together at most 1.

    Args:
        arkit: [T, 52] coefficients.
        names: N prototypes.
    """
    mouths = np.stack([prototype(name) for name in names], 1)[list(MOUTH)].astype(np.float64)
    table = np.concatenate([mouths, np.sqrt(_RIDGE) * np.eye(len(names))])
    shown = np.pad(arkit[:, list(MOUTH)].astype(np.float64), ((0, 0), (0, len(names))))
    weights = np.array([nnls(table, mouth)[0] for mouth in shown]).reshape(len(arkit), len(names))
    return (weights / np.maximum(weights.sum(1, keepdims=True), 1)).astype(np.float32)


def ovr_visemes(arkit: Float[np.ndarray, "T 52"]) -> Float32[np.ndarray, "T 15"]:
    """Weights [T, 15] of `OVR`, each row of sum 1; the first is the mouth at rest."""
    spoken = mixture(arkit, list(PROTOTYPES))
    return np.concatenate([1 - spoken.sum(1, keepdims=True), spoken], 1).clip(0, 1)
