"""Measure free view of an avatar without any truth: the camera turned around it, and the head turned before the camera.

Some held-out frames are rendered from every view over flat grey. `avatar.infer.view_quality` reads faults off each
image, `avatar.eval.view_geometry` compares it with the person's face mesh. Every report has a small form of this;
``--views`` measures all views in more frames and at full size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from avatar import log
from avatar.errors import AvatarError
from avatar.eval import bootstrap, identity, view_colors, view_geometry
from avatar.eval.bootstrap import Bootstrap
from avatar.eval.view_colors import Surface
from avatar.eval.view_geometry import FaceMesh
from avatar.geometry.se3 import axis_angle_to_matrix, matrix_to_axis_angle
from avatar.infer import view_quality
from avatar.infer.view_quality import Silhouette
from avatar.methods.base import PIVOT, check_output

if TYPE_CHECKING:
    from avatar.data import PersonDataset
    from avatar.eval.measure import Tools
    from avatar.geometry.cameras import Camera
    from avatar.infer.avatar import Avatar
    from avatar.motion import Motion

GREY = 0.5  # brightness of the background
FRAMES, QUICK_FRAMES = 10, 3
MOST_SIDE, QUICK_SIDE = 1024, 256  # pixels of the longer side
SAMPLES = 3  # frames on the sheet of views


@dataclass(frozen=True)
class View:
    """Where an avatar is looked at from, in degrees; the filming camera and the filmed pose are all zeros.

    Attributes:
        azimuth, elevation: Of the camera, see `Camera.orbit`.
        head_yaw: Turn of the head beyond its filmed pose; positive to the person's left.
    """

    azimuth: float = 0.0
    elevation: float = 0.0
    head_yaw: float = 0.0

    @property
    def title(self) -> str:
        """What to write over it."""
        if self.head_yaw:
            return f"head {self.head_yaw:+g}"
        if self.elevation:
            return f"elevation {self.elevation:+g}"
        return f"azimuth {self.azimuth:+g}" if self.azimuth else "frontal"

    @property
    def group(self) -> str:
        """The views that it is averaged with: ``azimuth_30`` for both sides."""
        for name in ("head_yaw", "elevation", "azimuth"):
            if value := getattr(self, name):
                return f"{name}_{abs(value):g}"
        return "frontal"


FRONTAL = View()
QUICK = (FRONTAL, *(View(azimuth=a) for a in (15.0, -15.0, 30.0, -30.0)))
ALL = (
    *QUICK, *(View(azimuth=a) for a in (45.0, -45.0)), *(View(elevation=e) for e in (15.0, -15.0)),
    *(View(head_yaw=y) for y in (25.0, -25.0)),
)  # fmt: skip


@dataclass
class Look:
    """One rendered view and what was found in it.

    Attributes:
        image: uint8 RGB [H, W, 3] over grey.
        alpha: [H, W] coverage.
        depth, mesh_depth, difference: [H, W] centimetres, of the rendering, of the face mesh, and the first minus the
            second; None where the method has no depth.
        faults: [H, W, 2] bool: holes, and colours out of place.
    """

    image: np.ndarray
    alpha: np.ndarray
    depth: np.ndarray | None = None
    mesh_depth: np.ndarray | None = None
    difference: np.ndarray | None = None
    faults: np.ndarray | None = None


@dataclass
class ViewMeasurement:
    """What was measured of the views.

    Attributes:
        result: What goes into the JSON.
        looks: For some frames each view and its images.
        camera: Of the images, before it is turned.
        pivot: World point [3] that it is turned around.
        fps: Frames per second.
        truth: Where there is a truth, for each view by name the images "truth" and "avatar".
    """

    result: dict[str, Any]
    camera: Camera
    pivot: torch.Tensor
    fps: float
    looks: dict[int, dict[View, Look]] = field(default_factory=dict)
    truth: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def measure_views(avatar: Avatar, data: PersonDataset, tools: Tools, *, quick: bool) -> ViewMeasurement:
    """Render held-out frames from all views and measure each image.

    Args:
        avatar: Draws them.
        data: The person, with the poses that training corrected.
        tools: Tracker, and recogniser where there is one.
        quick: Few views and frames, and small.
    """
    views = QUICK if quick else ALL
    frames = pick_frames(data, QUICK_FRAMES if quick else FRAMES)
    camera = _small(avatar.camera, QUICK_SIDE if quick else MOST_SIDE)
    observer = Observer(avatar, data, camera, tools, quick)
    kept = frames if quick else frames[:: max(1, len(frames) // SAMPLES)][:SAMPLES]
    measured = ViewMeasurement({}, camera, avatar.pivot, data.fps)
    rows: dict[View, list[dict[str, float]]] = {view: [] for view in views}
    with log.progress() as bar:
        task = bar.add_task("Measuring views", total=len(views) * len(frames), info="")
        for frame in frames:
            observer.open(frame)
            for view in views:
                row, look = observer.look(view)
                rows[view].append(row)
                if frame in kept:
                    measured.looks.setdefault(frame, {})[view] = look
                bar.advance(task)
    resamples = Bootstrap.of_chosen(frames, data.fps)
    measured.result = {
        "quick": quick, "width": camera.width, "height": camera.height, "frames": frames,
        "by_view": [_by_view(view, rows[view]) for view in views],
        "groups": {name: _summarised(series, resamples) for name, series in _groups(rows).items()},
        "real_identity": None if quick else real_identity(data, tools),
        "held_out_yaw": None, "truth": None,
    }  # fmt: skip
    return measured


def pick_frames(data: PersonDataset, count: int) -> list[int]:
    """Held-out frames that were measured, evenly spread."""
    valid = data.motion.valid.numpy()
    frames = data.test_frames[valid[data.test_frames]]
    frames = frames if len(frames) else data.test_frames
    at = (np.arange(min(count, len(frames))) + 0.5) / min(count, len(frames)) * len(frames)
    return frames[at.astype(int)].tolist()


class Observer:
    """Renders views of one frame after the other and measures them.

    Args:
        avatar, data, tools, quick: As for :func:`measure_views`.
        camera: The filming camera at the size of the images.
    """

    def __init__(self, avatar: Avatar, data: PersonDataset, camera: Camera, tools: Tools, quick: bool) -> None:
        self._avatar, self._data, self._camera, self._tools, self._quick = avatar, data, camera, tools, quick
        self._background = torch.full((camera.height, camera.width, 3), GREY, device=avatar.device)
        self._frame = 0
        self._front: Surface | None = None
        self._front_face: Surface | None = None
        self._person: np.ndarray | None = None

    def open(self, frame: int) -> None:
        """Turn to a frame; the first view of it must be the frontal one."""
        self._frame, self._front, self._front_face, self._person = frame, None, None, None

    def look(self, view: View) -> tuple[dict[str, float], Look]:
        """Render and measure a view of the frame."""
        motion = turned_head(self._data.motion[self._frame : self._frame + 1], view.head_yaw)
        camera = self._camera.orbit(self._avatar.pivot, view.azimuth, view.elevation)
        rgb, look, seen = self._render(motion, camera)
        silhouette = Silhouette.of(look.alpha)
        row = view_quality.holes(silhouette) | view_quality.edges(silhouette)
        row["cut_off"] = view_quality.cut_off(silhouette)
        mesh = FaceMesh.of(self._data, self._frame, motion, 0)
        foreign = np.zeros(look.alpha.shape, bool)
        if look.depth is not None:
            if mesh is not None:
                row |= self._geometry(look, mesh, camera)
            row |= self._colors(view, motion, rgb, look, camera, foreign)
        look.faults = np.stack([silhouette.interior & ~silhouette.solid, foreign], -1)
        if seen is not None:
            row["unseen"] = image_share(1 - seen, look.alpha)
        return row | self._face(view, look.image, mesh, camera), look

    @torch.no_grad()
    def _render(self, motion: Motion, camera: Camera) -> tuple[np.ndarray, Look, np.ndarray | None]:
        model, device = self._avatar.model, self._avatar.device
        motion, camera = motion.to(device), camera.to(device)
        out = model(motion, 0, camera, background=self._background, with_depth=True)
        check_output(out, (camera.height, camera.width), model.name)
        rgb, alpha = out.rgb.clamp(0, 1).cpu().numpy(), out.alpha[..., 0].cpu().numpy()
        depth = None if out.depth is None else out.depth[..., 0].cpu().numpy()
        seen = model.seen(motion, 0, camera)
        if seen is not None and seen.shape != alpha.shape:
            raise AvatarError(f"The method {model.name!r} says of {list(seen.shape)} pixels what was seen, not of "
                              f"{list(alpha.shape)}.", fix="Report it to those who wrote the method.")  # fmt: skip
        image = (rgb * 255 + 0.5).astype(np.uint8)
        own = view_colors.uncomposited(rgb, alpha, GREY)
        return own, Look(image, alpha, depth), None if seen is None else seen.cpu().numpy()

    def _colors(
        self, view: View, motion: Motion, rgb: np.ndarray, look: Look, camera: Camera, foreign: np.ndarray
    ) -> dict[str, float]:
        """Compare colours with the frontal view's, and mark those that it does not show in ``foreign`` [H, W]."""
        assert look.depth is not None
        row: dict[str, float] = {}
        back = None if not view.head_yaw else _back(motion, self._data.motion[self._frame : self._frame + 1])
        whole = Surface.coarse(rgb, look.alpha, look.depth, camera)
        if view == FRONTAL:
            self._front = whole
        if self._front is not None:
            found = view_colors.out_of_place(whole, self._front)
            if back is not None:  # nothing of a turned head is where it was
                found &= view_colors.out_of_place(whole.moved(*back), self._front)
            row["color_outliers"] = view_colors.share(found, len(found))
            foreign.reshape(-1)[whole.pixels[found]] = True
        if look.mesh_depth is not None:
            face = Surface.face(rgb, look.alpha, look.depth, look.mesh_depth, camera)
            if view == FRONTAL:
                self._front_face = face
            if self._front_face is not None:
                found, tested = view_colors.speckled(face if back is None else face.moved(*back), self._front_face)
                row["speckles"] = view_colors.share(found, int(tested.sum()))
                foreign.reshape(-1)[face.pixels[found]] = True
        return row

    def _geometry(self, look: Look, mesh: FaceMesh, camera: Camera) -> dict[str, float]:
        assert look.depth is not None
        look.mesh_depth = view_geometry.mesh_depth(mesh, camera)
        row, look.difference = view_geometry.depth_error(look.depth, look.alpha, look.mesh_depth)
        row["normal_error_deg"] = view_geometry.normal_error(look.depth, look.alpha, look.mesh_depth, camera)
        return row

    def _face(self, view: View, image: np.ndarray, mesh: FaceMesh | None, camera: Camera) -> dict[str, float]:
        landmarks = self._tools.tracker.track(image)[0]
        found = bool(np.isfinite(landmarks).all())
        row = {} if mesh is None else view_geometry.landmark_error(landmarks, mesh, camera)
        row["no_face"] = float(not found)
        if self._tools.recogniser is None or self._quick:
            return row
        embedding = self._tools.recogniser.embed(image, landmarks) if found else None
        if view == FRONTAL:
            self._person = embedding
        row["identity"] = identity.similarity(embedding, self._person)
        return row


