"""FACEGOOD's blendshape animation (Audio2Face, MIT): 116 weights at 30 frames per second, in ARKit's terms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from avatar.errors import AvatarError
from avatar.io.arrays import LARGEST, load_array
from avatar.motion.arkit import ARKIT, INDEX
from avatar.paths import read_json

FPS = 30.0
SUFFIX = ".bs.npy"
NAMES_FILE = "blendshape_names.json"

# Written by hand from the blendshapes' names: amount of the coefficient at 1. What has a left and a right side here is
# the mean of both.
_ARKIT_OF = {
    "mouth_stretch_c": {"jawOpen": 1.0},
    "mouth_oh_c": {"mouthFunnel": 0.8, "jawOpen": 0.25},
    "mouth_oo_c": {"mouthPucker": 0.9},
    "mouth_pucker": {"mouthPucker": 1.0},
    "mouth_funnel": {"mouthFunnel": 1.0},
    "mouth_lowerLipDepress": {"mouthLowerDown": 1.0},
    "mouth_upperLipRaise": {"mouthUpperUp": 1.0},
    "mouth_lipCornerPull": {"mouthSmile": 1.0},
    "mouth_lipStretch": {"mouthStretch": 1.0},
    "mouth_press": {"mouthPress": 1.0},
    "mouth_suck_d": {"mouthRollLower": 1.0},
    "mouth_suck_u": {"mouthRollUpper": 1.0},
    "mouth_chinRaise_u": {"mouthShrugLower": 1.0},
}
_SIDES = ("", "l", "r", "dl", "dr", "ul", "ur")


def _sided(name: str) -> tuple[str, ...]:
    return (name,) if name in INDEX else (f"{name}Left", f"{name}Right")


KNOWN = frozenset(full for targets in _ARKIT_OF.values() for name in targets for full in _sided(name))


def to_arkit(
    weights: Float[np.ndarray, "T C"], names: Sequence[str], where: Path | str = "The animation"
) -> Float[np.ndarray, "T 52"]:
    """ARKit coefficients [T, 52] of blendshape weights [T, len(names)]; zero for those that are not in `KNOWN`.

    Raises:
        AvatarError: A blendshape is missing.
    """
    matrix = np.zeros((len(names), len(ARKIT)))
    for source, targets in _ARKIT_OF.items():
        columns = [i for i, n in enumerate(names) if n.startswith(source) and n[len(source) :].strip("_") in _SIDES]
        if not columns:
            raise AvatarError(f"{where} has no blendshape {source}.", fix="Give FACEGOOD's names.")
        for target, amount in targets.items():
            for full in _sided(target):
                matrix[columns, INDEX[full]] += amount / len(columns)
    return np.clip(weights @ matrix, 0, 1.2)


def load(path: Path) -> Float[np.ndarray, "T 52"]:
    """ARKit coefficients [T, 52] of a file NAME.bs.npy, by the names in `NAMES_FILE` beside it.

    Raises:
        AvatarError: One of the two is missing, damaged or does not fit the other.
    """
    path = Path(path)
    names = read_json(path.with_name(NAMES_FILE))
    weights = load_array(path, "T N", finite=False)
    if not isinstance(names, list) or weights.shape[1] != len(names) or not all(isinstance(n, str) for n in names):
        raise AvatarError(f"{path} is {list(weights.shape)};", why=f"{NAMES_FILE} beside it does not name its columns.")
    if not (np.abs(weights) <= LARGEST).all():  # false for NaN
        raise AvatarError(f"{path} holds weights that are not numbers.")
    return to_arkit(weights, names, path)
