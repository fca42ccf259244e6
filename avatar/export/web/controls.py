"""Sliders of a web folder: what a person's face can do, as directions in the face channels."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.motion import Motion
from avatar.motion.arkit_map import FaceMap
from avatar.motion.emotion import Expression, Mix
from avatar.motion.face_channels import CHANNEL_INDEX, LIP_CHANNELS, UPPER_CHANNELS, opening_change
from avatar.motion.statistics import MotionStats

_EXTREME = 0.02  # share of the frames that show how far a person opens the mouth, or closes the eyes
_LIDS = [CHANNEL_INDEX[f"eye_{side}_open"] for side in ("right", "left")]


class Control(NamedTuple):
    """A slider.

    Attributes:
        name: What scripts call it.
        title: What people read.
        low, high: Ends of the slider; at 1 the face has moved by ``face`` and ``gaze``.
        face: [38] face channels.
        gaze: [2] yaw and pitch, radians.
    """

    name: str
    title: str
    low: float
    high: float
    face: Float[Tensor, " 38"]
    gaze: Float[Tensor, " 2"]

    def moved(self, rest: Motion, value: float) -> Motion:
        """One frame of a face at rest with the slider at a value."""
        return rest.map(face=rest.face + value * self.face, gaze=rest.gaze + value * self.gaze)


def controls_of(stats: MotionStats) -> list[Control]:
    """The sliders of a person, within what the person did."""
    track, rest, still = stats.track, stats.rest, torch.zeros(2)
    face_map = FaceMap.fit(track)

    def toward(score: Tensor, channels: tuple[int, ...]) -> Tensor:
        """From rest to the mean of the frames with the highest scores, in some channels."""
        chosen = score.topk(max(1, round(_EXTREME * len(track)))).indices
        out = torch.zeros_like(rest.face[0])
        out[list(channels)] = (track.face[chosen].mean(0) - rest.face[0])[list(channels)]
        return out

    def emotion(text: str) -> Tensor:
        return Expression(Mix.parse(text), stats, face_map).face

    side, up = (stats.high.gaze[0] - stats.low.gaze[0]) / 2
    return [
        Control("mouth", "Open the mouth", 0, 1, toward(opening_change(track.face), LIP_CHANNELS), still),
        Control("smile", "Smile", 0, 1, emotion("happy"), still),
        Control("brows", "Raise the brows", 0, 1, emotion("surprised/upper"), still),
        Control("anger", "Frown", 0, 1, emotion("angry/upper"), still),
        Control("blink", "Close the eyes", 0, 1, toward(-track.face[:, _LIDS].sum(1), UPPER_CHANNELS), still),
        Control("look_side", "Look to the side", -1, 1, torch.zeros_like(rest.face[0]), torch.stack([side, 0 * side])),
        Control("look_up", "Look up or down", -1, 1, torch.zeros_like(rest.face[0]), torch.stack([0 * up, up])),
    ]
