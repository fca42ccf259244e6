"""One focal length, one rigid face shape and smooth head poses from the landmarks of a whole video.

The landmarks of single frames shake, and each frame on its own cannot tell a near camera from a far one. So the rigid
part of the face (forehead, temples, eye corners, nose bridge, cheekbones) is fitted over the whole video.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avatar.data.results import Segments
from avatar.motion.face_channels import EYE_CORNERS
from avatar.preprocess import bundle
from avatar.preprocess.bundle import Solution

# Landmarks that move with the expression: lids and brows.
LIDS = (
    7, 163, 144, 145, 153, 154, 155, 246, 161, 160, 159, 158, 157, 173, 22, 23, 24, 25, 26, 27, 28, 29, 30, 56,
    110, 112, 130, 190, 221, 222, 223, 224, 225, 226, 228, 229, 230, 231, 232, 233, 243, 244, 247, 31, 113,
    249, 390, 373, 374, 380, 381, 382, 466, 388, 387, 386, 385, 384, 398, 252, 253, 254, 255, 256, 257, 258, 259,
    260, 286, 339, 341, 359, 414, 441, 442, 443, 444, 445, 446, 448, 449, 450, 451, 452, 453, 463, 464, 467, 261, 342,
)  # fmt: skip
BROWS = (
    70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 124, 156, 193, 189, 35,
    300, 293, 334, 296, 336, 285, 295, 282, 283, 276, 353, 383, 417, 413, 265,
)  # fmt: skip
SUBNASALE = 2

MAX_ADJUSTED = 400  # frames in the joint adjustment; more do not change the shape
FRAMES_PER_INDEPENDENT = 20.0  # see `bundle.adjust`
EXPECTED_DISTANCE = 100.0  # centimetres from camera to face: a desk, a phone at arm's length, a studio are 40 to 300
DISTANCE_SIGMA = 0.25  # deviation of its logarithm
FOCAL_LIMITS = (1.2, 6.0)  # in frame widths
SHAPE_SIGMA = 0.25  # centimetres that a point of a face is off the mean of MediaPipe's and the canonical shape
MIN_SIGMA = 0.0015  # of the face height; a point is never trusted more than this
TEXTURE_MIN_SIGMA = 0.0007  # the same for a point followed by its texture
LANDMARK_DOUBT = 2.0  # where a point has no texture its landmark is used, with its deviation times this


def canonical_in_head_axes(vertices: np.ndarray) -> np.ndarray:
    """Turn MediaPipe's canonical vertices [468, 3] into head axes, completed by the two irises to [478, 3]."""
    from avatar.geometry.cameras import MEDIAPIPE_TO_HEAD

    face = np.asarray(vertices, np.float64) * MEDIAPIPE_TO_HEAD.numpy().astype(np.float64)
    ring = np.array([[0, 0], [1, 0], [0, -1], [-1, 0], [0, 1]]) * 0.58  # an iris is 11.7 mm wide
    irises = []
    for side in ("right", "left"):
        middle = face[list(EYE_CORNERS[side])].mean(0)
        irises.append(middle + np.concatenate([ring * [1 if side == "left" else -1, 1], np.zeros((5, 1))], 1))
    return np.concatenate([face, *irises])


