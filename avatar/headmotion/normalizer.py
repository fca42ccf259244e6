"""The upper part of a person without the person: head, gaze, brows and lids in units of rest and spread.

:class:`UpperFaceNormalizer` takes a person's rest and spread out of a track, and turns numbers in those units back into motion: the
head, the eyes and the brows as they say, the torso and ARKit's coefficients as they go with those on the person's own
track. Blinks are taken out before, and put in again by `avatar.headmotion.blinks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from avatar.errors import AvatarError
from avatar.geometry.warp import WIDTH
from avatar.motion import Motion
from avatar.motion.arkit import ARKIT, MOUTH
from avatar.motion.blinks import CLOSED, EYES, LIDS, find_blinks
from avatar.motion.face_channels import CHANNEL_INDEX
from avatar.motion.motion import POSE_TRACKS
from avatar.motion.statistics import MotionStats

CHANNELS = (
    "pitch", "yaw", "roll", "x", "y", "z", "gaze_yaw", "gaze_pitch", "brow_right_inner_y", "brow_right_outer_y",
    "brow_left_inner_y", "brow_left_outer_y", "lids",
)  # fmt: skip
BROWS = [CHANNEL_INDEX[name] for name in CHANNELS[8:12]]
_UPPER = [i for i in range(len(ARKIT)) if i not in MOUTH]
_TORSO = POSE_TRACKS[2:]
FOLLOWERS = 6 + WIDTH + len(_UPPER) + len(LIDS)  # columns of `UpperFaceNormalizer.follow`
# Radians, centimetres, radians, centimetres: what moves less is noise.
_FLOOR = torch.tensor([0.005] * 3 + [0.05] * 3 + [0.01] * 2 + [0.01] * 4 + [0.02])
_MIRROR = [0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 8, 9, 12]  # the other side's brow
_SIGNS = torch.tensor([1.0, -1, -1, -1, 1, 1, -1, 1, 1, 1, 1, 1, 1])
_EXTREMES = 0.01  # of the frames lie beyond `low`, and of `high`
_MARGIN = 0.5  # spreads beyond these that are never left
_RIDGE = 0.05  # of the variance


def mirrored(z: Tensor) -> Tensor:
    """What the mirror shows of channels [..., C] in spreads."""
    return z[..., _MIRROR] * _SIGNS


def upper_channels(track: Motion, segments: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Channels [T, C] in radians and centimetres, of open eyes, and [T] whether the eyes really were open.

    Closed eyes say little about gaze and brows: these and the lids are bridged linearly.
    """
    lids = track.face[:, LIDS].mean(1, keepdim=True)
    values = torch.cat([track.head_rotation, track.head_translation, track.gaze, track.face[:, BROWS], lids], 1)
    open_eyes = track.arkit[:, EYES].mean(1).numpy() < CLOSED
    for blink in find_blinks(track, segments):
        open_eyes[blink] = False
    values = values.numpy().astype(np.float64)
    for a, b in segments:
        seen = a + np.flatnonzero(open_eyes[a:b])
        if len(seen):
            for column in range(6, len(CHANNELS)):
                values[a:b, column] = np.interp(np.arange(a, b), seen, values[seen, column])
    return torch.from_numpy(values).float(), torch.from_numpy(open_eyes)


@dataclass(frozen=True)
class UpperFaceNormalizer:
    """How one person holds and moves the head, the eyes and the brows.

    Attributes:
        rest, spread: [C] mean and standard deviation of `CHANNELS`.
        low, high: [C] spreads from rest that the person hardly ever goes beyond.
        follow: [C + 1, 138 + A + 2] what torso, coefficients outside the mouth, and lids do: the last row at rest, the
            others for each spread.
        face: [38] the face at rest.
        arkit: [52] the same in coefficients.
    """

    rest: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor
    follow: Tensor
    face: Tensor
    arkit: Tensor

    @staticmethod
    def of(track: Motion, segments: Sequence[tuple[int, int]]) -> UpperFaceNormalizer:
        """Learn it from a track.

        Args:
            track: The person's motion.
            segments: [start, end) frames without a cut inside.

        Raises:
            AvatarError: Less than a second was measured.
        """
        if int(track.valid.sum()) < track.fps:
            raise AvatarError(
                "Less than a second of the face was tracked:", why="too little to know how the head moves."
            )
        values, open_eyes = upper_channels(track, segments)
        rest, spread = values.mean(0), values.std(0).maximum(_FLOOR)
        z = (values - rest) / spread
        seen = open_eyes & track.valid
        seen = seen if int(seen.sum()) > track.fps else torch.ones_like(seen)
        torso = torch.cat([getattr(track, name) for name in _TORSO], 1)
        others = torch.cat([track.arkit[:, _UPPER], track.face[:, LIDS]], 1)
        profile = MotionStats.of(track, segments)
        return UpperFaceNormalizer(
            rest=rest,
            spread=spread,
            low=z.quantile(_EXTREMES, 0),
            high=z.quantile(1 - _EXTREMES, 0),
            follow=torch.cat([_ridge(z, torso), _ridge(z[seen], others[seen])], 1),
            face=profile.rest.face[0],
            arkit=profile.rest.arkit[0],
        )

    def normalise(self, track: Motion, segments: Sequence[tuple[int, int]]) -> Tensor:
        """The channels of a track, open-eyed, in spreads from rest [T, C]."""
        return (upper_channels(track, segments)[0] - self.rest) / self.spread

    def within(self, z: Tensor) -> Tensor:
        """``z`` [..., C] bent back softly where it leaves the person's range; half a spread beyond it is the end."""
        inside = z.maximum(self.low).minimum(self.high)
        return inside + _MARGIN * torch.tanh((z - inside) / _MARGIN)

    def restore(self, z: Tensor, fps: float) -> Motion:
        """The person doing ``z`` [T, C], eyes open, the mouth at rest."""
        values = self.rest + self.spread * z
        head, gaze, brows = values[:, :6], values[:, 6:8], values[:, 8:12]
        follows = torch.cat([z, torch.ones(len(z), 1)], 1) @ self.follow
        base = Motion.zeros(len(z), fps)
        parts = follows.split([getattr(base, n).shape[1] for n in _TORSO] + [len(_UPPER), len(LIDS)], 1)
        arkit, face = self.arkit.repeat(len(z), 1), self.face.repeat(len(z), 1)
        arkit[:, _UPPER] = parts[-2].clamp(0, 1)
        face[:, LIDS], face[:, BROWS] = parts[-1], brows
        torso = dict(zip(_TORSO, parts, strict=False))
        return base.map(
            arkit=arkit, face=face, gaze=gaze, head_rotation=head[:, :3], head_translation=head[:, 3:], **torso
        )

    def tensors(self) -> dict[str, Tensor]:
        """By name, for a file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def _ridge(z: Tensor, y: Tensor) -> Tensor:
    """[C + 1, Y] from channels [T, C] and a one to ``y`` [T, Y]."""
    x, middle, mean = z.double(), z.double().mean(0), y.double().mean(0)
    x = x - middle
    ridge = _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    matrix = torch.linalg.solve(x.T @ x + ridge, x.T @ (y.double() - mean))
    return torch.cat([matrix, (mean - middle @ matrix)[None]]).float()
