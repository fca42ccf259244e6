"""The Motion of a video from its landmarks and head poses: face channels, gaze, smoothing over time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avatar.data.results import Segments
from avatar.motion.face_channels import EYE_CORNERS, EYE_RADIUS, IRIS, encode, mouth_opening
from avatar.motion.motion import Motion
from avatar.preprocess import bundle
from avatar.preprocess.bundle import Solution

AT_ONCE = 2000  # frames whose landmarks are lifted together
REST_SHARE = 0.25  # of the frames, those with the most closed mouth, define the neutral face


def to_head(pixels: np.ndarray, poses: Solution, shape: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Lift landmarks into the head's frame: each pixel's ray is cut at the depth of the posed neutral vertex.

    Args:
        pixels: [T, N, 2].
        poses: Head poses and focal length.
        shape: [N, 3] neutral face, head axes, centimetres.
        centre: Principal point [2].

    Returns:
        [T, N, 3] centimetres, head axes.
    """
    import torch

    from avatar.geometry.cameras import Camera
    from avatar.geometry.landmarks import landmarks_to_head

    seen, neutral, rotation, translation = (
        torch.from_numpy(np.asarray(x, np.float64)) for x in (pixels, shape, poses.rotation, poses.translation)
    )
    camera = Camera.source(poses.focal, float(centre[0]), float(centre[1]), 1, 1)  # its size does not matter
    return landmarks_to_head(seen, neutral, rotation, translation, camera).numpy()


def neutral_shape(
    landmarks: np.ndarray,
    valid: np.ndarray,
    poses: Solution,
    centre: np.ndarray,
    canonical: np.ndarray,
    points: np.ndarray,
) -> np.ndarray:
    """Estimate the neutral face [478, 3]: rigid points as fitted, others as their median with the mouth at rest.

    Depth of the points that are not rigid comes from MediaPipe, corrected by the rigid points around them.
    """
    # Pixels times depth: of a face that comes nearer, frames in which it is small have no more closed a mouth.
    opening = mouth_opening(landmarks) * poses.translation[:, 2]
    rest = valid & (opening <= np.quantile(opening[valid], REST_SHARE))
    some = np.flatnonzero(rest)
    some = some[np.linspace(0, len(some) - 1, min(len(some), 600)).astype(int)]
    pose = Solution(
        focal=poses.focal, shape=poses.shape, rotation=poses.rotation[some], translation=poses.translation[some]
    )
    rotation = bundle.rotation_matrices(pose.rotation)
    scale = pose.focal / pose.translation[:, 2]
    pixels = landmarks[some].astype(np.float64)
    local = (pixels - pixels[:, points].mean(1, keepdims=True)) / scale[:, None, None]
    shape = np.median(np.einsum("tji,tnj->tni", rotation, local), axis=0)
    s, turn, shift = bundle.similarity(shape[points], poses.shape, np.ones(len(points)))
    shape = s * shape @ turn.T + shift
    # What MediaPipe's shape is off at the rigid points is spread smoothly over the rest of the face.
    offset = poses.shape - shape[points]
    distance2 = ((canonical[:, None] - canonical[points]) ** 2).sum(-1)
    kernel = np.exp(-distance2 / (2 * 2.0**2)) + 1e-6
    shape = shape + (kernel @ offset) / kernel.sum(1, keepdims=True)
    shape[points] = poses.shape
    for _ in range(2):  # x and y where the rays say, at that depth
        seen = np.median(to_head(pixels[..., :2], pose, shape, centre), axis=0)
        loose = np.setdiff1d(np.arange(len(shape)), points)
        shape[loose, :2] = seen[loose, :2]
    return shape


def make_motion(
    landmarks: np.ndarray,
    arkit: np.ndarray,
    valid: np.ndarray,
    segments: Segments,
    poses: Solution,
    shape: np.ndarray,
    centre: np.ndarray,
    fps: float,
) -> Motion:
    """Make the Motion of the video, torso at rest (the torso stage fills it)."""
    import torch

    face, eyes = zip(*_measured(landmarks, poses, shape, centre), strict=True)
    face = smooth_channels(np.concatenate(face), segments)
    gaze = smooth_channels(gaze_angles(np.concatenate(eyes), poses, valid), segments)
    tensors = {
        "arkit": arkit,
        "face": face,
        "gaze": gaze,
        "head_rotation": poses.rotation,
        "head_translation": poses.translation,
    }
    as_tensor = {name: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for name, value in tensors.items()}
    return Motion.zeros(len(landmarks), fps).map(valid=torch.from_numpy(valid), **as_tensor)


def _measured(
    landmarks: np.ndarray, poses: Solution, shape: np.ndarray, centre: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Face channels and eye angles, some frames at a time, because an hour of lifted landmarks fills gigabytes."""
    for start in range(0, len(landmarks), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        some = Solution(
            focal=poses.focal, shape=poses.shape, rotation=poses.rotation[part], translation=poses.translation[part]
        )
        seen = to_head(landmarks[part, :, :2].astype(np.float64), some, shape, centre)
        yield encode(seen - shape), eye_angles(seen)


def eye_angles(seen: np.ndarray) -> np.ndarray:
    """Measure yaw and pitch [T, 2] of the irises from landmarks [T, 478, 3] in the head.

    They are off by a constant, since it is not known how the eyes lie in this face.
    """
    angles = []
    for side in ("right", "left"):
        offset = seen[:, IRIS[side][0], :2] - seen[:, list(EYE_CORNERS[side]), :2].mean(1)
        angles.append(np.arcsin(np.clip(offset / EYE_RADIUS, -0.9, 0.9)))
    return np.mean(angles, 0) * [1, -1]


def gaze_angles(raw: np.ndarray, poses: Solution, valid: np.ndarray) -> np.ndarray:
    """Measure yaw and pitch [T, 2] of the eyes in the head from :func:`eye_angles`.

    How the eyes lie in this face is not known; it is taken such that the person looks into the camera at the median,
    as people who are filmed talking do.
    """
    to_camera = -np.einsum("tji,tj->ti", bundle.rotation_matrices(poses.rotation), poses.translation)
    camera = np.stack(
        [np.arctan2(to_camera[:, 0], -to_camera[:, 2]), np.arctan2(-to_camera[:, 1], -to_camera[:, 2])], 1
    )
    return raw + np.median((camera - raw)[valid], axis=0)


def smooth_channels(values: np.ndarray, segments: Segments) -> np.ndarray:
    """Smooth [T, C] without delay, only as strongly as each channel's noise asks for, and never over a cut.

    Least squares of data and second differences with the ratio of `bundle.noise_ratio`. Quick movements, a lip closure
    above all, are kept: where the second difference is large its weight falls.
    """
    from scipy.linalg import solveh_banded

    values = values.astype(np.float64)
    noise, motion = bundle.noise_ratio(values, segments)
    ratio = np.minimum(noise / motion, 0.5)  # about five frames at most
    out = np.empty_like(values)
    for c in range(values.shape[1]):
        track = values[:, c : c + 1]
        second = np.zeros(len(track))
        second[1:-1] = track[:-2, 0] - 2 * track[1:-1, 0] + track[2:, 0]
        expected = 6 * noise[c] + motion[c]
        band, _ = bundle.difference_band(track, segments, weights=ratio[c] / (1 + second**2 / (4 * expected)))
        band[0] += 1
        out[:, c] = solveh_banded(band, track[:, 0], lower=True)
    return out