def rigid_points(canonical: np.ndarray) -> np.ndarray:
    """Choose the landmarks that follow the skull rather than the expression, by index.

    They lie above the base of the nose and belong neither to the lids nor to the brows. How well each of them does
    follow the skull is found in the fit.
    """
    keep = canonical[:468, 1] < canonical[SUBNASALE, 1]
    keep[list(LIDS) + list(BROWS)] = False
    return np.flatnonzero(keep)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Result of :func:`fit_head` and :func:`refit`.

    Attributes:
        solution: Shape of the rigid points, smooth poses, focal length.
        points: Indices of the rigid points.
        sigma: [N] deviation of each rigid point's landmark in pixels.
        residual: [T] mean reprojection error of the rigid points in pixels.
        raw_pose: [T, 6] poses without smoothing.
    """

    solution: Solution
    points: np.ndarray
    sigma: np.ndarray
    residual: np.ndarray
    raw_pose: np.ndarray


def fit_head(
    landmarks: np.ndarray,
    valid: np.ndarray,
    segments: Segments,
    canonical: np.ndarray,
    centre: np.ndarray,
    size: float,
) -> Fit:
    """Fit focal length, rigid shape and smooth poses to landmarks.

    Args:
        landmarks: [T, 478, 3] pixels, z in the same scale, no NaN.
        valid: [T] measured frames.
        segments: Continuous runs.
        canonical: [478, 3] head axes, centimetres.
        centre: Principal point [2].
        size: Longer side of the frame in pixels.
    """
    points = rigid_points(canonical)
    base = canonical[points]
    pixels = landmarks[:, points].astype(np.float64)
    weights = np.ones(len(points))
    face_width = float(np.median(np.ptp(pixels[valid][..., 0], axis=1)))
    expected = float(np.clip(EXPECTED_DISTANCE * face_width / np.ptp(base[:, 0]), *(size * np.array(FOCAL_LIMITS))))
    picked = np.flatnonzero(valid)
    picked = picked[np.linspace(0, len(picked) - 1, min(len(picked), MAX_ADJUSTED)).astype(int)]
    start = bundle.initial(pixels[picked], base, weights, expected, centre)
    prior = expected_shape(pixels[picked], start, base)
    start.shape = prior.copy()
    floor = MIN_SIGMA * float(np.ptp(landmarks[valid][..., 1], axis=1).mean())
    sigma = np.full(len(points), 4 * floor)
    state = start
    for _ in range(2):  # the second time with what each point was found to be worth
        state = bundle.adjust(
            pixels[picked, :, :2], state, centre, sigma, shape_prior=prior, shape_sigma=SHAPE_SIGMA,
            focal_prior=expected, focal_sigma=DISTANCE_SIGMA, independent=len(picked) / FRAMES_PER_INDEPENDENT,
        )  # fmt: skip
        sigma = bundle.deviations(pixels[picked, :, :2] - bundle.project(state, centre), floor)
    state = bundle.to_gauge(state, base, 1 / sigma**2)
    every = bundle.initial(pixels, state.shape, 1 / sigma**2, state.focal, centre)
    return solve_track(pixels[..., :2], every, points, sigma, sigma, valid, segments, centre)


def solve_track(
    pixels: np.ndarray,
    start: Solution,
    points: np.ndarray,
    sigma: np.ndarray,
    landmark_sigma: np.ndarray,
    valid: np.ndarray,
    segments: Segments,
    centre: np.ndarray,
) -> Fit:
    """Solve the poses of all frames for a fixed shape.

    Each is solved on its own, and then all as smooth as their noise asks for.

    Args:
        pixels: [T, N, 2] measured points.
        start: Shape, focal length and poses to start from.
        points: Indices of the points.
        sigma: [N] or [T, N] deviation of the measurements in pixels.
        landmark_sigma: [N], kept in the result.
        valid, segments, centre: As for :func:`fit_head`.
    """
    raw = bundle.solve_poses(pixels, start, centre, sigma, valid, segments, None)
    raw_pose = np.concatenate([raw.rotation, raw.translation], 1)
    noise, motion = bundle.noise_ratio(raw_pose, segments)
    smooth = bundle.solve_poses(pixels, raw, centre, sigma, valid, segments, noise / motion)
    error = np.linalg.norm(pixels - bundle.project(smooth, centre), axis=-1).mean(1)
    return Fit(solution=smooth, points=points, sigma=landmark_sigma, residual=error, raw_pose=raw_pose)


def refit(
    fit: Fit,
    seen: np.ndarray,
    confidence: np.ndarray,
    landmarks: np.ndarray,
    valid: np.ndarray,
    segments: Segments,
    centre: np.ndarray,
    height: float,
) -> Fit:
    """Fit shape, focal length and poses to measured points [T, N, 2], and to landmarks where there is none."""
    known = confidence > 0
    pixels = np.where(known[..., None], seen, landmarks[:, fit.points, :2])
    picked = np.flatnonzero(valid)
    picked = picked[np.linspace(0, len(picked) - 1, min(len(picked), MAX_ADJUSTED)).astype(int)]
    old = fit.solution
    state = Solution(
        focal=old.focal, shape=old.shape, rotation=old.rotation[picked], translation=old.translation[picked]
    )
    sigma = fit.sigma
    for _ in range(2):
        off = np.linalg.norm(seen[picked] - bundle.project(state, centre), axis=-1)
        spread = np.ma.median(np.ma.masked_array(off, ~known[picked]), axis=0).filled(np.inf) / 1.1774
        spread = np.maximum(spread, TEXTURE_MIN_SIGMA * height)
        by_texture = spread / np.sqrt(np.maximum(confidence, 1e-3))
        sigma = np.where(known, by_texture, LANDMARK_DOUBT * fit.sigma)
        state = bundle.adjust(
            pixels[picked], state, centre, sigma[picked], shape_prior=old.shape, shape_sigma=SHAPE_SIGMA,
            focal_prior=old.focal, focal_sigma=DISTANCE_SIGMA, independent=len(picked) / FRAMES_PER_INDEPENDENT,
        )  # fmt: skip
    state = bundle.to_gauge(state, old.shape, 1 / fit.sigma**2)
    start = Solution(
        focal=state.focal, shape=state.shape, rotation=old.rotation,
        translation=old.translation * [1, 1, state.focal / old.focal],
    )  # fmt: skip
    return solve_track(pixels, start, fit.points, sigma, fit.sigma, valid, segments, centre)


def expected_shape(pixels: np.ndarray, poses: Solution, base: np.ndarray) -> np.ndarray:
    """Average the shape that the landmarks' own depth suggests with the canonical one, in the canonical gauge."""
    rotation = bundle.rotation_matrices(poses.rotation)
    scale = poses.focal / poses.translation[:, 2]
    local = (pixels - pixels.mean(1, keepdims=True)) / scale[:, None, None]
    mean = np.median(np.einsum("tji,tnj->tni", rotation, local), axis=0)
    s, turn, shift = bundle.similarity(mean, base, np.ones(len(base)))
    return 0.5 * (s * mean @ turn.T + shift + base)
