"""Points of the skull followed by their texture: what landmarks alone cannot tell.

A landmark network shakes by a pixel and leans with the expression. But once the head's pose is roughly known, the
neighbourhood of every rigid point looks the same in all frames, up to a small shift; so the patches of a point are
averaged over the video, and in every frame the shift against that average is measured to a fraction of a pixel
(inverse compositional alignment, Baker and Matthews 2004, for pure translation).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

RADIUS = 0.055  # of the face height: half the side of a patch
SAMPLES = 17  # across a patch
TEMPLATE_FRAMES = 240
ITERATIONS = 6
MIN_LIKENESS = 0.6  # correlation with the mean patch below which a measurement is dropped
MIN_TEXTURE = 0.02  # smaller eigenvalue of the structure tensor of a normalised patch, per sample


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the patches lie in the frames.

    Attributes:
        points: [T, N, 2] expected pixels.
        turns: [T, 2, 2] from offsets in the reference view to offsets in the frame.
        offsets: [S * S, 2] grid of a patch in reference pixels.
    """

    points: np.ndarray
    turns: np.ndarray
    offsets: np.ndarray


def place(points: np.ndarray, face_height: float) -> Placement:
    """Patches around expected points [T, N, 2], turned and scaled with the head from frame to frame."""
    reference = np.median(points, axis=0)
    centred = points - points.mean(1, keepdims=True)
    base = reference - reference.mean(0)
    inverse = np.linalg.pinv(base)  # [2, N]
    turns = np.einsum("kn,tnj->tjk", inverse, centred)
    line = np.linspace(-1, 1, SAMPLES) * RADIUS * face_height
    offsets = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    return Placement(points=points, turns=turns, offsets=offsets)


def smoothing(face_height: float) -> float:
    """Standard deviation in pixels of the blur that fits the spacing of a patch's samples."""
    return max(0.6, 0.6 * 2 * RADIUS * face_height / (SAMPLES - 1))


def read_patches(grey: np.ndarray, placement: Placement, frame: int, shift: np.ndarray) -> np.ndarray:
    """Patches [N, S * S] of a float32 image, moved by ``shift`` [N, 2] reference pixels; mean 0, norm 1."""
    import cv2

    where = placement.offsets[None] + shift[:, None]
    at = placement.points[frame][:, None] + where @ placement.turns[frame].T
    at = at.astype(np.float32) - np.float32(0.5)  # OpenCV's pixel centres are at 0
    patch = cv2.remap(grey, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    patch = patch - patch.mean(1, keepdims=True)
    return patch / (np.linalg.norm(patch, axis=1, keepdims=True) + 1e-3)


def grey_image(image: np.ndarray, face_height: float) -> np.ndarray:
    """Blurred float32 grey levels of a uint8 RGB image."""
    import cv2

    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.GaussianBlur(grey, (0, 0), smoothing(face_height)).astype(np.float32)


class Template:
    """Mean patches and what alignment needs of them.

    Attributes:
        mean: [N, S * S] unit norm.
        textured: [N] whether a shift of the patch can be told in every direction.
    """

    def __init__(self, patches: Iterable[np.ndarray], spacing: float) -> None:
        total: np.ndarray | float = 0.0
        for patch in patches:
            total = total + patch
        mean = np.asarray(total)
        self.mean = mean / (np.linalg.norm(mean, axis=1, keepdims=True) + 1e-9)
        square = self.mean.reshape(len(mean), SAMPLES, SAMPLES)
        down, right = np.gradient(square, spacing, axis=(1, 2))
        self.gradient = np.stack([right, down], -1).reshape(len(mean), -1, 2)
        tensor = np.einsum("nsi,nsj->nij", self.gradient, self.gradient)
        small = np.linalg.eigvalsh(tensor * spacing**2)[:, 0]
        self.textured = small > MIN_TEXTURE
        self.inverse = np.linalg.inv(tensor + 1e-9 * np.eye(2))

    def align(self, grey: np.ndarray, placement: Placement, frame: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
        """Shift [N, 2] in reference pixels at which each patch looks like its mean, and the likeness [N] there."""
        shift = np.zeros((len(self.mean), 2))
        likeness = np.zeros(len(self.mean))
        for iteration in range(ITERATIONS):
            patch = read_patches(grey, placement, frame, shift)
            likeness = (patch * self.mean).sum(1)
            if iteration == ITERATIONS - 1:
                break
            # A less contrasted image has the same normalised patch, so that the difference is the shift's alone.
            error = patch - self.mean * likeness[:, None]
            step = np.einsum("nij,nsj,ns->ni", self.inverse, self.gradient, error, optimize=True)
            shift = (shift - step).clip(-reach, reach)
            if np.abs(step[self.textured]).max(initial=0.0) < 0.01:
                break
        return shift, likeness


def follow(
    images: Iterable[np.ndarray], sample: Iterable[tuple[int, np.ndarray]], points: np.ndarray, face_height: float
) -> tuple[np.ndarray, np.ndarray]:
    """Measure the points in every frame.

    Args:
        images: All frames in order, uint8 RGB.
        sample: Some frames with their index, to average the patches over.
        points: [T, N, 2] expected pixels of the points.
        face_height: In pixels.

    Returns:
        Measured pixels [T, N, 2], and the confidence [T, N], zero where nothing could be measured.
    """
    placement = place(points, face_height)
    still = np.zeros(points.shape[1:])
    spacing = 2 * RADIUS * face_height / (SAMPLES - 1)
    template = Template((read_patches(grey_image(p, face_height), placement, t, still) for t, p in sample), spacing)
    reach = RADIUS * face_height / 2
    measured = points.astype(np.float64).copy()
    confidence = np.zeros(points.shape[:2])
    for t, image in enumerate(images):
        shift, likeness = template.align(grey_image(image, face_height), placement, t, reach)
        measured[t] += shift @ placement.turns[t].T
        inside = np.abs(shift).max(1) < reach
        good = template.textured & inside & (likeness > MIN_LIKENESS)
        confidence[t] = np.where(good, ((likeness - MIN_LIKENESS) / (1 - MIN_LIKENESS)).clip(0, 1), 0)
    return measured, confidence
