"""Measure free view exactly, on an avatar of a synthetic subject, whose truth can be drawn from any camera.

Both cameras are turned about the same point of the head while the person talks, and both images are drawn over flat
grey. The avatar is driven by the tracked motion of held-out frames, the truth by what the subject really did.

What corresponds to what:

- The tracker's world differs from the true one in size and distance, because it estimates the focal length. In every
  held-out frame its posed face is fitted to the true one by a similarity (Umeyama 1991); the avatar's pivot is moved by
  it. The mean over the frames is the true pivot. So view (0, 0) compares with the filming camera, and all others are
  turned by the same angles about the same point.
- Depths are compared relative to the pivots, in true centimetres: the avatar's are multiplied by the ratio of the
  pivots' depths over focal lengths, with which both worlds have one size in the image at the pivot.
- ``aligned`` numbers are taken after one similarity of the image per view (scale, shift, in-plane rotation), fitted to
  the colours of all frames. It is one for the whole image: where the depth of clothes or hair is off, it moves them
  nearer to the truth and the face away from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from avatar import log
from avatar.errors import AvatarError
from avatar.eval import bootstrap
from avatar.eval.bootstrap import Bootstrap
from avatar.eval.view_align import Similarity, fit_similarity
from avatar.eval.view_compare import Drawn, compare
from avatar.geometry.cameras import Camera
from avatar.geometry.se3 import axis_angle_to_matrix
from avatar.synth.truth import Truth, read_truth
from avatar.synth.views import GREY, View, draw_view

if TYPE_CHECKING:
    from avatar.data import PersonDataset
    from avatar.infer.avatar import Avatar
    from avatar.losses.lpips import LPIPS
    from avatar.motion import Motion

Direction = tuple[float, float]  # azimuth and elevation in degrees, as of `Camera.orbit`

VIEWS: tuple[Direction, ...] = ((0, 0), (-15, 0), (15, 0), (-30, 0), (30, 0), (-45, 0), (45, 0), (0, -15), (0, 15))
GROUPS: dict[str, tuple[Direction, ...]] = {
    "front": ((0, 0),),
    "yaw_15": ((-15, 0), (15, 0)),
    "yaw_30": ((-30, 0), (30, 0)),
    "yaw_45": ((-45, 0), (45, 0)),
    "pitch_15": ((0, -15), (0, 15)),
}
FRAMES = 10
COMPARED = 20  # frames, to see whether a truth belongs to a person
MOST_APART = 0.03  # of the face's height; landmarks of the right truth are 0.014 apart, of a like person's 0.057
ALIGN_WIDTH = 256  # pixels of the images that are aligned
ALIGN_MARGIN = 0.125  # of the width, drawn around the avatar's


class ViewMeasurement(NamedTuple):
    """What was measured.

    Attributes:
        result: Plain numbers; see `measure`.
        samples: For each view by name ("yaw +30") the images ``truth`` and ``avatar``, uint8 RGB [H, W, 3].
    """

    result: dict[str, Any]
    samples: dict[str, dict[str, np.ndarray]]


def measure(
    avatar: Avatar, data: PersonDataset, subject_folder: Path, lpips: LPIPS | None = None, *, frames: int = FRAMES,
    views: Sequence[Direction] = VIEWS,
) -> ViewMeasurement:  # fmt: skip
    """Compare an avatar with the synthetic subject that it was trained on, from turned cameras.

    Args:
        avatar: The avatar.
        data: Its person, with the head poses that training corrected (`avatar.data.run.open_person`).
        subject_folder: The folder that `avatar synth` wrote.
        lpips: Metric network on the avatar's device, or None.
        frames: How many held-out frames, spread evenly.
        views: Directions of the camera.

    Returns:
        ``result``: ``{"frames", "focal", "true_focal", "views": {"+30,+0": row}, "groups": {"yaw_30": row}}``. A row
        has the numbers of `avatar.eval.view_compare.compare` as means over the frames, ``intervals`` (95 %, seconds
        resampled), ``aligned`` (the same after alignment) and for a view ``similarity``. A number that does not exist
        is None. Groups average the directions of `GROUPS`.

    Raises:
        AvatarError: The folder holds no truth, or that of another video.
    """
    pair = _Pair.of(avatar, data, read_truth(subject_folder))
    chosen = _spread(data, frames)
    rows: dict[Direction, list[dict[str, float]]] = {}
    aligned: dict[Direction, list[dict[str, float]]] = {}
    similarities: dict[Direction, Similarity] = {}
    samples: dict[str, dict[str, np.ndarray]] = {}
    with log.progress() as bar:
        task = bar.add_task("Turning", total=len(views), info="")
        for view in views:
            seen = pair.seen(chosen, view)
            similarities[view] = pair.align(data.motion, chosen, view, seen)
            rows[view], drawn = pair.compared(data.motion, chosen, view, seen, lpips, Similarity())
            aligned[view], _ = pair.compared(data.motion, chosen, view, seen, lpips, similarities[view])
            middle = len(chosen) // 2
            samples[title(view)] = {"truth": _bytes(seen[middle].rgb), "avatar": _bytes(drawn[middle].rgb)}
            bar.advance(task)
    resamples = Bootstrap.of_chosen(chosen, data.fps)
    result: dict[str, Any] = {
        "frames": chosen, "focal": avatar.camera.focal, "true_focal": pair.true.focal, "views": {}, "groups": {},
    }  # fmt: skip
    for view in views:
        row = _summary([rows[view]], resamples) | {"aligned": _summary([aligned[view]], resamples)}
        fit = similarities[view]
        shift = [s * data.width for s in fit.shift]
        row["similarity"] = {"scale": fit.scale, "roll_deg": fit.roll_deg, "shift_px": shift}
        result["views"][name(view)] = row
    for group, members in GROUPS.items():
        if set(members) <= rows.keys():
            row = _summary([rows[v] for v in members], resamples)
            result["groups"][group] = row | {"aligned": _summary([aligned[v] for v in members], resamples)}
    return ViewMeasurement(result, samples)


def name(view: Direction) -> str:
    """Key of a direction in the numbers: ``+30,+0``."""
    return f"{view[0]:+.0f},{view[1]:+.0f}"


def title(view: Direction) -> str:
    """Name of a direction for people: ``yaw +30``."""
    azimuth, elevation = view
    parts = [f"{axis} {angle:+.0f}" for axis, angle in (("yaw", azimuth), ("pitch", elevation)) if angle]
    return ", ".join(parts) or "front"


@dataclass(frozen=True)
class _Pair:
    """An avatar and its truth, and what corresponds to what.

    Attributes:
        avatar: The avatar.
        truth: The subject, and what it did.
        true: The camera that filmed the truth, at the size of the person's frames.
        true_pivot: World point [3] of the truth that corresponds to the avatar's pivot.
        unit: True centimetres per centimetre of the avatar's world.
    """

    avatar: Avatar
    truth: Truth
    true: Camera
    true_pivot: torch.Tensor
    unit: float

    @staticmethod
    def of(avatar: Avatar, data: PersonDataset, truth: Truth) -> _Pair:
        require_same_video(truth, data)
        true = _framed(truth.camera, data)
        pivot = _true_pivot(avatar.pivot.double().numpy(), data, truth)
        unit = float(pivot[2] / true.focal / (avatar.pivot[2] / avatar.camera.focal))
        return _Pair(avatar, truth, true, torch.from_numpy(pivot).float(), unit)

    def seen(self, chosen: Sequence[int], view: Direction) -> list[View]:
        """Draw the truth of frames from a direction."""
        camera = self.true.orbit(self.true_pivot, *view)

        def draw(index: int) -> View:
            return draw_view(self.truth.subject, self.truth.shot(index), camera)

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(draw, chosen))

    def camera(self, view: Direction) -> Camera:
        return self.avatar.camera.orbit(self.avatar.pivot, *view)

    def draw(self, motion: Motion, index: int, camera: Camera) -> Drawn:
        """Draw the avatar over grey; depths are true centimetres relative to the camera's distance from the pivot."""
        device = self.avatar.device
        grey = torch.tensor(GREY).expand(camera.height, camera.width, 3).contiguous().to(device)
        with torch.inference_mode():
            out = self.avatar.model(motion.to(device), index, camera.to(device), background=grey, with_depth=True)
        alpha = out.alpha[..., 0].float().cpu().numpy()
        depth = None
        if out.depth is not None:
            behind = out.depth[..., 0].float().cpu().numpy() - float(self.avatar.pivot[2])
            depth = (behind * self.unit + float(self.true_pivot[2])).astype(np.float32)
        return Drawn(out.rgb.float().clamp(0, 1).cpu().numpy(), alpha, depth)

    def align(self, motion: Motion, chosen: Sequence[int], view: Direction, seen: Sequence[View]) -> Similarity:
        """Fit one similarity of the image to all frames."""
        import cv2

        camera = self.camera(view)
        width = min(ALIGN_WIDTH, camera.width)
        shrink = width / camera.width
        margin = round(ALIGN_MARGIN * width)
        full = round(margin / shrink)
        wide = camera.cropped(-full, -full, camera.width + full, camera.height + full)
        height = round(camera.height * shrink)

        def small(image: np.ndarray, border: int) -> np.ndarray:
            return cv2.resize(image, (width + 2 * border, height + 2 * border), interpolation=cv2.INTER_AREA)

        drawn = np.stack([small(self.draw(motion, t, wide).rgb, margin) for t in chosen])
        true = np.stack([small(v.rgb, 0) for v in seen])
        return fit_similarity(drawn, true, margin, (camera.cx * shrink, camera.cy * shrink))

    def compared(
        self, motion: Motion, chosen: Sequence[int], view: Direction, seen: Sequence[View], lpips: LPIPS | None,
        similarity: Similarity,
    ) -> tuple[list[dict[str, float]], list[Drawn]]:  # fmt: skip
        """Numbers per frame, and the avatar's images."""
        camera = similarity.applied(self.camera(view))
        drawn = [self.draw(motion, t, camera) for t in chosen]
        rows = [compare(d, Drawn(v.rgb, v.alpha, v.depth), v.region, lpips) for d, v in zip(drawn, seen, strict=True)]
        return rows, drawn


