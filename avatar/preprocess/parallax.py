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

from avatar.data.footage import Footage, pose_at
from avatar.geometry.cameras import Camera

FRAMES = 20  # looked at
STEP_CM = 0.5  # for the derivative of a place in the image by its depth
NOISE = 0.6  # pixels of an image 512 wide that a flow is off by
PRIOR = 1.2  # centimetres by which the first guess is off
SMOOTH = 0.012  # of the image's width: neighbouring pixels vote together
MOST = 4.0  # centimetres that a depth is corrected by
PASSES = 2  # each warps with the depth that the one before found
LONGEST = 0.03  # of the image's width: longer flows are mistakes
SIDE = 512  # pixels that the longer side of the images has at least


def measure_depth(data: Footage, frame: int, guess: np.ndarray, right: np.ndarray, looks: int = FRAMES) -> np.ndarray:
    """Correct a guessed depth of the head.

    Args:
        data: The person; only training frames are looked at.
        frame: Reference frame.
        guess: [H, W] depth of the head's surface in that frame, centimetres; NaN where there is none.
        right: Bool [H, W], where the guess is right. What moves there is an error of the poses, which moves all that is
            beside it as well, and is taken away from all.
        looks: Frames to look at.

    Returns:
        [H, W] centimetres along the camera's axis to add to the guess; 0 where there is none.
    """
    frames = _frames(data, frame, looks)
    size = guess.shape[1], guess.shape[0]
    shrink = max(1, round(max(size) / SIDE))
    small = size[0] // shrink, size[1] // shrink
    known = cv2.resize(np.isfinite(guess).astype(np.uint8), small, interpolation=cv2.INTER_NEAREST) > 0
    if len(frames) == 0 or not known.any():
        return np.zeros_like(guess)
    filled = cv2.resize(np.where(np.isfinite(guess), guess, np.nanmedian(guess)), small, interpolation=cv2.INTER_AREA)
    others = [_look(data, int(other), small) for other in frames]
    reference = _look(data, frame, small)
    change = np.zeros(filled.shape)
    trusted = known & (cv2.resize(right.astype(np.uint8), small, interpolation=cv2.INTER_NEAREST) > 0)
    for _ in range(PASSES):
        change = _one_pass(reference, filled, change, known, others)
        if trusted.any():
            change = change - np.median(change[trusted])
    return np.where(np.isfinite(guess), cv2.resize(change, size, interpolation=cv2.INTER_LINEAR), 0)


class _Look(NamedTuple):
    """A frame at the size that is worked at: grey image, mask of the head, camera, and the head's pose."""

    image: np.ndarray
    mask: np.ndarray
    camera: Camera
    turn: np.ndarray
    shift: np.ndarray


def _look(data: Footage, index: int, size: tuple[int, int]) -> _Look:
    masks = data.masks(index)
    small = lambda image: cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # noqa: E731
    return _Look(
        small(brightness(data.image(index))), small(masks["hair"] + masks["face"]), data.camera.resized(*size),
        *pose_at(data, index),
    )  # fmt: skip


def _one_pass(
    reference: _Look, guess: np.ndarray, change: np.ndarray, known: np.ndarray, looks: list[_Look]
) -> np.ndarray:
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    errors, slopes, weights = [], [], []
    for look in looks:
        here, deeper = (_projected(reference, look, guess + change + d) for d in (0.0, STEP_CM))
        found = flow.calc(reference.image, sampled(look.image, here), None)  # pyright: ignore[reportCallIssue, reportArgumentType]
        grid = _grid(guess.shape) + found
        landed = np.stack([sampled(np.ascontiguousarray(here[..., axis], np.float32), grid) for axis in (0, 1)], -1)
        within = (sampled(look.mask, landed) > 0.5) & known
        within &= (landed > 1).all(-1) & (landed < np.array(guess.shape[::-1]) - 2).all(-1)
        within &= np.linalg.norm(found, axis=-1) < LONGEST * guess.shape[1]
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


def _grid(shape: tuple[int, ...]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    return np.stack([x, y], -1)


def brightness(image: np.ndarray) -> np.ndarray:
    """Brightness [H, W] of an image, uint8 RGB [H, W, 3]."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def sampled(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Bilinear values [h, w, ...] of an image at pixels [h, w, 2], counted from 0.

    Beyond the border it has the values of the border.
    """
    where = where.astype(np.float32, copy=False)
    return cv2.remap(image, where[..., 0], where[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _projected(reference: _Look, look: _Look, depth: np.ndarray) -> np.ndarray:
    """Where another frame shows what the reference frame shows at a depth [H, W]: pixels [H, W, 2], from 0."""
    camera = reference.camera
    x, y = np.moveaxis(_grid(depth.shape) + 0.5, -1, 0)
    world = np.stack([(x - camera.cx) / camera.focal * depth, (y - camera.cy) / camera.focal * depth, depth], -1)
    there = ((world - reference.shift) @ reference.turn) @ look.turn.T + look.shift
    return there[..., :2] / there[..., 2:] * camera.focal + (camera.cx - 0.5, camera.cy - 0.5)


def _triangulate(errors: np.ndarray, slopes: np.ndarray, weights: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Depth changes that explain flows [F, H, W, 2], given what a centimetre does to each place."""
    scale = known.shape[1] / 512
    along = (errors * slopes).sum(-1)
    power = (slopes**2).sum(-1)
    noise = NOISE * scale
    robust = weights
    change = np.zeros(known.shape)
    reach = SMOOTH * known.shape[1]
    smooth = lambda values: gaussian_filter(values, reach, mode="nearest")  # noqa: E731
    share = np.maximum(smooth(known.astype(float)), 1e-3)
    for _ in range(4):
        votes = smooth((robust * along).sum(0) * known) / noise**2
        strength = smooth((robust * power).sum(0) * known) / noise**2
        change = votes / share / (strength / share + 1 / PRIOR**2)
        off = np.abs(along - power * change) / np.sqrt(np.maximum(power, 1e-9))  # pixels along the epipolar line
        robust = weights / np.maximum(off / (1.5 * noise), 1)
    return np.where(known, np.clip(change, -MOST, MOST), 0)
