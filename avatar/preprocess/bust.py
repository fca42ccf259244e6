"""A head and shoulders in space, fitted to one person: the surfaces that Gaussians start on and are kept near.

The face is the tracked mesh. What it does not cover is swept from cross-sections, one per height: hair and skull as an
oval whose width the silhouettes of all head poses give and whose depth is an average skull's plus the hair's thickness;
the neck as a cylinder; shoulders and chest as a rounded slab that goes on below and beside the picture's edge.
Where silhouettes move with the turning head, they also say at which depth the outline lies.

Axes are a head's: x to the person's left, y down, z away from the camera, centimetres.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter1d

from avatar.data.footage import Footage, pose_at, small_masks
from avatar.geometry.mesh import FACE_OVAL
from avatar.geometry.smoothstep import smoothstep
from avatar.preprocess.sweep import Sweep

# An average adult, where a person's own silhouettes do not say: skulls vary by 5 to 8 %.
STEP = 0.5  # centimetres between two cross-sections
SKULL_MIDDLE = 4.5  # depth of the widest place of the head
SKULL_WIDTH = 7.7  # half
SKULL_BACK = 13.8  # of a head 19.3 long
HAIR_BEHIND, MOST_BEHIND = 0.6, 1.2  # share of the hair's thickness at the sides that it has at the back; centimetres
NAPE = 9.5
EAR = (-4.5, 5.5)  # heights between which ears lie
EAR_REACH = 1.5  # centimetres that there is nothing behind an ear, which stands off by two and is half a one thick
NECK_RADIUS, NECK_FLAT = 5.7, 0.92  # half the width; depth over width
BESIDE_CHIN = (-1.5, 1.0)  # below the chin, heights
NECK_MIDDLE = 5.2
TORSO_MIDDLE = 7.0  # depth of the shoulders' ridge
HIGHEST = -3.5  # below the chin: stiff collars rise beside the jaw of a head that is held forward
CHEST, COLLAR = 11.5, 6.0  # half the depth of the chest, and of the body at the collar
NOTCH = 8.0  # below the chin: the notch over the breastbone, where no neckline shows it; there the chest begins ...
BREASTBONE = 0.36  # ... to come forward, by so many centimetres for each one further down (20 degrees)
COLLARBONES, CHEST_FLAT = 1.0, 8.0  # `Sweep.bend` where they lie; centimetres below, where the chest is an ellipse
SHOULDERS = 21.5  # half the width
ROUNDS = 2.6  # centimetres of height, or up to twice as many, in which a shoulder rounds off that the image cuts ...
WIDEST, STEEPEST = 25.0, 3.0  # ... half the width of broad ones, and centimetres of it per centimetre of height
BELOW = 8.0  # centimetres that the torso goes on below the picture
HAIR_HANGS = 4.5  # half the depth of hair beside the neck, in front of the head's middle
FRAMES = 48  # whose silhouettes are measured


@dataclass(frozen=True)
class Bust:
    """The surfaces of one person.

    Attributes:
        head: Hair and skull, head axes.
        hair_below: [2] height down to which hair hangs on the person's left and right; above the jaw where it is short.
        neck, torso: World axes, from the head's origin in the reference frame.
    """

    head: Sweep
    neck: Sweep
    torso: Sweep
    hair_below: tuple[float, float]


def fit_bust(data: Footage, frame: int) -> Bust:
    """Fit the surfaces to a person.

    Args:
        data: The person; only training frames are looked at.
        frame: The reference frame, in which the torso is measured.
    """
    frames = _turned_frames(data)
    outlines = [_outline(data, int(index)) for index in frames]
    head, below = _head(data, outlines)
    neck, torso = _body(data, frame)
    return Bust(head, neck, torso, below)


def _turned_frames(data: Footage) -> np.ndarray:
    """Training frames, evenly over the yaw that the head shows."""
    frames = data.train_frames
    yaw = data.motion.head_rotation[frames, 1].numpy()
    order = frames[np.argsort(yaw)]
    return order[np.linspace(0, len(order) - 1, min(FRAMES, len(order))).astype(int)]


@dataclass(frozen=True)
class _Outline:
    """One frame's silhouette in head axes: per height the extent to both sides, from the axis through the head's
    middle, in the plane across the line of sight; NaN where it is not seen.

    ``yaw`` is that of the line of sight to the middle, in head axes, radians; ``skin`` [2, R] is 1 where the outline is
    skin and not hair.
    """

    yaw: float
    left: np.ndarray
    right: np.ndarray
    top: float
    skin: np.ndarray


ROWS = np.arange(-18.0, 30.0, STEP)


def _centres(data: Footage, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Where the centres of a mask's pixels are in the frame: x and y, [H, W]."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    return x * (data.width / shape[1]), y * (data.height / shape[0])


def _plane_points(data: Footage, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """Points [H, W, 3] that the centres of a mask's pixels show, on the plane through the head's middle.

    The plane is square to the line of sight to the middle. Head axes, from the middle.
    """
    camera = data.camera
    x, y = _centres(data, shape)
    rotation, translation = pose_at(data, index)
    middle = rotation @ np.array([0, 0, SKULL_MIDDLE]) + translation
    rays = np.stack([(x - camera.cx) / camera.focal, (y - camera.cy) / camera.focal, np.ones_like(x)], -1)
    world = rays * ((middle @ middle) / (rays @ middle))[..., None]
    return (world - translation) @ rotation - np.array([0, 0, SKULL_MIDDLE])


def _sight(data: Footage, index: int) -> float:
    """Yaw of the line of sight to the head's middle, in head axes, radians."""
    rotation, translation = pose_at(data, index)
    towards = translation @ rotation + np.array([0, 0, SKULL_MIDDLE])
    return float(np.arctan2(towards[0], towards[2]))