def require_same_video(truth: Truth, data: PersonDataset) -> None:
    """Refuse the truth of another video.

    Raises:
        AvatarError: It has another number of frames, or its face is elsewhere than the tracked one.
    """
    fix = "Give the folder of `avatar synth` whose video the avatar was made from."
    if len(truth.motion) != data.num_frames:
        raise AvatarError(
            f"The truth has {len(truth.motion)} frames, {data.folder} {data.num_frames}.",
            why="They do not belong together, or the video was prepared only in part.",
            fix=fix,
        )
    apart = _apart(truth, data)
    if apart > MOST_APART:
        raise AvatarError(
            f"The face of the truth is not where that of {data.folder} is: {apart:.1%} of its height apart.",
            why="They do not belong together.",
            fix=fix,
        )


def _apart(truth: Truth, data: PersonDataset) -> float:
    """Median distance of the tracked landmarks from the true face without expression, as a share of its height."""
    camera, shape = _framed(truth.camera, data), truth.subject.shape.astype(np.float64)
    frames = np.unique(np.linspace(0, data.num_frames - 1, COMPARED).round().astype(int)).tolist()
    found = [t for t in frames if bool(data.motion.valid[t])] or frames
    apart: list[float] = []
    for t in found:
        pixels = camera.project(torch.from_numpy(_posed(shape, truth.motion, t))).numpy()
        far = np.linalg.norm(np.asarray(data.landmarks[t])[:, :2] - pixels, axis=1)
        apart.append(float(np.median(far) / np.ptp(pixels[:, 1])))
    return float(np.median(apart))


