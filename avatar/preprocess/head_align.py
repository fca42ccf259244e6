"""Head poses from the look of the whole head: dense alignment with a reference frame whose depth is known.

A landmark network leans with the head, so that a nod reads as too small a turn and a change of distance. The head's
surface says otherwise: hair and ears lie far behind the face, and move against it with every nod. So each frame is
warped onto the reference as its pose says, and the optical flow that is left is explained by a change of the pose
(Gauss-Newton with the flow's structure tensor as weight, as in Lucas and Kanade 1981, and robust weights).
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from avatar.data.footage import Footage, pose_at
from avatar.data.results import Segments
from avatar.preprocess.bust import fit_bust
from avatar.preprocess.head_depth import head_depth, inside_face, still_face
from avatar.preprocess.parallax import brightness, measure_depth, sampled

EVERY = 4  # frames between two alignments
PASSES = 1  # each frame starts from what the one before it found
LOOKS = 16  # frames from which the depth beside the face is measured
STRIDE = 3  # every n-th pixel of every n-th row is looked at
ROBUST = 0.5  # pixels of 512 by which a flow may be off
UNLIKE = 2.0  # pixels of 512; flows that the pose leaves over count as no longer when poses are compared
LONGEST = 12.0  # pixels of 512; longer flows are mistakes
TENSOR = 4.0  # pixels of 512: neighbours whose texture says how sure a flow is
# How many times what the flow says the tracked pitch, yaw, roll, x, y and z count. Where the eyes are tells yaw, roll
# and x well, and flow over smooth skin only pulls them to the reference.
HOLD = (0.0, 1.0, 100.0, 1.0, 0.0, 0.0)
WORSE = 0.03  # pixels of 512; an alignment that leaves as much more flow than there was is a mistake
LEAST_PIXELS = 400  # of a head, to align anything with it
LEAST_SEEN = 0.3  # share of the reference's head that must be seen
LEAST_LIKE = 0.5  # correlation of the aligned frame with the reference
MOST_TURN, MOST_MOVE = 0.12, 0.04  # radians, and share of the distance: a larger change is a mistake
SMOOTH = 0.6  # standard deviation over time, in alignments; more would take a quick nod for noise
_MARGIN = 24  # pixels around the head

Pose = tuple[np.ndarray, np.ndarray]  # rotation [3, 3] and translation [3]


class Aligned(NamedTuple):
    """What the alignment of a frame found.

    Attributes:
        change: [6] change of the tracked pose in the head's own axes: turn (axis-angle) and shift (centimetres).
        before, after: Mean length of the flow that the pose does not explain, over what has texture, pixels.
        good: Whether it can be believed.
    """

    change: np.ndarray
    before: float
    after: float
    good: bool


class Reference:
    """A frame with the depth of its head, that others are aligned with.

    Args:
        data: The person.
        frame: Index of the frame.
        depth: [H, W] depth of the head, NaN where it is not.
        rigid: Bool [H, W], where the head is rigid.
    """

    def __init__(self, data: Footage, frame: int, depth: np.ndarray, rigid: np.ndarray) -> None:
        rows, columns = (np.flatnonzero(rigid.any(axis)) for axis in (1, 0))
        box = tuple(slice(max(0, int(place[0]) - _MARGIN), int(place[-1]) + 1 + _MARGIN) for place in (rows, columns))
        self.camera, self.scale = data.camera, data.width / 512
        y, x = np.mgrid[: data.height, : data.width][(slice(None), *box)] + 0.5
        z = np.where(np.isfinite(depth), depth, np.nanmedian(depth))[box]
        rotation, translation = pose_at(data, frame)
        world = np.stack(
            [(x - self.camera.cx) / self.camera.focal * z, (y - self.camera.cy) / self.camera.focal * z, z]
        )
        self.points = np.moveaxis(world, 0, -1) - translation
        self.points = (self.points @ rotation).astype(np.float32)  # head axes
        self.image = np.ascontiguousarray(brightness(data.image(frame))[box])
        chosen = np.zeros_like(rigid)
        chosen[::STRIDE, ::STRIDE] = True
        self.places = np.nonzero((chosen & rigid)[box])
        self.tensors = _structure(self.image, TENSOR * self.scale)[self.places]
        self.flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def align(self, image: np.ndarray, head: np.ndarray, pose: Pose, start: np.ndarray) -> Aligned:
        """Align a frame.

        Args:
            image: uint8 RGB [H, W, 3].
            head: float32 [h, w] of the frame's aspect, 1 where it shows the head.
            pose: Tracked pose.
            start: Change of it to start from, [6].
        """
        grey, (tracked, origin) = brightness(image), pose
        rotation, translation = _changed(pose, start)
        before = after = 0.0
        for number in range(PASSES):
            local, where = self._projected(rotation, translation)
            flow = self.flow.calc(self.image, sampled(grey, where), None)  # type: ignore[call-overload]
            flows = flow[self.places]
            landed = sampled(where, np.stack(self.places[::-1], -1)[None].astype(np.float32) + flows[None])[0]
            seen = self._shows(head, landed) & (np.linalg.norm(flows, axis=1) < LONGEST * self.scale)
            if seen.mean() < LEAST_SEEN:
                return Aligned(np.zeros(6), 0.0, 0.0, False)
            error = (landed - where[self.places])[seen].astype(np.float64)
            so_far = np.concatenate([Rotation.from_matrix(rotation @ tracked.T).as_rotvec(), translation - origin])
            step, length, after = self._step(local[self.places][seen], error, seen, translation, so_far)
            before = before if number else length
            rotation, translation = Rotation.from_rotvec(step[:3]).as_matrix() @ rotation, translation + step[3:]
        change = np.concatenate(
            [Rotation.from_matrix(tracked.T @ rotation).as_rotvec(), tracked.T @ (translation - origin)]
        )
        good = np.linalg.norm(change[:3]) < MOST_TURN and np.abs(change[3:]).max() < MOST_MOVE * origin[2]
        good = (
            good
            and after < before + WORSE * self.scale
            and self._likeness(grey, head, rotation, translation) > LEAST_LIKE
        )
        return Aligned(change, before, after, bool(good))

    def _shows(self, head: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Bool [N], whether a mask of any size shows the head at pixels [N, 2] of the frame, from 0."""
        at = ((where + 0.5) * (head.shape[0] / self.camera.height) - 0.5).astype(np.float32)
        return sampled(head, at[None])[0] > 0.5

    def _likeness(self, grey: np.ndarray, head: np.ndarray, rotation: np.ndarray, translation: np.ndarray) -> float:
        """Correlation of a frame with the reference, over what both show of the head."""
        where = self._projected(rotation, translation)[1][self.places][None]
        seen = self._shows(head, where[0])
        both = self.image[self.places][seen].astype(np.float64), sampled(grey, where)[0][seen].astype(np.float64)
        a, b = (values - values.mean() for values in both)
        return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), 1e-9)) if seen.any() else 0.0

    def _projected(self, rotation: np.ndarray, translation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Turned points [h, w, 3], and the pixels [h, w, 2], from 0, at which a pose shows them."""
        local = self.points @ rotation.T.astype(np.float32)
        at = local + translation.astype(np.float32)
        centre = np.array([self.camera.cx - 0.5, self.camera.cy - 0.5], np.float32)
        return local, at[..., :2] * (np.float32(self.camera.focal) / at[..., 2:]) + centre

    def _step(
        self, local: np.ndarray, error: np.ndarray, seen: np.ndarray, translation: np.ndarray, so_far: np.ndarray
    ) -> tuple[np.ndarray, float, float]:
        """Change of the pose [6] that explains flows [N, 2]; mean length of the flows, and of what is left."""
        local = local.astype(np.float64)
        at = local + translation
        by_point = np.zeros((len(at), 2, 3))
        scale = self.camera.focal / at[:, 2]
        by_point[:, 0, 0] = by_point[:, 1, 1] = scale
        by_point[:, :, 2] = -at[:, :2] / at[:, 2:] * scale[:, None]
        jacobian = np.concatenate([np.cross(local[:, None], by_point), by_point], -1)
        weighted = self.tensors[seen] @ jacobian
        flat, weighted = jacobian.reshape(-1, 6), weighted.reshape(-1, 6)
        robust, step, left = np.ones(len(error)), np.zeros(6), error
        for _ in range(5):
            both = weighted * np.repeat(robust, 2)[:, None]
            normal, right = both.T @ flat, both.T @ error.reshape(-1)
            held = np.array(HOLD) * normal.diagonal()
            normal[np.diag_indices(6)] += held + 1e-9 * np.trace(normal) + 1e-12
            right -= held * so_far
            step = np.linalg.solve(normal, right)
            left = np.linalg.norm(error - (flat @ step).reshape(-1, 2), axis=1)
            robust = 1 / np.maximum(left / (ROBUST * self.scale), 1) ** 2
        texture = np.trace(self.tensors[seen], axis1=1, axis2=2)
        texture = texture / max(texture.sum(), 1e-9)
        longest = UNLIKE * self.scale
        before = np.linalg.norm(error, axis=1)
        return step, float(texture @ before.clip(max=longest)), float(texture @ left.clip(max=longest))


def make_reference(data: Footage) -> Reference | None:
    """Choose a frame, and measure how deep its head lies; None where too little of a head shows."""
    frame = _middle_frame(data)
    depth = head_depth(data, fit_bust(data, frame), frame)
    face = inside_face(data, frame)
    still = still_face(data, frame)
    depth = depth + np.where(face, 0, measure_depth(data, frame, depth, still, LOOKS))
    rigid = np.isfinite(depth) & (~face | still)
    return Reference(data, frame, depth, rigid) if rigid.sum() > LEAST_PIXELS else None


def _middle_frame(data: Footage) -> int:
    """The frame nearest to the median pose, whose eyes are open and that is not blurred by motion."""
    frames = data.train_frames
    motion = data.motion[frames]
    rotation, translation = motion.head_rotation.numpy(), motion.head_translation.numpy()
    off = np.linalg.norm(rotation - np.median(rotation, 0), axis=1) * 10
    off += np.linalg.norm(translation - np.median(translation, 0), axis=1) / 3
    speed = np.linalg.norm(np.diff(rotation, axis=0, prepend=rotation[:1]), axis=1)
    return int(frames[(off + 20 * speed + 3 * motion.arkit[:, [0, 7]].mean(-1).numpy()).argmin()])


def knots(segments: Segments, valid: np.ndarray) -> list[np.ndarray]:
    """Frames to align in each segment: every n-th and the last one, measured ones only."""
    every = [np.unique([*range(start, end, EVERY), end - 1]) for start, end in segments if end > start]
    return [frames[valid[frames]] for frames in every]


def spread(changes: list[np.ndarray], frames: list[np.ndarray], segments: Segments, count: int) -> np.ndarray:
    """Changes of all frames [T, 6] from those at some frames of each segment: smoothed, and linear in between.

    Args:
        changes: Per segment [K, 6].
        frames: Per segment [K]; where it is empty the segment's changes are zero.
        segments: [start, end) of each segment.
        count: T.
    """
    result = np.zeros((count, 6))
    for change, at, (start, end) in zip(changes, frames, segments, strict=True):
        if len(at):
            smooth = gaussian_filter1d(change, SMOOTH, axis=0, mode="nearest")
            now = np.arange(start, end)
            result[start:end] = np.stack([np.interp(now, at, part) for part in smooth.T], -1)
    return result


def moved(rotation: np.ndarray, translation: np.ndarray, change: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Poses, axis-angle [T, 3] and [T, 3], after changes [T, 6] in the head's own axes."""
    turn = Rotation.from_rotvec(rotation)
    return (turn * Rotation.from_rotvec(change[:, :3])).as_rotvec(), translation + turn.apply(change[:, 3:])


def _changed(pose: Pose, change: np.ndarray) -> Pose:
    rotation, translation = pose
    return rotation @ Rotation.from_rotvec(change[:3]).as_matrix(), translation + rotation @ change[3:]


def _structure(image: np.ndarray, reach: float) -> np.ndarray:
    """Structure tensor [h, w, 2, 2]."""
    grey = image.astype(np.float32)
    x, y = cv2.Sobel(grey, -1, 1, 0) / 8, cv2.Sobel(grey, -1, 0, 1) / 8
    xx, xy, yy = (cv2.GaussianBlur(part, (0, 0), reach) for part in (x * x, x * y, y * y))
    return np.stack([xx, xy, xy, yy], -1).reshape(*image.shape, 2, 2).astype(np.float64)
