"""ARKit's 52 face coefficients in Apple's order: the exchange format for face motion."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

ARKIT = (
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft",
    "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight", "jawForward", "jawLeft", "jawRight", "jawOpen", "mouthClose", "mouthFunnel",
    "mouthPucker", "mouthLeft", "mouthRight", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft",
    "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft",
    "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
INDEX = {name: i for i, name in enumerate(ARKIT)}
MOUTH = tuple(i for i, n in enumerate(ARKIT) if n.startswith(("mouth", "jaw", "tongue")))


def from_named(scores: dict[str, float]) -> Float32[np.ndarray, " 52"]:
    """Coefficients [52] float32 from a name-to-value mapping; absent names are zero, unknown ones are ignored."""
    return np.array([scores.get(name, 0.0) for name in ARKIT], np.float32)
