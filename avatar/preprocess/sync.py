"""Stage: by how many seconds does audio come after video?

For every lag, a ridge regression predicts what the mouth does in a frame from a single moment of the audio (narrow
log-mel features, no context, so that it cannot make up for a lag itself). The lag at which predictions of unseen parts
correlate best with the mouth is the delay, to a fraction of a frame by a parabola through the peak. Resampling the
video in blocks tells how far that peak can be trusted.

The clock: a frame stands on the screen from t / fps to (t + 1) / fps, so the audio that belongs to it is the one
at (t + 1/2) / fps. With that, takes known to be in sync measure within a frame of zero; what remains differs between
people (how far the lips run ahead of the voice), so delays below `TOLERANCE` are left alone. That is also less than
a viewer can notice (ITU-R BT.1359-1: 45 ms for audio that is early).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avatar.audio.encoders.mel import MelEncoder
from avatar.audio.features import features_at
from avatar.data.results import IngestResult, SyncResult
from avatar.errors import AvatarError
from avatar.io.audio import load_audio
from avatar.log import info, warn
from avatar.motion.arkit import INDEX
from avatar.motion.face_channels import mouth_opening
from avatar.preprocess.stage import StageContext

NAME = "sync"
INPUTS: tuple[str, ...] = ("ingest", "track")
VERSION = 3

MAX_SECONDS = 0.5  # largest offset looked for
TOLERANCE = 0.040  # seconds; see above
MIN_CONFIDENCE = 0.9
MIN_CORRELATION = 0.2
_RIDGE = 0.3  # of standardised features, per frame
_FOLDS = 6
_GAP_SECONDS = 0.4  # left out of training on both sides of what is predicted: speech is alike within a syllable
_BLOCK_SECONDS = 2.0
_RESAMPLES = 200


@dataclass(frozen=True, kw_only=True)
class Delay:
    """A measured delay between audio and video.

    Attributes:
        frames: Delay in frames; positive: audio after video.
        confidence: 0 to 1, the share of block-resampled measurements within one frame of this one.
        correlation: Of the mouth predicted from audio with the tracked one, on unseen parts, at the delay.
        lags: [L] frames, every lag that was tried.
        curve: [L] correlation at each.
    """

    frames: float
    confidence: float
    correlation: float
    lags: np.ndarray
    curve: np.ndarray

    @property
    def trusted(self) -> bool:
        """Whether the measurement is certain enough to be used."""
        return self.confidence >= MIN_CONFIDENCE and self.correlation >= MIN_CORRELATION


def options(ctx: StageContext) -> dict[str, Any]:
    """What the result depends on."""
    return {"audio_delay_s": ctx.config.audio_delay_s, "audio": ctx.config.audio, "test_start": ctx.test_start}


def run(ctx: StageContext, out: Path) -> SyncResult:
    """Measure the delay on the training part, or take the user's; writes curve.npy [L, 2] (lag, correlation)."""
    if not ctx.config.audio:
        return SyncResult(has_audio=False, audio_delay_s=0.0)
    if ctx.config.audio_delay_s != "auto":
        return SyncResult(has_audio=True, audio_delay_s=float(ctx.config.audio_delay_s), given=True)
    fps = ctx.person.result(IngestResult).fps
    # Cut, not masked: filters and lags reach over the border, and what is held out must change nothing. Audio is heard
    # where these frames and all lags lie within them.
    landmarks, blendshapes, valid = (
        array[: ctx.test_start] for array in (ctx.person.landmarks(), ctx.person.blendshapes(), ctx.person.valid())
    )
    samples = load_audio(ctx.person.audio_path)
    measured = measure_delay(samples, landmarks, blendshapes[:, INDEX["jawOpen"]], valid, fps)
    np.save(out / "curve.npy", np.stack([measured.lags, measured.curve], 1).astype(np.float32))
    applied = applied_delay(measured, fps)
    if not measured.trusted:
        warn(
            f"The delay between audio and video could not be measured (confidence {measured.confidence:.2f}); they "
            "are taken to be in sync. If they are not, pass --audio-delay-s SECONDS."
        )
    elif applied == 0:
        info(f"Audio and video are in sync (measured {1000 * measured.frames / fps:+.0f} ms).")
    else:
        way = "after" if applied > 0 else "before"
        info(f"Audio comes {way} video by {1000 * abs(applied):.0f} ms; this is corrected.")
    return SyncResult(
        has_audio=True, audio_delay_s=applied, trusted=measured.trusted,
        measured_delay_s=round(measured.frames / fps, 5), confidence=round(measured.confidence, 3),
        correlation=round(measured.correlation, 3),
    )  # fmt: skip


def applied_delay(measured: Delay, fps: float) -> float:
    """The delay to correct in seconds: zero where it is uncertain or too small to matter."""
    if not measured.trusted or abs(measured.frames) / fps < TOLERANCE:
        return 0.0
    return round(measured.frames, 2) / fps  # hundredths of a frame, which `PersonInfo.audio_delay_frames` gives back


