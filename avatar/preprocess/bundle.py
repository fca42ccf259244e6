"""One focal length, one rigid face shape and one head pose per frame from landmarks: robust bundle adjustment.

Gauss-Newton with the poses eliminated (Schur complement), so that a step costs a dense system of the shape's size.
With the shape and the focal length found, the poses of the whole video are solved again together with a prior on
their second differences, as one banded system.

Everything is numpy in float64. Poses are axis-angle and translation, head axes to world (see docs/architecture.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solveh_banded

from avatar.data.results import Segments

HUBER = 2.0  # residuals beyond this many standard deviations are outliers


@dataclass(kw_only=True)
class Solution:
    """The state of the adjustment.

    Attributes:
        focal: Pixels.
        shape: [N, 3] centimetres, head axes.
        rotation: [T, 3] axis-angle, radians.
        translation: [T, 3] centimetres.
    """

    focal: float
    shape: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray


def rotation_matrices(axis_angle: np.ndarray) -> np.ndarray:
    """Rodrigues' formula, [T, 3] to [T, 3, 3]."""
    a, b, _ = _rodrigues(axis_angle)
    k = _skew(axis_angle)
    return np.eye(3) + a[:, None, None] * k + b[:, None, None] * (k @ k)


def left_jacobians(axis_angle: np.ndarray) -> np.ndarray:
    """[T, 3, 3] with exp(r + d) = exp(J d) exp(r) to first order in d (left Jacobian of SO(3))."""
    _, b, c = _rodrigues(axis_angle)
    k = _skew(axis_angle)
    return np.eye(3) + b[:, None, None] * k + c[:, None, None] * (k @ k)