def _framed(camera: Camera, data: PersonDataset) -> Camera:
    """The camera that filmed the truth, cropped and resized as the person's frames were."""
    crop = data.info.crop
    if crop is not None:
        x, y, width, height = crop[0], crop[1], crop[2], crop[-1]
        camera = camera.cropped(x, y, x + width, y + height)
    return camera.resized(data.width, data.height)


def _true_pivot(pivot: np.ndarray, data: PersonDataset, truth: Truth) -> np.ndarray:
    """The point [3] of the true world that corresponds to a point of the tracker's world, by the held-out heads."""
    frames = range(data.test_start, data.num_frames)
    found = np.asarray(data.shape, np.float64)
    real = truth.subject.shape.astype(np.float64)
    places: list[np.ndarray] = []
    for t in frames:
        turn, shift, scale = umeyama(_posed(found, data.motion, t), _posed(real, truth.motion, t))
        places.append(scale * turn @ pivot + shift)
    return np.mean(places, axis=0)


def _posed(shape: np.ndarray, motion: Motion, index: int) -> np.ndarray:
    turn = axis_angle_to_matrix(motion.head_rotation[index].double().cpu()).numpy()
    return shape @ turn.T + motion.head_translation[index].double().cpu().numpy()


def umeyama(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Fit b = scale R a + t to points [N, 3] in least squares.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991.

    Returns:
        R [3, 3], t [3] and the scale.
    """
    mean_a, mean_b = a.mean(0), b.mean(0)
    u, values, vt = np.linalg.svd((b - mean_b).T @ (a - mean_a))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    turn = (u * signs) @ vt
    scale = float((values * signs).sum() / np.square(a - mean_a).sum())
    return turn, mean_b - scale * turn @ mean_a, scale


def _spread(data: PersonDataset, count: int) -> list[int]:
    """Frames spread evenly over the held-out part, its ends left out."""
    first, last = data.test_start, data.num_frames
    count = max(1, min(count, last - first))
    return [first + int((k + 0.5) * (last - first) / count) for k in range(count)]


def _summary(rows: Sequence[Sequence[dict[str, float]]], resamples: Bootstrap) -> dict[str, Any]:
    """Means over directions and frames of rows [directions][frames], and intervals of them."""
    result: dict[str, Any] = {}
    intervals: dict[str, list[float]] = {}
    for key in rows[0][0]:
        series = np.mean([[row[key] for row in frames] for frames in rows], axis=0)
        result[key] = bootstrap.value(bootstrap.mean, series)
        if result[key] is not None and (interval := resamples.interval(bootstrap.mean, series)) is not None:
            intervals[key] = interval
    return result | {"intervals": intervals}


def _bytes(image: np.ndarray) -> np.ndarray:
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)
