"""Expressions: the basic emotions as ARKit coefficients, and what they do to one person's face.

The recipes follow the prototypes of the Facial Action Coding System (Ekman and Friesen 1978; Ekman, Friesen and Hager,
FACS Investigator's Guide 2002, table of emotion predictions), each action unit written as the coefficients that move
the same muscles (`avatar.motion.facs`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.errors import AvatarError
from avatar.motion.arkit import ARKIT, INDEX
from avatar.motion.arkit_map import FaceMap
from avatar.motion.edits import keep_closures
from avatar.motion.face_channels import CHANNELS, LIP_CHANNELS
from avatar.motion.motion import Motion
from avatar.motion.statistics import MotionStats

# Coefficient to value at full strength. Names without a side are set on both sides.
EMOTIONS: dict[str, dict[str, float]] = {
    # AU 6 + 12
    "happy": {"cheekSquint": 0.7, "mouthSmile": 0.8, "mouthDimple": 0.2, "eyeSquint": 0.3},
    # AU 1 + 4 + 15 + 17
    "sad": {"browInnerUp": 0.8, "browDown": 0.25, "mouthFrown": 0.7, "mouthShrugLower": 0.3, "eyeLookDown": 0.2},
    # AU 4 + 5 + 7 + 23 (+ 10)
    "angry": {"browDown": 0.9, "eyeWide": 0.3, "eyeSquint": 0.4, "mouthPress": 0.5, "noseSneer": 0.3},
    # AU 1 + 2 + 5 + 26
    "surprised": {"browInnerUp": 0.8, "browOuterUp": 0.8, "eyeWide": 0.6, "jawOpen": 0.2},
    # AU 1 + 2 + 4 + 5 + 20 + 26
    "afraid": {"browInnerUp": 0.8, "browOuterUp": 0.4, "browDown": 0.3, "eyeWide": 0.7, "mouthStretch": 0.6,
               "jawOpen": 0.1},
    # AU 9 + 10 + 15 + 17
    "disgusted": {"noseSneer": 0.8, "mouthUpperUp": 0.35, "mouthFrown": 0.4, "mouthShrugLower": 0.3, "browDown": 0.4},
    # AU 12 + 14, on one side
    "contemptuous": {"mouthSmileRight": 0.35, "mouthDimpleRight": 0.7, "mouthPressRight": 0.3},
}  # fmt: skip
REGIONS = ("all", "upper", "lower")
_UPPER_FACE = torch.tensor([name.startswith(("eye", "brow", "cheekSquint")) for name in ARKIT])
_LIPS = torch.tensor([i in LIP_CHANNELS for i in range(len(CHANNELS))])


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Emotions at their strengths, in a part of the face.

    Attributes:
        strengths: Name to strength; 1 is the full expression.
        region: ``all``, ``upper`` (eyes, brows, cheeks) or ``lower`` (mouth, jaw, nose).
    """

    strengths: dict[str, float]
    region: str = "all"

    @staticmethod
    def parse(text: str) -> Mix:
        """Read ``happy:0.7``, ``happy:0.5+surprised:0.3`` or ``happy/upper``; without a number the strength is 1.

        Raises:
            AvatarError: An emotion or region is unknown, or a strength is not a number from 0 to 1.5.
        """
        names, slash, region = text.partition("/")
        if slash and region not in REGIONS:
            raise AvatarError(f"There is no region '{region}' of the face.", fix=f"Choose {', '.join(REGIONS)}.")
        strengths: dict[str, float] = {}
        for part in names.split("+"):
            name, colon, number = part.partition(":")
            if name not in EMOTIONS:
                raise AvatarError(f"There is no emotion '{name}'.", fix=f"Known are {', '.join(EMOTIONS)}.")
            try:
                strength = float(number) if colon else 1.0
            except ValueError:
                strength = -1.0
            if not 0 <= strength <= 1.5:
                raise AvatarError(f"{part!r} has no strength from 0 to 1.5.", fix="For example happy:0.7")
            strengths[name] = strengths.get(name, 0.0) + strength
        return Mix(strengths=strengths, region=region or "all")

    def arkit(self) -> Float[Tensor, " 52"]:
        """[52] what is added to the coefficients."""
        out = torch.zeros(len(ARKIT))
        for emotion, strength in self.strengths.items():
            for name, value in EMOTIONS[emotion].items():
                for full in (name,) if name in INDEX else (f"{name}Left", f"{name}Right"):
                    out[INDEX[full]] += strength * value
        if self.region == "all":
            return out
        return out * (_UPPER_FACE if self.region == "upper" else ~_UPPER_FACE)


class Expression:
    """A mix of emotions on the face of one person, added to whatever the face does; lips still close.

    Args:
        mix: The emotions.
        stats: Of the person.
        face_map: The person's, from coefficients to face channels.
        limit: How far the mouth, and the eyes and brows, may go: in multiples of the person's own range. An avatar
            shows expressions badly that its person never made.
    """

    def __init__(self, mix: Mix, stats: MotionStats, face_map: FaceMap, limit: float = 1.0) -> None:
        self._stats = stats
        self.arkit = mix.arkit()
        self.face = self.arkit @ face_map.matrix
        span = stats.high.face[0] - stats.low.face[0]
        for region in (_LIPS, ~_LIPS):
            most = limit * float(span[region].norm())
            self.face[region] *= min(1.0, most / max(float(self.face[region].norm()), 1e-6))

    def __call__(self, block: Motion, strength: Float[Tensor, " T"]) -> Motion:
        """The block with the expression at a strength [T] of 0 to 1."""
        arkit = (block.arkit + strength[:, None] * self.arkit).clamp(0, 1)
        moved = block.map(arkit=arkit, face=block.face + strength[:, None] * self.face)
        return keep_closures(block, moved, self._stats)