def _rodrigues(axis_angle: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """sin(t)/t, (1-cos(t))/t^2 and (t-sin(t))/t^3, by their series near zero."""
    theta = np.linalg.norm(axis_angle, axis=-1)
    small = theta < 1e-4
    t = np.where(small, 1.0, theta)
    a = np.where(small, 1 - theta**2 / 6, np.sin(t) / t)
    b = np.where(small, 0.5 - theta**2 / 24, (1 - np.cos(t)) / t**2)
    c = np.where(small, 1 / 6 - theta**2 / 120, (t - np.sin(t)) / t**3)
    return a, b, c


def _skew(v: np.ndarray) -> np.ndarray:
    x, y, z = np.moveaxis(v, -1, 0)
    o = np.zeros_like(x)
    return np.stack([o, -z, y, z, o, -x, -y, x, o], -1).reshape(*v.shape[:-1], 3, 3)


def project(solution: Solution, centre: np.ndarray) -> np.ndarray:
    """Pixels [T, N, 2] of the shape in every frame."""
    local = np.einsum("tij,nj->tni", rotation_matrices(solution.rotation), solution.shape)
    local += solution.translation[:, None]
    return solution.focal * local[..., :2] / local[..., 2:] + centre


def similarity(source: np.ndarray, target: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Scale, rotation [3, 3] and translation [3] that carry ``source`` [N, 3] onto ``target`` (Umeyama 1991)."""
    w = weights / weights.sum()
    a, b = w @ source, w @ target
    x, y = source - a, target - b
    u, s, vt = np.linalg.svd((y * w[:, None]).T @ x)
    flip = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = (u * flip) @ vt
    scale = float((s * flip).sum() / (w @ (x * x).sum(1)))
    return scale, rotation, b - scale * rotation @ a


def initial(
    landmarks: np.ndarray, shape: np.ndarray, weights: np.ndarray, focal: float, centre: np.ndarray
) -> Solution:
    """Poses from the three-dimensional landmarks of every frame by similarity with the canonical face.

    Args:
        landmarks: [T, N, 3] pixels, z in the same scale.
        shape: [N, 3] canonical face, head axes, centimetres.
        weights: [N].
        focal, centre: Camera.
    """
    # Weak perspective turns into perspective through the depth: scale = focal / depth.
    rotation = np.empty((len(landmarks), 3, 3))
    translation = np.empty((len(landmarks), 3))
    for t, points in enumerate(landmarks):
        scale, rotation[t], offset = similarity(shape, points.astype(np.float64), weights)
        depth = focal / scale
        translation[t] = [(offset[0] - centre[0]) / scale, (offset[1] - centre[1]) / scale, depth]
    return Solution(focal=focal, shape=shape.copy(), rotation=to_axis_angle(rotation), translation=translation)


def to_axis_angle(matrices: np.ndarray) -> np.ndarray:
    """[T, 3, 3] to [T, 3]."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(matrices).as_rotvec()


def _derivatives(solution: Solution, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Projection [T, N, 2] and its derivatives by pose [T, N, 2, 6], shape [T, N, 2, 3] and log focal [T, N, 2]."""
    rotation = rotation_matrices(solution.rotation)
    turned = np.einsum("tij,nj->tni", rotation, solution.shape)
    local = turned + solution.translation[:, None]
    inverse = 1 / local[..., 2]
    offset = solution.focal * local[..., :2] * inverse[..., None]
    by_point = np.zeros((*local.shape[:2], 2, 3))
    by_point[..., 0, 0] = by_point[..., 1, 1] = solution.focal * inverse
    by_point[..., 2] = -offset * inverse[..., None]
    turn = -_skew(turned) @ left_jacobians(solution.rotation)[:, None]
    by_pose = np.concatenate([by_point @ turn, by_point], -1)
    return offset + centre, by_pose, by_point @ rotation[:, None], offset


def _weights(residual: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Huber weights over the variance, [T, N], from residuals [T, N, 2] and deviations [N] or [T, N]."""
    norm = np.linalg.norm(residual, axis=-1) / sigma
    return np.minimum(1, HUBER / np.maximum(norm, 1e-9)) / sigma**2


def deviations(residual: np.ndarray, floor: float) -> np.ndarray:
    """Per-point standard deviation [N] in pixels, per axis, robust, of residuals [T, N, 2]."""
    return np.maximum(np.median(np.linalg.norm(residual, axis=-1), axis=0) / 1.1774, floor)


def adjust(
    landmarks: np.ndarray,
    start: Solution,
    centre: np.ndarray,
    sigma: np.ndarray,
    *,
    shape_prior: np.ndarray,
    shape_sigma: float,
    focal_prior: float,
    focal_sigma: float,
    independent: float,
    iterations: int = 12,
) -> Solution:
    """Fit focal length, shape and poses together.

    Args:
        landmarks: [T, N, 2] pixels.
        start: Where to start.
        centre: Principal point [2].
        sigma: [N] or [T, N] deviation of each point in pixels; infinite where it was not measured.
        shape_prior, shape_sigma: The shape expected, [N, 3], and how far a face is from it, in centimetres.
        focal_prior, focal_sigma: Expected focal length in pixels, and the deviation of its logarithm.
        independent: How many frames the T frames are worth. A landmark network errs in the same way in similar
            frames, so that counting each frame would let its errors outvote the priors.
        iterations: Gauss-Newton steps at most.

    Returns:
        The solution, in the gauge of the start only roughly: scale and axes are held by the shape prior.
    """
    frames, points = landmarks.shape[:2]
    share = min(1.0, independent / frames)
    state = start
    damping = 1e-6
    cost = _cost(landmarks, state, centre, sigma, share, shape_prior, shape_sigma, focal_prior, focal_sigma)
    for _ in range(iterations):
        predicted, by_pose, by_shape, by_focal = _derivatives(state, centre)
        residual = landmarks - predicted
        w = _weights(residual, sigma) * share
        hpp = np.einsum("tnai,tn,tnaj->tij", by_pose, w, by_pose, optimize=True)
        gp = np.einsum("tnai,tn,tna->ti", by_pose, w, residual, optimize=True)
        hss = np.einsum("tnai,tn,tnaj->nij", by_shape, w, by_shape, optimize=True)
        gs = np.einsum("tnai,tn,tna->ni", by_shape, w, residual, optimize=True)
        hps = np.einsum("tnai,tn,tnaj->tinj", by_pose, w, by_shape, optimize=True).reshape(frames, 6, -1)
        hpf = np.einsum("tnai,tn,tna->ti", by_pose, w, by_focal, optimize=True)
        hsf = np.einsum("tnai,tn,tna->ni", by_shape, w, by_focal, optimize=True).reshape(-1)
        size = 3 * points + 1
        h = np.zeros((size, size))
        for n in range(points):
            h[3 * n : 3 * n + 3, 3 * n : 3 * n + 3] = hss[n]
        h[:-1, -1] = h[-1, :-1] = hsf
        h[-1, -1] = np.einsum("tn,tna,tna->", w, by_focal, by_focal)
        g = np.append(gs.reshape(-1), np.einsum("tn,tna,tna->", w, by_focal, residual))
        h[np.arange(size - 1), np.arange(size - 1)] += 1 / shape_sigma**2
        g[:-1] += (shape_prior - state.shape).reshape(-1) / shape_sigma**2
        h[-1, -1] += 1 / focal_sigma**2
        g[-1] += np.log(focal_prior / state.focal) / focal_sigma**2
        cross = np.concatenate([hps, hpf[..., None]], -1)  # [T, 6, size]
        moved, after = None, cost
        while damping < 1e6:
            # With L L' = Hpp the Schur complement is one product of a tall matrix with itself.
            half = np.linalg.inv(np.linalg.cholesky(hpp * (1 + damping * np.eye(6))))
            tall, tall_right = (half @ cross).reshape(-1, size), (half @ gp[..., None]).reshape(-1)
            reduced = h - tall.T @ tall
            step = np.linalg.solve(reduced + damping * np.diag(np.diag(h)), g - tall.T @ tall_right)
            pose = (half.swapaxes(1, 2) @ (tall_right - tall @ step).reshape(frames, 6, 1))[..., 0]
            trial = Solution(
                focal=float(state.focal * np.exp(np.clip(step[-1], -0.5, 0.5))),
                shape=state.shape + step[:-1].reshape(points, 3),
                rotation=state.rotation + pose[:, :3],
                translation=state.translation + pose[:, 3:],
            )
            after = _cost(landmarks, trial, centre, sigma, share, shape_prior, shape_sigma, focal_prior, focal_sigma)
            if after < cost:
                moved = trial
                break
            damping = max(damping * 10, 1e-4)
        if moved is None:
            break
        gain = (cost - after) / max(cost, 1e-12)
        state, cost, damping = moved, after, damping / 10
        if gain < 1e-5:
            break
    return state


def _cost(
    landmarks: np.ndarray, state: Solution, centre: np.ndarray, sigma: np.ndarray, share: float,
    shape_prior: np.ndarray, shape_sigma: float | np.ndarray, focal_prior: float, focal_sigma: float,
) -> float:  # fmt: skip
    """Half the Huber cost plus the priors."""
    if (state.translation[:, 2] < 5).any():
        return np.inf  # a face inside the camera
    norm = np.linalg.norm(landmarks - project(state, centre), axis=-1) / sigma
    huber = np.where(norm <= HUBER, 0.5 * norm**2, HUBER * (norm - 0.5 * HUBER)).sum()
    prior = ((state.shape - shape_prior) ** 2).sum() / shape_sigma**2
    prior += np.log(state.focal / focal_prior) ** 2 / focal_sigma**2
    return float(share * huber + 0.5 * prior)


def to_gauge(solution: Solution, canonical: np.ndarray, weights: np.ndarray) -> Solution:
    """The same projections with the shape's scale, position and orientation equal to the canonical face's."""
    scale, turn, shift = similarity(solution.shape, canonical, weights)
    rotation = rotation_matrices(solution.rotation) @ turn.T
    return Solution(
        focal=solution.focal,
        shape=scale * solution.shape @ turn.T + shift,
        rotation=to_axis_angle(rotation),
        translation=scale * solution.translation - rotation @ shift,
    )


def solve_poses(
    landmarks: np.ndarray,
    start: Solution,
    centre: np.ndarray,
    sigma: np.ndarray,
    valid: np.ndarray,
    segments: Segments,
    stiffness: np.ndarray | None,
    iterations: int = 5,
) -> Solution:
    """Poses of all frames for a fixed shape and focal length.

    Args:
        landmarks: [T, N, 2] pixels.
        start: Poses to start from, and the shape and focal length to keep.
        centre: Principal point [2].
        sigma: [N] or [T, N] deviation of each point in pixels; infinite where it was not measured.
        valid: [T]; the others are carried by the prior alone.
        segments: Between segments the pose may jump.
        stiffness: [6] variance of the measured pose over the variance of its second differences, per component
            (see :func:`noise_ratio`); None leaves every frame on its own.
        iterations: Gauss-Newton steps.
    """
    state = start
    count = len(landmarks)
    pose = np.concatenate([start.rotation, start.translation], 1)
    for _ in range(iterations):
        blocks = np.empty((count, 6, 6))
        right = np.empty((count, 6))
        for low in range(0, count, 1024):  # bounds the memory of the derivatives
            part = slice(low, low + 1024)
            chunk = Solution(focal=state.focal, shape=state.shape, rotation=pose[part, :3], translation=pose[part, 3:])
            predicted, by_pose, _, _ = _derivatives(chunk, centre)
            residual = landmarks[part] - predicted
            w = _weights(residual, sigma[part] if sigma.ndim == 2 else sigma) * valid[part, None]
            blocks[part] = np.einsum("tnai,tn,tnaj->tij", by_pose, w, by_pose, optimize=True)
            right[part] = np.einsum("tnai,tn,tna->ti", by_pose, w, residual, optimize=True)
        if stiffness is None:
            solvable = valid[:, None, None]
            pose = pose + np.linalg.solve(np.where(solvable, blocks, np.eye(6)), right[..., None])[..., 0]
            continue
        # The measured pose errs more than independent points would make it err; scale the blocks so that they say so.
        precision = np.median(blocks[valid].diagonal(axis1=1, axis2=2), axis=0)
        pose = pose + _solve_smooth(blocks, right, pose, stiffness * precision, segments)
    return Solution(focal=state.focal, shape=state.shape, rotation=pose[:, :3], translation=pose[:, 3:])


def _solve_smooth(
    blocks: np.ndarray, right: np.ndarray, pose: np.ndarray, prior: np.ndarray, segments: Segments
) -> np.ndarray:
    """The step [T, 6] of (blocks + D' prior D) step = right - D' prior D pose, D the second difference."""
    count, width = pose.shape
    band = np.zeros((3 * width, count, width))  # lower form: band[k, t, i] = H[6t + i + k, 6t + i]
    tiny = 1e-9 * np.abs(blocks).max(axis=(0,)).diagonal()
    for i in range(width):
        for j in range(i, width):
            band[j - i, :, i] += blocks[:, j, i]
        band[0, :, i] += tiny[i]
    second, gradient = difference_band(pose, segments)
    for distance in range(3):
        band[distance * width] += second[distance][:, None] * prior
    right = right - gradient * prior
    return solveh_banded(band.reshape(3 * width, -1), right.reshape(-1), lower=True).reshape(count, width)


def difference_band(
    values: np.ndarray, segments: Segments, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Lower band [3, T] of D'WD for second differences inside segments, and D'WD values [T, C].

    Args:
        values: [T, C].
        segments: Runs that are continuous.
        weights: [T], weight of the difference centred on each frame.
    """
    count = len(values)
    centred = np.zeros(count)
    for start, end in segments:
        centred[start + 1 : end - 1] = 1
    if weights is not None:
        centred *= weights
    w = centred[1:-1]
    band = np.zeros((3, count))
    stencil = (1.0, -2.0, 1.0)
    product = np.zeros_like(values)
    if count >= 3:
        second = values[:-2] - 2 * values[1:-1] + values[2:]
        for i, a in enumerate(stencil):
            product[i : count - 2 + i] += a * w[:, None] * second
            for j in range(i + 1):
                band[i - j, j : count - 2 + j] += a * stencil[j] * w
    return band, product


def noise_ratio(values: np.ndarray, segments: Segments) -> tuple[np.ndarray, np.ndarray]:
    """Split a track into white measuring noise and motion whose second differences are white.

    For x = motion + noise the second differences d have cov(d_t, d_t+1) = -4 var(noise) and
    var(d) = var(d of motion) + 6 var(noise).

    Args:
        values: [T, C].
        segments: Continuous runs.

    Returns:
        Variance of the noise [C] and of the motion's second differences [C], both positive.
    """
    second = [np.diff(values[a:b], 2, axis=0) for a, b in segments if b - a >= 8]
    if not second:
        return np.full(values.shape[1], 1e-12), np.full(values.shape[1], 1e-6)
    # Bursts of motion would dominate plain moments; limit them at five robust deviations.
    limit = 5 * 1.4826 * np.median(np.abs(np.concatenate(second)), axis=0) + 1e-12
    second = [s.clip(-limit, limit) for s in second]
    total = sum(len(s) for s in second)
    variance = sum((s * s).sum(0) for s in second) / total
    neighbour = sum((s[:-1] * s[1:]).sum(0) for s in second) / total
    noise = np.clip(-neighbour / 4, 1e-3 * variance, variance / 6)
    return noise, np.maximum(variance - 6 * noise, 0.02 * variance) + 1e-12
