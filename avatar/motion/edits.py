"""Control over lips, pose, blinks and gaze: each a function from a block of `Motion` to a block of `Motion`.

A function sees a block and the time of its frames and keeps no state, so the result does not depend on how a stream is
cut into blocks, and memory is constant.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.motion.arkit import ARKIT, INDEX, MOUTH
from avatar.motion.arkit_map import FaceMap
from avatar.motion.blinks import EYES, LIDS
from avatar.motion.face_channels import GAP_INNER, GAP_OUTER, LIP_CHANNELS, open_lips, opening_change
from avatar.motion.motion import POSE_TRACKS, Motion
from avatar.motion.statistics import MotionStats

MotionEdit = Callable[[Motion, Tensor], Motion]  # (block, seconds [T] of its frames) -> block

EYES_TURN = (30, 25)  # degrees aside, and up or down: further, people turn their head
GAZE_LIMITS = (math.radians(EYES_TURN[0]), math.radians(EYES_TURN[1]))  # yaw, pitch
BREATHS_PER_MINUTE = 14.0
BREATH = 0.12  # centimetres that the chest rises and falls about its mean; the head goes half as far
_MOUTH, _LIPS = list(MOUTH), list(LIP_CHANNELS)
_OPENING = [
    INDEX[name] for name in ("jawOpen", "mouthFunnel", "mouthLowerDownLeft", "mouthLowerDownRight",
                             "mouthUpperUpLeft", "mouthUpperUpRight")
]  # fmt: skip
_LOOKS = [i for i, name in enumerate(ARKIT) if name.startswith("eyeLook")]


def scale_lips(block: Motion, scale: float, stats: MotionStats) -> Motion:
    """Move the lips, jaw and cheeks ``scale`` times as far from the person's resting mouth. Closures stay closed."""
    face, arkit = block.face.clone(), block.arkit.clone()
    face[:, _LIPS] = torch.lerp(stats.rest.face[:, _LIPS], face[:, _LIPS], scale)
    arkit[:, _MOUTH] = torch.lerp(stats.rest.arkit[:, _MOUTH], arkit[:, _MOUTH], scale).clamp(0, 1)
    return keep_closures(block, block.map(face=face, arkit=arkit), stats)


def keep_closures(before: Motion, after: Motion, stats: MotionStats) -> Motion:
    """``after`` with lips that touch wherever those of ``before`` did, and that never pass through each other.

    Only the gap between the lips goes back to what it was; where the lips are, and how their line is bent, stays.
    """
    shut = stats.closedness(before.face)[:, None]
    face, arkit = after.face.clone(), after.arkit.clone()
    back = shut * (before.face[:, GAP_INNER] - face[:, GAP_INNER])
    face[:, GAP_INNER] += back
    face[:, GAP_OUTER] += back
    through = opening_change(before.face).clamp(max=stats.pressed) - opening_change(face)
    more = (arkit[:, _OPENING] - before.arkit[:, _OPENING]).clamp(min=0)
    arkit[:, _OPENING] -= shut * more
    return after.map(face=open_lips(face, through.clamp(min=0)), arkit=arkit)


def scale_pose(block: Motion, scale: float, stats: MotionStats) -> Motion:
    """Move head and torso ``scale`` times as far from the person's mean pose."""
    return block.map(**{n: torch.lerp(getattr(stats.rest, n), getattr(block, n), scale) for n in POSE_TRACKS})


def breathe(block: Motion, seconds: Float[Tensor, " T"]) -> Motion:
    """Let the chest rise and fall, and the head with it."""
    phase = 2 * math.pi * BREATHS_PER_MINUTE / 60 * seconds
    rise = -BREATH * torch.sin(phase - 0.3 * torch.sin(phase))  # breathing out takes longer than in; y points down
    torso, head = block.torso_translation.clone(), block.head_translation.clone()
    torso[:, 1] += rise
    head[:, 1] += rise / 2
    return block.map(torso_translation=torso, head_translation=head)


