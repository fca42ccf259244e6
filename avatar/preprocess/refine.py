"""Stage 3: one focal length, one face shape and a smooth head pose for the whole video, and the Motion from them.

The landmarks of single pictures shake, and each picture on its own cannot tell a near camera from a far one. So the
rigid part of the face (forehead, temples, eye corners, nose bridge, cheekbones) is fitted over the whole video with one
shape and one focal length, first to the landmarks, then to the texture around them (see `avatar.preprocess.texture`);
everything that moves on the face is then measured in the frame of that head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from avatar import log
from avatar.io.arrays import load_array
from avatar.motion.face_channels import EYE_CORNERS, EYE_RADIUS, IRIS
from avatar.preprocess import bundle, texture
from avatar.preprocess.bundle import Solution
from avatar.preprocess.stage import StageContext
from avatar.preprocess.track import read_ahead, read_rgb

if TYPE_CHECKING:
    from avatar.cli.prepare import Config

NAME = "refine"
INPUTS = ("ingest", "track")
VERSION = 5

LIDS = (
    *(7, 163, 144, 145, 153, 154, 155, 246, 161, 160, 159, 158, 157, 173, 22, 23, 24, 25, 26, 27, 28, 29, 30, 56),
    *(110, 112, 130, 190, 221, 222, 223, 224, 225, 226, 228, 229, 230, 231, 232, 233, 243, 244, 247, 31, 113),
    *(249, 390, 373, 374, 380, 381, 382, 466, 388, 387, 386, 385, 384, 398, 252, 253, 254, 255, 256, 257, 258, 259),
    *(
        260,
        286,
        339,
        341,
        359,
        414,
        441,
        442,
        443,
        444,
        445,
        446,
        448,
        449,
        450,
        451,
        452,
        453,
        463,
        464,
        467,
        261,
        342,
    ),
)
BROWS = (
    *(70, 63, 105, 66, 107, 55, 65, 52, 53, 46, 124, 156, 193, 189, 35),
    *(300, 293, 334, 296, 336, 285, 295, 282, 283, 276, 353, 383, 417, 413, 265),
)
SUBNASALE, NOSE_TIP = 2, 1

MAX_ADJUSTED = 400  # frames in the joint adjustment; more do not change the shape
FRAMES_PER_INDEPENDENT = 20.0  # see `bundle.adjust`
EXPECTED_DISTANCE = 100.0  # centimetres from camera to face: a desk, a phone at arm's length, a studio are 40 to 300
DISTANCE_SIGMA = 0.25  # deviation of its logarithm
FOCAL_LIMITS = (1.2, 6.0)  # in picture widths
SHAPE_SIGMA = 0.25  # centimetres that a point of a face is off the mean of MediaPipe's and the canonical shape
MIN_SIGMA = 0.0015  # of the face height; a point is never trusted more than this
TEXTURE_MIN_SIGMA = 0.0007  # the same for a point followed by its texture
LANDMARK_DOUBT = 2.0  # where a point has no texture its landmark is used, with its deviation times this
REST_SHARE = 0.25  # of the frames, those with the most closed mouth, define the neutral face


def options(config: Config) -> dict[str, Any]:
    """What the result depends on, apart from the landmarks: nothing."""
    return {}


def run(ctx: StageContext, out: Path) -> dict[str, Any]:
    """Write motion.safetensors, shape.npy, residual.npy and raw_pose.npy; returns the camera and the quality."""
    from avatar.assets.canonical_face import canonical_face

    ingest, track = ctx.result("ingest"), ctx.result("track")
    landmarks = load_array(ctx.folder("track") / "landmarks.npy", f"{ctx.frames} 478 3")
    arkit = load_array(ctx.folder("track") / "blendshapes.npy", f"{ctx.frames} 52")
    valid = load_array(ctx.folder("track") / "valid.npy", f"{ctx.frames}", "bool")
    segments = track["segments"]
    canonical = canonical_in_head_axes(canonical_face()[0])
    centre = principal_point(ingest)
    log.info("fitting one camera, one face shape and the head pose")
    fit = fit_head(landmarks, valid, segments, canonical, centre, ingest["size"])
    before = pose_jitter(fit.raw_pose[:, :3], segments)
    fit = fit_texture(ctx, fit, landmarks, valid, segments, centre)
    shape = neutral_shape(landmarks, valid, fit.solution, centre, canonical, fit.points)
    motion = make_motion(landmarks, arkit, valid, segments, fit.solution, shape, centre, ingest["fps"])
    motion.save(out / "motion.safetensors")
    np.save(out / "shape.npy", shape.astype(np.float32))
    np.save(out / "residual.npy", fit.residual.astype(np.float32))
    np.save(out / "raw_pose.npy", fit.raw_pose.astype(np.float32))
    return {
        "camera": {"focal": fit.solution.focal, "cx": float(centre[0]), "cy": float(centre[1])},
        "reprojection_px": round(float(np.median(fit.residual[valid])), 3),
        "jitter_before_deg": round(before, 4),
        "jitter_after_deg": round(pose_jitter(fit.solution.rotation, segments), 4),
        "distance_cm": round(float(np.median(fit.solution.translation[:, 2])), 1),
        "rotation_range_deg": np.degrees(np.ptp(np.percentile(fit.solution.rotation, [2, 98], axis=0), axis=0))
        .round(1)
        .tolist(),
    }


def canonical_in_head_axes(vertices: np.ndarray) -> np.ndarray:
    """MediaPipe's canonical vertices [468, 3] in head axes, completed by the two irises to [478, 3]."""
    from avatar.geometry.cameras import MEDIAPIPE_TO_HEAD

    face = np.asarray(vertices, np.float64) * MEDIAPIPE_TO_HEAD.numpy().astype(np.float64)
    ring = np.array([[0, 0], [1, 0], [0, -1], [-1, 0], [0, 1]]) * 0.58  # an iris is 11.7 mm wide
    irises = []
    for side in ("right", "left"):
        middle = face[list(EYE_CORNERS[side])].mean(0)
        irises.append(middle + np.concatenate([ring * [1 if side == "left" else -1, 1], np.zeros((5, 1))], 1))
    return np.concatenate([face, *irises])


