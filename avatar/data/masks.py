"""Soft masks of any frame, from those that `avatar prepare` stored for key frames.

What moves slowly is stored at key frames and carried to the frames between by the motion of the head. What moves fast
(lips, mouth interior, eyes, jaw line) is drawn for each frame from that frame's own landmarks.
"""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

import numpy as np

from avatar.data.results import REDO, Segments
from avatar.errors import AvatarError
from avatar.geometry.mesh import FACE_OVAL, STEADY
from avatar.geometry.smoothstep import smooth
from avatar.io.images import read_image, resize
from avatar.motion.face_channels import LIPS_INNER, LIPS_OUTER

SIZE = 256  # side of the stored masks in pixels; the segmenter's own size
CLASSES = ("hair", "skin", "clothes", "background")  # the channels of a stored mask
OVERSAMPLING = 4  # of polygon edges
# A turning head takes the face farther than its own outline: on real video, masks that were left out and predicted came
# out best with half of the face's motion (a third better than unmoved ones where the head is quick).
OUTLINE = 0.5

FLARE = 1.25  # times as wide as at its narrowest place, and wider than the face, a neck has become shoulders
LOOKED_AT = 1.0  # face widths to either side of the chin where skin counts; hands may be farther away
FADE = 0.1  # face widths over which the neck goes over into bare shoulders
OVAL = 0.78  # width of a face over its height; a turned face is narrower

JAW = FACE_OVAL[11:26]  # from the angle of the jaw on the person's left to the one on the right
EYE_RIGHT = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
EYE_LEFT = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)


def read_mask(path: Path) -> np.ndarray:
    """Read a stored mask as float32 [S, S, 4], 0..1, in the order of `CLASSES`.

    Raises:
        AvatarError: It is missing or damaged.
    """
    import cv2

    image = read_image(path, cv2.IMREAD_UNCHANGED, REDO)
    if image.shape[2:] != (4,):
        raise AvatarError(f"{path} is damaged: it has no four channels.", fix=REDO)
    return cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA).astype(np.float32) / 255


