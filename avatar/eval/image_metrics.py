"""Numbers of images: how near a rendered frame is to the real one, how sharp its mouth, how quiet its neck."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np
import torch
from torch import Tensor

from avatar.losses.lpips import LPIPS
from avatar.motion.face_channels import LIPS_INNER, LIPS_OUTER

MAX_PSNR = 100.0  # identical images; infinity is not a number in JSON
LIPS = LIPS_OUTER + LIPS_INNER
SEAM_WIDTH = 0.02  # of the image's width, to either side of a border
POOLED_LAYERS = (2, 3, 4)  # of the network behind LPIPS, for the Fréchet distance


def psnr(a: np.ndarray, b: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of images [H, W, 3] in 0..1, over all pixels or weighted by [H, W]."""
    error = over_colours(np.square(a - b))
    mse = float(error.mean()) if weight is None else weighted_mean(error, weight)
    return min(MAX_PSNR, -10 * math.log10(max(mse, 1e-12))) if math.isfinite(mse) else mse


def weighted_mean(values: np.ndarray, weight: np.ndarray) -> float:
    """Mean of [H, W] weighted by [H, W]; NaN where the weights are all zero (a frame without a face)."""
    total = float(weight.sum())
    return float((values * weight).sum()) / total if total > 0 else math.nan


