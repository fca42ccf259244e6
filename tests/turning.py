"""A textured slab with a bump that turns before a camera, as a prepared person: exact depth to be found by parallax."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from avatar.data import PersonDataset
from avatar.geometry.se3 import axis_angle_to_matrix
from tests.person import make_person

DEPTH = 2.0  # centimetres that the bump is nearer than the slab


def turning_head(folder: Path, size: int = 160) -> tuple[PersonDataset, np.ndarray, np.ndarray]:
    """A person whose frames show the slab turning with the head.

    Returns:
        The person; the slab without its bump, and with it, as depth [H, W] in frame 0, centimetres.
    """
    data = PersonDataset(make_person(folder / "turning", frames=40, size=size))
    camera, motion = data.camera, data.motion
    y, x = np.mgrid[:size, :size] + 0.5
    rotation, shift = (getattr(motion, name)[0].double() for name in ("head_rotation", "head_translation"))
    turn0, shift0 = axis_angle_to_matrix(rotation).numpy(), shift.numpy()
    flat = np.full((size, size), float(shift0[2]))
    bump = DEPTH * np.exp(-(((x - 0.5 * size) ** 2 + (y - 0.35 * size) ** 2) / (0.12 * size) ** 2))
    truth = flat - bump
    noise = np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 1.6)
    texture = (128 + 45 * texture / texture.std()).clip(0, 255).astype(np.float32)
    local = np.stack([(x - camera.cx) / camera.focal * truth, (y - camera.cy) / camera.focal * truth, truth], -1)
    local = (local - shift0) @ turn0
    mask = np.zeros((256, 256, 4), np.uint8)
    mask[..., 0] = 255
    for index in range(data.num_frames):
        turn = axis_angle_to_matrix(motion.head_rotation[index].double()).numpy()
        world = local @ turn.T + motion.head_translation[index].double().numpy()
        there = world[..., :2] / world[..., 2:] * camera.focal + (camera.cx - 0.5, camera.cy - 0.5)
        at = _inverse(there.astype(np.float32))
        frame = cv2.remap(texture, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        path = folder / f"turning/ingest/frames/{index:06d}.jpg"
        cv2.imwrite(str(path), np.repeat(frame[..., None], 3, -1).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 97])
        cv2.imwrite(str(folder / f"turning/parse/masks/{index:06d}.png"), mask[..., [2, 1, 0, 3]])
    inside = (np.abs(x - size / 2) < 0.36 * size) & (np.abs(y - size / 2) < 0.36 * size)
    guess = np.where(inside, flat, np.nan)
    return data, guess, truth


def _inverse(there: np.ndarray) -> np.ndarray:
    """Where each pixel comes from, of a smooth map [H, W, 2] that says where each goes."""
    y, x = np.mgrid[: there.shape[0], : there.shape[1]].astype(np.float32)
    home = np.stack([x, y], -1)
    at = home.copy()
    for _ in range(12):
        landed = cv2.remap(there, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        at += home - landed
    return at