class MaskReader:
    """Masks of any frame of one person.

    Args:
        folder: Holds the masks of the key frames.
        keyframes: Frames that have a mask, in order.
        segments: [start, end) of each part without a cut.
        frame: Width and height of the frames in pixels.
        landmarks: [T, 478, 3] pixels.

    Raises:
        AvatarError: The key frames or segments do not belong to so many frames.
    """

    def __init__(
        self, folder: Path, keyframes: list[int], segments: Segments, frame: tuple[int, int], landmarks: np.ndarray
    ) -> None:
        self.folder, self.keyframes, self.segments = folder, keyframes, segments
        self.frame, self.landmarks = np.array(frame, np.float32), landmarks
        last = len(landmarks)
        if not keyframes or keyframes != sorted(set(keyframes)) or keyframes[-1] >= last or self.segments[-1][1] > last:
            raise AvatarError(f"{folder.parent} does not say which frames have masks.", fix=REDO)

    def masks(self, index: int, size: tuple[int, int] = (SIZE, SIZE)) -> dict[str, np.ndarray]:
        """Soft masks of one frame.

        Args:
            index: Frame.
            size: Width and height of the masks in pixels.

        Returns:
            float32 [h, w], 0..1. "hair", "face" (skin above the jaw line, ears included), "neck" (skin below it),
            "clothes" (with the skin of bare shoulders and what is below them) and "background" sum to 1. "lips"
            (between the contours), "mouth" (inside the inner one) and "eyes" (between the lids) lie within them and are
            this frame's exactly.

        Raises:
            AvatarError: There is no such frame, or a stored mask is missing or damaged.
        """
        if not 0 <= index < len(self.landmarks):
            raise AvatarError(f"There is no frame {index}.", why=f"The video has {len(self.landmarks)}.")
        hair, skin, clothes, background = np.moveaxis(resize(self.classes(index), size), -1, 0)
        points = np.asarray(self.landmarks[index, :, :2]) * (np.array(size, np.float32) / self.frame)
        above = above_jaw(points, size)
        below = skin * (1 - above)
        bare = below * bare_shoulders(below, points)
        inner, outer = polygon(points[list(LIPS_INNER)], size), polygon(points[list(LIPS_OUTER)], size)
        eyes = np.maximum(polygon(points[list(EYE_LEFT)], size), polygon(points[list(EYE_RIGHT)], size))
        return {
            "hair": hair, "face": skin * above, "lips": np.maximum(outer - inner, 0), "mouth": inner, "eyes": eyes,
            "neck": below - bare, "clothes": clothes + bare, "background": background,
        }  # fmt: skip

    def classes(self, index: int) -> np.ndarray:
        """The four classes [S, S, 4] at any frame, from the key frames before and after it."""
        start, end = next((s for s in self.segments if s[0] <= index < s[1]), (0, len(self.landmarks)))
        after = bisect_right(self.keyframes, index)
        known = [k for k in self.keyframes[max(0, after - 1) : after + 1] if start <= k < end]
        if not known:
            raise AvatarError(f"{self.folder} has no mask near frame {index}.", fix=REDO)
        if known[0] == index:
            return read_mask(self.folder / f"{index:06d}.png")
        moved = [self._carried(k, index) for k in known]
        mix = (index - known[0]) / max(1, known[-1] - known[0])
        return moved[0] * (1 - mix) + moved[-1] * mix

    def _carried(self, source: int, target: int) -> np.ndarray:
        """The mask of frame ``source``, its head moved to where frame ``target`` has it."""
        import cv2

        mask = read_mask(self.folder / f"{source:06d}.png")
        across, down = SIZE / self.frame
        there, here = (np.asarray(self.landmarks[i, :, :2]) for i in (source, target))
        motion = similarity(here[list(STEADY)], there[list(STEADY)])  # from the target back to the source
        y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) + 0.5
        rest = np.stack([x / across, y / down])  # pixels of the frame, which the mask may show stretched
        moved = np.einsum("ij,jyx->iyx", motion[:, :2], rest) + motion[:, 2, None, None]
        chin, brow = here[152, 1], here[10, 1]
        stay = ((rest[1] - chin) / max(0.5 * (chin - brow), 1.0)).clip(0, 1)  # the body below the neck stays
        at = rest + (moved - rest) * (1 - stay) * OUTLINE
        map_x, map_y = (at * np.array([across, down])[:, None, None] - 0.5).astype(np.float32)
        return cv2.remap(mask, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def polygon(points: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Fill a polygon, with anti-aliased edges.

    Args:
        points: [N, 2] pixels (centres at +0.5).
        size: Side, or (width, height), of the result.

    Returns:
        float32 [h, w], 0..1.
    """
    import cv2

    width, height = (size, size) if isinstance(size, int) else size
    canvas = np.zeros((height, width), np.float32)
    if not np.isfinite(points).all():
        return canvas
    # cv2's own anti-aliasing makes polygons half a pixel fatter, so draw larger and average; but only where needed.
    low = np.floor(points.min(0)).clip(0, [width, height]).astype(int)
    high = np.ceil(points.max(0)).clip(0, [width, height]).astype(int)
    if (high <= low).any():
        return canvas
    part = np.zeros((high - low)[::-1] * OVERSAMPLING, np.uint8)
    # cv2 has pixel centres at whole numbers, and takes fixed point with 4 fractional bits.
    far = 8.0 * max(width, height)
    fixed = np.round(((points.clip(-far, far) - low) * OVERSAMPLING - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(part, [fixed], 255, shift=4)
    area = cv2.resize(part, (int(high[0] - low[0]), int(high[1] - low[1])), interpolation=cv2.INTER_AREA)
    canvas[low[1] : high[1], low[0] : high[0]] = area.astype(np.float32) / 255
    return canvas


def above_jaw(points: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Fill everything above the jaw line, which is prolonged to both sides in the direction of its ends.

    Args:
        points: Landmarks [478, 2], pixels.
        size: Side, or (width, height), of the result.
    """
    jaw = points[list(JAW)]
    left, right = jaw[0], jaw[-1]  # of the person: left is on the right of the image
    across = left - right
    reach = 4.0 * max(size if isinstance(size, int) else max(size), 1)
    across = across / max(float(np.linalg.norm(across)), 1e-6) * reach
    up = np.array([across[1], -across[0]])
    ring = [left + across + up, left + across, *jaw, right - across, right - across + up]
    return polygon(np.array(ring, np.float32), size)


def bare_shoulders(skin: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Tell bare shoulders from the neck: 0 on the neck, 1 from the shoulders down.

    Shoulders move with the torso and lie as deep as it does, like clothes.

    Args:
        skin: Share of skin below the jaw, [h, w].
        points: Landmarks [478, 2] in pixels of it.

    Returns:
        float32 [h, 1].
    """
    none = np.zeros((len(skin), 1), np.float32)
    if not np.isfinite(points).all():
        return none
    face = max(float(np.linalg.norm(points[454] - points[234])), OVAL * float(np.linalg.norm(points[152] - points[10])))
    far = np.abs(np.arange(skin.shape[1]) + 0.5 - points[152, 0]) > LOOKED_AT * face
    seen = (skin > 0.5) & ~far
    rows = np.flatnonzero(seen.any(1))
    if len(rows) == 0:
        return none
    width = skin.shape[1] - seen[rows, ::-1].argmax(1) - seen[rows].argmax(1)  # beside the jaw, too
    wide = rows[width > max(face, FLARE * float(width.min()))]
    if len(wide) == 0:
        return none
    down = ((np.arange(len(skin), dtype=np.float32) - wide[0]) / max(FADE * face, 1)).clip(0, 1)
    return smooth(down)[:, None]


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fit rotation, scale and shift [2, 3] that take points [N, 2] onto others, by least squares.

    In complex numbers t = a s + b is an ordinary linear fit.
    """
    s, t = source @ np.array([1, 1j]), target @ np.array([1, 1j])
    centred = s - s.mean()
    a = (centred.conj() * (t - t.mean())).sum() / max(float((np.abs(centred) ** 2).sum()), 1e-9)
    b = t.mean() - a * s.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]], np.float32)
