"""Write `avatar/motion/arkit_to_face.json`: what ARKit coefficients do to the face channels of the canonical face.

python -m pipelines.arkit_map
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avatar.assets.canonical_face import canonical_face
from avatar.geometry.cameras import MEDIAPIPE_TO_HEAD
from avatar.motion import arkit_map
from avatar.motion.arkit import ARKIT
from avatar.motion.face_channels import CHANNELS, NUM_LANDMARKS, encode
from avatar.paths import write_json
from avatar.synth.shapes import displacement_fields


def table() -> np.ndarray:
    """[52, 38] centimetres at a coefficient of 1."""
    fields = displacement_fields(canonical_face()[0] * MEDIAPIPE_TO_HEAD.numpy())
    irises = np.zeros((len(ARKIT), NUM_LANDMARKS - fields.shape[1], 3))
    return encode(np.concatenate([fields, irises], 1))


def main() -> None:
    """Write the table."""
    rows = table().round(3)
    matrix = {n: {CHANNELS[c]: float(row[c]) for c in np.flatnonzero(row)} for n, row in zip(ARKIT, rows, strict=True)}
    write_json(Path(arkit_map.__file__).with_name(arkit_map.TABLE), {"unit": "centimetres", "matrix": matrix})


if __name__ == "__main__":
    main()