class Blinks:
    """Blinks of the person's own shape at a given rate instead of those in the track.

    Time is cut into spans of 60 / rate seconds with one blink somewhere in each, so that a number of minutes has
    exactly the number of blinks that was asked for, and no state is needed.

    Args:
        rate: Blinks per minute; 0 keeps the eyes open.
        stats: Of the person.
        seed: Chooses the times.
    """

    def __init__(self, rate: float, stats: MotionStats, seed: int = 0) -> None:
        self.rate, self.seed = rate, seed
        self._rest = stats.rest
        self._shapes = _blink_shapes(stats)
        self._fps = stats.track.fps

    def __call__(self, block: Motion, seconds: Float[Tensor, " T"]) -> Motion:
        """The block with other blinks."""
        arkit, face = block.arkit.clone(), block.face.clone()
        eyes, lids = self._rest.arkit[:, EYES], self._rest.face[:, LIDS]
        arkit[:, EYES] = torch.minimum(arkit[:, EYES], eyes)
        face[:, LIDS] = torch.maximum(face[:, LIDS], lids)
        closing = self._closing(seconds)
        arkit[:, EYES] = (arkit[:, EYES] + closing[:, :2]).clamp(0, 1)
        face[:, LIDS] += closing[:, 2:]
        return block.map(arkit=arkit, face=face)

    def _closing(self, seconds: Tensor) -> Tensor:
        """[T, 4] what blinks add to `EYES` and `LIDS`."""
        out = np.zeros((len(seconds), 4), np.float32)
        if self.rate <= 0 or len(seconds) == 0:
            return torch.from_numpy(out)
        span = 60 / self.rate
        times = seconds.double().numpy()
        for number in range(math.floor(times[0] / span) - 1, math.floor(times[-1] / span) + 1):
            rng = np.random.default_rng([self.seed, number + 2**20])
            shape = self._shapes[rng.integers(len(self._shapes))]
            lasts = (len(shape) - 1) / self._fps
            start = (number + rng.uniform(0, max(0.0, 1 - lasts / span))) * span
            at = (times - start) * self._fps
            for c in range(4):
                out[:, c] += np.interp(at, np.arange(len(shape)), shape[:, c], left=0, right=0)
        return torch.from_numpy(out)