def _outline(data: Footage, index: int) -> _Outline:
    masks = small_masks(data, index)
    at = _plane_points(data, index, masks["hair"].shape)
    yaw = _sight(data, index)
    reach = at[..., 0] * np.cos(yaw) - at[..., 2] * np.sin(yaw)
    height = at[..., 1]
    chin = float(data.shape[152, 1])
    hair, face = masks["hair"], masks["face"]
    solid = np.where(height < chin - 3.0, hair + face, hair) > 0.5
    inside = np.zeros_like(solid)
    inside[2:-2, 2:-2] = True
    row = np.floor((height - ROWS[0]) / STEP + 0.5).astype(int)
    left, right = np.full((2, len(ROWS)), np.nan)
    skin, bare = np.full((2, len(ROWS)), np.nan), face > hair
    for k in range(len(ROWS)):
        here = row == k
        mask = here & solid
        if mask.sum() < 3 or not (here & inside).any():
            continue
        e = reach[mask]
        if e.max() > 0.5 and (here & inside & (reach > e.max() + 0.2)).any():
            left[k], skin[0, k] = e.max(), bare[mask][e.argmax()]
        if e.min() < -0.5 and (here & inside & (reach < e.min() - 0.2)).any():
            right[k], skin[1, k] = -e.min(), bare[mask][e.argmin()]
    upper = height[(hair + face > 0.5)]
    return _Outline(yaw, left, right, float(upper.min()) if len(upper) else np.nan, skin)


def _supports(outlines: list[_Outline], side: str) -> tuple[np.ndarray, np.ndarray]:
    """Half width and depth of the outline at each height, from extents under all yaws.

    The extent of a convex cross-section under a yaw w is a cos(w) + z sin(w) near its outline at (a, z).
    """
    sign = 1.0 if side == "left" else -1.0
    extents = np.stack([getattr(o, side) for o in outlines])
    yaw = sign * np.array([o.yaw for o in outlines])
    width, depth = np.full(len(ROWS), np.nan), np.zeros(len(ROWS))
    for k in range(len(ROWS)):
        seen = np.isfinite(extents[:, k])
        if seen.sum() < max(min(3, len(outlines)), 0.3 * len(outlines)):  # of a photo there is one
            continue
        e, w = extents[seen, k], yaw[seen]
        weight, a, z = np.ones(len(e)), 0.0, 0.0
        for _ in range(4):
            # noise of 0.3 cm; the outline lies within 2 cm of the middle's depth
            design = np.stack([np.cos(w), -np.sin(w)], 1)
            normal = design.T @ (design * weight[:, None]) / 0.3**2 + np.diag([0.0, 1 / 2.0**2])
            a, z = np.linalg.solve(normal, design.T @ (weight * e) / 0.3**2)
            residual = np.abs(e - design @ [a, z])
            weight = 1 / np.maximum(residual / 0.3, 1)
        width[k], depth[k] = a, np.clip(z, -4, 4)
    return width, depth


