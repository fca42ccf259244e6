"""Action units of the Facial Action Coding System (Ekman and Friesen 1978), estimated from ARKit coefficients.

An approximation for programs that expect OpenFace's table: both describe the same muscles, but these numbers come from
no annotated data and are not OpenFace's.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from avatar.motion.arkit import INDEX

# The coefficients whose mean stands for an action unit, in OpenFace's order.
UNITS: dict[str, tuple[str, ...]] = {
    "AU01": ("browInnerUp",), "AU02": ("browOuterUpLeft", "browOuterUpRight"),
    "AU04": ("browDownLeft", "browDownRight"), "AU05": ("eyeWideLeft", "eyeWideRight"),
    "AU06": ("cheekSquintLeft", "cheekSquintRight"), "AU07": ("eyeSquintLeft", "eyeSquintRight"),
    "AU09": ("noseSneerLeft", "noseSneerRight"), "AU10": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "AU12": ("mouthSmileLeft", "mouthSmileRight"), "AU14": ("mouthDimpleLeft", "mouthDimpleRight"),
    "AU15": ("mouthFrownLeft", "mouthFrownRight"), "AU17": ("mouthShrugLower",),
    "AU20": ("mouthStretchLeft", "mouthStretchRight"), "AU23": ("mouthPressLeft", "mouthPressRight"),
    "AU25": (), "AU26": ("jawOpen",), "AU45": ("eyeBlinkLeft", "eyeBlinkRight"),
}  # fmt: skip
STRONGEST = 5.0  # intensity E
NEUTRAL_PERCENTILE = 10.0  # of a person's own frames; OpenFace takes its neutral from the video, too
WIDE_OPEN = 0.25  # gap between the lips that counts as intensity E, in distances of the outer eye corners


def action_units(
    arkit: Float[np.ndarray, "T 52"], lip_gap: Float[np.ndarray, " T"]
) -> dict[str, Float[np.ndarray, " T"]]:
    """Intensities, 0 to 5.

    Args:
        arkit: [T, 52] coefficients in Apple's order.
        lip_gap: [T] gap between the inner lips over the distance of the outer eye corners; it gives AU25 (lips part),
            which coefficients say only roughly.

    Returns:
        Name to [T] float, in OpenFace's order.
    """
    found = {"AU25": np.clip(lip_gap / WIDE_OPEN, 0, 1) * STRONGEST}
    for name, parts in UNITS.items():
        if parts:
            value = arkit[:, [INDEX[part] for part in parts]].mean(1).astype(np.float64)
            neutral = np.percentile(value, NEUTRAL_PERCENTILE)
            found[name] = np.clip((value - neutral) / max(1 - neutral, 1e-6), 0, 1) * STRONGEST
    return {name: found[name] for name in UNITS}