def measure_delay(samples: np.ndarray, landmarks: np.ndarray, jaw: np.ndarray, valid: np.ndarray, fps: float) -> Delay:
    """Find the lag at which the audio explains the mouth best.

    Args:
        samples: [N] 16 kHz mono, from the time of the first frame on.
        landmarks: [T, 478, 3] pixels.
        jaw: [T] any second measure of how far the mouth is open, such as the blendshape jawOpen.
        valid: [T] bool, whether a frame was tracked.
        fps: Frames per second.

    Raises:
        AvatarError: The lengths differ.
    """
    count = len(landmarks)
    if len(jaw) != count or len(valid) != count:
        raise AvatarError(f"There are {count} frames of landmarks, {len(jaw)} of jaw and {len(valid)} of valid.")
    mouth = _mouth_targets(landmarks, jaw)
    heard = features_at(MelEncoder(), samples, fps, count, offset=0.5)
    inputs = np.concatenate([heard.features, heard.energy[:, None]], 1)
    reach = max(2, round(MAX_SECONDS * fps))
    lags = np.arange(-reach, reach + 1)
    frames = np.flatnonzero(valid)
    frames = frames[(frames >= reach) & (frames < count - reach)]
    if len(frames) < 4 * fps:
        return Delay(frames=0.0, confidence=0.0, correlation=0.0, lags=lags, curve=np.zeros(len(lags)))

    sums = np.stack([_block_sums(inputs[frames + lag], mouth[frames], frames, fps) for lag in lags])
    curve = _correlation(sums.sum(1))
    peak = _peak(curve, lags)
    rng = np.random.default_rng(0)
    blocks = sums.shape[1]
    draws = rng.integers(0, blocks, (_RESAMPLES, blocks))
    peaks = np.array([_peak(_correlation(sums[:, draw].sum(1)), lags) for draw in draws])
    return Delay(
        frames=peak,
        confidence=float(np.mean(np.abs(peaks - peak) <= 1)),
        correlation=float(curve.max()),
        lags=lags,
        curve=curve,
    )


def _mouth_targets(landmarks: np.ndarray, jaw: np.ndarray) -> np.ndarray:
    """Compute [T, 3], standardised: opening and width of the mouth in units of the face, and the jaw.

    Three views of one articulation; the noise of each peaks elsewhere, the articulation in the same place.
    """
    from scipy.ndimage import uniform_filter1d

    scale = uniform_filter1d(np.linalg.norm(landmarks[:, 33] - landmarks[:, 263], axis=-1), 25)
    width = np.linalg.norm(landmarks[:, 61] - landmarks[:, 291], axis=-1)
    targets = np.stack([mouth_opening(landmarks) / scale, width / scale, jaw], 1).astype(np.float64)
    return (targets - targets.mean(0)) / (targets.std(0) + 1e-9)


def _block_sums(inputs: np.ndarray, targets: np.ndarray, frames: np.ndarray, fps: float) -> np.ndarray:
    """Sum up cross-validated predictions, so that correlations over any set of blocks follow.

    Returns:
        [blocks, targets, 6]: count and sums of p, y, p^2, y^2, p*y.
    """
    count = len(frames)
    inputs = (inputs - inputs.mean(0)) / (inputs.std(0) + 1e-6)
    predicted = np.zeros_like(targets)
    edges = np.linspace(0, count, _FOLDS + 1).astype(int)
    gap = _GAP_SECONDS * fps
    for start, end in itertools.pairwise(edges):
        train = (frames < frames[start] - gap) | (frames > frames[end - 1] + gap)
        x, mean = inputs[train].astype(np.float64), targets[train].mean(0)
        gram = x.T @ x
        gram[np.diag_indices_from(gram)] += _RIDGE * max(1, len(x))
        predicted[start:end] = inputs[start:end] @ np.linalg.solve(gram, x.T @ (targets[train] - mean)) + mean
    terms = np.stack([np.ones_like(targets), predicted, targets, predicted**2, targets**2, predicted * targets], -1)
    block = max(1, min(round(_BLOCK_SECONDS * fps), count // 10))
    return np.add.reduceat(terms, np.arange(0, count, block))


def _correlation(sums: np.ndarray) -> np.ndarray:
    """Mean over targets of the (non-negative) correlation, from sums [..., targets, 6]."""
    n, p, y, pp, yy, py = np.moveaxis(sums, -1, 0)
    covariance = n * py - p * y
    variance = np.maximum(n * pp - p * p, 0) * np.maximum(n * yy - y * y, 0)
    return np.maximum(covariance / np.sqrt(variance + 1e-12), 0).mean(-1)


def _peak(curve: np.ndarray, lags: np.ndarray) -> float:
    """The place of the maximum, by a parabola through its neighbours."""
    top = int(curve.argmax())
    if not 0 < top < len(curve) - 1:
        return float(lags[top])
    left, middle, right = curve[top - 1 : top + 2]
    bend = left - 2 * middle + right
    return float(lags[top] + (0.5 * (left - right) / bend if bend < 0 else 0.0))