class ExtraBlink:
    """One more blink of the person's own shape, over those in the track; eyes that are closed already stay so.

    Args:
        stats: Of the person.
    """

    def __init__(self, stats: MotionStats) -> None:
        shapes = _blink_shapes(stats)
        self._shape = sorted(shapes, key=len)[len(shapes) // 2]
        self._fps = stats.track.fps

    def __call__(self, block: Motion, seconds: float) -> Motion:
        """The block, all of it ``seconds`` after the blink's begin."""
        at, frames = seconds * self._fps, np.arange(len(self._shape))
        closing = [np.interp(at, frames, self._shape[:, c], left=0, right=0) for c in range(4)]
        arkit, face = block.arkit.clone(), block.face.clone()
        open_share = 1 - arkit[:, EYES].amax(-1, keepdim=True).clamp(0, 1)
        arkit[:, EYES] = (arkit[:, EYES] + open_share * torch.tensor(closing[:2]).float()).clamp(0, 1)
        face[:, LIDS] += open_share * torch.tensor(closing[2:]).float()
        return block.map(arkit=arkit, face=face)


def _blink_shapes(stats: MotionStats) -> list[np.ndarray]:
    """[n, 4] each: what the person's blinks add to `EYES` and `LIDS` of the open eye; a drawn one if there is none."""
    shapes = []
    for blink in stats.blinks:
        values = torch.cat([blink.arkit[:, EYES], blink.face[:, LIDS]], 1).numpy()
        ends = np.linspace(values[0], values[-1], len(values))
        edge = np.clip(np.minimum(np.arange(len(values)), np.arange(len(values))[::-1]) / 3, 0, 1)[:, None]
        shapes.append(((values - ends) * edge).astype(np.float32))
    if shapes:
        return shapes
    times = np.arange(round(0.3 * stats.track.fps) + 1) / stats.track.fps
    closing = np.clip(np.minimum(times / 0.08, (0.3 - times) / 0.2), 0, 1)[:, None]
    full = FaceMap.generic().matrix[EYES].sum(0)[LIDS].numpy()
    return [(closing * np.r_[0.8, 0.8, full]).astype(np.float32)]


class Gaze:
    """Eyes that look at a point or in a direction; eyelids and ARKit's eyeLook* follow as the person's own do.

    Args:
        stats: Of the person.
        direction: Yaw and pitch in the head, degrees, positive to the person's left and up. None holds the camera.
        camera: Position of the camera in the world [3] at a second; only for None.
    """

    def __init__(
        self,
        stats: MotionStats,
        direction: tuple[float, float] | None,
        camera: Callable[[float], Tensor] | None = None,
    ) -> None:
        if (direction is None) == (camera is None):
            raise ValueError("either a direction or a camera")
        self._direction, self._camera = direction, camera
        self._follow = _following(stats.track)

    def __call__(self, block: Motion, seconds: Float[Tensor, " T"]) -> Motion:
        """The block with another gaze."""
        if self._direction is not None:
            wanted = torch.tensor(self._direction).deg2rad().expand(len(block), 2)
        else:
            assert self._camera is not None
            place = torch.stack([self._camera(t) for t in seconds.tolist()])
            wanted = gaze_to(block, place)
        return self.look(block, wanted)

    def look(self, block: Motion, wanted: Float[Tensor, "T 2"]) -> Motion:
        """The block with eyes turned to yaw and pitch in the head, radians, as far as eyes turn."""
        wanted = torch.stack([wanted[:, i].clamp(-limit, limit) for i, limit in enumerate(GAZE_LIMITS)], 1)
        moved = (wanted - block.gaze) @ self._follow
        arkit, face = block.arkit.clone(), block.face.clone()
        arkit[:, _LOOKS] = (arkit[:, _LOOKS] + moved[:, : len(_LOOKS)]).clamp(0, 1)
        face[:, LIDS] += moved[:, len(_LOOKS) :]
        return block.map(gaze=wanted, arkit=arkit, face=face)


def gaze_to(block: Motion, place: Float[Tensor, "T 3"]) -> Float[Tensor, "T 2"]:
    """Yaw and pitch in the head, radians [T, 2], from the head to world points [T, 3]."""
    turn = axis_angle_to_matrix(block.head_rotation)
    towards = ((place - block.head_translation)[:, None] @ turn)[:, 0]
    return torch.stack([torch.atan2(towards[:, 0], -towards[:, 2]), torch.atan2(-towards[:, 1], -towards[:, 2])], 1)


def _following(track: Motion) -> Tensor:
    """[2, 8 + 2] change of eyeLook* and of the lids per radian of gaze: ridge regression, towards nominal values."""
    nominal = torch.zeros(2, len(_LOOKS) + len(LIDS))
    full = 1 / math.radians(30)
    for column, i in enumerate(_LOOKS):
        name = ARKIT[i]
        if "Up" in name or "Down" in name:
            nominal[1, column] = full if "Up" in name else -full
        else:
            left = name in ("eyeLookOutLeft", "eyeLookInRight")
            nominal[0, column] = full if left else -full
    lid = FaceMap.generic().matrix[INDEX["eyeLookDownLeft"]][LIDS[0]]
    nominal[1, len(_LOOKS) :] = -lid * full
    open_eyes = track.arkit[:, EYES].amax(1) < 0.3
    x = track.gaze[open_eyes].double()
    y = torch.cat([track.arkit[:, _LOOKS], track.face[:, LIDS]], 1)[open_eyes].double()
    if len(x) < 50:
        return nominal
    x, y = x - x.mean(0), y - y.mean(0)
    weight = len(x) * math.radians(3) ** 2
    gram = x.T @ x + weight * torch.eye(2, dtype=x.dtype)
    return torch.linalg.solve(gram, x.T @ y + weight * nominal.double()).float()
