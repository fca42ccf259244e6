"""How the synthetic face moves: one displacement field per ARKit coefficient, designed on MediaPipe's canonical mesh.

Fields are linear: landmarks = neutral + sum of coefficient times field. They are written by hand from what each
coefficient is defined to do (Apple's ARKit reference), in head axes (x to the person's left, y down, z into the head)
and centimetres. ``mouthClose`` is the exact opposite of what ``jawOpen`` does to the gap between the lips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avatar.geometry.smoothstep import smoothstep
from avatar.motion.arkit import ARKIT, INDEX

Amount = float | np.ndarray  # the same for all vertices, or [V]
LIP_RINGS = {  # from the person's right corner to the left one, outer edge first
    "upper": (
        (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
        (76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306),
        (62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292),
        (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
    ),
    "lower": (
        (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
        (76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306),
        (62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292),
        (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
    ),
}
LIDS = {  # outer corner to inner corner
    "Right": {
        "upper": (33, 246, 161, 160, 159, 158, 157, 173, 133),
        "lower": (33, 7, 163, 144, 145, 153, 154, 155, 133),
    },
    "Left": {
        "upper": (263, 466, 388, 387, 386, 385, 384, 398, 362),
        "lower": (263, 249, 390, 373, 374, 380, 381, 382, 362),
    },
}
EYE_RING = {side: (*lids["upper"], *lids["lower"][-2:0:-1]) for side, lids in LIDS.items()}
BROWS = {
    "Right": ((46, 53, 52, 65, 55), (70, 63, 105, 66, 107)),  # lower edge, upper edge; outer to inner
    "Left": ((276, 283, 282, 295, 285), (300, 293, 334, 296, 336)),
}


@dataclass
class _Face:
    """A neutral face, where its parts are, and the fields so far.

    Attributes:
        p: [V, 3] vertices.
        fields: [52, V, 3], added to by :meth:`add`.
        side: Weight [V] of the person's left and right half.
        corner: Corners of the mouth [3].
        line: Height at which the lips meet.
        half: Half of the mouth's width.
        near: [V], 1 on the lips, fading around them.
        is_upper, is_lower: Weight [V] of what moves with either lip; half of each at the corners.
        both: [V] the corners.
        off_lips: [V] what is on neither lip.
        along: [V], 1 in the middle of the mouth, 0 at its corners.
        at_corner: [V], 1 at a corner, fading around it.
        thickness: [V] of either lip: 0 at the inner edge, 1 at the outer one, fading outside.
        upper_lip, lower_lip: Indices of their vertices.
    """

    p: np.ndarray
    fields: np.ndarray
    side: dict[str, np.ndarray]
    corner: dict[str, np.ndarray]
    line: float
    half: float
    near: np.ndarray
    is_upper: np.ndarray
    is_lower: np.ndarray
    both: np.ndarray
    off_lips: np.ndarray
    along: np.ndarray
    at_corner: dict[str, np.ndarray]
    thickness: dict[str, np.ndarray]
    upper_lip: list[int]
    lower_lip: list[int]

    def add(self, name: str, weight: np.ndarray, dx: Amount = 0.0, dy: Amount = 0.0, dz: Amount = 0.0) -> None:
        """Add a displacement to a coefficient's field."""
        for axis, amount in enumerate((dx, dy, dz)):
            self.fields[INDEX[name], :, axis] += weight * amount


def displacement_fields(neutral: np.ndarray) -> np.ndarray:
    """Design the fields for a face.

    Args:
        neutral: [468, 3] neutral face with closed lips, head axes, centimetres.

    Returns:
        float64 [52, 468, 3], displacement at coefficient 1.
    """
    face = _parts_of(np.asarray(neutral, float))
    _move_jaw(face)
    _close_mouth(face)
    _round_lips(face)
    for name, sign in (("Left", 1.0), ("Right", -1.0)):
        _move_half_mouth(face, name, sign)
    _roll_lips(face)
    for name, sign in (("Left", 1.0), ("Right", -1.0)):
        _move_eye(face, name, sign)
    return face.fields