def _fill(values: np.ndarray, default: np.ndarray, smooth: float = 1.5) -> np.ndarray:
    """Known values, smoothed over heights; the default, shifted to join them, elsewhere."""
    known = np.flatnonzero(np.isfinite(values))
    if len(known) == 0:
        return default
    shift = np.interp(np.arange(len(values)), known, (values - default)[known])
    away = np.abs(np.arange(len(values))[:, None] - known).min(1) * STEP
    return gaussian_filter1d(default + shift * np.exp(-away / 4.0), smooth, mode="nearest")


def _head(data: Footage, outlines: list[_Outline]) -> tuple[Sweep, tuple[float, float]]:
    y = ROWS
    chin = float(data.shape[152, 1])
    tops = [o.top for o in outlines if np.isfinite(o.top)]
    top = float(np.clip(np.median(tops), -17.0, -9.5)) if tops else -13.0
    rise = np.sqrt(np.clip(1 - (np.minimum(y + 5.0, 0) / (top + 5.0)) ** 2, 0, 1))  # of the skull above the brow
    skull = SKULL_WIDTH * rise * (1 - 0.25 * smoothstep(y, 0, chin))
    sides, depths, below = {}, [], []
    for side in ("left", "right"):
        width, depth = _supports(outlines, side)
        hair = np.flatnonzero(np.isfinite(width) & (y > chin - 2.5))
        runs = hair if len(hair) and y[hair[0]] < chin else hair[:0]
        below.append(float(y[runs[-1]]) if len(runs) > 3 else -np.inf)
        depths.append(np.where(np.isfinite(width), depth, 0))
        sides[side] = np.maximum(_fill(width, skull), 0.05)
        sides[side] = np.where(y < top, 0.05, sides[side])
    ears = _ears(outlines, y, np.stack([sides["left"], sides["right"]]))
    thick = np.clip(np.mean([sides["left"], sides["right"]] - ears, 0) - skull, 0, 4)
    crown = thick[(y > -8) & (y < 0)].mean()
    middle = SKULL_MIDDLE + gaussian_filter1d(np.mean(depths, 0), 4.0)
    front = _front(data, y, sides, middle, rise, chin)
    long_hair = max(below) > chin + 1
    behind = SKULL_BACK - (2.5 * smoothstep(y, 0, 20) if long_hair else (SKULL_BACK - NAPE) * smoothstep(y, -2, 9))
    back = np.maximum((behind + min(HAIR_BEHIND * crown, MOST_BEHIND) - middle) * rise, 0.05)
    sweep = Sweep(y, sides["left"], sides["right"], np.zeros(len(y)), middle, front, back, tuck=ears)
    last = max(*below, 6.5)
    kept = (y >= top - STEP) & (y <= last)
    return _cut(sweep, kept), (below[0], below[1])


def _ears(outlines: list[_Outline], y: np.ndarray, wide: np.ndarray) -> np.ndarray:
    """Centimetres [2, R] that ears stand off the head, which is ``wide`` [2, R] with them.

    Where the outline is skin in most frames, the head behind it narrows from the hair above the ears to the neck.
    """
    seen = np.stack([o.skin for o in outlines])  # [F, 2, R]
    bare = np.nansum(seen, 0) > 0.5 * np.maximum(np.isfinite(seen).sum(0), 1)
    low, high = EAR
    above = wide[:, (y > low - 3.5) & (y <= low)]
    hair = np.clip(np.median(above, 1, keepdims=True) - SKULL_WIDTH, 0, 4) * (1 - smoothstep(y, low + 1, low + 7))
    behind = SKULL_WIDTH * (1 - 0.25 * smoothstep(y, low + 1, high + 1)) + hair
    ears = np.where(bare & (y > low) & (y < high), np.clip(wide - behind, 0, EAR_REACH), 0)
    return gaussian_filter1d(ears, 1.0)


