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
LEAST_ZOOM = 1.0  # of a view that is good: what lies beyond the frame's edge was not filmed
UNKNOWN_AZIMUTH, UNKNOWN_ELEVATION = 20.0, 10.0  # degrees: limits of a run in which nothing was measured
BETWEEN = 0.07  # that interpolation in a cell takes at most from a confidence that falls evenly to all sides
SMALLEST_LIMIT = 3.0  # degrees; less is no free view, and nobody sees it
SOFTNESS = 0.25  # share of the way to the border on which a view is slowed down
SETTLING = 3  # rounds, until a limited direction is right within a hundredth of a degree
NOTHING = 1e-3  # degrees: a smaller change of a view is none
ROOM = 4.0  # degrees that camera and head together may go beyond the limits, so that a head is not frozen at them
HALVINGS = 20  # of a way, to find where it crosses a border
_FIX = "Delete it: the view limits are then unknown. Or train the avatar again."


def slowed(asked: float, softness: float) -> float:
    """Factor on the way from a centre that stops it softly at a border.

    Up to ``1 - softness`` of the way to the border it is 1. From there the way is slowed down, and the border is
    reached when ``1 + softness`` of the way is asked for. With a softness of 0 it stops at the border alone.

    Args:
        asked: Share of the way to the border that is asked for.
        softness: 0 to 1.
    """
    if asked <= 1 - softness:
        return 1.0
    # A parabola: its slope goes from 1 to 0, so that nothing jerks.
    given = 1.0 if asked >= 1 + softness else 1 - (1 + softness - asked) ** 2 / (4 * softness)
    return given / asked


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
        """Stop a view at the border, softly, on the straight line from the centre; see `slowed`."""
        share = slowed(self.ratio(azimuth, elevation), softness)
        return azimuth * share, elevation * share

    def share(self, place: tuple[float, float], turn: tuple[float, float]) -> float:
        """How much of a turn is left that begins at a place and stops softly at the border; see `slowed`.

        From a place beyond the border, a turn that leads back is left, and one that leads farther is not.
        """
        here = self.ratio(*place)
        if here >= 1:
            return float(self.ratio(place[0] + turn[0], place[1] + turn[1]) < here)
        if self.ratio(place[0] + 2 * turn[0], place[1] + 2 * turn[1]) <= 1:
            return 1.0  # far from the border
        low, high = 0.0, 2.0
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            inside = self.ratio(place[0] + middle * turn[0], place[1] + middle * turn[1]) <= 1
            low, high = (middle, high) if inside else (low, middle)
        return slowed(1 / max(low, 1e-6), SOFTNESS)

    @property
    def text(self) -> str:
        """The limits in words of the option ``--camera``."""
        return f"azimuth {-self.left:.0f} to {self.right:.0f}, elevation {-self.down:.0f} to {self.up:.0f} degrees"