def _parts_of(p: np.ndarray) -> _Face:
    """Find the parts of a face [V, 3]; no field is set yet."""
    x, y, _ = p.T
    upper_lip, lower_lip = (sorted({v for ring in LIP_RINGS[k] for v in ring}) for k in ("upper", "lower"))
    corner = {"Right": p[61], "Left": p[291]}
    line = p[13, 1]
    half = abs(p[291, 0])
    distance = np.linalg.norm(p[:, None] - p[None, sorted({*upper_lip, *lower_lip})], axis=-1).min(1)
    near = np.exp(-((distance / 1.3) ** 2))  # 1 on the lips
    is_upper = np.zeros(len(p))
    is_upper[upper_lip] = 1
    is_lower = np.zeros(len(p))
    is_lower[lower_lip] = 1
    both = (is_upper > 0) & (is_lower > 0)  # the corners
    off_lips = (is_upper + is_lower) == 0
    is_upper[off_lips], is_lower[off_lips] = (y < line)[off_lips], (y >= line)[off_lips]
    is_upper[both] = is_lower[both] = 0.5
    along = np.clip(1 - (x / half) ** 2, 0, 1)  # 1 in the middle of the mouth, 0 at its corners
    at_corner = {k: np.exp(-(((p - c) / (1.1, 1.1, 1.6)) ** 2).sum(1)) for k, c in corner.items()}
    thickness = {k: np.zeros(len(p)) for k in LIP_RINGS}  # 0 at the inner edge, 1 at the outer edge, fading outside
    for name, rings in LIP_RINGS.items():
        for depth, ring in enumerate(rings):
            thickness[name][list(ring)] = 1 - depth / 3
        thickness[name][off_lips] = (near * (is_upper if name == "upper" else is_lower))[off_lips]
    return _Face(
        p=p, fields=np.zeros((len(ARKIT), len(p), 3)),
        side={"Left": smoothstep(x, -0.7, 0.7), "Right": smoothstep(-x, -0.7, 0.7)}, corner=corner, line=line,
        half=half, near=near, is_upper=is_upper, is_lower=is_lower, both=both, off_lips=off_lips, along=along,
        at_corner=at_corner, thickness=thickness, upper_lip=upper_lip, lower_lip=lower_lip,
    )  # fmt: skip


def _move_jaw(f: _Face) -> None:
    """Rotate about the axis through the jaw joints, less its backward part (the joint glides forward)."""
    _, y, z = f.p.T
    below = smoothstep(y, f.line - 0.6, f.line + 2.2)
    jaw = below.copy()
    jaw[f.lower_lip] = 0.42 + 0.58 * f.along[f.lower_lip] ** 0.6
    jaw[f.off_lips] = np.where(
        y > f.line,
        np.maximum(below, f.near * (0.42 + 0.58 * f.along**0.6)) * smoothstep(y, f.line - 0.4, f.line + 0.6),
        below * 0.4,
    )[f.off_lips]
    jaw[f.upper_lip] = np.where(f.both[f.upper_lip], 0.42, 0)
    arm_y, arm_z = y - f.p[234, 1], z - (f.p[234, 2] - 1.0)
    angle = 0.47
    f.add("jawOpen", jaw, dx=0.0, dy=-angle * arm_z, dz=0.38 * angle * arm_y)
    f.add("jawOpen", (f.at_corner["Left"] - f.at_corner["Right"]), dx=-0.35)
    f.add("jawForward", jaw, dz=-0.8)
    f.add("jawLeft", jaw, dx=0.9)
    f.add("jawRight", jaw, dx=-0.9)


def _close_mouth(f: _Face) -> None:
    """Undo the gap of ``jawOpen``: three quarters by the lower lip, the rest by the upper one, ring by ring."""
    opened = f.fields[INDEX["jawOpen"]]
    gap = np.zeros((len(f.p), 3))
    for k in range(len(LIP_RINGS["upper"][3])):
        top, bottom = LIP_RINGS["upper"][3][k], LIP_RINGS["lower"][3][k]
        difference = opened[bottom] - opened[top]
        for name, share in (("upper", 0.25), ("lower", -0.75)):
            for depth, ring in enumerate(LIP_RINGS[name]):
                if not f.both[ring[k]]:
                    gap[ring[k]] = share * difference * (0.55 + 0.15 * depth)
    nearest = f.p[:, None] - f.p[None, [v for v in range(len(f.p)) if not f.off_lips[v]]]
    source = np.array([v for v in range(len(f.p)) if not f.off_lips[v]])[np.linalg.norm(nearest, axis=-1).argmin(1)]
    f.fields[INDEX["mouthClose"]] = np.where(f.off_lips[:, None], gap[source] * (f.near * 0.8)[:, None], gap)


