"""Short and tied hair of the synthetic person: a cap over the skull from a hairline, with ears and nape free."""

from __future__ import annotations

import numpy as np

from avatar.geometry.smoothstep import smoothstep
from avatar.synth.appearance import Hair
from avatar.synth.parts import Part, sheet

_CENTRE = np.array([0.0, -2.6, 5.0])  # of the skull, head axes
_RADII = np.array([7.75, 9.4, 8.6])
_AROUND, _ALONG = 96, 24  # points of the cap's grid

# Hairline of the person's left side from the forehead to the nape.
_HAIRLINE = {
    "short": [(0, -8.1, -4.1), (2.6, -8.0, -3.5), (4.9, -7.0, -2.0), (6.2, -5.6, -0.4), (6.9, -4.2, 0.8),
              (7.3, -2.2, 1.5), (7.5, -0.9, 2.0), (7.6, -1.3, 2.8), (7.7, -3.2, 3.6), (7.7, -3.9, 5.2),
              (7.6, -2.6, 6.8), (7.3, 0.2, 7.9), (6.2, 2.8, 9.0), (3.6, 4.4, 10.2), (0, 4.8, 10.6)],
    "tied": [(0, -8.3, -4.1), (2.6, -8.1, -3.5), (4.9, -7.0, -2.0), (6.3, -5.6, -0.4), (7.0, -4.2, 1.0),
             (7.4, -3.2, 1.9), (7.6, -3.0, 2.6), (7.7, -3.4, 3.4), (7.7, -3.9, 4.6), (7.7, -3.4, 6.0),
             (7.5, -1.6, 7.2), (7.1, 0.8, 8.2), (6.0, 3.0, 9.2), (3.4, 4.4, 10.2), (0, 4.8, 10.6)],
}  # fmt: skip
_POLE = {"short": np.array([0.0, -0.93, 0.37]), "tied": np.array([0.0, -0.22, 0.975])}


def cropped_hair(face: Part, style: Hair, seed: int) -> tuple[list[Part], np.ndarray]:
    """Build short or tied hair, with the skull and the ears that it leaves free.

    Args:
        face: The face and its continuation backwards, which the hair must cover.
        style: ``short`` or ``tied``.
        seed: Fixes the locks.

    Returns:
        The parts, and loose hairs [N, K, 3] in head axes.
    """
    rng = np.random.default_rng([seed, 21])
    grid, normals = _cap(_samples(face), style, rng)
    u = np.linspace(0, 2, _AROUND + 1)
    u = np.where(u > 1, 2 - u, u)  # there and back, so that the texture has no seam
    v = np.linspace(0.02, 0.98, _ALONG)
    uv = np.stack(np.meshgrid(u, v), -1)
    cap = sheet("hair", grid, uv, nearer=0.8)
    cap.outward = -1.0
    parts = [_skull(), cap, *(_ear(sign) for sign in (1.0, -1.0))]
    if style == "tied":
        parts.append(_bun(grid[0, 0]))
    return parts, _fuzz(grid, normals, style, rng)


