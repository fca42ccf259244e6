"""Where the camera is at each moment: fixed, circling, or moving through keyframes; and where it is stopped."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from avatar.checks import number
from avatar.errors import AvatarError
from avatar.geometry.cameras import Camera
from avatar.infer.view_cone import LEAST_ZOOM, Limits, ViewCone
from avatar.paths import read_json

ORBIT_AZIMUTH, ORBIT_ELEVATION, ORBIT_SECONDS = 20.0, 6.0, 8.0
ORBIT_SHARE = 0.9  # of the way to the limits that an orbit goes at most
LIMITS = {"azimuth": (-180.0, 180.0), "elevation": (-89.0, 89.0), "zoom": (0.1, 10.0)}
CHECKED_TIMES = 257  # of a path of keyframes, to see whether it leaves a cone
LATEST, NEAREST = 1e6, 1e-3  # seconds: of a keyframe, and between two
_FIX = 'Give "orbit", "azimuth,elevation" or "azimuth,elevation,zoom" in degrees (15,-5 or 15,-5,1.2), or a .json file.'


@dataclass(frozen=True, kw_only=True)
class CameraPath:
    """Azimuth and elevation in degrees and zoom over time, relative to the camera that filmed the person.

    Attributes:
        times: Seconds, increasing. A single one means that the camera stands still.
        views: [len(times), 3] azimuth, elevation, zoom.
        period: Seconds after which the path starts again, or None. Only an orbit does so.
        limits: Views at which the path is stopped softly, or None.
    """

    times: Float[np.ndarray, " K"]
    views: Float[np.ndarray, "K 3"]
    period: float | None = None
    limits: Limits | None = None

    def __post_init__(self) -> None:
        if len(self.times) > 1:
            _ = self._curve  # now, so that the first frame of a live session does not wait for SciPy

    @functools.cached_property
    def _curve(self) -> Any:
        from scipy.interpolate import PchipInterpolator

        return PchipInterpolator(self.times, self.views, axis=0)

    @staticmethod
    def parse(text: str | None) -> CameraPath:
        """Read the ``--camera`` option; None is the filming camera.

        A file holds a list of ``{"time": s, "azimuth": deg, "elevation": deg, "zoom": factor}``; all but the time may
        be left out. Between keyframes the path is smooth and never overshoots.

        Raises:
            AvatarError: The text or the file is not understood, or an angle is out of range.
        """
        if text is None:
            return _fixed(0, 0, 1)
        if text == "orbit":
            return _orbit()
        if text.endswith(".json"):
            return _from_file(Path(text))
        try:
            numbers = [float(part) for part in text.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) not in (2, 3):
            raise AvatarError(f'--camera "{text}" is not understood.', fix=_FIX)
        view = dict(zip(LIMITS, [*numbers, 1.0], strict=False))
        _check(view, f'--camera "{text}"')
        return _fixed(*view.values())

    def at(self, time: float) -> tuple[float, float, float]:
        """Azimuth, elevation and zoom at second ``time``; held before the first and after the last keyframe."""
        if len(self.times) == 1:
            view = self.views[0]
        else:
            if self.period:
                time = self.times[0] + (time - self.times[0]) % self.period
            clamped = min(max(time, self.times[0]), self.times[-1])
            view = self._curve(clamped)
        azimuth, elevation, zoom = (float(v) for v in view)
        if self.limits is not None:
            azimuth, elevation = self.limits.clamped(azimuth, elevation)
        return azimuth, elevation, zoom

    def within(self, cone: ViewCone) -> CameraPath:
        """This path with all views inside a cone; the same object where they are.

        A fixed view stops at the border, an orbit is made to fit, and a path of keyframes stops softly. None zooms out:
        what lies beyond the frame's edge was not filmed.
        """
        limits = cone.limits()
        if self.period is not None:
            return _orbit(limits)
        if self.zooms_out:
            views = np.column_stack([self.views[:, :2], self.views[:, 2].clip(LEAST_ZOOM)])
            return replace(self, views=views).within(cone)
        if len(self.times) == 1:
            azimuth, elevation, zoom = self.at(0.0)
            inside = limits.clamped(azimuth, elevation, softness=0.0)
            return self if inside == (azimuth, elevation) else _fixed(*inside, zoom)
        times = np.linspace(self.times[0], self.times[-1], CHECKED_TIMES)
        views = [*map(self.at, times), *map(self.at, self.times)]
        if all(limits.ratio(azimuth, elevation) <= 1 for azimuth, elevation, _ in views):
            return self
        return replace(self, limits=limits)

    @property
    def zooms_out(self) -> bool:
        """Whether it shows more than the frame at some time."""
        return bool((self.views[:, 2] < LEAST_ZOOM).any())

    def camera(self, source: Camera, pivot: Float[Tensor, " 3"], time: float) -> Camera:
        """The camera at second ``time``, turned around ``pivot`` ([3], world centimetres)."""
        azimuth, elevation, zoom = self.at(time)
        return source if (azimuth, elevation, zoom) == (0, 0, 1) else source.orbit(pivot, azimuth, elevation, zoom)


def _fixed(azimuth: float, elevation: float, zoom: float) -> CameraPath:
    return CameraPath(times=np.zeros(1), views=np.array([[azimuth, elevation, zoom]], float))


def _orbit(limits: Limits | None = None) -> CameraPath:
    """A flat ellipse that starts in the filming camera's azimuth; dense enough to be one for the interpolation."""
    left, right, height = ORBIT_AZIMUTH, ORBIT_AZIMUTH, ORBIT_ELEVATION
    if limits is not None:
        left, right = (min(side, ORBIT_SHARE * limit) for side, limit in ((left, limits.left), (right, limits.right)))
        height = min(height, ORBIT_SHARE * limits.down, ORBIT_SHARE * limits.up)
    middle, half = (right - left) / 2, (right + left) / 2
    times = np.linspace(0, ORBIT_SECONDS, 65)
    phase = 2 * np.pi * times / ORBIT_SECONDS + math.asin(-middle / half)
    views = np.stack([middle + half * np.sin(phase), height * np.sin(2 * phase) / 2, np.ones_like(phase)], -1)
    return CameraPath(times=times, views=views, period=ORBIT_SECONDS)


