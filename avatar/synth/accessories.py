"""What a synthetic person can wear: glasses and a shirt's collar."""

from __future__ import annotations

import numpy as np

from avatar.geometry.smoothstep import smoothstep
from avatar.synth.parts import Part, sheet

_RIM = 0.13  # radius of the frame's wire, centimetres
_GAP = 0.35  # between frame and skin


def glasses(neutral: np.ndarray, eyes: dict[str, np.ndarray]) -> list[Part]:
    """Build the frame of glasses without lenses: two rims, a bridge, and arms back to the ears.

    Args:
        neutral: [468, 3] neutral landmarks.
        eyes: Centres of the eyeballs.
    """
    angle = np.linspace(0, 2 * np.pi, 61)
    rounded = 1 / (np.abs(np.cos(angle)) ** 3 + np.abs(np.sin(angle)) ** 3) ** (1 / 3)  # between ellipse and rectangle
    parts: list[Part] = []
    rims = {}
    for side, sign in (("Right", -1.0), ("Left", 1.0)):
        centre = eyes[side][:2] + (sign * 0.05, 0.35)
        at = centre + np.stack([2.45 * np.cos(angle), 2.0 * np.sin(angle)], 1) * rounded[:, None]
        rims[side] = at
    flat = np.concatenate([*rims.values()])
    curve = 0.028 * np.square(flat[:, 0])  # the front is bent around the face
    z = (_skin_depth(neutral, flat) - curve).min() - _GAP
    for side, sign in (("Right", -1.0), ("Left", 1.0)):
        rim = np.column_stack([rims[side], z + 0.028 * np.square(rims[side][:, 0])])
        parts.append(_wire(rim, closed=True))
        outer = rim[np.argmax(sign * rim[:, 0])] + (0, -0.5, 0)
        arm = np.array([outer, outer + (sign * 0.45, 0, 0.5), (sign * 8.0, outer[1] + 0.3, 1.5),
                        (sign * 7.95, outer[1] + 0.7, 4.2), (sign * 7.5, outer[1] + 2.2, 5.2)])  # fmt: skip
        parts.append(_wire(_smooth(arm, 24)))
    inner = [rims["Right"][np.argmax(rims["Right"][:, 0])], rims["Left"][np.argmin(rims["Left"][:, 0])]]
    height = (inner[0][1] + inner[1][1]) / 2 - 0.5
    bridge = np.array([(inner[0][0], height, z + 0.02), (0, height - 0.35, z - 0.25), (inner[1][0], height, z + 0.02)])
    parts.append(_wire(_smooth(bridge, 12)))
    return parts


def _skin_depth(neutral: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Depth [N] of the foremost skin within a centimetre of places [N, 2], without the ridge of the nose."""
    skin = neutral[np.abs(neutral[:, 0]) > 1.3]
    near = np.linalg.norm(at[:, None] - skin[None, :, :2], axis=-1) < 1.0
    return np.where(near, skin[None, :, 2], np.inf).min(1, initial=np.inf)


def _smooth(points: np.ndarray, count: int) -> np.ndarray:
    from scipy.interpolate import PchipInterpolator

    return PchipInterpolator(np.linspace(0, 1, len(points)), points)(np.linspace(0, 1, count))


def _wire(path: np.ndarray, closed: bool = False, sides: int = 8) -> Part:
    """A round wire along points [N, 3]."""
    ahead, behind = np.roll(path, -1, 0), np.roll(path, 1, 0)
    if closed:
        ahead[-1], behind[0] = path[1], path[-2]
    else:
        ahead[-1], behind[0] = path[-1], path[0]
    along = ahead - behind
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.cross(along, (0.0, 0.3, 1.0))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    up = np.cross(across, along)
    turn = np.linspace(0, 2 * np.pi, sides + 1)[None, :, None]
    points = path[:, None] + _RIM * (np.cos(turn) * across[:, None] + np.sin(turn) * up[:, None])
    return sheet("glasses", points, nearer=0.6)


def collar() -> Part:
    """Build a folded shirt collar, open in front: up along the neck, then out and down over the neckline."""
    row, theta = np.meshgrid(np.linspace(0, 1, 25), np.linspace(0.04, 2 * np.pi - 0.04, 97), indexing="ij")
    front, back = np.clip(np.cos(theta), 0, 1), np.clip(-np.cos(theta), 0, 1)
    up = np.clip(row / 0.40, 0, 1)  # the stand
    down = np.clip((row - 0.46) / 0.54, 0, 1)  # the fold
    near_gap = np.exp(-((np.minimum(theta, 2 * np.pi - theta) / 0.5) ** 2))
    base, top = 16.9 + 1.6 * np.cos(theta), 14.3 + 1.7 * front - 0.5 * back
    fall = 2.6 + 0.6 * front - 0.3 * back + 2.4 * near_gap
    turn = np.sin(np.pi * np.clip((row - 0.40) / 0.12, 0, 1))  # the rounded edge on top
    y = base + (top - base) * up + fall * down - 0.18 * turn
    out = 0.35 * smoothstep(row, 0.40, 0.52) + (1.15 - 0.35 * front) * down**0.9
    x = (6.15 + out) * np.sin(theta)
    x += np.where(theta < np.pi, 1, -1) * near_gap * 1.5 * down**1.3  # the two points lie apart
    z = 6.1 - (5.95 + out) * front + (5.2 + 1.25 * out) * back - 0.35 * near_gap * down
    return sheet("collar", np.stack([x, y, z], -1), head=0.0, nearer=-0.05)