def _front(data: Footage, y: np.ndarray, sides: dict[str, np.ndarray], middle: np.ndarray, rise: np.ndarray,
           chin: float) -> np.ndarray:  # fmt: skip
    """Half depths before the middle, so that the surface passes through the border of the face mesh."""
    border = data.shape[list(FACE_OVAL)]
    brow = float(data.shape[10, 2])
    wanted = np.full(len(y), np.nan)
    for k, height in enumerate(y):
        if not border[:, 1].min() + 1.5 < height < chin - 3.5:
            continue
        found = []
        for sign, side in ((1, "left"), (-1, "right")):
            half = border[border[:, 0] * sign > 2.5]
            half = half[np.argsort(half[:, 1])]
            x, z = (np.interp(height, half[:, 1], half[:, axis]) for axis in (0, 2))
            share = min(abs(x) / sides[side][k], 0.96)
            found.append((middle[k] - z) / np.sqrt(1 - share**2))
        wanted[k] = np.clip(np.mean(found), 3.0, 11.0)
    known = np.flatnonzero(np.isfinite(wanted))
    depth = np.interp(np.arange(len(y)), known, wanted[known])
    top = SKULL_MIDDLE - (brow - 0.4)  # half depth at the hairline
    at_top = np.interp(-7.5, y, rise)
    depth = np.where(y < border[:, 1].min() + 1.5, top / at_top * rise, depth)
    depth = depth + (HAIR_HANGS - depth) * smoothstep(y, chin - 3.5, chin + 3.5)
    return np.maximum(gaussian_filter1d(depth, 2.0), 0.05)


def _cut(sweep: Sweep, rows: np.ndarray) -> Sweep:
    names = ("y", "left", "right", "centre", "middle", "front", "back")
    tuck = None if sweep.tuck is None else sweep.tuck[:, rows]
    bend = None if sweep.bend is None else sweep.bend[rows]
    return replace(sweep, tuck=tuck, bend=bend, **{name: getattr(sweep, name)[rows] for name in names})


def _body(data: Footage, frame: int) -> tuple[Sweep, Sweep]:
    """Neck and torso in one frame, world axes from the head's origin."""
    masks = small_masks(data, frame)
    camera, (rotation, origin) = data.camera, pose_at(data, frame)
    chin = float((rotation @ data.shape[152].astype(float))[1])
    shape = masks["clothes"].shape
    column = np.arange(shape[1])[None].repeat(shape[0], 0)
    at = [(v - c) / camera.focal for v, c in zip(_centres(data, shape), (camera.cx, camera.cy), strict=True)]
    nearer = _ahead(data, frame)
    ridge = TORSO_MIDDLE + nearer
    x, y = (a * (origin[2] + ridge) - o for a, o in zip(at, origin[:2], strict=True))
    heights = np.arange(chin - 7, float(y.max()) + BELOW, STEP)
    neck, clothes = masks["neck"] > 0.5, masks["clothes"] > 0.5
    centre = float(np.median(x[neck])) if neck.sum() > 20 else 0.0
    radius = _neck_radius(x, y - chin, neck)
    beside = clothes & (np.abs(x - centre) < radius + 1.5) & (np.abs(x - centre) > 0.7 * radius)
    collar = _collar(y[beside], chin)
    default = np.minimum(radius + 1.0 + (SHOULDERS - radius) * smoothstep(heights, collar - 2, collar + 8) ** 0.8,
                         SHOULDERS)  # fmt: skip
    inside = (column > 1) & (column < shape[1] - 2)
    widths, cuts = np.full((2, len(heights)), np.nan), np.zeros((2, len(heights)), bool)
    for k, height in enumerate(heights):
        row = inside & (np.abs(y - height) < STEP / 2)
        for side, sign in enumerate((1, -1)):
            reach, border = (sign * (x[place] - centre) for place in (row & clothes, row))
            if len(reach) > 2 and height > collar - 1:
                cuts[side, k] = reach.max() >= border.max() - 0.3
                widths[side, k] = np.nan if cuts[side, k] else reach.max()
    left, right = (
        np.maximum(_fill(_rounded_off(widths[side], cuts[side], widths[1 - side]), default, 1.0), 0.5)
        for side in (0, 1)
    )
    notch = _notch(y[neck & (np.abs(x - centre) < 2.0)], chin)
    depth = np.minimum(COLLAR + BREASTBONE * np.maximum(heights - notch, 0), CHEST)
    depth = gaussian_filter1d(depth, 1.0 / STEP, mode="nearest")
    bend = COLLARBONES + (2 - COLLARBONES) * smoothstep(heights, notch, notch + CHEST_FLAT)
    torso = Sweep(heights, left, right, np.full(len(heights), centre),
                  np.full(len(heights), ridge), depth, depth * 0.95, 2.3, bend)  # fmt: skip
    middle = NECK_MIDDLE + 0.08 * (heights - chin) + nearer * np.clip((heights - chin + 2) / 9, 0, 1)
    round_ = np.full(len(heights), radius)
    cylinder = Sweep(heights, round_, round_, _lean(x, y, neck, heights, chin), middle, round_ * NECK_FLAT,
                     round_ * NECK_FLAT)  # fmt: skip
    return (_cut(cylinder, heights < max(collar, chin + 1) + 4), _cut(torso, heights >= collar - 0.6))