class HeadLimits(NamedTuple):
    """How far a head may turn itself.

    Attributes:
        views: The views in which the filming camera may see it; from below means that it looks up.
        roll: Degrees that it may tilt to either side.
    """

    views: Limits
    roll: float

    def clamped(self, azimuth: float, elevation: float, roll: float) -> tuple[float, float, float]:
        """Stop a direction of a head softly; see `ViewCone.directions`."""
        return *self.views.clamped(azimuth, elevation), roll * slowed(abs(roll) / self.roll, SOFTNESS)

    @property
    def text(self) -> str:
        """The limits in words."""
        views = self.views
        side = max(views.left, views.right)
        return f"{side:.0f} degrees to the side, {views.down:.0f} up, {views.up:.0f} down, {self.roll:.0f} of tilt"


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewCone:
    """How well an avatar is seen from each direction.

    Attributes:
        azimuths, elevations: Degrees at which the confidence is known, increasing, with 0 among them.
        grid: Confidence 0 to 1, [elevations, azimuths].
        head_rotation, head_translation: Head pose that the views turn around, [3] axis-angle and [3] centimetres.
        head: How far the head may turn and tilt itself; None where nothing was measured in a run. The limits of the
            views are then a guess.
    """

    azimuths: tuple[float, ...]
    elevations: tuple[float, ...]
    grid: Float[np.ndarray, "E A"]
    head_rotation: tuple[float, ...] = (0.0, 0.0, 0.0)
    head_translation: tuple[float, ...] = (0.0, 0.0, 50.0)
    head: HeadLimits | None = None

    @property
    def measured(self) -> bool:
        """Whether it was measured."""
        return self.head is not None

    @staticmethod
    def unknown() -> ViewCone:
        """The cone of a run without any: cautious limits, said to be unknown."""
        across, along = np.array(AZIMUTHS) / UNKNOWN_AZIMUTH, np.array(ELEVATIONS)[:, None] / UNKNOWN_ELEVATION
        grid = np.clip(1 - (1 - GOOD) * np.hypot(across, along), 0, 1)
        return ViewCone(azimuths=AZIMUTHS, elevations=ELEVATIONS, grid=grid)

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
        head = file.record("head")
        views = Limits(*(head.number(name, SMALLEST_LIMIT, 360) for name in Limits._fields))
        return ViewCone(
            azimuths=azimuths, elevations=elevations, grid=grid,
            head_rotation=_numbers(file, "head_rotation", 3, 100),
            head_translation=_numbers(file, "head_translation", 3, 1e4),
            head=HeadLimits(views, head.number("roll", SMALLEST_LIMIT, 360)),
        )  # fmt: skip

    def write(self, path: Path) -> None:
        """Write what was measured as JSON; the limits are added for other readers."""
        assert self.head is not None
        head = self.head.views._asdict() | {"roll": self.head.roll}
        content = {
            "format": FORMAT, "limits": {name: round(value, 1) for name, value in self.limits()._asdict().items()},
            "head": {name: round(value, 2) for name, value in head.items()},
            "head_rotation": [round(v, 4) for v in self.head_rotation],
            "head_translation": [round(v, 4) for v in self.head_translation],
            "azimuths": list(self.azimuths), "elevations": list(self.elevations),
            "confidence": self.grid.round(3).tolist(),
        }  # fmt: skip
        write_json(path, content)

    def confidence(self, azimuth: float, elevation: float) -> float:
        """Confidence of a view, 0 to 1, interpolated; 0 outside the grid."""
        across, along = np.array(self.azimuths), np.array(self.elevations)
        if not (across[0] <= azimuth <= across[-1] and along[0] <= elevation <= along[-1]):
            return 0.0
        rows = [float(np.interp(azimuth, across, row)) for row in self.grid]
        return float(np.interp(elevation, along, rows))

    def limits(self, least: float = GOOD) -> Limits:
        """How far to either side, down and up a view may go with a confidence of ``least`` all the way.

        Views between two of these directions may lack `BETWEEN` of it. A quarter of the ellipse in which some lack more
        is made smaller.
        """
        across, along = self.grid[self.elevations.index(0.0)], self.grid[:, self.azimuths.index(0.0)]
        azimuths, elevations = np.array(self.azimuths), np.array(self.elevations)
        sides = ((-azimuths, across), (azimuths, across), (-elevations, along), (elevations, along))
        return self._shrunk(Limits(*(_reach(angles, values, least) for angles, values in sides)), least - BETWEEN)

    def _shrunk(self, limits: Limits, least: float) -> Limits:
        """Shrink the quarters of an ellipse in which a view is worse than ``least``, with both half-axes of each."""
        angle, share = np.radians(np.arange(5, 90, 5)), np.linspace(0, 1, 101)
        across, along = np.outer(share, np.cos(angle)), np.outer(share, np.sin(angle))

        def kept(side: float, height: float) -> float:
            bad = np.flatnonzero((self._interpolated(side * across, height * along) < least).any(1))
            return float(share[max(bad[0] - 1, 0)]) if len(bad) else 1.0

        left, right, down, up = limits
        low, high = (kept(-left, -down), kept(right, -down)), (kept(-left, up), kept(right, up))
        shares = min(low[0], high[0]), min(low[1], high[1]), min(low), min(high)
        return Limits(*(max(share * limit, SMALLEST_LIMIT) for share, limit in zip(shares, limits, strict=True)))

    def _interpolated(self, azimuths: np.ndarray, elevations: np.ndarray) -> np.ndarray:
        """Confidence of views inside the grid; the same as `confidence`, for many at once."""
        across, along = np.array(self.azimuths), np.array(self.elevations)
        column = np.clip(np.searchsorted(across, azimuths, side="right") - 1, 0, len(across) - 2)
        row = np.clip(np.searchsorted(along, elevations, side="right") - 1, 0, len(along) - 2)
        x = ((azimuths - across[column]) / (across[column + 1] - across[column])).clip(0, 1)
        y = ((elevations - along[row]) / (along[row + 1] - along[row])).clip(0, 1)
        low = self.grid[row, column] * (1 - x) + self.grid[row, column + 1] * x
        high = self.grid[row + 1, column] * (1 - x) + self.grid[row + 1, column + 1] * x
        return low * (1 - y) + high * y

    def contains(self, azimuth: float, elevation: float) -> bool:
        """Whether a view is good."""
        return self.limits().ratio(azimuth, elevation) <= 1

    def clamped(self, azimuth: float, elevation: float, softness: float = SOFTNESS) -> tuple[float, float]:
        """Stop a view softly at the border of what is good; see `Limits.clamped`."""
        return self.limits().clamped(azimuth, elevation, softness)

    def directions(self, motion: Motion) -> Float[Tensor, "T 3"]:
        """Views from which the filming camera sees the head in each frame of a motion, and its tilt.

        Returns:
            [T, 3] azimuth, elevation, and roll about the line of sight, degrees.
        """
        # A head rotation is the turn of the line of sight, times a roll about that of the reference pose, times the
        # inverse of the view's turn of the camera, times the reference rotation.
        reference, pivot = self._reference
        rotation = axis_angle_to_matrix(motion.head_rotation)
        sight, towards = self._sight(rotation, motion.head_translation)
        views = view_angles(pivot, (towards[:, None] @ rotation)[:, 0] @ reference.T)
        roll = matrix_to_axis_angle(sight.mT @ rotation @ reference.T @ view_rotation(views))
        along = roll @ torch.nn.functional.normalize(-pivot, dim=0)
        return torch.cat([views, torch.rad2deg(along)[:, None]], -1)

    def limit_head(self, motion: Motion, cameras: Float[Tensor, "T 3"] | None = None) -> tuple[Motion, float]:
        """Stop a turning head softly at ``head``, beyond which neck and hair tear.

        Args:
            motion: [T] frames.
            cameras: Where the camera is in each frame, world positions [T, 3]. A head that turns away from a turned
                camera stops where both together are `ROOM` beyond the limits of the views. None: as filmed.

        Returns:
            The motion, the same object where nothing had to be changed or the limits are unknown; and the largest
            change of a direction in degrees.
        """
        if self.head is None or not len(motion):
            return motion, 0.0
        views = self.directions(motion)
        allowed = torch.tensor([self.head.clamped(*view) for view in views.tolist()])
        if cameras is not None:
            allowed[:, :2] *= self._left_by(cameras, allowed[:, :2])
        changed = (allowed - views).norm(dim=-1)
        if float(changed.max()) < NOTHING:
            return motion, 0.0
        reference, pivot = self._reference
        roll = axis_angle_to_matrix(torch.deg2rad(allowed[:, 2:]) * torch.nn.functional.normalize(-pivot, dim=0))
        turn = roll @ view_rotation(allowed[:, :2]).mT @ reference
        after = axis_angle_to_matrix(motion.head_rotation)
        for _ in range(SETTLING):  # a turn moves the point that views turn around, a little
            after = self._sight(after, motion.head_translation)[0] @ turn
        moved = (changed >= NOTHING)[:, None]
        rotation = torch.where(moved, matrix_to_axis_angle(after), motion.head_rotation)
        return motion.map(head_rotation=rotation), float(changed.max())

    def _left_by(self, cameras: Tensor, views: Tensor) -> Tensor:
        """Shares [T, 1] of the turns of a head that cameras [T, 3] leave to it.

        Args:
            cameras: World positions; the filming camera, at the origin, leaves all. From there the limits set in over
                `ROOM` degrees, so that a head does not jump where a camera begins to move.
            views: [T, 2] in which the filming camera sees the head, degrees.
        """
        pivot, around = self._reference[1], Limits(*(limit + ROOM for limit in self.limits()))
        places = view_angles(pivot, cameras - pivot)
        away = ((places.norm(dim=-1, keepdim=True) - NOTHING) / ROOM).clamp(0, 1)
        rows = zip(places.tolist(), views.tolist(), strict=True)
        shares = torch.tensor([[around.share((p[0], p[1]), (v[0], v[1]))] for p, v in rows])
        return 1 - away * (1 - shares)

    @functools.cached_property
    def _reference(self) -> tuple[Tensor, Tensor]:
        """Rotation [3, 3] of the head in the reference pose, and the point in it [3] that views turn around."""
        turn = axis_angle_to_matrix(torch.tensor(self.head_rotation))
        return turn, torch.tensor(PIVOT) @ turn.T + torch.tensor(self.head_translation)

    def _sight(self, rotation: Tensor, translation: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations [T, 3, 3] from the reference's line of sight to each frame's, and directions [T, 3] to the camera.

        Args:
            rotation: [T, 3, 3] of the head.
            translation: [T, 3] of the head.
        """
        base = torch.nn.functional.normalize(-self._reference[1], dim=0)
        towards = torch.nn.functional.normalize(-(torch.tensor(PIVOT) @ rotation.mT + translation), dim=-1)
        return _between(base.expand_as(towards), towards), towards


def view_angles(pivot: Float[Tensor, " 3"], towards: Float[Tensor, "T 3"]) -> Float[Tensor, "T 2"]:
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


def view_of(camera: Camera, pivot: Float[Tensor, " 3"]) -> tuple[float, float]:
    """Azimuth and elevation of any camera, degrees, seen from ``pivot`` (world point [3])."""
    azimuth, elevation = view_angles(pivot, (camera.position - pivot)[None])[0].tolist()
    return azimuth, elevation


def turned(camera: Camera, pivot: Float[Tensor, " 3"], view: tuple[float, float]) -> Camera:
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