def _round_lips(f: _Face) -> None:
    """Funnel and pucker."""
    x = f.p[:, 0]
    inner = np.zeros(len(f.p))
    for rings in LIP_RINGS.values():
        inner[list(rings[3])], inner[list(rings[2])] = 1.0, 0.5
    f.add("mouthFunnel", f.near, dx=-0.08 * x, dz=-0.55 * (0.4 + 0.6 * f.along))
    # An O: the opening is narrower than the lips.
    f.add("mouthFunnel", inner * np.minimum(1, 4 * f.along), dx=-0.40 * x)
    f.add("mouthFunnel", f.near * f.is_upper * f.along**1.2, dy=-0.55)
    f.add("mouthFunnel", f.near * f.is_lower * f.along**1.4, dy=0.95)
    f.add("mouthFunnel", _chin(f) * f.off_lips, dy=0.35)
    f.add("mouthPucker", f.near, dx=-0.26 * x, dz=-0.60 * (0.35 + 0.65 * f.along))
    f.add("mouthPucker", f.near * f.thickness["upper"] * f.along, dy=-0.10)
    f.add("mouthPucker", f.near * f.thickness["lower"] * f.along, dy=0.14)


def _move_half_mouth(f: _Face, name: str, sign: float) -> None:
    """Smile, frown and the other movements of one half of the mouth, with cheek and nose; ``sign`` of x there."""
    width = f.p[:, 0] / f.half
    reach = f.near * f.side[name] * np.clip(np.abs(width), 0, 1) ** 1.6
    reach = np.maximum(reach, f.at_corner[name])
    cheek = np.exp(-(((f.p - (f.corner[name] + (sign * 1.5, -3.0, 1.0))) / (2.0, 1.8, 3.0)) ** 2).sum(1))
    half_mouth = f.near * f.side[name] * f.along**0.7
    f.add(f"mouthSmile{name}", reach, dx=sign * 0.75, dy=-0.75, dz=0.55)
    f.add(f"mouthSmile{name}", half_mouth, dy=-0.16, dz=0.15)
    f.add(f"mouthSmile{name}", half_mouth * f.thickness["upper"], dy=0.10)
    f.add(f"mouthSmile{name}", half_mouth * f.thickness["lower"], dy=-0.16)
    f.add(f"mouthSmile{name}", cheek, dx=sign * 0.1, dy=-0.40, dz=-0.25)
    f.add(f"mouthFrown{name}", reach, dx=sign * 0.1, dy=0.75, dz=0.1)
    wide = np.maximum(f.near * f.side[name] * np.clip(np.abs(width), 0, 1) ** 1.2, f.at_corner[name])
    f.add(f"mouthStretch{name}", wide, dx=sign * 1.05, dy=0.32, dz=0.4)
    f.add(f"mouthStretch{name}", half_mouth * f.is_lower, dy=0.12)
    f.add(f"mouthDimple{name}", reach, dx=sign * 0.5, dy=-0.05, dz=0.7)
    fold = np.exp(-(((f.p - (f.p[327 if sign > 0 else 98] + (sign * 0.6, 0.6, 0))) / (1.2, 1.4, 2.0)) ** 2).sum(1))
    flank = f.near * f.side[name] * f.along**0.45 * f.is_upper
    f.add(f"mouthUpperUp{name}", flank, dy=-0.80, dz=-0.05)
    f.add(f"mouthUpperUp{name}", flank * np.clip(np.abs(width) * 2, 0, 1), dx=sign * 0.25)
    f.add(f"mouthUpperUp{name}", fold * f.off_lips, dy=-0.30)
    f.add(f"mouthUpperUp{name}", reach, dx=sign * 0.12, dy=-0.10)
    f.add(f"mouthLowerDown{name}", half_mouth * f.is_lower, dy=1.15, dz=0.10)
    f.add(f"mouthLowerDown{name}", reach, dx=sign * 0.15, dy=0.08)
    f.add(f"mouthPress{name}", half_mouth * f.thickness["upper"], dy=0.42, dz=0.15)
    f.add(f"mouthPress{name}", half_mouth * f.thickness["lower"], dy=-0.50, dz=0.15)
    f.add(f"mouthPress{name}", reach, dx=sign * 0.45, dy=-0.18, dz=0.35)
    f.add(f"cheekSquint{name}", cheek, dy=-0.5, dz=-0.2)
    f.add(f"noseSneer{name}", f.side[name] * _bump(f.p, f.p[98 if sign < 0 else 327], 1.0), dy=-0.45)
    f.add(f"mouth{name}", f.near, dx=sign * 0.9, dz=0.1)
    f.add("cheekPuff", _bump(f.p, f.corner[name] + (sign * 2.2, -0.2, 1.0), 1.8), dx=sign * 0.6, dz=-0.7)