def _directions(points: np.ndarray) -> np.ndarray:
    rays = points - _CENTRE
    return rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def _cap(skin: np.ndarray, style: Hair, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The outer surface of the hair [along, around + 1, 3] from its pole to the hairline, and its normals."""
    import cv2
    from scipy.interpolate import PchipInterpolator

    left = np.array(_HAIRLINE[style], float)
    line = np.concatenate([left, left[-2::-1] * (-1, 1, 1)])
    knots = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    edge = _directions(PchipInterpolator(knots / knots[-1], line)(np.linspace(0, 1, _AROUND + 1)))
    pole = _POLE[style]
    t = np.linspace(0, 1, _ALONG) ** 0.9
    ragged = cv2.resize(rng.normal(0, 0.022 if style == "short" else 0.008, (1, _AROUND * 2 // 3)), (_AROUND + 1, 1))
    angle = (np.arccos(np.clip(edge @ pole, -1, 1)) * (1 + ragged))[..., None]
    share = t[:, None, None]
    across = edge - (edge @ pole)[:, None] * pole
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    rays = np.cos(share * angle) * pole + np.sin(share * angle) * across
    reach = _reach(rays, skin)
    radius = np.maximum(1 / np.linalg.norm(rays / _RADII, axis=-1), reach)
    radius = cv2.GaussianBlur(np.concatenate([radius[:, -13:-1], radius, radius[:, 1:13]], 1), (0, 0), 1.2)[:, 12:-12]
    radius = np.maximum(radius, reach)
    inner = smoothstep(1 - t, 0.0, 0.28)[:, None]
    up = np.clip(-rays[..., 1], 0, 1)
    front = np.clip(-rays[..., 2], 0, 1)
    full = 0.75 + 0.9 * up + 0.7 * up * front if style == "short" else 0.45 + 0.25 * up
    locks = rng.normal(0, 1, (_ALONG // 3, _AROUND // 3))
    locks = cv2.resize(locks, (_AROUND + 1, _ALONG), interpolation=cv2.INTER_CUBIC)
    locks[:, -1] = locks[:, 0]
    locks = locks * np.minimum(1, 6 * t)[:, None]  # one height at the pole
    thickness = 0.24 + (full - 0.24) * inner + (0.10 if style == "short" else 0.02) * locks * inner
    grid = _CENTRE + rays * (radius + thickness)[..., None]
    grid[0] = grid[0].mean(0)
    return grid, rays


def _samples(face: Part) -> np.ndarray:
    """Points [N, 3] spread over a surface."""
    share = np.stack(np.meshgrid(*[np.linspace(0, 1, 7)] * 2), -1).reshape(-1, 2)
    share = share[share.sum(1) <= 1]
    weight = np.column_stack([share, 1 - share.sum(1)])
    return np.einsum("kc,fcd->fkd", weight, face.vertices[face.faces]).reshape(-1, 3)


def _reach(rays: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """How far the skin reaches along rays [..., 3] from the middle of the skull, 0 where there is none."""
    from scipy.spatial import KDTree

    distance, nearest = KDTree(_directions(skin)).query(rays, k=4)
    lengths = np.linalg.norm(skin - _CENTRE, axis=-1)[nearest]
    weight = np.clip(1 - distance / 0.1, 1e-6, None)
    mean = (weight * lengths).sum(-1) / weight.sum(-1)
    return np.where(distance[..., 0] < 0.06, mean, 0)


def _skull() -> Part:
    """Skin of the skull: seen behind the ears and at the nape."""
    theta, phi = np.meshgrid(np.linspace(0, np.pi, 25), np.linspace(0.4, 1.6, 41) * np.pi, indexing="ij")
    rays = np.stack([np.sin(theta) * np.sin(phi), -np.cos(theta), -np.sin(theta) * np.cos(phi)], -1)
    return sheet("scalp", _CENTRE + _RADII * rays * 0.985, nearer=-3.0)


def _ear(sign: float) -> Part:
    """An ear: from its hollow over the folds to the rim, and behind it back to the head."""
    rho, angle = np.meshgrid(np.linspace(0, 1, 25), np.linspace(0, 2 * np.pi, 41), indexing="ij")
    along, down = -np.cos(angle), -np.sin(angle)  # angle 0 is towards the face, a quarter further up
    outline = np.interp(rho, [0, 0.8, 1.0], [0.0, 1.0, 0.72])
    narrow = 1 - 0.42 * smoothstep(down * outline, 0.1, 1.0)  # the lobe
    a = 1.55 * along * outline * narrow * np.where(along < 0, 0.85, 1.1)
    b = 3.05 * down * outline
    depth = np.interp(rho, [0, 0.14, 0.30, 0.46, 0.56, 0.66, 0.76, 0.82, 1.0],
                      [-0.55, -0.5, -0.1, 0.16, 0.02, 0.2, 0.30, 0.12, -1.3])  # fmt: skip
    face_side = smoothstep(-along, 0.2, 0.9) * smoothstep(rho, 0.2, 0.5) * (rho < 0.82)
    depth = depth - 0.25 * face_side
    lean, flare = np.deg2rad(12), np.deg2rad(24)
    a, b = a * np.cos(lean) - b * np.sin(lean) * 0.8, b * np.cos(lean) + a * np.sin(lean)
    outward = depth * np.cos(flare) + (a + 1.3) * np.sin(flare)
    backward = (a + 1.3) * np.cos(flare) - depth * np.sin(flare)
    points = np.stack([sign * (7.35 + outward), -0.35 + b, 2.75 + backward], -1)
    return sheet("ear", points, nearer=0.0)


def _bun(pole: np.ndarray) -> Part:
    """A bun where the hair is tied, its strands wound around."""
    theta, phi = np.meshgrid(np.linspace(0, np.pi, 17), np.linspace(0, 2 * np.pi, 33), indexing="ij")
    back = _POLE["tied"]
    up = np.array([0.0, -back[2], back[1]])
    ripple = 1 + 0.04 * np.sin(3 * phi + 5 * theta) * np.sin(theta)
    x, y, z = (ripple * n for n in (np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)))
    points = pole + 1.1 * back + 2.5 * x[..., None] * (1, 0, 0) + 2.5 * y[..., None] * up + 1.9 * z[..., None] * back
    u = (phi / np.pi) % 2
    uv = np.stack([theta / np.pi, np.where(u > 1, 2 - u, u)], -1)
    return sheet("hair", points, uv, nearer=-2.0)


def _fuzz(grid: np.ndarray, normals: np.ndarray, style: Hair, rng: np.random.Generator) -> np.ndarray:
    """Loose hairs [N, 4, 3]: over the hairline, and where the outline of the head is seen from the front."""
    count = {"edge": 420 if style == "short" else 260, "top": 260 if style == "short" else 60}
    hairs: list[np.ndarray] = []
    for kind, number in count.items():
        rows = (
            rng.integers(_ALONG - 5, _ALONG - 2, 4 * number)
            if kind == "edge"
            else rng.integers(3, _ALONG - 6, 4 * number)
        )
        columns = rng.integers(0, _AROUND, 4 * number)
        root = grid[rows, columns]
        wanted = root[:, 2] < (2.2 if kind == "edge" else 6.0)
        if kind == "top":
            wanted &= root[:, 1] < -4.0
        rows, columns, root = (x[wanted][:number] for x in (rows, columns, root))
        along = grid[rows + 1, columns] - grid[rows - 1, columns]
        along /= np.linalg.norm(along, axis=-1, keepdims=True) + 1e-9
        normal = normals[rows, columns]
        side = np.cross(along, normal)
        length = rng.uniform(0.5, 1.3, (len(root), 1)) * (1.0 if style == "short" else 0.7)
        lift = rng.uniform(0.02, 0.30 if kind == "top" else 0.06, (len(root), 1))
        drift = rng.normal(0, 0.22, (len(root), 1))
        k = np.linspace(0, 1, 4)[:, None, None]
        hairs.append(
            root
            + length * k * (along + drift * k * side)
            + lift * np.sqrt(k) * normal * (1 if style == "short" else 0.5)
        )
    return np.concatenate(hairs, 1).transpose(1, 0, 2)