def _from_file(path: Path) -> CameraPath:
    frames = read_json(path, "Correct the file or its path.")
    if not isinstance(frames, list) or not frames or not all(isinstance(f, dict) for f in frames):
        raise AvatarError(f"{path} is not a camera path.", fix='It must be a list like [{"time": 0, "azimuth": 15}].')
    rows = []
    for i, frame in enumerate(frames):
        where = f"{path}, keyframe {i}"
        unknown = set(frame) - {"time", *LIMITS}
        if unknown or "time" not in frame:
            problem = f"unknown {', '.join(sorted(unknown))}" if unknown else "no time"
            raise AvatarError(f"{where}: {problem}.", fix=f"Known are time, {', '.join(LIMITS)}.")
        values = {"time": frame["time"], "azimuth": 0.0, "elevation": 0.0, "zoom": 1.0, **frame}
        values = {name: number(v, f"{where}: {name}", -LATEST, LATEST) for name, v in values.items()}
        _check(values, where)
        rows.append([values["time"], values["azimuth"], values["elevation"], values["zoom"]])
    table = np.array(rows, float)
    if (np.diff(table[:, 0]) < NEAREST).any():
        raise AvatarError(f"{path}: the times of the keyframes must increase by {NEAREST:g} s at least.")
    return CameraPath(times=table[:, 0], views=table[:, 1:])


def _check(view: dict[str, float], where: str) -> None:
    for name, (low, high) in LIMITS.items():
        if not (math.isfinite(view[name]) and low <= view[name] <= high):
            raise AvatarError(
                f"{where}: {name} {view[name]:g} is out of range.", fix=f"It goes from {low:g} to {high:g}."
            )