def _ahead(data: Footage, frame: int) -> float:
    """Centimetres by which the head is nearer to the camera, relative to the torso, than it usually is.

    A torso that hung at a fixed depth behind the head of one frame would be off by what that head leans and what its
    distance is off. Where the torso is not tracked yet, it counts as still.
    """
    apart = (data.motion.head_translation - data.motion.torso_translation)[:, 2].double().numpy()
    return float(np.median(apart[data.train_frames]) - apart[frame])


def _collar(tops: np.ndarray, chin: float) -> float:
    """Height at which clothes begin, from the heights [N] of those beside the neck."""
    return float(np.clip(np.percentile(tops, 2) if len(tops) > 10 else chin + 5, chin + HIGHEST, chin + 9.0))


def _rounded_off(width: np.ndarray, cut: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Half widths [R] of one side of the torso, continued below where the image's edge cuts the shoulder: ``cut`` [R].

    The outline goes on like that of the ``other`` side [R] where it shows, else as steeply as it left the image, and
    rounds off. Without this the far shoulder would end in the air as soon as the avatar turns. NaN: not known.
    """
    known = np.flatnonzero(np.isfinite(width))
    if len(known) < 3 or known[-1] - known[-3] > 4 or not cut[known[-1] :].any():
        return width
    last = known[-1]
    slope = float(np.clip(np.diff(width[known[-3:]]).min() / STEP, 0, STEEPEST))  # it may have begun to round off
    room = np.clip(SHOULDERS - width[last], slope * ROUNDS, 2 * slope * ROUNDS)
    room = np.clip(room, 0, WIDEST - width[last])
    below = np.arange(1, len(width) - last) * STEP
    whole = np.append(width[: last + 1], width[last] + room * (1 - np.exp(-below * slope / max(room, 0.01))))
    alike = np.isfinite(other) & (np.arange(len(width)) > last) & np.isfinite(other[last])
    return np.where(alike, width[last] + other - other[last], whole)


def _neck_radius(x: np.ndarray, below_chin: np.ndarray, neck: np.ndarray) -> float:
    """Half the width of the neck, where both of its edges show: beside the chin, else further down."""

    def widths(low: float, high: float) -> list[float]:
        rows = (neck & (np.abs(below_chin - h) < STEP / 2) for h in np.arange(low, high, STEP))
        return [float(np.ptp(x[row])) for row in rows if row.sum() > 2]

    beside = widths(*BESIDE_CHIN)
    found = beside if len(beside) > 2 else widths(BESIDE_CHIN[1], 5.0)  # there collars and shoulders begin
    return float(np.clip(max(np.median(found) / 2 if found else 0, 0.9 * NECK_RADIUS), 4.5, 8.0))


def _notch(skin: np.ndarray, chin: float) -> float:
    """Height at which the chest begins: where the neck's skin [N], heights in the middle, ends at a neckline."""
    lowest = float(np.percentile(skin, 98)) if len(skin) > 10 else -np.inf
    return float(np.clip(lowest, chin + NOTCH - 1, chin + NOTCH + 3)) if lowest > chin + NOTCH - 3 else chin + NOTCH


def _lean(x: np.ndarray, y: np.ndarray, neck: np.ndarray, heights: np.ndarray, chin: float) -> np.ndarray:
    """Middles [R] of the neck at heights: a line through those of its rows, at most 20 degrees from upright."""
    rows = [h for h in heights if chin + 1.0 < h < chin + 7.0 and (neck & (np.abs(y - h) < STEP / 2)).sum() > 2]
    ends = np.array([(m.min(), m.max()) for m in (x[neck & (np.abs(y - h) < STEP / 2)] for h in rows)]).reshape(-1, 2)
    if len(rows) < 5:
        return np.full(len(heights), float(np.median(x[neck])) if neck.sum() > 20 else 0.0)
    slope = np.clip(np.polyfit(rows, ends.mean(1), 1)[0], -0.36, 0.36)
    middle = float(np.median(ends.mean(1)))
    return middle + slope * np.clip(heights - np.median(rows), -6, 6)
