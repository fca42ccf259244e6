"""`ViewCone`: the directions from which an avatar looks right, stored in its RUN folder, and the soft stop at them.

A *view* is azimuth and elevation in degrees relative to the camera that filmed the person, as in `Camera.orbit`. A
turned head is a turned view: what counts is where the camera is in the head's own axes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from avatar.checks import Record, number
from avatar.data.run import VIEW_CONE
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.methods.base import PIVOT
from avatar.motion import Motion
from avatar.paths import read_json, write_json

FORMAT = "avatar-view-cone-1"
AZIMUTHS = tuple(7.5 * step for step in range(-8, 9))
ELEVATIONS = tuple(10.0 * step for step in range(-3, 4))
GOOD = 0.5  # confidence from which a view counts as good
UNKNOWN_AZIMUTH, UNKNOWN_ELEVATION = 20.0, 10.0  # degrees: limits of a run in which nothing was measured
SMALLEST_LIMIT = 3.0  # degrees; less is no free view, and nobody sees it
SOFTNESS = 0.25  # share of the way to the border on which a view is slowed down
NOTHING = 1e-3  # degrees: a smaller change of a view is none
_FIX = "Delete it: the view limits are then unknown. Or train the avatar again."


class Limits(NamedTuple):
    """The views that are good, in degrees: an ellipse whose quarters have these half-axes.

    Attributes:
        left, right: To negative and to positive azimuth.
        down, up: To negative and to positive elevation.
    """

    left: float
    right: float
    down: float
    up: float

    def ratio(self, azimuth: float, elevation: float) -> float:
        """How far a view is from the centre: 1 on the border, less inside."""
        across = azimuth / (self.right if azimuth > 0 else self.left)
        along = elevation / (self.up if elevation > 0 else self.down)
        return float(np.hypot(across, along))

    def clamped(self, azimuth: float, elevation: float, softness: float = SOFTNESS) -> tuple[float, float]:
        """Stop a view at the border, softly, on the straight line from the centre.

        Inside it stays as it is, up to ``1 - softness`` of the way to the border. From there it is slowed down, and
        reaches the border when ``1 + softness`` of the way is asked for. A softness of 0 stops at the border alone.
        """
        asked = self.ratio(azimuth, elevation)
        if asked <= 1 - softness:
            return azimuth, elevation
        # A parabola: its slope goes from 1 to 0, so that nothing jerks.
        given = 1.0 if asked >= 1 + softness else 1 - (1 + softness - asked) ** 2 / (4 * softness)
        return azimuth * given / asked, elevation * given / asked

    @property
    def text(self) -> str:
        """The limits in words of the option ``--camera``."""
        return f"azimuth {-self.left:.0f} to {self.right:.0f}, elevation {-self.down:.0f} to {self.up:.0f} degrees"


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewCone:
    """How well an avatar is seen from each direction.

    Attributes:
        azimuths, elevations: Degrees at which the confidence is known, increasing, with 0 among them.
        grid: Confidence 0 to 1, [elevations, azimuths].
        head_rotation, head_translation: Head pose that the views turn around, [3] axis-angle and [3] centimetres.
        filmed: Least and largest azimuth, least and largest elevation, degrees, from which the video shows the head.
        measured: False where nothing was measured in a run, and the limits are a guess.
    """

    azimuths: tuple[float, ...]
    elevations: tuple[float, ...]
    grid: Float[np.ndarray, "E A"]
    head_rotation: tuple[float, ...] = (0.0, 0.0, 0.0)
    head_translation: tuple[float, ...] = (0.0, 0.0, 50.0)
    filmed: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0)
    measured: bool = True

    @staticmethod
    def unknown() -> ViewCone:
        """The cone of a run without any: cautious limits, said to be unknown."""
        across, along = np.array(AZIMUTHS) / UNKNOWN_AZIMUTH, np.array(ELEVATIONS)[:, None] / UNKNOWN_ELEVATION
        grid = np.clip(1 - (1 - GOOD) * np.hypot(across, along), 0, 1)
        return ViewCone(azimuths=AZIMUTHS, elevations=ELEVATIONS, grid=grid, measured=False)

    @staticmethod
    def of_run(run: Path) -> ViewCone:
        """Read the cone of a RUN folder; an unknown one where it holds none.

        Raises:
            AvatarError: The file is damaged.
        """
        path = Path(run) / VIEW_CONE
        return ViewCone.read(path) if path.is_file() else ViewCone.unknown()

    @staticmethod
    def read(path: Path) -> ViewCone:
        """Read what :meth:`write` wrote.

        Raises:
            AvatarError: The file is damaged, or of another version.
        """
        file = Record(read_json(path, _FIX), path)
        if file.value("format") != FORMAT:
            raise AvatarError(f"{path} was written by another version of the toolkit.", fix=_FIX)
        azimuths, elevations = _axis(file, "azimuths", 180), _axis(file, "elevations", 90)
        rows = file.list("confidence")
        shape = f"{len(elevations)} rows of {len(azimuths)} numbers"
        if len(rows) != len(elevations) or not all(isinstance(r, list) and len(r) == len(azimuths) for r in rows):
            raise AvatarError(f"{file.place('confidence')} is not {shape}.", fix=_FIX)
        grid = np.array([[number(value, file.place("confidence"), 0, 1) for value in row] for row in rows])
        return ViewCone(
            azimuths=azimuths, elevations=elevations, grid=grid,
            head_rotation=_numbers(file, "head_rotation", 3, 100), filmed=_numbers(file, "filmed", 4, 360),
            head_translation=_numbers(file, "head_translation", 3, 1e4),
        )  # fmt: skip

    def write(self, path: Path) -> None:
        """Write it as JSON; the limits are added for other readers."""
        rounded = {name: [round(v, 4) for v in getattr(self, name)] for name in ("head_rotation", "head_translation")}
        limits = {name: round(value, 1) for name, value in self.limits()._asdict().items()}
        content = {"format": FORMAT, "limits": limits, "filmed": [round(v, 2) for v in self.filmed], **rounded}
        axes = {"azimuths": list(self.azimuths), "elevations": list(self.elevations)}
        write_json(path, content | axes | {"confidence": self.grid.round(3).tolist()})

    def confidence(self, azimuth: float, elevation: float) -> float:
        """Confidence of a view, 0 to 1, interpolated; 0 outside the grid."""
        across, along = np.array(self.azimuths), np.array(self.elevations)
        if not (across[0] <= azimuth <= across[-1] and along[0] <= elevation <= along[-1]):
            return 0.0
        rows = [float(np.interp(azimuth, across, row)) for row in self.grid]
        return float(np.interp(elevation, along, rows))

    def limits(self, least: float = GOOD) -> Limits:
        """How far to either side, down and up a view may go with a confidence of ``least`` all the way."""
        across, along = self.grid[self.elevations.index(0.0)], self.grid[:, self.azimuths.index(0.0)]
        azimuths, elevations = np.array(self.azimuths), np.array(self.elevations)
        sides = ((-azimuths, across), (azimuths, across), (-elevations, along), (elevations, along))
        return Limits(*(_reach(angles, values, least) for angles, values in sides))

    def contains(self, azimuth: float, elevation: float) -> bool:
        """Whether a view is good."""
        return self.limits().ratio(azimuth, elevation) <= 1

    def clamped(self, azimuth: float, elevation: float, softness: float = SOFTNESS) -> tuple[float, float]:
        """Stop a view softly at the border of what is good; see `Limits.clamped`."""
        return self.limits().clamped(azimuth, elevation, softness)

    def head_limits(self) -> Limits:
        """Limits for a turning head: the cone, widened until no direction that was filmed is slowed down."""
        limits = self.limits()
        least, most, low, high = self.filmed
        furthest = max(limits.ratio(azimuth, elevation) for azimuth in (least, most) for elevation in (low, high))
        scale = max(1.0, furthest / (1 - SOFTNESS))
        return Limits(*(scale * limit for limit in limits))

    def directions(self, motion: Motion) -> Float[Tensor, "T 2"]:
        """Views [T, 2], degrees, from which the filming camera sees the head in each frame of a motion."""
        return self._seen(motion)[0]

    @functools.cached_property
    def _reference(self) -> tuple[Tensor, Tensor]:
        """Rotation [3, 3] of the head in the reference pose, and the point in it [3] that views turn around."""
        turn = axis_angle_to_matrix(torch.tensor(self.head_rotation))
        return turn, torch.tensor(PIVOT) @ turn.T + torch.tensor(self.head_translation)

    def _seen(self, motion: Motion) -> tuple[Tensor, Tensor]:
        """The views [T, 2], and the directions [T, 3] to the camera in head axes."""
        reference, pivot = self._reference
        turns = axis_angle_to_matrix(motion.head_rotation)
        towards = -(torch.tensor(PIVOT) @ turns.mT + motion.head_translation)
        in_head = torch.nn.functional.normalize((towards[:, None] @ turns)[:, 0], dim=-1)
        return view_angles(pivot, in_head @ reference.T), in_head

    def limit_head(self, motion: Motion) -> tuple[Motion, float]:
        """Stop a turning head softly before it shows what was never filmed.

        Args:
            motion: [T] frames.

        Returns:
            The motion, the same object where nothing had to be changed or the limits are unknown; and the largest
            change of a view in degrees.
        """
        if not self.measured or not len(motion):
            return motion, 0.0
        limits, (views, in_head) = self.head_limits(), self._seen(motion)
        allowed = torch.tensor([limits.clamped(*view) for view in views.tolist()]).view(-1, 2)
        changed = (allowed - views).norm(dim=-1)
        if float(changed.max()) < NOTHING:
            return motion, 0.0
        reference, pivot = self._reference
        wanted = (view_rotation(allowed) @ torch.nn.functional.normalize(-pivot, dim=0)) @ reference
        before = axis_angle_to_matrix(motion.head_rotation)
        after = before @ _between(in_head, wanted).mT
        moved = (changed >= NOTHING)[:, None]
        rotation = torch.where(moved, matrix_to_axis_angle(after), motion.head_rotation)
        shift = torch.tensor(PIVOT) @ (before - after).mT  # the head turns around the point that views turn around
        translation = torch.where(moved, motion.head_translation + shift, motion.head_translation)
        return motion.map(head_rotation=rotation, head_translation=translation), float(changed.max())


def view_angles(pivot: Float[Tensor, 3], towards: Float[Tensor, "T 3"]) -> Float[Tensor, "T 2"]:
    """Azimuth and elevation [T, 2], degrees, of directions from a point; the inverse of `Camera.orbit`.

    Args:
        pivot: World point [3] that the filming camera, at the origin, is turned around.
        towards: World directions [T, 3] from there to a camera.
    """
    towards = torch.nn.functional.normalize(towards, dim=-1)
    base = -pivot / pivot.norm()
    high = torch.hypot(base[1], base[2])
    pitched = torch.asin((-towards[:, 1] / high).clamp(-1, 1))
    elevation = pitched - torch.atan2(-base[1], -base[2])
    azimuth = torch.atan2(towards[:, 0], -towards[:, 2]) - torch.atan2(base[0].expand_as(pitched), high * pitched.cos())
    wrapped = torch.remainder(azimuth + torch.pi, 2 * torch.pi) - torch.pi
    return torch.rad2deg(torch.stack([wrapped, elevation], -1))


def view_rotation(views: Float[Tensor, "T 2"]) -> Float[Tensor, "T 3 3"]:
    """Rotations [T, 3, 3] that take the filming camera to each view [T, 2] (degrees), as `Camera.orbit` does."""
    azimuth, elevation = torch.deg2rad(views).unbind(-1)
    zero = torch.zeros_like(azimuth)
    yaw = axis_angle_to_matrix(torch.stack([zero, azimuth, zero], -1))
    return (axis_angle_to_matrix(torch.stack([elevation, zero, zero], -1)) @ yaw).mT


def view_of(camera: Camera, pivot: Float[Tensor, 3]) -> tuple[float, float]:
    """Azimuth and elevation of any camera, degrees, seen from ``pivot`` (world point [3])."""
    azimuth, elevation = view_angles(pivot, (camera.position - pivot)[None])[0].tolist()
    return azimuth, elevation


def turned(camera: Camera, pivot: Float[Tensor, 3], view: tuple[float, float]) -> Camera:
    """A camera turned rigidly around ``pivot`` (world point [3]) until it is at another view (degrees)."""
    before, after = view_rotation(torch.tensor([view_of(camera, pivot), view]))
    back = before @ after.T
    viewmat = camera.viewmat.clone()
    viewmat[:3, :3] = camera.viewmat[:3, :3] @ back
    viewmat[:3, 3] += camera.viewmat[:3, :3] @ (pivot - back @ pivot)
    return replace(camera, viewmat=viewmat)


def _between(one: Tensor, other: Tensor) -> Tensor:
    """The smallest rotations [T, 3, 3] that take unit vectors [T, 3] to others."""
    axis = torch.linalg.cross(one, other)
    sine, cosine = axis.norm(dim=-1, keepdim=True), (one * other).sum(-1, keepdim=True)
    return axis_angle_to_matrix(axis / sine.clamp_min(1e-9) * torch.atan2(sine, cosine))


def _reach(angles: np.ndarray, values: np.ndarray, least: float) -> float:
    """How far from 0 values along one direction stay at ``least`` or above, degrees."""
    order = np.argsort(angles)
    angles, values = angles[order], values[order]
    outward = angles >= 0
    angles, values = angles[outward], values[outward]
    below = np.flatnonzero(values < least)
    if not len(below):
        return max(float(angles[-1]), SMALLEST_LIMIT)
    i = int(below[0])
    if i == 0:
        return SMALLEST_LIMIT
    share = (values[i - 1] - least) / (values[i - 1] - values[i])
    return max(float(angles[i - 1] + share * (angles[i] - angles[i - 1])), SMALLEST_LIMIT)


def _numbers(file: Record, name: str, count: int, largest: float) -> tuple[float, ...]:
    found = tuple(number(value, file.place(name), -largest, largest) for value in file.list(name))
    if len(found) != count:
        raise AvatarError(f"{file.place(name)} has {len(found)} numbers, not {count}.", fix=_FIX)
    return found


def _axis(file: Record, name: str, largest: float) -> tuple[float, ...]:
    found = tuple(number(value, file.place(name), -largest, largest) for value in file.list(name))
    if not 3 <= len(found) <= 1000 or 0.0 not in found or (np.diff(found) <= 0).any():
        raise AvatarError(f"{file.place(name)} are not increasing angles around 0.", fix=_FIX)
    return found
