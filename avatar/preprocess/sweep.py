"""A closed surface of oval cross-sections, one per height: what hair and skull, neck, and torso are made of.

Axes are a head's: x to the person's left, y down, z away from the camera, centimetres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from avatar.geometry.even import candidates, evenly
from avatar.geometry.smoothstep import smoothstep

EAR_ROOT = 1.2  # centimetres further in than it stands off that an ear begins
STANDS_OFF = 0.3  # centimetres from which on that is an ear
LEVEL = 2.0  # most by which an inset grows where the outline is nearly level
EAR_TURN = 0.25  # radians behind the widest place within which an ear goes back to the head

# From heights [N], angles [N], points [N, 3] and normals [N, 3]: how densely to sample there, 0 or more.
Keep = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sweep:
    """A closed surface of oval cross-sections.

    Attributes:
        y: [R] heights, evenly spaced.
        left, right: [R] half widths towards +x and -x.
        middle: [R] depth of the widest place; the centre in x is ``centre`` [R].
        front, back: [R] half depths before and behind it.
        power: Exponent of the width: 2 is an ellipse, more is flatter.
        bend: [R] exponent of the depth: 2 is an ellipse, less falls away from the middle sooner.
        tuck: [2, R] centimetres by which the left and right half are narrower behind the widest place: what stands off
            there are ears.
    """

    y: np.ndarray
    left: np.ndarray
    right: np.ndarray
    centre: np.ndarray
    middle: np.ndarray
    front: np.ndarray
    back: np.ndarray
    power: float = 2.0
    bend: np.ndarray | None = None
    tuck: np.ndarray | None = None

    def _rows(self, y: np.ndarray, *names: str) -> list[np.ndarray]:
        return [np.interp(y, self.y, getattr(self, name)) for name in names]

    def front_depth(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Depth of the front at places x, y; beside the surface, that of its outline."""
        left, right, centre, middle, front = self._rows(y, "left", "right", "centre", "middle", "front")
        wide = np.maximum(np.where(x > centre, left, right), 1e-3)
        share = np.abs(x - centre) / wide
        deep = np.clip(1 - share**self.power, 0, 1) ** (1 / self._bend(y))
        return middle - front * self._on_flap(y, x > centre, wide, share, deep)

    def _on_flap(
        self, y: np.ndarray, to_left: np.ndarray, wide: np.ndarray, share: np.ndarray, deep: np.ndarray
    ) -> np.ndarray:
        """Depths [N], as shares of the front's, at shares [N] of the width: straight where ears stand off.

        An oval falls off ever more steeply towards its outline. The last half centimetre of an ear would lie two
        centimetres deep, and come apart from the rest of it in a view from aside.
        """
        if self.tuck is None:
            return deep
        off = self._off(y, to_left)
        root = np.clip(1 - (off + EAR_ROOT) / wide, 0, 0.95)
        from_root = np.clip(1 - root**self.power, 0, 1) ** (1 / self._bend(y)) * (1 - share) / (1 - root)
        straight = smoothstep(off, 0, 2 * STANDS_OFF) * (share > root)
        return deep + straight * (np.maximum(from_root, 0) - deep)

    def _off(self, y: np.ndarray, to_left: np.ndarray) -> np.ndarray:
        """Centimetres [N] that the left or right half stands off at heights."""
        assert self.tuck is not None
        return np.where(to_left, *(np.interp(y, self.y, part) for part in self.tuck))

    def _bend(self, y: np.ndarray) -> np.ndarray:
        return np.full(np.shape(y), 2.0) if self.bend is None else np.interp(y, self.y, self.bend)

    def meet(self, start: np.ndarray, along: np.ndarray, depth: float) -> np.ndarray:
        """Factors [N] on directions [N, 3] from a place [3] to the front; ``depth`` is the first guess."""
        found = np.full(len(along), depth)
        for _ in range(6):
            at = start + along * found[:, None]
            found = found + 0.8 * (self.front_depth(at[:, 0], at[:, 1]) - at[:, 2]) / along[:, 2]
        return found

    def angle(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Angle around the axis, -pi/2 to pi/2, of places on the front."""
        left, right, centre = self._rows(y, "left", "right", "centre")
        share = np.clip(np.abs(x - centre) / np.maximum(np.where(x > centre, left, right), 1e-3), 0, 1)
        return np.sign(x - centre) * np.arcsin(share ** (self.power / 2))

    def bare_sides(self) -> np.ndarray:
        """Half widths [2, R] towards +x and -x without what stands off."""
        sides = np.stack([self.left, self.right])
        return sides if self.tuck is None else sides - self.tuck

    def narrowed(self, amount: float, ears: float, slopes: bool = False) -> Sweep:
        """The same, narrower by centimetres on either side; by ``ears`` where ears stand off.

        Args:
            amount, ears: Centimetres.
            slopes: Measure them across the outline: where it is nearly level, as on shoulders, more of the width.
        """
        sides = np.stack([self.left, self.right])
        less = np.full(sides.shape, amount) if self.tuck is None else np.where(self.tuck > STANDS_OFF, ears, amount)
        if slopes:
            less = less * np.minimum(np.hypot(1, np.gradient(sides, self.y, axis=1)), LEVEL)
        left, right = np.maximum(sides - less, 0.05)
        return replace(self, left=left, right=right)

    def points(self, y: np.ndarray, angle: np.ndarray) -> np.ndarray:
        """Points [N, 3] at heights and angles around the axis: 0 is the front, a quarter turn the person's left."""
        left, right, centre, middle, front, back = self._rows(y, "left", "right", "centre", "middle", "front", "back")
        sine, cosine = np.sin(angle), np.cos(angle)
        flat = 2 / self.power
        across = np.sign(sine) * np.abs(sine) ** flat
        wide = np.where(sine > 0, left, right)
        deep = np.abs(cosine) ** (2 / self._bend(y))
        before = self._on_flap(y, sine > 0, wide, np.abs(across), deep)
        if self.tuck is not None:
            wide = wide - self._off(y, sine > 0) * smoothstep(np.abs(angle), np.pi / 2, np.pi / 2 + EAR_TURN)
        x = centre + wide * across
        return np.stack([x, y, middle + np.where(cosine > 0, -front * before, back * deep)], -1)

    def normals(self, y: np.ndarray, angle: np.ndarray) -> np.ndarray:
        """Outward unit normals [N, 3] at the same places."""
        along = self.points(y, angle + 0.03) - self.points(y, angle - 0.03)
        down = self.points(y + 0.3, angle) - self.points(y - 0.3, angle)
        normal = np.cross(down, along)
        return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)

    def sample(
        self, count: int, rng: np.random.Generator, keep: Keep
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """About ``count`` points over the part of the surface that ``keep(y, angle, points, normals)`` chooses.

        They are as far from each other as from the next, so that few cover the surface without a gap.

        Returns:
            Heights, angles, points, and the area per point.
        """
        tries = 40 * max(count, 50)
        y = rng.uniform(self.y[0] + 0.05, self.y[-1] - 0.05, tries)
        angle = rng.uniform(-np.pi, np.pi, tries)
        points, normals = self.points(y, angle), self.normals(y, angle)
        along = np.linalg.norm(self.points(y, angle + 0.03) - self.points(y, angle - 0.03), axis=1) / 0.06
        down = np.linalg.norm(self.points(y + 0.2, angle) - self.points(y - 0.2, angle), axis=1) / 0.4
        area = along * np.minimum(down, 4.0) * keep(y, angle, points, normals)
        total = area.mean() * 2 * np.pi * (self.y[-1] - self.y[0])
        if total <= 0 or count <= 0:
            return y[:0], angle[:0], points[:0], 1.0
        around = rng.choice(tries, candidates(count), p=area / area.sum())
        chosen = around[evenly(points[around], min(count, int((area > 0).sum())))]
        return y[chosen], angle[chosen], points[chosen], total / len(chosen)
