"""Numbers of the face that a tracker finds in a video: lips, jitter, eyes, expression.

Landmarks come from tracking the rendered and the real video anew, with the same tracker and the same settings, so a
constant bias of the tracker cancels. Distances are in pixels of an image 512 wide, whatever the true size is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import percentile_filter

from avatar.eval.image_metrics import LIPS
from avatar.motion.arkit import ARKIT
from avatar.motion.face_channels import EYE_CORNERS, EYE_LOWER, EYE_RADIUS, EYE_UPPER, IRIS, relative_opening

REFERENCE_WIDTH = 512
RIGID = (168, 6, 197, 195, 33, 133, 362, 263, 10, 151, 9)  # nose bridge, eye corners, forehead
EYE_WIDTH = 2.66  # centimetres between the corners, of MediaPipe's canonical face
OPEN_EYES = 0.6  # of their median opening: below, the iris is hidden
MAX_LAG_SECONDS = 0.4

# ARKit coefficients by the half of the face, as action units are grouped in papers (cheeks with the eyes, the nose with
# the mouth). eyeLook* are gaze, which has a metric of its own; tongueOut is not measured by the tracker.
UPPER_FACE = tuple(
    i for i, n in enumerate(ARKIT) if n.startswith(("brow", "eyeBlink", "eyeSquint", "eyeWide", "cheekS"))
)
LOWER_FACE = tuple(i for i, n in enumerate(ARKIT) if n.startswith(("jaw", "mouth", "cheekPuff", "nose")))

Segments = list[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class FaceTrack:
    """The face of one video.

    Attributes:
        landmarks: [T, 478, 2] pixels, NaN where no face was found.
        arkit: [T, 52] ARKit coefficients, NaN where no face was found.
    """

    landmarks: np.ndarray
    arkit: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        """[T] bool."""
        return np.isfinite(self.landmarks[:, 0, 0])


def face_series(track: FaceTrack, width: int, fps: float, segments: Segments) -> dict[str, np.ndarray]:
    """What a face does by itself, per frame [T]."""
    return {
        "opening": relative_opening(track.landmarks),
        "jitter": squared_jitter(track.landmarks, width, segments),
        "blink": blink_onsets(eye_openness(track.landmarks), fps, segments),
    }


def compared_series(
    rendered: FaceTrack, real: FaceTrack, width: int, segments: Segments
) -> dict[str, np.ndarray]:  # fmt: skip
    """How a rendered face differs from the real one, per frame [T]."""
    difference = np.abs(rendered.arkit - real.arkit)
    return {
        "lmd": landmark_distance(rendered.landmarks, real.landmarks, width, align=True),
        "lmd_raw": landmark_distance(rendered.landmarks, real.landmarks, width, align=False),
        "wobble": squared_jitter(rendered.landmarks - real.landmarks, width, segments),
        "upper_face_error": difference[:, UPPER_FACE].mean(1),
        "lower_face_error": difference[:, LOWER_FACE].mean(1),
        "gaze_error": gaze_error(rendered.landmarks, real.landmarks),
    }


def landmark_distance(rendered: np.ndarray, real: np.ndarray, width: int, align: bool) -> np.ndarray:
    """LMD per frame [T]: mean distance of the lip landmarks, in pixels at a width of 512.

    Chen, Maddox, Duan, Xu: "Hierarchical Cross-Modal Talking Face Generation", 2019. Papers on person-specific avatars
    subtract each frame's mean lip position first, which takes head position out; ``align`` does that.

    Args:
        rendered, real: [T, 478, 2 or 3] pixels; NaN where no face was found.
        width: Image width in pixels.
        align: Whether to subtract the mean position of the lips per frame.
    """
    a, b = rendered[:, LIPS, :2], real[:, LIPS, :2]
    if align:
        a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    return np.linalg.norm(a - b, axis=-1).mean(-1) * REFERENCE_WIDTH / width


@dataclass(frozen=True, kw_only=True)
class LagResult:
    """How one signal follows another: Pearson correlation in step, and at the lag where it is largest.

    ``lag`` is in frames; positive means that the rendered signal is late. Lag and correlation there are None where it
    is largest at the border of what was tried: it may be larger beyond.
    """

    correlation: float | None
    best_correlation: float | None
    lag: int | None


def most_lag(fps: float) -> int:
    """Frames of the largest lag that is tried."""
    return max(1, round(MAX_LAG_SECONDS * fps))


def lag_correlation(rendered: np.ndarray, real: np.ndarray, segments: Segments, max_lag: int) -> LagResult:
    """Correlate two signals [T] over lags of -max_lag..max_lag frames, never across the borders of ``segments``.

    Frames with NaN are left out, and lags that leave less than half of the frames. A signal without any movement has no
    correlation (None).
    """
    values: dict[int, float] = {}
    enough = max(3, int((np.isfinite(rendered) & np.isfinite(real)).sum()) // 2)
    for lag in range(-max_lag, max_lag + 1):
        pairs = []
        for start, end in segments:
            a, b = rendered[start:end], real[start:end]
            n = end - start - abs(lag)
            if n > 1:
                pairs.append(np.stack([a[max(lag, 0) :][:n], b[max(-lag, 0) :][:n]]))
        if not pairs:
            continue
        both = np.concatenate(pairs, 1)
        both = both[:, np.isfinite(both).all(0)]
        if both.shape[1] >= enough and both.std(1).min() > 1e-9:
            values[lag] = float(np.corrcoef(both)[0, 1])
    if 0 not in values:
        return LagResult(correlation=None, best_correlation=None, lag=None)
    best = max(values, key=lambda k: (values[k], -abs(k)))
    if best in (min(values), max(values)):
        return LagResult(correlation=values[0], best_correlation=None, lag=None)
    return LagResult(correlation=values[0], best_correlation=values[best], lag=best)


def squared_jitter(landmarks: np.ndarray, width: int, segments: Segments) -> np.ndarray:
    """Squared second difference over time of landmarks on bone, mean over them, in squared pixels at a width of 512.

    [T]; NaN at the ends of segments and where a face is missing. Its root mean is the jitter of the pose.
    """
    out = np.full(len(landmarks), np.nan)
    for start, end in segments:
        if end - start > 2:
            second = np.diff(landmarks[start:end, RIGID, :2], 2, axis=0)
            out[start + 1 : end - 1] = (second**2).sum(-1).mean(-1) * (REFERENCE_WIDTH / width) ** 2
    return out


def eye_openness(landmarks: np.ndarray) -> np.ndarray:
    """Gap between the eyelids over the width of the eye, mean of both eyes, [T]."""
    ratios = []
    for side, (a, b) in EYE_CORNERS.items():
        gap = np.linalg.norm(landmarks[:, EYE_UPPER[side], :2] - landmarks[:, EYE_LOWER[side], :2], axis=-1).mean(-1)
        ratios.append(gap / np.linalg.norm(landmarks[:, a, :2] - landmarks[:, b, :2], axis=-1))
    return np.mean(ratios, axis=0)


def blink_onsets(openness: np.ndarray, fps: float, segments: Segments) -> np.ndarray:
    """[T] 1 in the frames where a blink begins, else 0.

    In a blink the lids close to under 60 % of their usual opening and are open again (80 %) within 0.8 seconds.

    Args:
        openness: [T], NaN where no face was found.
        fps: Frames per second.
        segments: Spans without cuts.
    """
    onsets = np.zeros(len(openness))
    for start, end in segments:
        span = openness[start:end]
        known = np.isfinite(span)
        if known.sum() < 3:
            continue
        span = np.interp(np.arange(len(span)), np.flatnonzero(known), span[known])
        usual = percentile_filter(span, 80, size=max(3, round(4 * fps)), mode="nearest")
        ratio = span / np.maximum(usual, 1e-6)
        closed_at: int | None = None
        for t, value in enumerate(ratio):
            if value < 0.6 and closed_at is None:
                closed_at = t
            elif value > 0.8 and closed_at is not None:
                onsets[start + closed_at] = t - closed_at <= 0.8 * fps
                closed_at = None
    return onsets


def gaze_angles(landmarks: np.ndarray) -> np.ndarray:
    """Yaw and pitch of the eyes in the image, degrees [T, 2], up to a constant of the person.

    The iris lies on a ball of 1.2 cm; where it is between the corners, whose distance is taken to be the canonical
    face's, gives the angle. Head pose is not taken out: compare only videos with the same pose.

    Args:
        landmarks: [T, 478, 2 or 3] pixels.
    """
    angles = []
    for side, (a, b) in EYE_CORNERS.items():
        first, second = landmarks[:, a, :2], landmarks[:, b, :2]
        along = second - first
        width = np.linalg.norm(along, axis=-1, keepdims=True)
        along = along / np.maximum(width, 1e-6)
        across = np.stack([-along[:, 1], along[:, 0]], -1)
        offset = landmarks[:, IRIS[side][0], :2] - (first + second) / 2
        moved = np.stack([(offset * along).sum(-1), (offset * across).sum(-1)], -1)
        angles.append(np.arcsin(np.clip(moved / np.maximum(width, 1e-6) * EYE_WIDTH / EYE_RADIUS, -0.9, 0.9)))
    return np.degrees(np.mean(angles, axis=0))


def gaze_error(rendered: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Angle between rendered and real gaze in degrees, [T]; NaN where one of the two has its eyes closed."""
    angle = np.linalg.norm(gaze_angles(rendered) - gaze_angles(real), axis=-1)
    for track in (rendered, real):
        openness = eye_openness(track)
        known = openness[np.isfinite(openness)]
        if len(known):
            angle[~(openness > OPEN_EYES * np.median(known))] = np.nan
    return angle
