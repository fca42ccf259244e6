"""Head yaw towards the filming camera, and the frames that a training can leave out to be measured on turned heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avatar.checks import Record, number, whole
from avatar.errors import AvatarError
from avatar.geometry.se3 import axis_angle_to_matrix

if TYPE_CHECKING:
    from avatar.motion import Motion

KEY = "hold_out_yaw"  # in the training.json of a RUN folder
LEAST_FRAMES = 3  # on either side
BLOCK_SECONDS = (0.2, 0.5)  # a block of frontal frames
FRONTAL_SHARE = 0.5  # of the frames that are not turned: those near the median yaw


def head_yaw(motion: Motion) -> np.ndarray:
    """Angle between the face and the line to the filming camera, [T] degrees; positive is to the person's left."""
    ahead = -axis_angle_to_matrix(motion.head_rotation)[..., 2].double()
    place = motion.head_translation.double()
    facing, bearing = torch.atan2(ahead[:, 0], -ahead[:, 2]), torch.atan2(-place[:, 0], place[:, 2])
    return torch.rad2deg(torch.remainder(facing - bearing + torch.pi, 2 * torch.pi) - torch.pi).cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class HeldOutYaw:
    """Frames of the training part that a training leaves out.

    Attributes:
        share: What was asked for, of the frames, on either side.
        turned: Frames of the largest yaw, both sides, in order.
        frontal: As many frames as on one side, with the usual yaw, in blocks, in order.
        yaw: Mean yaw in degrees of the side turned to the person's right, of the other side, and of ``frontal``.
    """

    share: float
    turned: tuple[int, ...]
    frontal: tuple[int, ...]
    yaw: tuple[float, float, float]

    @property
    def frames(self) -> np.ndarray:
        """All that are left out, in order."""
        return np.array(sorted((*self.turned, *self.frontal)), np.int64)

    def to_json(self) -> dict[str, Any]:
        """As it is kept in training.json."""
        return {"share": self.share, "turned": [*self.turned], "frontal": [*self.frontal], "yaw": [*self.yaw]}

    @staticmethod
    def parse(data: Record, frames: int) -> HeldOutYaw:
        """Read it back.

        Args:
            data: The object below `KEY`.
            frames: How many the training part has.

        Raises:
            AvatarError: A field is missing, of another type or out of range.
        """
        turned, frontal = (
            tuple(whole(n, data.place(name), 0, frames - 1) for n in data.list(name)) for name in ("turned", "frontal")
        )
        angles = [number(angle, data.place("yaw"), -180, 180) for angle in data.list("yaw")]
        if not turned or not frontal or len(angles) != 3:
            raise AvatarError(f"{data.place('turned')} and the fields beside it do not belong together.")
        right, left, front = angles
        return HeldOutYaw(share=data.number("share", 0, 0.5), turned=turned, frontal=frontal, yaw=(right, left, front))


def hold_out_yaw(yaw: np.ndarray, frames: np.ndarray, share: float, fps: float) -> HeldOutYaw:
    """Choose frames of the largest yaw on either side, and as many as on one side of the usual yaw.

    Frontal frames come in blocks, spread over the video, as turned ones do: a single frame between two that are trained
    on would be no test.

    Args:
        yaw: [T] degrees, of :func:`head_yaw`.
        frames: Indices of the frames that could be trained on.
        share: Of these frames, on either side.
        fps: Frames per second.

    Raises:
        AvatarError: Too few frames would be left out, or all heads face the same way.
    """
    count = round(share * len(frames))
    if count < LEAST_FRAMES:
        raise AvatarError(
            f"--hold-out-yaw {share:g} of {len(frames)} frames leaves out {count} on either side,",
            why="too few to measure on.", fix=f"Give at least {(LEAST_FRAMES + 1) / max(len(frames), 1):.2g}.",
        )  # fmt: skip
    order = frames[np.argsort(yaw[frames], kind="stable")]
    right, left = order[:count], order[-count:]
    turned = np.sort(np.concatenate([right, left]))
    runs = 1 + int((np.diff(turned) > 1).sum())
    shortest, longest = (max(1, round(seconds * fps)) for seconds in BLOCK_SECONDS)
    block = int(np.clip(round(len(turned) / runs), shortest, longest))
    frontal = _frontal(yaw, np.setdiff1d(frames, turned), count, block)
    angles = (float(yaw[right].mean()), float(yaw[left].mean()), float(yaw[frontal].mean()))
    return HeldOutYaw(share=share, turned=tuple(turned.tolist()), frontal=tuple(frontal.tolist()), yaw=angles)


def _frontal(yaw: np.ndarray, frames: np.ndarray, count: int, block: int) -> np.ndarray:
    """``count`` of the frames near the median yaw, in blocks, one from each of equal spans of them.

    Args:
        yaw: [T] degrees.
        frames: To choose from, in order; at least twice ``count``.
        count: How many.
        block: Frames in a block.
    """
    distance = np.abs(yaw - np.median(yaw[frames]))
    pool = max(count, round(FRONTAL_SHARE * len(frames)))
    near = np.sort(frames[np.argsort(distance[frames], kind="stable")[:pool]])
    chosen: list[int] = []
    for span in np.array_split(near, -(-count // block)):
        size = min(block, len(span), count - len(chosen))
        if size > 0:
            first = int(np.convolve(distance[span], np.full(size, 1 / size), "valid").argmin())
            chosen += span[first : first + size].tolist()
    rest = np.setdiff1d(near, chosen)
    missing = rest[np.argsort(distance[rest], kind="stable")[: count - len(chosen)]]
    return np.sort(np.concatenate([np.array(chosen, np.int64), missing]))