def ssim_map(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of every full 11x11 window, averaged over the colours.

    Wang, Bovik, Sheikh, Simoncelli: "Image Quality Assessment", 2004, equation 13, with their Gaussian window
    (sigma 1.5) and constants. Windows that leave the image are left out, so the map is 5 pixels smaller per side.

    Args:
        a, b: [H, W, 3] float32 in 0..1.

    Returns:
        [H - 10, W - 10].
    """
    window = cv2.getGaussianKernel(11, 1.5, cv2.CV_32F)

    def blur(x: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(x, -1, window, window)[5:-5, 5:-5]

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mean_a * mean_b + c1) * (2 * cov + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return over_colours(value)


def over_colours(x: np.ndarray) -> np.ndarray:
    """Mean over the last axis of [H, W, 3]; four times faster than numpy's."""
    return (x[..., 0] + x[..., 1] + x[..., 2]) / 3


def face_weight(masks: Mapping[str, np.ndarray]) -> np.ndarray:
    """Soft mask [H, W] of the face region: skin, lips, mouth interior and eyes."""
    parts = [masks[name] for name in ("face", "lips", "mouth", "eyes") if name in masks]
    return np.clip(np.sum(parts, axis=0), 0, 1)


def mouth_box(landmarks: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Square x0, y0, x1, y1 around the lips, inside an image of ``size`` (width, height)."""
    lips = landmarks[list(LIPS), :2]
    if not np.isfinite(lips).all():
        lips = np.array([[0.4 * size[0], 0.6 * size[1]], [0.6 * size[0], 0.8 * size[1]]])
    half = int(min(0.8 * np.ptp(lips, axis=0).max(), size[0] / 2, size[1] / 2)) or 1
    x, y = (int(np.clip(c, half, s - half)) for c, s in zip(lips.mean(0), size, strict=True))
    return x - half, y - half, x + half, y + half


def gradient_energy(image: np.ndarray) -> np.ndarray:
    """Squared length of the brightness gradient, [h, w] in (grey levels per pixel)², of uint8 RGB [h, w, 3].

    Central differences, so that the finest texture counts less than an edge does.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    y, x = np.gradient(grey)
    return x * x + y * y


def mouth_gradient_energy(image: np.ndarray, landmarks: np.ndarray) -> float:
    """Mean gradient energy of the mouth; NaN without a face.

    Args:
        image: uint8 RGB [H, W, 3].
        landmarks: [478, 2] pixels that place the crop.
    """
    if not np.isfinite(landmarks[list(LIPS)]).all():
        return math.nan
    x0, y0, x1, y1 = mouth_box(landmarks, (image.shape[1], image.shape[0]))
    return float(gradient_energy(image[y0:y1, x0:x1]).mean())


def seam_band(masks: Mapping[str, np.ndarray], landmarks: np.ndarray) -> np.ndarray:
    """[H, W] bool: around the borders between head, neck and clothes, below the mouth.

    Args:
        masks: Soft masks of the real frame.
        landmarks: [478, 2] pixels of the real frame; NaN gives an empty band.
    """
    head = np.clip(face_weight(masks) + masks["hair"], 0, 1)
    parts = [head, masks["neck"], masks["clothes"]]
    height, width = head.shape
    side = 2 * max(1, round(SEAM_WIDTH * width)) + 1
    near = [cv2.dilate((part > 0.5).astype(np.uint8), np.ones((side, side), np.uint8)) for part in parts]
    band = np.sum(near, axis=0) >= 2
    mouth = landmarks[list(LIPS), 1].max()
    band[: math.ceil(mouth) if math.isfinite(mouth) else height] = False
    return band


@dataclass(frozen=True)
class RealFrame:
    """A real frame and what is measured with it; landmarks are those of tracking it anew.

    Attributes:
        image: uint8 RGB [H, W, 3].
        masks: Soft masks [H, W].
        landmarks: [478, 2] pixels.
        lpips: Metric network, or None.
        after_cut: Whether the frame before it belongs to another take.
    """

    image: np.ndarray
    masks: Mapping[str, np.ndarray]
    landmarks: np.ndarray
    lpips: LPIPS | None
    after_cut: bool = False

    @cached_property
    def face(self) -> np.ndarray:
        return face_weight(self.masks)

    @cached_property
    def seam(self) -> np.ndarray:
        return seam_band(self.masks, self.landmarks)

    @cached_property
    def values(self) -> np.ndarray:
        return self.image.astype(np.float32) / 255

    @cached_property
    def features(self) -> list[Tensor]:
        assert self.lpips is not None
        return network_features(self.lpips, self.values)


def network_features(lpips: LPIPS, image: np.ndarray) -> list[Tensor]:
    """Activations of the network's layers for an image [H, W, 3] in 0..1."""
    with torch.inference_mode():
        return lpips.features(torch.from_numpy(image).to(lpips.shift.device))


@dataclass
class ImageMeter:
    """Collects the numbers of one video's images, frame by frame; images are kept no longer than two frames."""

    rows: list[dict[str, float]] = field(default_factory=list)
    pooled: list[np.ndarray] = field(default_factory=list)
    _last: deque[tuple[np.ndarray, np.ndarray]] = field(default_factory=lambda: deque(maxlen=3))

    def compare(self, rendered: np.ndarray, real: RealFrame) -> None:
        """Measure a rendered frame, uint8 [H, W, 3], against the real one."""
        a, b = rendered.astype(np.float32) / 255, real.values
        similarity = ssim_map(a, b)
        row = {
            "psnr": psnr(a, b),
            "psnr_face": psnr(a, b, real.face),
            "ssim": float(similarity.mean()),
            "ssim_face": weighted_mean(similarity, real.face[5:-5, 5:-5]),
        }
        features = None
        if real.lpips is not None:
            features = network_features(real.lpips, a)
            with torch.inference_mode():
                row["lpips"] = float(real.lpips.distance(features, real.features))
        self._add(rendered, real, row, features)

    def observe(self, real: RealFrame) -> None:
        """Measure what the real video has to be compared with: sharpness, seam, features."""
        self._add(real.image, real, {}, real.features if real.lpips is not None else None)

    def series(self) -> dict[str, np.ndarray]:
        """[T] per number; NaN where a frame has none."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: np.array([row.get(name, math.nan) for row in self.rows]) for name in names}

    def _add(
        self, image: np.ndarray, real: RealFrame, row: dict[str, float], features: list[Tensor] | None
    ) -> None:  # fmt: skip
        band = real.seam
        energy = gradient_energy(image)[band]
        row["mouth_gradient"] = mouth_gradient_energy(image, real.landmarks)
        row["seam_gradient"] = float(energy.mean()) if energy.size else math.nan
        if real.after_cut:
            self._last.clear()
        self._last.append((image, band))
        row["seam_change"] = math.nan
        if len(self._last) == 3:
            (before, _), (middle, band), (after, _) = self._last
            second = before[band].astype(np.float32) - 2.0 * middle[band] + after[band]
            row["seam_change"] = float(np.square(second).mean()) if second.size else math.nan
        self.rows.append(row)
        if features is not None:
            self.pooled.append(np.concatenate([features[i].mean((-2, -1))[0].cpu().numpy() for i in POOLED_LAYERS]))


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features, in units of the variance of ``b``.

    |mean_a - mean_b|² + tr(A + B - 2 (A B)^½) of Dowson and Landau, "The Fréchet distance between multivariate normal
    distributions", 1982. With fewer frames than features the covariances A and B have no full rank; with
    A = X'X and B = Y'Y the trace of the root is the sum of the singular values of X Y', which needs no root, no
    inverse and no shrinkage.

    Args:
        a, b: [frames, features]; at least two frames each.
    """
    x, y = ((f - f.mean(0)) / math.sqrt(len(f) - 1) for f in (a.astype(np.float64), b.astype(np.float64)))
    offset = float(np.square(a.mean(0, dtype=np.float64) - b.mean(0, dtype=np.float64)).sum())
    spread = float(np.square(x).sum() + np.square(y).sum())
    overlap = float(np.linalg.svd(x @ y.T, compute_uv=False).sum())
    return max(0.0, offset + spread - 2 * overlap) / max(float(np.square(y).sum()), 1e-12)