def principal_point(ingest: dict[str, Any]) -> np.ndarray:
    """The middle of the source picture, in pixels of the stored crop: where a lens looks straight ahead."""
    x, y, side = ingest["crop"]
    width, height = ingest["source_size"]
    return (np.array([width / 2, height / 2]) - [x, y]) * ingest["size"] / side


def rigid_points(canonical: np.ndarray) -> np.ndarray:
    """Indices of the landmarks that follow the skull rather than the expression.

    They lie above the base of the nose and belong neither to the lids nor to the brows. How well each of them does
    follow the skull is found in the fit.
    """
    keep = canonical[:468, 1] < canonical[SUBNASALE, 1]
    keep[list(LIDS) + list(BROWS)] = False
    return np.flatnonzero(keep)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Result of :func:`fit_head` and :func:`fit_texture`.

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
    segments: list[list[int]],
    canonical: np.ndarray,
    centre: np.ndarray,
    size: float,
) -> Fit:
    """Focal length, rigid shape and smooth poses.

    Args:
        landmarks: [T, 478, 3] pixels, z in the same scale, no NaN.
        valid: [T] measured frames.
        segments: Continuous runs.
        canonical: [478, 3] head axes, centimetres.
        centre: Principal point [2].
        size: Side of the picture in pixels.
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
    segments: list[list[int]],
    centre: np.ndarray,
) -> Fit:
    """Poses of all frames for a fixed shape, first each on its own, then as smooth as their noise asks for.

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


def fit_texture(
    ctx: StageContext,
    fit: Fit,
    landmarks: np.ndarray,
    valid: np.ndarray,
    segments: list[list[int]],
    centre: np.ndarray,
) -> Fit:
    """The fit once more, with the rigid points measured by their texture.

    Measured on three people against optical flow over 5 frames, the motion of the skull is then off by 0.49 instead of
    0.86, 0.53 instead of 0.68 and 0.17 instead of 0.41 pixels. Doing it a second time gains nothing.
    """
    count = len(landmarks)
    height = float(np.median(np.ptp(landmarks[valid][..., 1], axis=1)))
    sample = np.flatnonzero(valid)
    sample = sample[np.linspace(0, len(sample) - 1, min(len(sample), texture.TEMPLATE_FRAMES)).astype(int)]
    seen, confidence = texture.follow(
        log.track(read_ahead(ctx.folder("ingest") / "frames", count), "following the skin's texture", count),
        ((int(t), read_rgb(ctx.frame_path(int(t)))) for t in sample),
        bundle.project(fit.solution, centre),
        height,
    )
    return refit(fit, seen, confidence, landmarks, valid, segments, centre, height)


def refit(
    fit: Fit,
    seen: np.ndarray,
    confidence: np.ndarray,
    landmarks: np.ndarray,
    valid: np.ndarray,
    segments: list[list[int]],
    centre: np.ndarray,
    height: float,
) -> Fit:
    """Shape, focal length and poses from measured points [T, N, 2], and from landmarks where there is none."""
    known = confidence > 0
    pixels = np.where(known[..., None], seen, landmarks[:, fit.points, :2])
    picked = np.flatnonzero(valid)
    picked = picked[np.linspace(0, len(picked) - 1, min(len(picked), MAX_ADJUSTED)).astype(int)]
    old = fit.solution
    state = Solution(
        focal=old.focal, shape=old.shape, rotation=old.rotation[picked], translation=old.translation[picked]
    )
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
    """The shape that the landmarks' own depth suggests, averaged with the canonical one, in the canonical gauge."""
    rotation = bundle.rotation_matrices(poses.rotation)
    scale = poses.focal / poses.translation[:, 2]
    local = (pixels - pixels.mean(1, keepdims=True)) / scale[:, None, None]
    mean = np.median(np.einsum("tji,tnj->tni", rotation, local), axis=0)
    s, turn, shift = bundle.similarity(mean, base, np.ones(len(base)))
    return 0.5 * (s * mean @ turn.T + shift + base)