def _roll_lips(f: _Face) -> None:
    """Roll and shrug."""
    chin = _chin(f)
    f.add("mouthRollUpper", f.near * f.thickness["upper"] * f.along, dy=0.42, dz=0.2)
    f.add("mouthRollLower", f.near * f.thickness["lower"] * f.along, dy=-0.85, dz=0.2)
    f.add("mouthRollLower", chin * f.off_lips, dy=-0.25)
    f.add("mouthShrugLower", np.maximum(chin, f.near * f.is_lower * f.along), dy=-0.45, dz=-0.15)
    f.add("mouthShrugUpper", f.near * f.is_upper * f.along, dy=-0.4, dz=-0.15)


def _chin(f: _Face) -> np.ndarray:
    """[V], 1 on the chin."""
    return np.exp(-(((f.p - (f.p[17] + (0, 2.0, 0))) / (2.6, 2.2, 4.0)) ** 2).sum(1))


def _move_eye(f: _Face, name: str, sign: float) -> None:
    """Lids and brow of one eye; ``sign`` of x there."""
    x, y, _ = f.p.T
    upper, lower = list(LIDS[name]["upper"]), list(LIDS[name]["lower"])
    centre = f.p[upper + lower].mean(0)
    drop = f.p[lower] - f.p[upper]  # what closing the eye takes, per column
    column = np.abs(x[:, None] - x[upper][None]).argmin(1)
    height = np.abs(f.p[lower[4], 1] - f.p[upper[4], 1])
    brow = f.p[BROWS[name][0][2], 1]
    close_by = np.abs(x - centre[0]) < 2.3
    # 1 at the lid's edge, 0 at the brow; the skin between them unrolls
    lid = np.clip((y - (brow + 0.35)) / (f.p[np.array(upper)[column], 1] - (brow + 0.35)), 0, 1) ** 1.5
    lid = np.where(close_by & (y < centre[1] + 0.1) & (y > brow - 0.2), lid, 0)
    lid[lower] = 0
    lid[upper[1:-1]] = 1
    pouch = np.exp(-np.clip(y - f.p[np.array(lower)[column], 1], 0, None) / 0.5)
    pouch = np.where(close_by & (y > centre[1]) & (y < centre[1] + 2.5), pouch, 0)
    pouch[upper] = 0
    pouch[lower[1:-1]] = 1
    amount = np.linalg.norm(drop[column], axis=1) / max(height, 1e-6)
    blink = np.zeros((len(f.p), 3))
    blink[:, 1] = (lid * 0.88 - pouch * 0.12) * amount * height
    blink[:, 2] = lid * drop[column, 2] * 0.9
    f.fields[INDEX[f"eyeBlink{name}"]] = blink
    f.fields[INDEX[f"eyeLookDown{name}"]] = 0.45 * blink
    f.fields[INDEX[f"eyeLookUp{name}"]] = -0.18 * blink
    f.add(f"eyeWide{name}", lid * amount, dy=-0.32 * height)
    f.add(f"eyeSquint{name}", pouch * amount, dy=-0.38 * height)
    f.add(f"eyeSquint{name}", lid * amount, dy=0.15 * height)
    low, high = (f.p[list(edge)] for edge in BROWS[name])
    inner, outer = (low[-1] + high[-1]) / 2, (low[1] + high[1]) / 2
    f.add("browInnerUp", _bump(f.p, inner + (-sign * 0.3, -0.3, 0), 1.6) * (y < centre[1] - 0.8), dy=-0.8)
    f.add(f"browOuterUp{name}", _bump(f.p, outer, 1.7) * (y < centre[1] - 0.8), dy=-0.8)
    f.add(f"browDown{name}", _bump(f.p, (inner * 2 + outer) / 3, 1.7) * (y < centre[1] - 0.7), dx=-sign * 0.2, dy=0.55)


def _bump(p: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    return np.exp(-(((p - centre) / radius) ** 2).sum(1))