def turned_head(motion: Motion, degrees: float) -> Motion:
    """A motion whose head is turned further about the world's vertical, around a point inside the head.

    Args:
        motion: The track.
        degrees: Positive turns the face to the person's left.
    """
    if not degrees:
        return motion
    turn = axis_angle_to_matrix(torch.tensor([0.0, -math.radians(degrees), 0.0]))
    before = axis_angle_to_matrix(motion.head_rotation)
    pivot = torch.tensor(PIVOT)
    after = turn @ before
    return motion.map(
        head_rotation=matrix_to_axis_angle(after),
        head_translation=motion.head_translation + before @ pivot - after @ pivot,
    )


def _back(turned: Motion, filmed: Motion) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and shift in the world from a turned head to the filmed one."""
    after, before = (axis_angle_to_matrix(m.head_rotation[0].double()) for m in (turned, filmed))
    rotation = before @ after.T
    shift = filmed.head_translation[0].double() - rotation @ turned.head_translation[0].double()
    return rotation.numpy(), shift.numpy()


def image_share(values: np.ndarray, alpha: np.ndarray) -> float:
    """Mean of values [H, W] over the silhouette, weighted by coverage."""
    total = float(alpha.sum())
    return float((values * alpha).sum()) / total if total > 0 else math.nan


def real_identity(data: PersonDataset, tools: Tools) -> dict[str, float] | None:
    """Identity similarity of real held-out frames that are turned as far to real frontal ones; None without any.

    Returns:
        Group, such as ``azimuth_15``, to the mean over up to five frames within 5 degrees of it.
    """
    from avatar.data.yaw import head_yaw

    if tools.recogniser is None:
        return None
    frames = data.test_frames[data.motion.valid.numpy()[data.test_frames]]
    yaw = np.abs(head_yaw(data.motion)[frames])

    def embedded(chosen: Iterable[int]) -> list[np.ndarray]:
        images = [(image := data.image(int(i)), tools.tracker.track(image)[0]) for i in chosen]
        return [tools.recogniser.embed(*pair) for pair in images if tools.recogniser and np.isfinite(pair[1]).all()]

    if not len(frames) or not (frontal := embedded(frames[np.argsort(yaw, kind="stable")[:1]])):
        return None
    result = {}
    for degrees in (15.0, 30.0):
        near = np.flatnonzero(np.abs(yaw - degrees) < 5)
        chosen = frames[near[np.argsort(np.abs(yaw[near] - degrees), kind="stable")[:5]]]
        found = [identity.similarity(e, frontal[0]) for e in embedded(chosen)]
        if found:
            result[f"azimuth_{degrees:g}"] = float(np.mean(found))
    return result or None


def _small(camera: Camera, most: int) -> Camera:
    scale = min(1.0, most / max(camera.width, camera.height))
    return camera.resized(max(2, round(camera.width * scale)), max(2, round(camera.height * scale)))


def _series(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, math.nan) for row in rows]) for name in names}


def _groups(rows: dict[View, list[dict[str, float]]]) -> dict[str, dict[str, np.ndarray]]:
    """Per group and metric the mean over its views, frame by frame [F]."""
    members: dict[str, list[dict[str, np.ndarray]]] = {}
    for view, found in rows.items():
        members.setdefault(view.group, []).append(_series(found))
    return {
        group: {name: np.mean([s[name] for s in series if name in s], axis=0) for name in series[0]}
        for group, series in members.items()
    }


def _summarised(series: dict[str, np.ndarray], resamples: Bootstrap) -> dict[str, Any]:
    """Means over frames, and their 95 % intervals."""
    result: dict[str, Any] = {name: bootstrap.value(bootstrap.mean, values) for name, values in series.items()}
    intervals = {name: resamples.interval(bootstrap.mean, values) for name, values in series.items()}
    return result | {"intervals": {name: pair for name, pair in intervals.items() if pair is not None}}


def _by_view(view: View, rows: list[dict[str, float]]) -> dict[str, Any]:
    series = _series(rows)
    place = {"azimuth": view.azimuth, "elevation": view.elevation, "head_yaw": view.head_yaw}
    return place | {name: bootstrap.value(bootstrap.mean, values) for name, values in series.items()}