def to_head(pixels: np.ndarray, poses: Solution, shape: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Landmarks in the head's frame: each pixel's ray is cut at the depth of the posed neutral vertex.

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
    """The neutral face [478, 3]: rigid points as fitted, the others as their median with the mouth at rest.

    Depth of the points that are not rigid comes from MediaPipe, corrected by the rigid points around them.
    """
    from avatar.motion.face_channels import mouth_opening

    opening = mouth_opening(landmarks)
    rest = valid & (opening <= np.quantile(opening[valid], REST_SHARE))
    some = np.flatnonzero(rest)
    some = some[np.linspace(0, len(some) - 1, min(len(some), 600)).astype(int)]
    pose = Solution(
        focal=poses.focal, shape=poses.shape, rotation=poses.rotation[some], translation=poses.translation[some]
    )
    rotation = bundle.rotation_matrices(pose.rotation)
    scale = pose.focal / pose.translation[:, 2]
    picture = landmarks[some].astype(np.float64)
    local = (picture - picture[:, points].mean(1, keepdims=True)) / scale[:, None, None]
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
        seen = np.median(to_head(picture[..., :2], pose, shape, centre), axis=0)
        loose = np.setdiff1d(np.arange(len(shape)), points)
        shape[loose, :2] = seen[loose, :2]
    return shape


def make_motion(
    landmarks: np.ndarray,
    arkit: np.ndarray,
    valid: np.ndarray,
    segments: list[list[int]],
    poses: Solution,
    shape: np.ndarray,
    centre: np.ndarray,
    fps: float,
):
    """The Motion of the video (torso at rest; the torso stage fills it)."""
    import torch

    from avatar.motion.face_channels import encode
    from avatar.motion.motion import Motion

    seen = to_head(landmarks[..., :2].astype(np.float64), poses, shape, centre)
    face = encode(seen - shape)
    face = smooth_channels(face, segments)
    gaze = smooth_channels(gaze_angles(seen, poses, valid), segments)
    tensors = {
        "arkit": arkit,
        "face": face,
        "gaze": gaze,
        "head_rotation": poses.rotation,
        "head_translation": poses.translation,
    }
    as_tensor = {name: torch.from_numpy(np.ascontiguousarray(value, np.float32)) for name, value in tensors.items()}
    return Motion.zeros(len(landmarks), fps).map(valid=torch.from_numpy(valid), **as_tensor)


def gaze_angles(seen: np.ndarray, poses: Solution, valid: np.ndarray) -> np.ndarray:
    """Yaw and pitch [T, 2] of the eyes in the head from iris centres [T, 478, 3] relative to the eye corners.

    How the eyes lie in this face is not known; it is taken such that the person looks into the camera at the median,
    as people who are filmed talking do.
    """
    angles = []
    for side in ("right", "left"):
        offset = seen[:, IRIS[side][0], :2] - seen[:, list(EYE_CORNERS[side]), :2].mean(1)
        angles.append(np.arcsin(np.clip(offset / EYE_RADIUS, -0.9, 0.9)))
    raw = np.mean(angles, 0) * [1, -1]
    to_camera = -np.einsum("tji,tj->ti", bundle.rotation_matrices(poses.rotation), poses.translation)
    camera = np.stack(
        [np.arctan2(to_camera[:, 0], -to_camera[:, 2]), np.arctan2(-to_camera[:, 1], -to_camera[:, 2])], 1
    )
    return raw + np.median((camera - raw)[valid], axis=0)


def smooth_channels(values: np.ndarray, segments: list[list[int]]) -> np.ndarray:
    """Zero-phase smoothing [T, C] that is only as strong as the channel's noise asks for, and never over a cut.

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


def pose_jitter(rotation: np.ndarray, segments: Sequence[Sequence[int]]) -> float:
    """Root mean square of the third differences of the head rotation in degrees, over sqrt(20): white noise of one
    degree gives one, smooth motion nearly nothing."""
    third = [np.diff(rotation[a:b], 3, axis=0) for a, b in segments if b - a > 3]
    return float(np.degrees(np.sqrt((np.concatenate(third) ** 2).mean() / 20))) if third else 0.0
