"""Long hair of the synthetic person: two sides that fall from a parting, and what is between them at the back."""

from __future__ import annotations

import numpy as np

from avatar.geometry.smoothstep import smoothstep
from avatar.synth.parts import Part, sheet

# Strands of the person's left side, front to back; each from the parting to the tip.
_STRANDS = np.array(
    [
        [(1.3, -8.7, -4.7), (4.6, -8.0, -3.8), (7.1, -5.4, -1.2), (8.0, -1.2, 1.0), (8.1, 3.5, 1.5), (7.7, 8.5, 1.2),
         (8.2, 13.5, -0.4), (7.4, 18.5, -2.6)],
        [(1.2, -11.4, -2.8), (5.3, -10.6, -1.8), (8.5, -7, 1.0), (9.4, -1, 2.6), (9.6, 4, 3.0), (9.3, 9, 2.8),
         (10.0, 14, 1.8), (8.8, 19.5, 0.2)],
        [(0.9, -13.3, 2), (5.4, -12.4, 2.4), (9, -8.2, 3.6), (10.1, -1, 5), (10.5, 5, 5.4), (10.2, 10, 5.2),
         (10.9, 14.5, 4.6), (10.0, 20, 3.6)],
        [(0.5, -13.2, 7), (5.0, -12.2, 8), (8.4, -8, 9.2), (9.6, -1, 9.8), (9.8, 5, 9.8), (9.4, 10, 9.2),
         (9.8, 14.5, 9), (9, 19.5, 8)],
        [(0, -11.5, 11), (3, -10.5, 12), (5, -7, 13.2), (5.5, -1, 13.8), (5, 5, 13), (4.5, 10, 12), (4, 15, 11),
         (3, 19, 10.5)],
    ]
)  # fmt: skip


def hair_grid(sign: float, across: int = 22, along: int = 26) -> np.ndarray:
    """Points [along, across, 3] of one side's hair, front strand first."""
    from scipy.interpolate import CubicSpline

    strands = _STRANDS.astype(float).copy()
    strands[:, 0, 0] -= 0.15  # both sides overlap at the parting
    if sign < 0:
        strands[..., 0] *= -1
        strands[:, 0, 0] = _STRANDS[:, 0, 0] + 0.15  # the parting is on the left
        strands[:2, 1, 0] += 1.2
    grid = CubicSpline(np.linspace(0, 1, strands.shape[1]), strands, axis=1)(np.linspace(0, 1, along) ** 1.15)
    grid = CubicSpline(np.linspace(0, 1, len(strands)), grid, axis=0)(np.linspace(0, 1, across))
    grid = grid.transpose(1, 0, 2)
    # locks: gentle waves that grow towards the tips
    s, a = np.meshgrid(np.linspace(0, 1, along), np.linspace(0, 1, across), indexing="ij")
    wave = 0.28 * np.sin(2 * np.pi * (5.0 * a + 1.1 * s * s)) * s + 0.12 * np.sin(2 * np.pi * (11 * a - 0.7 * s)) * s
    grid[..., 2] += wave
    grid[..., 0] += sign * 0.8 * wave
    return grid


def _side(sign: float) -> Part:
    grid = hair_grid(sign)
    part = sheet("hair", grid, head=_hair_follows(grid), nearer=1.2)
    part.outward = -sign
    return part


def _hair_follows(grid: np.ndarray) -> np.ndarray:
    """Share with which hair moves with the head: less at the tips, which lie on the shoulders."""
    return 1 - 0.75 * smoothstep(grid[..., 1], 9.0, 20.0)


def _back(across: int = 12) -> list[Part]:
    """Hair between the rearmost strands of both sides: its dark inside, and its outside."""
    left, right = hair_grid(1.0)[:, -1], hair_grid(-1.0)[:, -1]
    t = np.linspace(0, 1, across)[:, None]
    grid = left[:, None] * (1 - t) + right[:, None] * t
    width = np.abs(left[:, 0] - right[:, 0])[:, None]
    grid[..., 2] += 0.12 * width * np.sin(np.pi * t.T)
    inside = sheet("back_hair", grid - (0, 0, 0.3), head=_hair_follows(grid), nearer=-12.0)
    outside = sheet("hair", grid, head=_hair_follows(grid), nearer=-14.0)
    outside.outward = -1.0
    return [inside, outside]


def long_hair() -> list[Part]:
    """Build long hair: the two parts of the back first, then the person's left and right side."""
    return [*_back(), *(_side(sign) for sign in (1.0, -1.0))]
