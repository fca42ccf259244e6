"""Mouth without the person: how far it is open, wide and rounded, in units of each person's own spread.

People differ in how their lips rest and how much they move. :func:`articulation` reduces mouth channels to the
mirror-symmetric part, which speech decides. :class:`MouthNormalizer` takes a person's rest and spread out of it. Its
inverse is a linear map to the person's own mouth channels, fitted to the person's track.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from avatar.errors import AvatarError
from avatar.motion import Motion, arkit, face_channels

FACE = list(face_channels.LIP_CHANNELS)
MOUTH = list(arkit.MOUTH)
CHANNELS = len(FACE) + len(MOUTH)

# Of lips and jaw, what is the same in the mirror: the rest is expression, and error of the head's pose.
GEOMETRY = (
    *(f"lip_{c}_x_{m}" for c in ("outer", "inner") for m in ("cos1", "sin2", "cos3")),
    *(f"lip_{c}_y_{m}" for c in ("outer", "inner") for m in ("cos0", "sin1", "cos2", "sin3")),
    "jaw_y",
)
# Coefficients; of those with a left and a right one, the mean.
COEFFICIENTS = (
    "jawForward", "jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthRollLower", "mouthRollUpper",
    "mouthShrugLower", "mouthShrugUpper", "mouthSmile", "mouthFrown", "mouthDimple", "mouthStretch", "mouthPress",
    "mouthLowerDown", "mouthUpperUp",
)  # fmt: skip
ARTICULATION = (*GEOMETRY, *COEFFICIENTS, "opening")
OPENING = ARTICULATION.index("opening")
WIDTH = ARTICULATION.index("lip_outer_x_cos1")
PUCKER = ARTICULATION.index("mouthPucker")

_FLOOR = np.r_[np.full(len(GEOMETRY), 0.01), np.full(len(COEFFICIENTS), 0.02), 0.01]  # what moves less is noise
_LIMIT = 5.0  # spreads
_TALKS = 0.5  # of the usual movement: somebody who moves the mouth less is not talking
_USUAL = 0.6  # of the strongest movement (98th percentile), at least: people who always talk have 0.7 to 0.8
_RIDGE = 0.02  # of the variance


def with_lips(base: Motion, speech: Motion) -> Motion:
    """``base`` with the mouth, jaw and cheeks of ``speech``; both of the same length."""
    mouth, lips = base.arkit.clone(), base.face.clone()
    mouth[:, MOUTH] = speech.arkit[:, MOUTH]
    lips[:, FACE] = speech.face[:, FACE]
    return base.map(arkit=mouth, face=lips)


def opening_weights() -> np.ndarray:
    """Weights [len(FACE)] of the lip channels in the gap between the inner lips, centimetres, mean of three columns."""
    weights = np.zeros(len(face_channels.CHANNELS), np.float32)
    contour = face_channels.LIPS_INNER
    for upper, lower in ((13, 14), (82, 87), (312, 317)):
        for vertex, sign in ((lower, 1), (upper, -1)):
            phase = 2 * np.pi * contour.index(vertex) / len(contour)
            for k in range(face_channels.MODES):
                weights[face_channels.CHANNEL_INDEX[f"lip_inner_y_cos{k}"]] += sign * np.cos(k * phase) / 3
                if k:
                    weights[face_channels.CHANNEL_INDEX[f"lip_inner_y_sin{k}"]] += sign * np.sin(k * phase) / 3
    return weights[FACE]


def mouth_channels(motion: Motion) -> Float[np.ndarray, "T C"]:
    """Mouth channels [T, CHANNELS] of a motion: lips, jaw and cheeks of ``face``, then the mouth's coefficients."""
    return np.concatenate([motion.face[:, FACE].numpy(), motion.arkit[:, MOUTH].numpy()], 1)


def with_mouth(channels: Float[Tensor, "T C"], fps: float) -> Motion:
    """Make a motion of which only the mouth moves, from channels [T, CHANNELS]."""
    base = Motion.zeros(len(channels), fps)
    face, coefficients = base.face.clone(), base.arkit.clone()
    face[:, FACE] = channels[:, : len(FACE)]
    coefficients[:, MOUTH] = channels[:, len(FACE) :].clamp(0, 1)
    return base.map(face=face, arkit=coefficients)


