"""How deep the head's surface lies, from how its parts move against each other while the head turns.

Each of some frames is warped onto the reference frame as the first guess of the surface says. What the warped frame is
off by there, its optical flow, is parallax: a place that is deeper than guessed moves less. With known head poses the
flows of all frames vote on one depth per pixel (multi-view triangulation by least squares).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from avatar.data.footage import Footage
from avatar.geometry.se3 import axis_angle_to_matrix

FRAMES = 32  # looked at
STEP_CM = 0.5  # for the derivative of a place in the image by its depth
NOISE = 0.6  # pixels of 512 that a flow is off by
PRIOR = 1.2  # centimetres by which the first guess is off
SMOOTH = 0.012  # of the image's width: neighbouring pixels vote together
MOST = 4.0  # centimetres that a depth is corrected by
PASSES = 2  # each warps with the depth that the one before found
_FLOWS = 3.0  # in percent of the image's width: longer ones are mistakes


class Depth(NamedTuple):
    """Depth correction in the reference frame.

    Attributes:
        change: [H, W] centimetres along the camera's axis to add to the guess.
        trust: [H, W] 0..1, how much of it the video shows.
    """

    change: np.ndarray
    trust: np.ndarray


def measure_depth(data: Footage, frame: int, guess: np.ndarray, looks: int = FRAMES) -> Depth:
    """Correct a guessed depth of the head.

    Args:
        data: The person; only training frames are looked at.
        frame: Reference frame.
        guess: [H, W] depth of the head's surface in that frame, centimetres; NaN where there is none.
        looks: Frames to look at.
    """
    frames = _frames(data, frame, looks)
    known = np.isfinite(guess)
    if len(frames) == 0 or not known.any():
        return Depth(np.zeros_like(guess), np.zeros_like(guess))
    filled = np.where(known, guess, np.nanmedian(guess))
    seen = [(int(other), _grey(data, other), _head_mask(data, other)) for other in frames]
    found = Depth(np.zeros(guess.shape), np.zeros(guess.shape))
    for _ in range(PASSES):
        found = _one_pass(data, frame, filled, found.change, known, seen)
    return found


def _one_pass(
    data: Footage, frame: int, guess: np.ndarray, change: np.ndarray, known: np.ndarray,
    looks: list[tuple[int, np.ndarray, np.ndarray]],
) -> Depth:  # fmt: skip
    reference = _grey(data, frame)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    errors, slopes, weights = [], [], []
    for other, image, mask in looks:
        here, deeper = (_projected(data, frame, other, guess + change + d) for d in (0.0, STEP_CM))
        warped = _at(image, here)
        found = flow.calc(reference, warped, None)  # type: ignore[call-overload]
        grid = _grid(guess.shape) + found
        landed = np.stack([_at(np.ascontiguousarray(here[..., axis], np.float32), grid) for axis in (0, 1)], -1)
        within = (_at(mask, landed) > 0.5) & known
        within &= (landed > 1).all(-1) & (landed < np.array(guess.shape[::-1]) - 2).all(-1)
        within &= np.linalg.norm(found, axis=-1) < _FLOWS / 100 * guess.shape[1]
        slopes.append((deeper - here) / STEP_CM)
        errors.append(landed - here + slopes[-1] * change[..., None])  # as seen from the first guess
        weights.append(within.astype(np.float32))
    return _triangulate(np.stack(errors), np.stack(slopes), np.stack(weights), known)


def _frames(data: Footage, frame: int, count: int) -> np.ndarray:
    """Training frames whose head is turned differently, evenly over yaw and pitch."""
    frames = data.train_frames
    turn = (data.motion.head_rotation[frames] - data.motion.head_rotation[frame]).numpy()
    picked = []
    for axis in (1, 0):
        order = np.argsort(turn[:, axis])
        share = np.linspace(0, 1, count * (3 if axis else 1) // 4)
        # the ends show most: half of the looks go to the outer quarters
        share = 0.5 + 0.5 * np.sign(share - 0.5) * np.sqrt(np.abs(2 * share - 1))
        picked.append(order[(share * (len(order) - 1)).astype(int)])
    chosen = np.unique(np.concatenate(picked))
    far = np.linalg.norm(turn[chosen, :2], axis=1) > 0.02
    return frames[chosen[far]]


def _grey(data: Footage, index: int) -> np.ndarray:
    return cv2.cvtColor(data.image(index), cv2.COLOR_RGB2GRAY)


def _head_mask(data: Footage, index: int) -> np.ndarray:
    masks = data.masks(index)
    return np.ascontiguousarray(masks["hair"] + masks["face"], np.float32)


def _grid(shape: tuple[int, ...]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return np.stack([x, y], -1)


def _at(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    where = where.astype(np.float32)
    return cv2.remap(image, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _projected(data: Footage, frame: int, other: int, depth: np.ndarray) -> np.ndarray:
    """Where another frame shows what the reference frame shows at a depth [H, W]: pixels [H, W, 2], from 0."""
    camera = data.camera
    x, y = np.moveaxis(_grid(depth.shape) + 0.5, -1, 0)
    world = np.stack([(x - camera.cx) / camera.focal * depth, (y - camera.cy) / camera.focal * depth, depth], -1)
    (r0, t0), (r1, t1) = (
        (axis_angle_to_matrix(data.motion.head_rotation[k].double()).numpy(),
         data.motion.head_translation[k].double().numpy())
        for k in (frame, other)
    )  # fmt: skip
    there = ((world - t0) @ r0) @ r1.T + t1
    return there[..., :2] / there[..., 2:] * camera.focal + (camera.cx - 0.5, camera.cy - 0.5)


def _triangulate(errors: np.ndarray, slopes: np.ndarray, weights: np.ndarray, known: np.ndarray) -> Depth:
    """Depth changes that explain flows [F, H, W, 2], given what a centimetre does to each place."""
    scale = known.shape[1] / 512
    along = (errors * slopes).sum(-1)
    power = (slopes**2).sum(-1)
    noise = NOISE * scale
    robust = weights
    change = np.zeros(known.shape)
    strength = share = np.ones(known.shape)
    reach = SMOOTH * known.shape[1]
    smooth = lambda values: gaussian_filter(values, reach, mode="nearest")  # noqa: E731
    for _ in range(4):
        votes = smooth((robust * along).sum(0) * known) / noise**2
        strength = smooth((robust * power).sum(0) * known) / noise**2
        share = np.maximum(smooth(known.astype(float)), 1e-3)
        change = votes / share / (strength / share + 1 / PRIOR**2)
        off = np.abs(along - power * change) / np.sqrt(np.maximum(power, 1e-9))  # pixels along the epipolar line
        robust = weights / np.maximum(off / (1.5 * noise), 1)
    trust = (strength / share) / (strength / share + 1 / PRIOR**2)
    return Depth(np.where(known, np.clip(change, -MOST, MOST), 0), np.where(known, trust, 0))