def articulation(channels: Float[np.ndarray, "T C"]) -> Float[np.ndarray, "T A"]:
    """Reduce mouth channels [T, CHANNELS] to articulation [T, len(ARTICULATION)], centimetres and coefficients."""
    return channels @ _reduction()


@functools.cache
def _reduction() -> np.ndarray:
    """[CHANNELS, len(ARTICULATION)]"""
    rows = [*(face_channels.CHANNELS[i] for i in FACE), *(arkit.ARKIT[i] for i in MOUTH)]
    matrix = np.zeros((len(rows), len(ARTICULATION)), np.float32)
    for column, name in enumerate(ARTICULATION[:OPENING]):
        sources = [name] if name in rows else [f"{name}Left", f"{name}Right"]
        for source in sources:
            matrix[rows.index(source), column] = 1 / len(sources)
    matrix[: len(FACE), OPENING] = opening_weights()
    return matrix


def talking(opening: Float[np.ndarray, " T"], seen: Bool[np.ndarray, " T"], fps: float) -> Bool[np.ndarray, " T"]:
    """Find the frames [T] in which a tracked mouth talks; its rest in pauses tells nothing about articulation.

    Where that leaves less than a second, all tracked frames are returned.

    Args:
        opening: [T] gap between the lips, in any unit.
        seen: [T] bool.
        fps: Frames per second.
    """
    if not seen.any():
        return seen
    reach = round(fps / 2)
    around = np.lib.stride_tricks.sliding_window_view(np.pad(opening, reach, "edge"), 2 * reach + 1).std(1)
    most, strongest = np.quantile(around[seen], [0.75, 0.98])
    talks = seen & (around >= _TALKS * max(most, _USUAL * strongest))  # who talks a tenth of the time mostly rests
    return talks if talks.sum() >= fps else seen


def relative(
    values: Float[np.ndarray, "T A"], centre: Float[np.ndarray, " A"], spread: Float[np.ndarray, " A"]
) -> Float[np.ndarray, "T A"]:
    """Articulation [T, A] in spreads from the centre, outliers cut off."""
    return np.clip((values - centre) / spread, -_LIMIT, _LIMIT).astype(np.float32)


def spread_of(values: Float[np.ndarray, "T A"]) -> tuple[Float[np.ndarray, " A"], Float[np.ndarray, " A"]]:
    """Centre (median) [A] and spread (standard deviation, at least what noise has) [A] of articulation [T, A]."""
    return np.median(values, 0).astype(np.float32), np.maximum(values.std(0), _FLOOR).astype(np.float32)


@dataclass(frozen=True)
class MouthNormalizer:
    """How one person moves the mouth.

    Attributes:
        centre, spread: [A], of the person's articulation.
        matrix: [A, CHANNELS] what a spread of each articulator does to the channels.
        bias: [CHANNELS] the channels at the centre.
    """

    centre: Tensor
    spread: Tensor
    matrix: Tensor
    bias: Tensor

    @staticmethod
    def of(motion: Motion) -> MouthNormalizer:
        """Fit it to a track; frames that were not measured are left out.

        Raises:
            AvatarError: Less than a second was measured.
        """
        channels = mouth_channels(motion)[motion.valid.numpy()]
        if len(channels) < motion.fps:
            raise AvatarError("Less than a second of the face was tracked:", why="too little to know the mouth by.")
        values = articulation(channels)
        centre, spread = spread_of(values)
        z = relative(values, centre, spread).astype(np.float64)
        middle, mean = z.mean(0), channels.mean(0)
        z -= middle
        ridge = _RIDGE * len(z) * np.eye(z.shape[1])  # also shares the work among articulators that go together
        matrix = np.linalg.solve(z.T @ z + ridge, z.T @ (channels - mean))
        bias = mean - middle @ matrix
        return MouthNormalizer(*(torch.from_numpy(np.asarray(a, np.float32)) for a in (centre, spread, matrix, bias)))

    def normalise(self, channels: Float[np.ndarray, "T C"]) -> Float[np.ndarray, "T A"]:
        """Mouth channels [T, CHANNELS] to articulation in spreads [T, A]."""
        return relative(articulation(channels), self.centre.numpy(), self.spread.numpy())

    def restore(self, z: Float[Tensor, "T A"]) -> Float[Tensor, "T C"]:
        """Articulation in spreads [T, A] to the person's mouth channels [T, CHANNELS]."""
        return self.bias + z.clamp(-_LIMIT, _LIMIT) @ self.matrix

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}
